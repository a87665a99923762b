"""What follows from the transform of a run, made again: the warped volume and the Jacobian, the largest files."""

from __future__ import annotations

from pathlib import Path

from . import io
from .image import resample
from .job import JACOBIAN, JOB, TRANSFORM, WARPED, RegistrationJob
from .transform import jacobian_determinant


def restore(run_dir: str | Path) -> None:
    """Write those of the two files that a run directory lacks, as the run has made them.

    Raises RegistrationError where the transform or an input is gone, OSError when the disk is full.
    """
    run_dir = Path(run_dir)
    if all((run_dir / name).exists() for name in (WARPED, JACOBIAN)):
        return
    job = RegistrationJob.load(run_dir / JOB)
    fixed, moving = (io.read_image(run_dir / name) for name in (job.fixed, job.moving))
    transform = io.read_transform(run_dir / TRANSFORM)
    if not (run_dir / WARPED).exists():
        io.write_image(resample(moving, transform, fixed.grid, default=float(moving.data.min())), run_dir / WARPED)
    if not (run_dir / JACOBIAN).exists():
        io.write_image(jacobian_determinant(transform, fixed.grid), run_dir / JACOBIAN)

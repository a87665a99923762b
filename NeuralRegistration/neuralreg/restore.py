"""What follows from the transform of a run, made again: the warped volume and the Jacobian, the largest files."""

from __future__ import annotations

from pathlib import Path

from . import io
from .files import replacing
from .image import resample
from .job import JACOBIAN, JOB, TRANSFORM, WARPED, RegistrationJob
from .transform import jacobian_determinant
from .workspace import unreplaced


def restore(run_dir: str | Path) -> None:
    """Write those of the two files that a run directory lacks, as the run has made them.

    Raises RegistrationError where the transform or an input is gone, OSError when the disk is full.
    """
    run_dir = Path(run_dir)
    missing = [name for name in (WARPED, JACOBIAN) if not (run_dir / name).exists()]
    if not missing:
        return
    check, job = unreplaced(run_dir), RegistrationJob.load(run_dir / JOB)
    fixed, moving = (io.read_image(run_dir / name) for name in (job.fixed, job.moving))
    transform = io.read_transform(run_dir / TRANSFORM)
    for name in missing:
        if name == WARPED:
            made = resample(moving, transform, fixed.grid, default=float(moving.data.min()))
        else:
            made = jacobian_determinant(transform, fixed.grid)
        with replacing(run_dir / name) as partial:
            io.write_image(made, partial)
            check()

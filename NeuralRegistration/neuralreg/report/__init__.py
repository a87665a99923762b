"""`write_report(run_dir)`: one self-contained page that shows a finished run to a clinician.

numpy, SimpleITK and the standard library only, so that it also runs inside Slicer without torch.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from .. import qa
from ..files import changed, check_name, check_written, replacing
from ..hdf5 import damaged
from ..intensities import intensity_range
from ..job import (
    EVALUATION,
    JACOBIAN,
    JOB,
    REPORT,
    RESULT,
    TRANSFORM,
    WARPED,
    RegistrationError,
    RegistrationJob,
    Result,
    read_json,
)
from ..workspace import unreplaced
from . import pictures
from .page import render

NIFTI_HEADER = 352  # bytes before the voxels


def write_report(run_dir: str | Path, output: str | Path | None = None) -> Path:
    """Write `report.html` into a run directory, or the report to another file, and return its path.

    Uses `evaluation.json` where `neuralreg evaluate` has left one (Dice, landmarks), else the run's own measurements.
    Raises RegistrationError where a file of the run or one of its volumes is missing.
    """
    run_dir = Path(run_dir)
    check = unreplaced(run_dir)
    job, result = RegistrationJob.load(run_dir / JOB), Result.load(run_dir / RESULT)
    volumes = {
        "fixed": _read(pictures.read_volume, run_dir / job.fixed),  # a job counts relative paths from its run directory
        "moving": _read(pictures.read_volume, run_dir / job.moving),
        "warped": _read(_output, run_dir / WARPED),
        "jacobian": _read(_output, run_dir / JACOBIAN),
    }
    transform = _read(_transform, run_dir / TRANSFORM)
    values = dict(result.metrics)
    if (run_dir / EVALUATION).exists():
        values |= read_json(run_dir / EVALUATION, "evaluation").get("measurements", {})
    notes = [note for note in (*result.warnings, changed(job, result.inputs, run_dir)) if note]
    checks = qa.read(values, max(volumes["fixed"].GetSpacing()))
    html = render(
        run_dir,
        job,
        {**dataclasses.asdict(result), "warnings": notes},
        values,
        checks,
        _pictures(volumes, transform),
        _largest(volumes["jacobian"]),
    )
    written = run_dir / REPORT if output is None else Path(output)
    with replacing(written) as partial:
        partial.write_text(html, encoding="utf-8")
        check()
    return written


def _pictures(volumes: dict[str, sitk.Image], transform: sitk.Transform) -> list[dict[str, Any]]:
    """For each plane its name, the letters at its sides and the pictures as data URIs."""
    limits = {name: intensity_range(sitk.GetArrayViewFromImage(volumes[name])) for name in ("fixed", "moving")}
    bending, largest = pictures.deformable_part(transform), _largest(volumes["jacobian"])
    made = []
    for plane in pictures.planes(volumes["fixed"]):
        fixed = pictures.gray(plane.cut(volumes["fixed"]), limits["fixed"])
        before, after = (
            pictures.gray(plane.cut(volumes[name], outside=limits["moving"][0]), limits["moving"])
            for name in ("moving", "warped")
        )
        jacobian = plane.cut(volumes["jacobian"], sitk.sitkNearestNeighbor, outside=1.0)
        shown = {
            "fixed": pictures.plain(fixed),
            "before": pictures.plain(before),
            "after": pictures.plain(after),
            "overlay_before": pictures.overlay(fixed, before),
            "overlay_after": pictures.overlay(fixed, after),
            "tiles_before": pictures.checkerboard(fixed, before),
            "tiles_after": pictures.checkerboard(fixed, after),
            "grid": pictures.deformation_grid(after, plane.mapped(bending)),
            "jacobian": pictures.jacobian_map(jacobian, pictures.body_of(fixed), largest),
        }
        uris = {name: pictures.data_uri(picture) for name, picture in shown.items()}
        made.append({"name": plane.name, "sides": plane.sides, "pictures": uris})
    return made


def _largest(jacobian: sitk.Image) -> float:
    """Upper end of the colour scale: 2, or 4 or 8 where the middle 99 % of the Jacobian need it."""
    values = sitk.GetArrayViewFromImage(jacobian).ravel()[:: max(1, jacobian.GetNumberOfPixels() // 500_000)]
    extreme = max(abs(math.log(max(float(v), 1e-3))) for v in np.quantile(values, (0.005, 0.995)))
    return next((end for end in (2.0, 4.0) if extreme <= math.log(end)), 8.0)


def _output(name: str) -> sitk.Image:
    """A volume that the run has written, float32; ITK would read one that was cut short as well."""
    volume = pictures.read_volume(name)
    check_written(Path(name), NIFTI_HEADER + 4 * volume.GetNumberOfPixels())
    return volume


def _transform(name: str) -> sitk.Transform:
    if damaged(Path(name)):  # ITK's reader may end the process
        raise ValueError("damaged")
    return sitk.ReadTransform(name)


def _read(reader, path: Path):
    check_name(path)
    try:
        return reader(str(path))
    except (RuntimeError, IndexError, ValueError, OSError) as error:
        message = f"{path} is needed for the report and cannot be read; put it back or run the registration again."
        raise RegistrationError(message) from error

"""A finished run made from the phantom's true transform: evaluation and report are tested on it without registering."""

import dataclasses
from pathlib import Path

import numpy as np
from neuralreg import io
from neuralreg.image import Grid, resample
from neuralreg.job import INVERSE, JACOBIAN, JOB, RESULT, TRANSFORM, WARPED, RegistrationJob, Result
from neuralreg.phantom import Phantom, make_phantom, rotation
from neuralreg.transform import Affine, jacobian_determinant

GRID = Grid.from_parts((30, 36, 28), (-70, -85, -62), (4.8, 4.8, 4.6), rotation([1, 0.5, -0.5], 20))


def pose() -> Affine:
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation([0, 1, 1], 6), (4.0, -3.0, 2.0)
    return Affine(matrix)


def write_run(folder: Path, grid: Grid = GRID, **result_changes) -> Phantom:
    """Volumes, labels and landmarks in `folder`, the run directory in `folder/run`."""
    phantom = make_phantom(grid, pose=pose(), noise=0.0)
    run = folder / "run"
    run.mkdir(parents=True)
    for name in ("fixed", "moving"):
        io.write_image(getattr(phantom, name), folder / f"{name}.nii.gz")
        io.write_image(getattr(phantom, f"{name}_labels"), folder / f"{name}_labels.nii.gz", np.int16)
    deformation = phantom.moving_from_fixed.transforms[1]
    transform = pose() @ deformation.displacement(grid)
    io.write_transform(transform, run / TRANSFORM)
    io.write_transform(transform.inverse(), run / INVERSE)
    io.write_image(resample(phantom.moving, transform, grid), run / WARPED)
    io.write_image(jacobian_determinant(transform, grid), run / JACOBIAN)
    RegistrationJob(fixed="../fixed.nii.gz", moving="../moving.nii.gz", output=".").save(run / JOB)
    result = Result(
        files={}, metrics={"folds_percent": 0.0}, timings={"affine": 2.5, "register": 11.0, "total": 15.25},
        peak_memory_mb=812.0, device="cpu", device_reason="The CPU was asked for.", method="DNVF",
        options={"iterations": 30, "levels": [4, 2]}, similarity="lncc", seed=0, versions={"neuralreg": "0.1.0"},
        warnings=["The moving volume holds <NaN> in 2 % of its voxels."],
        loss=[[stage, i, -0.3 - 0.2 * stage - 0.3 * (1 - 0.93**i)] for stage in (0, 1) for i in range(50)],
    )  # fmt: skip
    dataclasses.replace(result, **result_changes).save(run / RESULT)
    write_landmarks(folder / "landmarks.csv", phantom)
    return phantom


def write_landmarks(path: Path, phantom: Phantom, prefixes=("fixed", "moving")) -> None:
    columns = [f"{prefix}_{axis}" for prefix in prefixes for axis in "xyz"]
    rows = np.concatenate([points.numpy() for points in phantom.landmarks(12)]).T
    np.savetxt(path, rows, delimiter=",", header=",".join(columns), comments="", fmt="%.6f")

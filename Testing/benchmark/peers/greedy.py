"""Greedy (PICSL): affine, then the composition of small steps with local correlation in windows of 2×2×2.

Both stages run 100×50×10 iterations at 1/4, 1/2 and full resolution, as greedy's own tutorial recommends.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from . import Task, chained, field

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # greedy writes matrices in RAS


def register(task: Task) -> tuple[sitk.Transform, sitk.Transform]:
    matrix = affine(task)
    warp, back = task.folder / "warp.nii.gz", task.folder / "inverse_warp.nii.gz"
    run(task, f"-it {matrix} -o {warp} -oinv {back}")
    linear = itk_affine(matrix)
    return chained(linear, field(warp)), chained(field(back), linear.GetInverse())


def affine(task: Task) -> Path:
    """Greedy's affine stage, from the centres of the images; the file of its matrix."""
    matrix = task.folder / "affine.mat"
    run(task, f"-a -ia-image-centers -o {matrix}")
    return matrix


def run(task: Task, arguments: str) -> None:
    from picsl_greedy import Greedy3D

    masks = f"-gm {task.fixed_mask} -mm {task.moving_mask}" if task.fixed_mask and task.moving_mask else ""
    Greedy3D().execute(
        f"-threads {task.threads} -m NCC 2x2x2 -i {task.fixed} {task.moving} {masks} -n 100x50x10 {arguments}"
    )


def itk_affine(path: Path) -> sitk.AffineTransform:
    """The matrix in a file of greedy as ITK's transform: RAS becomes LPS."""
    matrix = LPS @ np.loadtxt(path) @ LPS
    return sitk.AffineTransform(matrix[:3, :3].ravel().tolist(), matrix[:3, 3].tolist())

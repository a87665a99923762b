"""VoxelMorph with its authors' weights. They are a download from their server and in no package, so none is at hand."""

from __future__ import annotations

import SimpleITK as sitk

from . import Task


def register(task: Task) -> tuple[sitk.Transform, None]:
    raise SystemExit(
        "not run: the authors' weights are a download from their own server and come with no package, so they could not"
        " be had without it; our own VoxelMorph weights are the method VoxelMorph:balanced"
    )

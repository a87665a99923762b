"""Greedy's affine stage alone, from which its deformable stage and, here, that of ConvexAdam start."""

from __future__ import annotations

import SimpleITK as sitk

from . import Task
from .greedy import affine, itk_affine


def register(task: Task) -> tuple[sitk.Transform, sitk.Transform]:
    linear = itk_affine(affine(task))
    return linear, linear.GetInverse()

"""ANTs: SyN as antspyx runs it by default: affine stage, then mutual information, 40×20×0 iterations. The quick one."""

from __future__ import annotations

import SimpleITK as sitk

from . import Task, syn


def register(task: Task) -> tuple[sitk.Transform, sitk.Transform]:
    return syn.register(task, "SyNOnly")

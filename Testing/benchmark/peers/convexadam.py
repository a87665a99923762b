"""ConvexAdam with MIND features, at its defaults: coupled convex optimisation on a lattice of 6, then 80 steps of Adam.

It has no affine stage; greedy's comes before it and is counted.
"""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from . import Task, chained, greedy


def register(task: Task) -> tuple[sitk.Transform, None]:
    import torch
    from convexAdam.convex_adam_MIND import convex_adam_pt

    torch.set_num_threads(task.threads)
    affine = greedy.itk_affine(greedy.affine(task))
    fixed, moving = (sitk.ReadImage(str(path), sitk.sitkFloat32) for path in (task.fixed, task.moving))
    lowest = float(sitk.GetArrayViewFromImage(moving).min())
    aligned = sitk.Resample(moving, fixed, affine, sitk.sitkLinear, lowest)
    voxels = convex_adam_pt(fixed, aligned, dtype=torch.float32, device=torch.device("cpu"))  # (D, H, W, 3), zyx
    world_from_voxels = np.array(fixed.GetDirection()).reshape(3, 3) * fixed.GetSpacing()
    displacement = sitk.GetImageFromArray(voxels[..., ::-1] @ world_from_voxels.T, isVector=True)
    displacement.CopyInformation(fixed)
    return chained(affine, sitk.DisplacementFieldTransform(displacement)), None

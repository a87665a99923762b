"""ANTs: affine stage, then SyN with local cross-correlation, as `antsRegistrationSyN.sh -t so` does it.

antspyx's recreation of the script: SyN[0.2,3,0], CC of radius 2, 100×70×50×20 iterations at 1/8, 1/4, 1/2 and full
resolution. The affine stage before it is antspyx's "Affine" (Mattes information); no stage is run twice.
"""

from __future__ import annotations

from pathlib import Path

import SimpleITK as sitk

from . import Task, chained, field

DEFORMABLE = "antsRegistrationSyN[so]"


def register(task: Task, deformable: str = DEFORMABLE) -> tuple[sitk.Transform, sitk.Transform]:
    import ants

    fixed, moving = (ants.image_read(str(path)) for path in (task.fixed, task.moving))
    masks = {}
    if task.fixed_mask and task.moving_mask:
        masks = {"mask": ants.image_read(str(task.fixed_mask)), "moving_mask": ants.image_read(str(task.moving_mask))}
    linear = ants.registration(fixed, moving, "Affine", outprefix=str(task.folder / "affine_"), random_seed=0, **masks)[
        "fwdtransforms"
    ]
    found = ants.registration(
        fixed, moving, deformable, initial_transform=linear[-1], outprefix=str(task.folder / "syn_"), random_seed=0,
        mask_all_stages=True, **masks,
    )  # fmt: skip
    warp, matrix = found["fwdtransforms"]
    back = next(path for path in found["invtransforms"] if "InverseWarp" in path)
    affine = sitk.ReadTransform(matrix)
    return chained(affine, field(Path(warp))), chained(field(Path(back)), affine.GetInverse())

"""FireANTs: moments, affine, then its greedy diffeomorphic method with local correlation, on the CPU.

Settings of its script for OASIS (scripts/pairwise/oasis.py, greedy, as tested there): scales 4, 2, 1 with 250, 200 and
100 iterations, rate 0.25, windows of 7, sigmas 1 and 0.25. Without its compiled operations, which need a GPU.
"""

from __future__ import annotations

import SimpleITK as sitk

from . import Task, chained, field


def register(task: Task) -> tuple[sitk.Transform, sitk.Transform]:
    import torch
    from fireants.io.image import BatchedImages, Image
    from fireants.registration.affine import AffineRegistration
    from fireants.registration.greedy import GreedyRegistration
    from fireants.registration.moments import MomentsRegistration

    torch.set_num_threads(task.threads)
    fixed, moving = (BatchedImages(Image.load_file(str(path), device="cpu")) for path in (task.fixed, task.moving))
    moments = MomentsRegistration(1, fixed, moving, moments=1)
    moments.optimize()
    affine = AffineRegistration(
        [4, 2, 1], [200, 100, 50], fixed, moving, optimizer_lr=3e-3, init_rigid=moments.get_affine_init()
    )
    affine.optimize()
    deformable = GreedyRegistration(
        [4, 2, 1], [250, 200, 100], fixed, moving, optimizer_lr=0.25, cc_kernel_size=7, smooth_grad_sigma=1,
        smooth_warp_sigma=0.25, optimizer_params={"beta1": 0.1, "scaledown": False},
        init_affine=affine.get_affine_matrix().detach(),
    )  # fmt: skip
    deformable.optimize()
    warp, back = task.folder / "warp.nii.gz", task.folder / "inverse_warp.nii.gz"
    deformable.save_as_ants_transforms(str(warp))
    deformable.save_as_ants_transforms(str(back), save_inverse=True)
    return chained(field(warp)), chained(field(back))

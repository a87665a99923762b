"""What a deformation costs by itself: roughness, folds, change of volume, and distance to landmarks."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def smoothness(displacement: Tensor, spacing: Tensor | None = None) -> Tensor:
    """Mean of ‖∇u‖², the diffusion energy; u in voxels -> (), without unit.

    `spacing` (3,) in mm, x y z, makes the gradient that of millimetres on a lattice whose voxels are no cubes.
    """
    scale = displacement.new_ones(3) if spacing is None else spacing
    energy = displacement.new_zeros(())
    for dim, along in ((2, 2), (3, 1), (4, 0)):
        mm_per_mm = displacement.diff(dim=dim) * (scale / scale[along]).view(1, 3, 1, 1, 1)
        energy = energy + mm_per_mm.square().mean()
    return energy


def bending(displacement: Tensor) -> Tensor:
    """Mean of ‖∇²u‖², the bending energy, which leaves affine parts free; 1/voxels² -> ()."""
    energy = displacement.new_zeros(())
    for first in (2, 3, 4):
        for second in (2, 3, 4):
            energy = energy + displacement.diff(dim=first).diff(dim=second).square().mean()
    return energy


def folding(determinant: Tensor, margin: float = 0.0) -> Tensor:
    """Mean of relu(margin − J): the selective Jacobian penalty of DNVF, which sees folds only -> ()."""
    return F.relu(margin - determinant).mean()


def volume_change(determinant: Tensor, smallest: float = 0.05) -> Tensor:
    """Mean of (log J)²: growing and shrinking by one factor cost the same, shearing costs nothing -> ().

    Below `smallest` the logarithm goes on along its tangent, so that folds are finite and still pull back.
    """
    logarithm = determinant.clamp_min(smallest).log() + (determinant - smallest).clamp_max(0.0) / smallest
    return logarithm.square().mean()


def landmark_distance(residual_mm: Tensor) -> Tensor:
    """Mean of √(1 + |r|²) − 1 of residuals (1, 3, …) in mm -> (): squares close to the goal, lengths far from it.

    A pair that was placed wrongly pulls no harder than others, however far its points lie apart.
    """
    return ((1 + residual_mm.square().sum(1)).sqrt() - 1).mean()

"""How far points end from where they belong, in mm."""

from __future__ import annotations

from torch import Tensor

from ..image import Grid, Watch
from ..sampling import length
from ..transform import Transform
from .moments import Moments


def tre(moving_from_fixed: Transform, fixed_points: Tensor, moving_points: Tensor) -> Tensor:
    """Distance in mm of each mapped fixed landmark from its moving partner; (3, n) ×2 LPS mm -> (n,) float64."""
    mapped = moving_from_fixed(fixed_points.double())
    return (mapped - moving_points.double()).norm(dim=0)


def inverse_consistency_mm(
    moving_from_fixed: Transform,
    fixed_from_moving: Transform,
    grid: Grid,
    mask: Tensor,
    watch: Watch | None = None,
) -> tuple[float, float]:
    """Mean and largest |φ⁻¹(φ(x)) − x| in mm over the voxels of `mask` (D, H, W bool)."""
    lengths = Moments()
    for first, last in grid.slabs(watch):
        points = grid.points(first, last)[:, mask[first:last]].reshape(3, 1, 1, -1)
        if points.numel():
            lengths.add(length(fixed_from_moving(moving_from_fixed(points)) - points, dim=0))
    return lengths.mean, lengths.largest

"""Everything that can be said of a registration without labels or landmarks."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..body import body_mask
from ..image import Grid, Image, Watch, portion, resample
from ..transform import Affine, Transform
from .deformation import regularity
from .points import inverse_consistency_mm
from .similarity import agreement

SHARED = 0.1  # of what the result shows


def summary(
    fixed: Image,
    moving: Image,
    warped: Image,
    jacobian: Image,
    moving_from_fixed: Transform,
    fixed_from_moving: Transform,
    fixed_mask: Image | None,
    watch: Watch | None = None,
) -> dict[str, float]:
    """Everything that can be said of a registration without labels or landmarks; `fixed_mask` or the body counts.

    Of the similarities only what `comparable` leaves of it.
    """
    mask = body_mask(fixed, portion(watch, 0.0, 0.1)) if fixed_mask is None else fixed_mask.data[0] > 0
    mean, largest = inverse_consistency_mm(
        moving_from_fixed, fixed_from_moving, fixed.grid, mask, portion(watch, 0.1, 0.3)
    )
    lowest = float(moving.data.min())
    before = resample(moving, Affine.identity(), fixed.grid, default=lowest, watch=portion(watch, 0.3, 0.4))
    seen = comparable(moving.grid, moving_from_fixed, fixed.grid, mask, portion(watch, 0.4, 0.5))
    alike = agreement(fixed, before, warped, seen, portion(watch, 0.5, 0.6))
    del before  # as large as the fixed volume
    return {
        **alike,
        **regularity(moving_from_fixed, jacobian, mask, portion(watch, 0.6, 1.0)),
        "inverse_consistency_mean_mm": mean,
        "inverse_consistency_max_mm": largest,
        "largest_voxel_mm": float(np.max(fixed.grid.spacing)),
    }


def comparable(
    moving: Grid, moving_from_fixed: Transform, fixed: Grid, mask: Tensor, watch: Watch | None = None
) -> Tensor:  # -> (D, H, W) bool
    """The voxels of `mask` in which the moving volume is seen both as stored and through the transform.

    Beyond its field of view there is nothing to compare: a result that sees less of it would look like a worse one.
    Where hardly any of what the result shows is seen as stored, all that it shows counts.
    """
    both, after = torch.zeros_like(mask), torch.zeros_like(mask)
    for first, last in fixed.slabs(watch):
        inside = mask[first:last]
        points = fixed.points(first, last)[:, inside]
        seen = moving.holds(moving.indices(moving_from_fixed(points)))
        after[first:last][inside] = seen
        both[first:last][inside] = seen & moving.holds(moving.indices(points))
    enough = int(both.count_nonzero()) >= SHARED * int(after.count_nonzero())
    return both if enough else after

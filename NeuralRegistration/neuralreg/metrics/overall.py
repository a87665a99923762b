"""Everything that can be said of a registration without labels or landmarks."""

from __future__ import annotations

import numpy as np

from ..body import body_mask
from ..image import Image, Watch, portion, resample
from ..transform import Affine, Transform
from .deformation import regularity
from .points import inverse_consistency_mm
from .similarity import agreement


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
    """Everything that can be said of a registration without labels or landmarks; `fixed_mask` or the body counts."""
    mask = body_mask(fixed, portion(watch, 0.0, 0.1)) if fixed_mask is None else fixed_mask.data[0] > 0
    mean, largest = inverse_consistency_mm(
        moving_from_fixed, fixed_from_moving, fixed.grid, mask, portion(watch, 0.1, 0.3)
    )
    lowest = float(moving.data.min())
    before = resample(moving, Affine.identity(), fixed.grid, default=lowest, watch=portion(watch, 0.3, 0.4))
    alike = agreement(fixed, before, warped, mask, portion(watch, 0.4, 0.6))
    del before  # as large as the fixed volume
    return {
        **alike,
        **regularity(moving_from_fixed, jacobian, mask, portion(watch, 0.6, 1.0)),
        "inverse_consistency_mean_mm": mean,
        "inverse_consistency_max_mm": largest,
        "largest_voxel_mm": float(np.max(fixed.grid.spacing)),
    }

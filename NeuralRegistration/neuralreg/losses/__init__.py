"""Similarities and regularisers: functions of tensors to a scalar, lower is better, on the device of their inputs.

Images are (B, 1, D, H, W) float32; `weight` (1, 1, D, H, W), where given, is a mask or importance of each voxel.
Displacements are (B, 3, D, H, W) in voxels.
"""

from .local_correlation import box_mean, lncc
from .regularisers import bending, folding, landmark_distance, mean_over_cells, smoothness, volume_change
from .similarities import SIMILARITIES, dice, local_gradient, mi, mind, mind_descriptor, mse, ncc

__all__ = [
    "SIMILARITIES",
    "bending",
    "box_mean",
    "dice",
    "folding",
    "landmark_distance",
    "lncc",
    "local_gradient",
    "mean_over_cells",
    "mi",
    "mind",
    "mind_descriptor",
    "mse",
    "ncc",
    "smoothness",
    "volume_change",
]

"""Where in an image the body is. Large volumes are gone through slab by slab: a chest CT has 150 million voxels."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
import torch
from torch import Tensor

from .image import Image, Watch, slabs

SAMPLE_VOXELS = 8_000_000  # of larger volumes every n-th voxel decides about percentiles and thresholds


def body_mask(image: Image, watch: Watch | None = None) -> Tensor:  # -> (D, H, W) bool
    """Where the body is: brighter than the background, with what lies inside it (lungs, sinuses) filled.

    Skull-stripped images (many voxels share the smallest value): everything above that value. Others: Otsu's threshold,
    then voxels with body on both sides along at least two of the three array axes.
    """
    data = image.data[0]
    above = data > data.min()
    if 0.2 < int(above.count_nonzero()) / above.numel() < 0.9:
        return _enclosed(above, watch)
    otsu = sitk.OtsuThresholdImageFilter()
    otsu.SetNumberOfHistogramBins(128)
    otsu.Execute(sitk.GetImageFromArray(_sample(data).clamp(*percentiles(data))[None].numpy()))
    filled = _enclosed(data > otsu.GetThreshold(), watch)
    return filled if bool(filled.any()) else torch.ones_like(filled)


def _enclosed(mask: Tensor, watch: Watch | None = None) -> Tensor:
    """The mask, and voxels with some of it on both sides along at least two axes; slab by slab, to save memory."""
    first, last = torch.full(mask.shape[1:], len(mask)), torch.full(mask.shape[1:], -1)
    for k, inside in enumerate(mask):
        first[inside & (first > k)], last[inside] = k, k
    filled = torch.empty_like(mask)
    for a, b in slabs(mask.shape, watch):
        k, votes = torch.arange(a, b).view(-1, 1, 1), mask[a:b].to(torch.uint8)
        votes = ((k >= first) & (k <= last)).to(torch.uint8) + sum(_between(votes, dim) for dim in (1, 2))
        filled[a:b] = mask[a:b] | (votes >= 2)
    return filled


def _between(mask: Tensor, dim: int) -> Tensor:
    """1 between the first and the last 1 along an axis, both included."""
    return mask.cummax(dim).values * mask.flip(dim).cummax(dim).values.flip(dim)


def percentiles(image: Tensor, mask: Tensor | None = None) -> tuple[float, float]:
    """The 0.5 and 99.5 % percentiles over `mask`; of a sample of its voxels where there are very many."""
    values = _sample(image)
    values = values if mask is None else values[_sample(mask)]
    low, high = np.percentile(values.double().numpy(), (0.5, 99.5)) if values.numel() else (0.0, 1.0)
    return float(low), float(high)


def _sample(values: Tensor) -> Tensor:
    return values.flatten()[:: max(1, values.numel() // SAMPLE_VOXELS)]

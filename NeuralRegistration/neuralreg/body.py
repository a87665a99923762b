"""Where in an image the body is. Large volumes are gone through slab by slab: a chest CT has 150 million voxels."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
import torch
from torch import Tensor

from .image import SMALLEST, Image, Watch, slabs

SAMPLE_VOXELS = 8_000_000  # of larger volumes every n-th voxel decides about percentiles and thresholds
# Where the darker part of what is above the smallest value lies between the darkest and the brighter part: air and its
# noise at 0.00 to 0.15, dark tissue of stripped brains and of crops at 0.41 to 0.49.
AIR = 0.25


def body_mask(image: Image, watch: Watch | None = None) -> Tensor:  # -> (D, H, W) bool
    """Where the body is: brighter than the background, with what lies inside it (lungs, sinuses) filled.

    Skull-stripped images (many voxels share the smallest value, and the others are no air): everything above that
    value. Others: Otsu's threshold, then voxels with body on both sides along at least two of the three array axes.
    """
    data = image.data[0]
    above = data > data.min()
    values, cut_out = _sample(data), 0.2 < int(above.count_nonzero()) / above.numel() < 0.9
    # Scanners write one value outside their bore, and zeros into noise; neither is what tells air from body.
    threshold, is_air = _otsu(values[_sample(above)] if cut_out else values)
    if cut_out and not is_air:
        return _enclosed(above, watch)
    filled = _enclosed(data > threshold, watch)
    return filled if bool(filled.any()) else torch.ones_like(filled)


def _otsu(values: Tensor) -> tuple[float, bool]:
    """Otsu's threshold of values (n), and whether what is darker is air."""
    low, high = percentiles(values)
    span = max(high - low, SMALLEST)  # ITK's histogram has no bins for a span of 1e-15
    values = (values.clamp(low, high) - low) / span
    otsu = sitk.OtsuThresholdImageFilter()
    otsu.SetNumberOfHistogramBins(128)
    otsu.Execute(sitk.GetImageFromArray(values[None].numpy()))
    bright = values > otsu.GetThreshold()
    dark_mean, bright_mean = float(values[~bright].mean()), float(values[bright].mean())
    return low + span * otsu.GetThreshold(), dark_mean < AIR * bright_mean


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

"""How alike two images are: correlation, correlation within windows, mutual information."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..body import percentiles
from ..image import Image, Watch, portion, slabs
from ..losses import box_mean

HISTOGRAM_BINS = 32
CONTENT = 0.05  # of normalised intensities: what is darker is background


def ncc(fixed: Tensor, warped: Tensor, mask: Tensor, watch: Watch | None = None) -> float:
    """Pearson correlation of two images over `mask`; 0 where one of them is constant. All (D, H, W)."""
    count, sums = 0, np.zeros(5)
    for first, last in slabs(mask.shape, watch):
        a, b = (v[first:last][mask[first:last]].double() for v in (fixed, warped))
        count += len(a)
        sums += [float(values) for values in (a.sum(), b.sum(), a @ a, b @ b, a @ b)]
    mean_a, mean_b, aa, bb, ab = sums / max(count, 1)
    variances = aa - mean_a**2, bb - mean_b**2
    if min(variances[0] - 1e-12 * aa, variances[1] - 1e-12 * bb) <= 0:
        return 0.0
    return float((ab - mean_a * mean_b) / np.sqrt(variances[0] * variances[1]))


def mean_local_correlation(fixed: Tensor, warped: Tensor, window: int = 7) -> float:
    """Mean signed correlation within windows of window³ voxels, where both images have content; (1, 1, D, H, W) ×2.

    Two images of one contrast agree in the sign of their local differences, two contrasts do not; a common outline,
    which dominates the correlation over the whole image, hardly counts. 1 where there is no content to compare.
    """
    mean = lambda values: box_mean(values, window)  # noqa: E731
    content = (fixed > CONTENT) & (warped > CONTENT)
    if not bool(content.any()):
        return 1.0
    mean_f, mean_w = mean(fixed), mean(warped)
    covariance = mean(fixed * warped) - mean_f * mean_w
    variances = [(mean(v * v) - m * m).clamp(min=1e-5) for v, m in ((fixed, mean_f), (warped, mean_w))]
    return float((covariance / (variances[0] * variances[1]).sqrt())[content].mean())


def mutual_information(
    fixed: Tensor, warped: Tensor, mask: Tensor, bins: int = HISTOGRAM_BINS, watch: Watch | None = None
) -> float:
    """h(F) + h(W) − h(F, W) in nats from a joint histogram over `mask`, each image clipped to its 0.5–99.5 % range."""
    images = [(image, *percentiles(image, mask)) for image in (fixed, warped)]
    joint = torch.zeros(bins * bins, dtype=torch.float64)
    for first, last in slabs(mask.shape, watch):
        inside = mask[first:last]
        rows, columns = (
            ((v[first:last][inside].double() - low) / max(high - low, 1e-12) * bins).long().clamp(0, bins - 1)
            for v, low, high in images
        )
        joint += torch.bincount(rows * bins + columns, minlength=bins * bins)
    joint = joint.view(bins, bins) / joint.sum().clamp(min=1.0)
    independent = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    filled = joint > 0
    return float((joint[filled] * (joint[filled] / independent[filled]).log()).sum())


def agreement(fixed: Image, before: Image, after: Image, mask: Tensor, watch: Watch | None = None) -> dict[str, float]:
    """Correlation and mutual information with the fixed image before and after; three images on one grid."""
    values = {}
    for start, when, image in ((0.0, "before", before), (0.5, "after", after)):
        parts = [portion(watch, start + share, start + share + 0.25) for share in (0.0, 0.25)]
        values[f"ncc_{when}"] = ncc(fixed.data[0], image.data[0], mask, parts[0])
        values[f"mutual_information_{when}"] = mutual_information(fixed.data[0], image.data[0], mask, watch=parts[1])
    return values

"""How alike two images are: correlation, mutual information."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from ..image import Image, Watch, portion, slabs
from .relation import HISTOGRAM_BINS, joint_histogram


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


def mutual_information(
    fixed: Tensor, warped: Tensor, mask: Tensor, bins: int = HISTOGRAM_BINS, watch: Watch | None = None
) -> float:
    """h(F) + h(W) − h(F, W) in nats from a joint histogram over `mask`, each image clipped to its 0.5–99.5 % range."""
    joint = joint_histogram(fixed, warped, mask, bins, watch)
    joint = joint / joint.sum().clamp(min=1.0)
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

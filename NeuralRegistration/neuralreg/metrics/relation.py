"""How the intensities of two images depend on each other, read off one joint histogram: are they of one contrast?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..body import percentiles
from ..image import SMALLEST, Watch, slabs

HISTOGRAM_BINS = 32
LEAST_EXPLAINED = 0.01  # of a variance: less is no relation


@dataclass(frozen=True)
class Relation:
    """`correlation`: Pearson's r. `explained`: the larger of the two correlation ratios η² (Roche 1998), the share of
    one image's variance that is a function, any function, of the other; without what chance explains. `information`:
    normalised mutual information (h(F) + h(W)) / h(F, W), 1 for independent images.
    """

    correlation: float
    explained: float
    information: float

    @property
    def linearity(self) -> float:
        """r² / η² where the relation rises, 0 where it falls or there is none.

        A straight line explains all that any function explains in two images of one contrast, however badly they are
        aligned: r² and η² then suffer alike.
        """
        if self.correlation <= 0 or self.explained < LEAST_EXPLAINED:
            return 0.0
        return min(self.correlation**2 / self.explained, 1.0)


def relation(fixed: Tensor, warped: Tensor, mask: Tensor) -> Relation | None:
    """The relation over `mask`, all (D, H, W); None where the mask is empty or an image is constant in it."""
    if not bool(mask.any()):
        return None
    counts = joint_histogram(fixed, warped, mask)
    joint, number = counts / counts.sum(), float(counts.sum())
    of_fixed, of_warped = joint.sum(1), joint.sum(0)
    if int((of_fixed > 0).sum()) < 2 or int((of_warped > 0).sum()) < 2:
        return None
    level = torch.arange(len(joint), dtype=joint.dtype)
    (mean_f, var_f), (mean_w, var_w) = (_moments(p, level) for p in (of_fixed, of_warped))
    covariance = float(level @ joint @ level) - mean_f * mean_w
    ratios = (_ratio(joint, mean_w, var_w, number), _ratio(joint.T, mean_f, var_f, number))
    information = (_entropy(of_fixed) + _entropy(of_warped)) / _entropy(joint)
    return Relation(covariance / (var_f * var_w) ** 0.5, max(ratios), information)


def joint_histogram(
    fixed: Tensor, warped: Tensor, mask: Tensor, bins: int = HISTOGRAM_BINS, watch: Watch | None = None
) -> Tensor:  # -> (bins, bins) float64, rows are bins of the fixed image
    """Counts of pairs of intensities over `mask`, each image clipped to its 0.5–99.5 % range there; all (D, H, W)."""
    images = [(image, *percentiles(image, mask)) for image in (fixed, warped)]
    joint = torch.zeros(bins * bins, dtype=torch.float64)
    for first, last in slabs(mask.shape, watch):
        inside = mask[first:last]
        rows, columns = (
            ((v[first:last][inside].double() - low) / max(high - low, SMALLEST) * bins).clamp(0, bins - 1).long()
            for v, low, high in images
        )
        joint += torch.bincount(rows * bins + columns, minlength=bins * bins)
    return joint.view(bins, bins)


def _moments(probability: Tensor, level: Tensor) -> tuple[float, float]:
    mean = float(probability @ level)
    return mean, float(probability @ (level - mean).square())


def _ratio(joint: Tensor, mean: float, variance: float, number: float) -> float:
    """η² of the columns' variable given the rows', lessened by what `number` random pairs would show (Kelley's ε²)."""
    rows = joint.sum(1)
    filled = rows > 0
    expected = joint[filled] @ torch.arange(joint.shape[1], dtype=joint.dtype) / rows[filled]
    ratio = float(rows[filled] @ (expected - mean).square()) / variance
    return max(1 - (1 - ratio) * (number - 1) / max(number - int(filled.sum()), 1.0), 0.0)


def _entropy(probability: Tensor) -> float:
    filled = probability[probability > 0]
    return -float((filled * filled.log()).sum())

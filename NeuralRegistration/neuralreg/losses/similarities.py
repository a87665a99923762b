"""How alike two images look, each measure by its name in SIMILARITIES; and how much of two label maps overlaps."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ..sampling import cubic_spline
from .local_correlation import box_mean, lncc


def mse(fixed: Tensor, warped: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean squared difference -> ()."""
    return _mean((fixed - warped).square(), weight)


def ncc(fixed: Tensor, warped: Tensor, weight: Tensor | None = None) -> Tensor:
    """−squared correlation over the whole image: any linear relation of intensities -> ()."""
    f, w = fixed - _mean(fixed, weight), warped - _mean(warped, weight)
    return -_mean(f * w, weight).square() / (_mean(f * f, weight) * _mean(w * w, weight) + 1e-12)


def mi(fixed: Tensor, warped: Tensor, weight: Tensor | None = None, bins: int = 32, normalised: bool = False) -> Tensor:
    """−mutual information in nats, or −normalised mutual information −(h(F) + h(W)) / h(F, W) (Studholme 1999) -> ().

    The joint histogram uses Parzen windows: cubic B-splines for the warped image, as in Mattes 2003, linear ones for
    the fixed image. Inputs are clamped to [0, 1].
    """
    importance = (torch.ones_like(fixed) if weight is None else weight.expand_as(fixed)).reshape(-1)
    # Picking spares a CPU what does not count, and makes a GPU wait for the number of what does.
    inside = importance > 0 if importance.device.type == "cpu" else slice(None)
    importance = importance[inside]
    joint = _joint_histogram(fixed.reshape(-1)[inside], warped.reshape(-1)[inside], importance, bins)
    entropy = lambda p: -(p * (p + 1e-10).log()).sum()  # noqa: E731
    of_fixed, of_warped, of_both = entropy(joint.sum(1)), entropy(joint.sum(0)), entropy(joint)
    return -(of_fixed + of_warped) / (of_both + 1e-10) if normalised else -(of_fixed + of_warped - of_both)


def _joint_histogram(fixed: Tensor, warped: Tensor, weight: Tensor, bins: int) -> Tensor:
    """Joint probabilities (bins, bins) of values (N,) in [0, 1]; rows are bins of the fixed image."""
    position_f = fixed.clamp(0, 1) * (bins - 1)
    position_w = warped.clamp(0, 1) * (bins - 4) + 1.5  # the spline's support stays inside the histogram
    low_f, low_w = position_f.floor().clamp(max=bins - 2), position_w.floor()
    joint = torch.zeros(bins * bins, dtype=fixed.dtype, device=fixed.device)
    for step_f in (0, 1):
        share_f = weight * (1 - (position_f - low_f - step_f).abs())
        row = (low_f + step_f).long() * bins
        for step_w in (-1, 0, 1, 2):
            share_w = cubic_spline((position_w - low_w - step_w).abs())
            joint = joint.index_add(0, row + (low_w + step_w).long(), share_f * share_w)
    return (joint / joint.sum().clamp_min(1e-12)).view(bins, bins)


# Pairs of neighbours, at distance √2 of each other, among the six face neighbours of a voxel (Heinrich 2013).
_MIND_SIX = ((0, 0, 1), (0, 0, -1), (0, 1, 0), (0, -1, 0), (1, 0, 0), (-1, 0, 0))
_MIND_PAIRS = [
    (a, b)
    for i, a in enumerate(_MIND_SIX)
    for b in _MIND_SIX[i + 1 :]
    if sum((p - q) ** 2 for p, q in zip(a, b, strict=True)) == 2
]


def mind_descriptor(image: Tensor, dilation: int = 2) -> Tensor:  # (B, 1, D, H, W) -> (B, 12, D, H, W)
    """MIND-SSC, the modality-independent self-similarity context of Heinrich et al. (MICCAI 2013)."""
    padded = F.pad(image, [dilation] * 6, mode="replicate")
    d, h, w = image.shape[2:]

    def shifted(step):
        z, y, x = (dilation * (1 + s) for s in step)
        return padded[:, :, z : z + d, y : y + h, x : x + w]

    distances = torch.cat([(shifted(a) - shifted(b)).square() for a, b in _MIND_PAIRS], dim=1)
    distances = F.avg_pool3d(F.pad(distances, [1] * 6, mode="replicate"), 3, 1)
    distances = distances - distances.min(dim=1, keepdim=True).values
    noise = distances.mean(dim=1, keepdim=True)
    typical = noise.mean().detach()
    noise = noise.clamp(min=1e-3 * typical + 1e-8, max=1e3 * typical + 1e-8)  # flat regions and outliers
    return torch.exp(-distances / noise)


def mind(fixed: Tensor, warped: Tensor, weight: Tensor | None = None, dilation: int = 2) -> Tensor:
    """Mean squared difference of MIND-SSC descriptors: structures across modalities -> ()."""
    difference = mind_descriptor(fixed, dilation) - mind_descriptor(warped, dilation)
    return _mean(difference.square().mean(dim=1, keepdim=True), weight)


def local_gradient(fixed: Tensor, warped: Tensor, weight: Tensor | None = None, window: int = 7) -> Tensor:
    """−mean |n(F) · n(W)| of directions of window-summed gradients: edges across modalities (Deform-GAN) -> ()."""

    def direction(image):
        gradient = torch.cat(torch.gradient(image, dim=(2, 3, 4)), dim=1)
        summed = box_mean(gradient, window)
        return summed / (summed.square().sum(1, keepdim=True) + 1e-8).sqrt()

    return -_mean((direction(fixed) * direction(warped)).sum(1, keepdim=True).abs(), weight)


def dice(fixed: Tensor, warped: Tensor) -> Tensor:
    """1 − mean soft Dice of one-hot labels (B, L, D, H, W) over the labels present -> ()."""
    dims = (0, 2, 3, 4)
    overlap, total = 2 * (fixed * warped).sum(dims), fixed.sum(dims) + warped.sum(dims)
    present = total > 1e-6
    return 1 - (overlap[present] / total[present]).mean() if bool(present.any()) else fixed.new_zeros(())


def _mean(values: Tensor, weight: Tensor | None) -> Tensor:
    if weight is None:
        return values.mean()
    return (values * weight).sum() / (weight.sum() * values.shape[0]).clamp_min(1e-12)


SIMILARITIES: dict[str, Callable[..., Tensor]] = {
    "lncc": lncc,
    "ncc": ncc,
    "mse": mse,
    "mi": mi,
    "nmi": partial(mi, normalised=True),
    "mind": mind,
    "local_gradient": local_gradient,
}

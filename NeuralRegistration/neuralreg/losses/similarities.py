"""How alike two images look, each measure by its name in SIMILARITIES; and how much of two label maps overlaps."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

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
    joint = _JointCounts.apply(fixed, warped, weight, bins)
    return (joint / joint.sum().clamp_min(1e-12)).view(bins, bins)


class _JointCounts(torch.autograd.Function):
    """Weights of N pairs of values shared out among bins² -> (bins²,).

    Keeps nothing but its input for the derivative: autograd would keep a dozen numbers for each pair and bin that it
    falls into, 2 GB for a head, and take twice as long.
    """

    @staticmethod
    def forward(ctx, fixed, warped, weight, bins):
        ctx.save_for_backward(fixed, warped, weight)
        ctx.bins = bins
        joint = fixed.new_zeros(bins * bins)
        for f, w, share in zip(*(values.split(_piece(fixed)) for values in (fixed, warped, weight)), strict=True):
            corner, f, w = _places(f, w, bins)
            counts = torch.zeros_like(joint)  # of this piece: few enough for float32 to add up
            for row, share_f in enumerate((share * (1 - f), share * f)):
                for column, share_w in enumerate(_spline(w)):
                    counts.index_add_(0, corner + (row * bins + column), share_f * share_w)
            joint += counts
        return joint

    @staticmethod
    def backward(ctx, slope):
        values, size = ctx.saved_tensors, _piece(slope)
        pieces = zip(*(v.split(size) for v in values), strict=True)
        slopes = zip(*(_slopes(*piece, slope, ctx.bins) for piece in pieces), strict=True)
        return *(torch.cat(s) for s in slopes), None


def _piece(values: Tensor) -> int:
    """How many pairs to take at once: on a CPU so many that what is made of them stays in its cache."""
    return 1 << (16 if values.device.type == "cpu" else 22)


def _slopes(fixed: Tensor, warped: Tensor, weight: Tensor, slope: Tensor, bins: int) -> tuple[Tensor, ...]:
    """Derivatives by fixed and warped values and by weights, (n,) each; `slope` (bins²,) is that by the counts."""
    corner, f, w = _places(fixed, warped, bins)
    shares, rises = _spline(w), _spline_slope(w)
    values, slants = [], []  # across the two rows that a pair falls into
    for row in (0, 1):
        around = [slope.index_select(0, corner + (row * bins + column)) for column in range(4)]
        values.append(sum(a * share for a, share in zip(around, shares, strict=True)))
        slants.append(sum(a * rise for a, rise in zip(around, rises, strict=True)))
    by_fixed = (values[1] - values[0]) * weight * _unclamped(fixed) * (bins - 1)
    by_warped = torch.lerp(*slants, f) * weight * _unclamped(warped) * (bins - 4)
    return by_fixed, by_warped, torch.lerp(*values, f)


def _places(fixed: Tensor, warped: Tensor, bins: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of each pair the first of the 2 × 4 bins that it falls into, and how far it is from it to the next, in [0, 1]."""
    f = fixed.clamp(0, 1) * (bins - 1)
    w = warped.clamp(0, 1) * (bins - 4) + 1.5  # the spline's support stays inside the histogram
    low_f, low_w = f.floor().clamp(max=bins - 2), w.floor()
    return (low_f * bins + low_w - 1).long(), f - low_f, w - low_w


def _unclamped(values: Tensor) -> Tensor:
    return (values >= 0) & (values <= 1)


def _spline(t: Tensor) -> tuple[Tensor, ...]:
    """The four cubic B-splines that reach a place, a share `t` of the way from the second knot to the third."""
    s = 1 - t
    tt, ss = t * t, s * s
    return ss * s / 6, 2 / 3 - tt + tt * t / 2, 2 / 3 - ss + ss * s / 2, tt * t / 6


def _spline_slope(t: Tensor) -> tuple[Tensor, ...]:
    s = 1 - t
    tt, ss = t * t, s * s
    return -ss / 2, 1.5 * tt - 2 * t, 2 * s - 1.5 * ss, tt / 2


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

"""Similarities and regularisers: functions of tensors to a scalar, lower is better, on the device of their inputs.

Images are (B, 1, D, H, W) float32; `weight` (1, 1, D, H, W), where given, is a mask or importance of each voxel.
Displacements are (B, 3, D, H, W) in voxels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

VARIANCE_FLOOR = 1e-4  # of intensities in [0, 1]: windows flatter than 1 % of the range are noise, not structure
LEAST_SHARE = 1e-3  # of a window that is seen: less is nothing


def box_mean(values: Tensor, window: int) -> Tensor:
    """Mean over window³ voxels around each voxel of (B, C, D, H, W); zeros outside the volume.

    Shifted copies are added axis by axis: on a CPU this is six times as fast as avg_pool3d and, unlike a running sum,
    loses no digits.
    """
    if window == 1:
        return values
    before = window // 2
    for dim in (4, 3, 2):
        padding = [0] * 6
        padding[2 * (4 - dim) : 2 * (4 - dim) + 2] = before, window - 1 - before
        padded = F.pad(values, padding)
        length = values.shape[dim]
        total = padded.narrow(dim, 0, length) + padded.narrow(dim, 1, length)
        for offset in range(2, window):
            total += padded.narrow(dim, offset, length)
        values = total
    return values.mul_(1.0 / window**3)


def block_mean(values: Tensor, stride: int) -> Tensor:
    """Mean over disjoint blocks of stride³ voxels; blocks at the far border may be smaller."""
    if stride == 1:
        return values
    return F.avg_pool3d(values, stride, stride, ceil_mode=True, count_include_pad=False)


class _LocalCorrelation(torch.autograd.Function):
    """Weighted sum of squared local correlations with the analytic gradient with respect to the warped image.

    Per window, with means E: c = E[FW] − E[F]E[W], a = var F, b = var W and cc = c² / (a b). A voxel j of the window
    has ∂cc/∂W_j = (2c / ab) (F_j − E[F]) / n − (2c² / ab²) (W_j − E[W]) / n, so the gradient is three more box sums;
    nothing else of the graph has to be kept. With `seen`, E is the mean over what is seen in the window, and n that
    sum.
    """

    @staticmethod
    def forward(ctx, fixed, warped, weight, seen, window, stride):
        stacked = torch.cat((fixed, warped, fixed * fixed, warped * warped, fixed * warped), dim=1)
        means, share = _window_means(stacked, seen, window, stride)
        if share is not None:  # a correlation over few voxels is mostly chance
            weight = weight * share / (weight * share).sum().clamp_min(1e-12)
        mean_f, mean_w, mean_ff, mean_ww, mean_fw = means.split(1, dim=1)
        variance_f = (mean_ff - mean_f * mean_f).clamp_min(0) + VARIANCE_FLOOR
        variance_w = (mean_ww - mean_w * mean_w).clamp_min(0) + VARIANCE_FLOOR
        covariance = mean_fw - mean_f * mean_w
        slope = covariance / (variance_f * variance_w) * weight
        ctx.save_for_backward(fixed, warped, mean_f, mean_w, slope, covariance / variance_w, seen, share)
        ctx.window, ctx.stride = window, stride
        return (slope * covariance).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream):
        fixed, warped, mean_f, mean_w, slope, ratio, seen, share = ctx.saved_tensors
        of_fixed = 2 * slope if seen is None else 2 * slope / share
        of_warped = of_fixed * ratio
        terms = torch.cat((of_fixed, of_warped, of_warped * mean_w - of_fixed * mean_f), dim=1)
        # The adjoint of a window that reaches further on one side (even sizes) is its mirror image.
        spread = (
            box_mean(terms.flip((2, 3, 4)), ctx.window).flip((2, 3, 4))
            if ctx.window % 2 == 0
            else box_mean(terms, ctx.window)
        )
        if ctx.stride > 1:
            spread = _block_spread(spread, fixed.shape[2:], ctx.stride)
        of_fixed, of_warped, constant = spread.split(1, dim=1)
        gradient = upstream * (of_fixed * fixed - of_warped * warped + constant)
        return None, gradient if seen is None else gradient * seen, None, None, None, None


def _window_means(values: Tensor, seen: Tensor | None, window: int, stride: int) -> tuple[Tensor, Tensor | None]:
    """Means of `values` (B, C, D, H, W) over the windows, or over what is `seen` in them, and the share of that."""
    if seen is None:
        return box_mean(block_mean(values, stride), window), None
    sums = box_mean(block_mean(torch.cat((values * seen, seen.expand_as(values[:, :1])), dim=1), stride), window)
    share = sums[:, -1:].clamp_min(LEAST_SHARE)
    return sums[:, :-1] / share, share


def _block_spread(values: Tensor, shape: tuple[int, ...], stride: int) -> Tensor:
    """Adjoint of `block_mean` onto a volume of `shape`."""
    counts = [
        torch.tensor(
            [min(stride, n - stride * i) for i in range(math.ceil(n / stride))],
            dtype=values.dtype,
            device=values.device,
        )
        for n in shape
    ]
    values = values / (counts[0][:, None, None] * counts[1][:, None] * counts[2])
    for dim, n in zip((2, 3, 4), shape, strict=True):
        values = values.repeat_interleave(stride, dim).narrow(dim, 0, n)
    return values


def lncc(
    fixed: Tensor,
    warped: Tensor,
    weight: Tensor | None = None,
    window: int = 9,
    stride: int = 1,
    seen: Tensor | None = None,
) -> Tensor:
    """−mean of the squared local correlation over windows of window³ voxels (Avants 2008; VoxelMorph's form) -> ().

    With stride s > 1 the windows are window³ blocks of s³ voxels around every s-th voxel: nearly the same value at 1/s³
    of the cost. `seen` (B, 1, D, H, W), where given, is 0 where an image shows nothing that counts: `weight` decides
    which windows count, `seen` which voxels speak in them. Gradients flow to `warped` only. Inputs should lie in [0,
    1].
    """
    offset = fixed.mean()  # correlations do not change, and float32 squares keep their digits
    blocks = block_mean(torch.ones_like(fixed[:1, :1]) if weight is None else weight, stride)
    blocks = blocks / (blocks.sum() * fixed.shape[0]).clamp_min(1e-12)
    return -_LocalCorrelation.apply(fixed - offset, warped - offset, blocks, seen, window, stride)


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
    importance = torch.ones_like(fixed) if weight is None else weight.expand_as(fixed)
    inside = importance.reshape(-1) > 0
    importance = importance.reshape(-1)[inside]
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
            joint = joint.index_add(
                0, row + (low_w + step_w).long(), share_f * _cubic_spline(position_w - low_w - step_w)
            )
    return (joint / joint.sum().clamp_min(1e-12)).view(bins, bins)


def _cubic_spline(x: Tensor) -> Tensor:
    x = x.abs()
    near = 2 / 3 - x.square() + x.pow(3) / 2
    return torch.where(x < 1, near, (2 - x).clamp_min(0).pow(3) / 6)


# Pairs of neighbours, at distance √2 of each other, among the six face neighbours of a voxel (Heinrich 2013).
_MIND_SIX = ((0, 0, 1), (0, 0, -1), (0, 1, 0), (0, -1, 0), (1, 0, 0), (-1, 0, 0))
_MIND_PAIRS = [
    (a, b)
    for i, a in enumerate(_MIND_SIX)
    for b in _MIND_SIX[i + 1 :]
    if sum((p - q) ** 2 for p, q in zip(a, b, strict=True)) == 2
]


def mind_descriptor(image: Tensor, dilation: int = 2, window: int = 3) -> Tensor:  # (B, 1, D, H, W) -> (B, 12, D, H, W)
    """MIND-SSC, the modality-independent self-similarity context of Heinrich et al. (MICCAI 2013)."""
    padded = F.pad(image, [dilation] * 6, mode="replicate")
    d, h, w = image.shape[2:]

    def shifted(step):
        z, y, x = (dilation * (1 + s) for s in step)
        return padded[:, :, z : z + d, y : y + h, x : x + w]

    distances = torch.cat([(shifted(a) - shifted(b)).square() for a, b in _MIND_PAIRS], dim=1)
    half = window // 2
    distances = F.avg_pool3d(F.pad(distances, [half] * 6, mode="replicate"), window, 1)
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


def landmark_distance(residual_mm: Tensor) -> Tensor:
    """Mean of √(1 + |r|²) − 1 of residuals (1, 3, …) in mm -> (): squares close to the goal, lengths far from it.

    A pair that was placed wrongly pulls no harder than others, however far its points lie apart.
    """
    return ((1 + residual_mm.square().sum(1)).sqrt() - 1).mean()


def dice(fixed: Tensor, warped: Tensor) -> Tensor:
    """1 − mean soft Dice of one-hot labels (B, L, D, H, W) over the labels present -> ()."""
    dims = (0, 2, 3, 4)
    overlap, total = 2 * (fixed * warped).sum(dims), fixed.sum(dims) + warped.sum(dims)
    present = total > 1e-6
    return 1 - (overlap[present] / total[present]).mean() if bool(present.any()) else fixed.new_zeros(())


def smoothness(displacement: Tensor, spacing: Tensor | None = None) -> Tensor:
    """Mean of ‖∇u‖², the diffusion energy; u in voxels -> (), without unit.

    `spacing` (3,) in mm, x y z, makes the gradient that of millimetres on a lattice whose voxels are no cubes.
    """
    scale = displacement.new_ones(3) if spacing is None else spacing
    energy = displacement.new_zeros(())
    for dim, along in ((2, 2), (3, 1), (4, 0)):
        mm_per_mm = displacement.diff(dim=dim) * (scale / scale[along]).view(1, 3, 1, 1, 1)
        energy = energy + mm_per_mm.square().mean()
    return energy


def bending(displacement: Tensor) -> Tensor:
    """Mean of ‖∇²u‖², the bending energy, which leaves affine parts free; 1/voxels² -> ()."""
    energy = displacement.new_zeros(())
    for first in (2, 3, 4):
        for second in (2, 3, 4):
            energy = energy + displacement.diff(dim=first).diff(dim=second).square().mean()
    return energy


def folding(determinant: Tensor, margin: float = 0.0) -> Tensor:
    """Mean of relu(margin − J): the selective Jacobian penalty of DNVF, which sees folds only -> ()."""
    return F.relu(margin - determinant).mean()


def volume_change(determinant: Tensor, smallest: float = 0.05) -> Tensor:
    """Mean of (log J)²: growing and shrinking by one factor cost the same, shearing costs nothing -> ().

    Below `smallest` the logarithm goes on along its tangent, so that folds are finite and still pull back.
    """
    logarithm = determinant.clamp_min(smallest).log() + (determinant - smallest).clamp_max(0.0) / smallest
    return logarithm.square().mean()


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

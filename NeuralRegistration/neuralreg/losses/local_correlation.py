"""Local normalised correlation in windows of voxels, with its analytic gradient; the box sums that it is made of."""

from __future__ import annotations

import math

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
    counts = [_block_sizes(n, stride, values) for n in shape]
    values = values / (counts[0][:, None, None] * counts[1][:, None] * counts[2])
    for dim, n in zip((2, 3, 4), shape, strict=True):
        values = values.repeat_interleave(stride, dim).narrow(dim, 0, n)
    return values


def _block_sizes(length: int, stride: int, like: Tensor) -> Tensor:  # -> (blocks,)
    """Voxels of each block along an axis. Made by fill kernels: a copied list would make a GPU wait for the host."""
    blocks = math.ceil(length / stride)
    sizes = like.new_full((blocks,), float(stride))
    sizes[-1:].fill_(float(length - stride * (blocks - 1)))
    return sizes


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

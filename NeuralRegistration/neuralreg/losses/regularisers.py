"""What a deformation costs by itself: roughness, folds, change of volume, and distance to landmarks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..sampling import corner_determinants, slabs_with_neighbours


def smoothness(displacement: Tensor, spacing: Tensor | None = None) -> Tensor:
    """Mean of ‖∇u‖², the diffusion energy; u in voxels -> (), without unit.

    `spacing` (3,) in mm, x y z, makes the gradient that of millimetres on a lattice whose voxels are no cubes.
    """
    scale = displacement.new_ones(3) if spacing is None else spacing
    terms = [((axis,), (scale / scale[4 - axis]).square()) for axis in (2, 3, 4)]
    return _WithGradient.apply(displacement, partial(_roughness, terms=terms))


def bending(displacement: Tensor, spacing: Tensor | None = None) -> Tensor:
    """Mean of ‖∇²u‖², the bending energy, which leaves affine parts free (Rueckert 1999); u in voxels -> (), no unit.

    Second derivatives are changes of strain from one voxel to the next. `spacing` (3,) in mm, x y z, as in
    `smoothness`, makes them changes over a way of the mean spacing, whichever way.
    """
    scale = displacement.new_ones(3) if spacing is None else spacing
    step, terms = scale.prod() ** (1 / 3), []
    for first, second in itertools.combinations_with_replacement((2, 3, 4), 2):
        weight = (scale * step / (scale[4 - first] * scale[4 - second])).square()
        terms.append(((first, second), weight if first == second else 2 * weight))
    return _WithGradient.apply(displacement, partial(_roughness, terms=terms))


class _WithGradient(torch.autograd.Function):
    """A value () of a field whose gradient is computed along with it: `measure` gives both, slab by slab.

    What autograd keeps of a term would be several fields as large as the one that is measured, and most of its time the
    way to the memory and back.
    """

    @staticmethod
    def forward(ctx, field: Tensor, measure: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
        value, gradient = measure(field)
        ctx.save_for_backward(gradient)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx, factor: Tensor) -> tuple[Tensor, None]:
        return ctx.saved_tensors[0] * factor, None


def _roughness(displacement: Tensor, terms: list[tuple[tuple[int, ...], Tensor]]) -> tuple[Tensor, Tensor]:
    """Sum of means of squared differences, and its gradient. A term is the axes along which differences are taken, one
    after another, and the weights (3,) of x, y, z."""
    total, gradient = displacement.new_zeros(()), torch.zeros_like(displacement)
    sizes = displacement.shape
    for first, last, _, _ in slabs_with_neighbours(displacement):
        for axes, weights in terms:
            end = min(last + axes.count(2), sizes[2])
            count = math.prod(max(n - axes.count(axis), 1) for axis, n in enumerate(sizes) if axis > 1)
            steps = displacement[:, :, first:end]
            if any(steps.shape[axis] <= axes.count(axis) for axis in axes):
                continue
            for axis in axes:
                steps = steps.diff(dim=axis)
            pull = steps * (weights * (2 / (3 * count))).view(1, 3, 1, 1, 1)
            total += (pull * steps).sum() / 2
            for axis in axes:
                pull = _taken_back(pull, axis)
            gradient[:, :, first:end] += pull
    return total, gradient


def _taken_back(steps: Tensor, axis: int) -> Tensor:
    """The adjoint of `diff` along an axis: one voxel longer again."""
    padding = [0] * 6
    padding[2 * (4 - axis) : 2 * (4 - axis) + 2] = 1, 1
    return F.pad(steps, padding).diff(dim=axis).neg_()


def folding(determinant: Tensor, margin: float = 0.0) -> Tensor:
    """Mean of relu(margin − J): the selective Jacobian penalty of DNVF, which sees folds only -> ()."""
    return F.relu(margin - determinant).mean()


def volume_change(determinant: Tensor, smallest: float = 0.05) -> Tensor:
    """Mean of (log J)²: growing and shrinking by one factor cost the same, shearing costs nothing -> ().

    Below `smallest` the logarithm goes on along its tangent, so that folds are finite and still pull back.
    """
    logarithm = determinant.clamp_min(smallest).log() + (determinant - smallest).clamp_max(0.0) / smallest
    return logarithm.square().mean()


def mean_over_cells(displacement: Tensor, penalty: Callable[[Tensor], Tensor], corner: int) -> Tensor:
    """`penalty`, a mean over determinants such as `folding`, of det ∇(id + u) at one corner (0 to 7, see
    `corner_determinants`) of every lattice cell; (1, 3, D, H, W) in voxels -> ().

    All corners, one after another, say whether a cell folds; central differences do not see waves of two voxels, of
    which folds are made. All nine derivatives of every cell, kept for later, would be the largest tensors of a
    registration.
    """
    return _WithGradient.apply(displacement, partial(_over_cells, penalty=penalty, corner=corner))


def _over_cells(displacement: Tensor, penalty: Callable[[Tensor], Tensor], corner: int) -> tuple[Tensor, Tensor]:
    """`mean_over_cells` and its gradient."""
    total, gradient = displacement.new_zeros(()), torch.zeros_like(displacement)
    layers = displacement.shape[2] - 1
    for first, _, _, high in slabs_with_neighbours(displacement):
        part = displacement[:, :, first:high].detach().requires_grad_()
        cells = high - 1 - first  # layers of them behind the slab's planes
        if not cells:
            continue
        with torch.enable_grad():
            share = penalty(corner_determinants(part, (corner,))) * (cells / layers)
        gradient[:, :, first:high] += torch.autograd.grad(share, part)[0]
        total += share.detach()
    return total, gradient


def landmark_distance(residual_mm: Tensor) -> Tensor:
    """Mean of √(1 + |r|²) − 1 of residuals (1, 3, …) in mm -> (): squares close to the goal, lengths far from it.

    A pair that was placed wrongly pulls no harder than others, however far its points lie apart.
    """
    return ((1 + residual_mm.square().sum(1)).sqrt() - 1).mean()

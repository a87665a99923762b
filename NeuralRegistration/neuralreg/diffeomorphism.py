"""Making sure, to the last voxel, that a displacement on a lattice is a diffeomorphism.

exp(v) is one in the continuum; sampled on a lattice and read by trilinear interpolation it may still fold in a few
cells. Those cells are found by the eight corner determinants and by the digital criterion, and smoothed away where they
are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from .image import bounding_box
from .job import RegistrationError
from .pyramid import border_window, gaussian
from .sampling import (
    compose,
    corner_determinants,
    determinant,
    invert,
    jacobian_determinant,
    length,
    resize_displacement,
    slabs_with_neighbours,
)

Box = tuple[slice, ...]
MARGIN = 0.2  # smallest determinant allowed at a cell's corner, and 1 over the largest: what tissue may do at most
ROUNDS = 200
GENTLE_ROUNDS, GENTLE = 4, 0.5  # the first rounds smooth by half: for most folds that is enough, and detail stays
INVERSE_STEPS = 3, 1  # on the coarse lattice, then on the fine one; exp(−v) is nearly the inverse already
OVERSHOOT = 1 / 16  # of the second difference
RETURN_ROUNDS, RETURN_VOXELS = 12, 0.9  # how far from its start a voxel may come back, forth and back again


def extreme_determinants(displacement: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest and largest of each cell's corner determinants, (1, 3, D, H, W) -> (1, 1, D-1, H-1, W-1) ×2.

    The smallest is also taken over the cell's two inner tetrahedra (Liu et al., IJCV 2024).
    """
    corners = corner_determinants(displacement)
    smallest, largest = corners.amin(1, keepdim=True), corners.amax(1, keepdim=True)
    for inner in inner_tetrahedra(displacement):
        smallest = torch.minimum(smallest, inner)
    return smallest, largest


def tangled_share(displacement: Tensor) -> float:
    """The share of cells with a determinant beyond the limits at one of two opposite corners: how much `untangled`
    would have to do. (1, 3, D, H, W) in voxels."""
    corners = corner_determinants(displacement, (0, 7))
    return float(((corners <= MARGIN) | (corners >= 1 / MARGIN)).any(1).float().mean())


def untangled(displacement: Tensor, check: Callable[[], object] = lambda: None) -> Tensor:
    """The displacement with all determinants between MARGIN and 1 / MARGIN; the same tensor where they are already.

    Smoothing acts around bad cells only, wider and stronger the longer they last; far away nothing changes.
    `check` is called before every round; it may raise.
    (1, 3, D, H, W) in voxels -> the same. Raises RegistrationError for a field that is not finite.
    """
    if not bool(torch.isfinite(displacement).all()):
        raise RegistrationError("The optimisation diverged; use a smaller rate, or one of the presets as it is.")
    bad = _bad_voxels(displacement)
    for round_ in range(ROUNDS):
        if not bool(bad.any()):
            break
        check()
        strength = GENTLE if round_ < GENTLE_ROUNDS else 1.0
        displacement, box = _smoothed_near(displacement, bad, 1 + round_ // 20, strength)
        bad = _bad_again(displacement, bad, box)
    while bool(bad.any()):  # the last resort: towards the identity, which has no folds
        check()
        displacement = 0.9 * displacement
        bad = _bad_voxels(displacement)
    return displacement


def with_inverse(
    displacement: Tensor, guess: Tensor, shape: tuple[int, int, int], check: Callable[[], object] = lambda: None
) -> tuple[Tensor, Tensor]:
    """An untangled displacement, and its inverse on the finer lattice `shape` with the same corners.

    The inverse is found at voxels and interpolated between them, which goes wrong where the map is rough: there the
    displacement is smoothed until every voxel comes back to within RETURN_VOXELS of where it started.
    displacement, guess (of the inverse): (1, 3, d, h, w) in voxels; the inverse: (1, 3, *shape) in voxels of `shape`.
    `check` is called between the steps; it may raise.
    """
    forward = untangled(displacement, check)
    check()
    coarse = invert(forward, guess, INVERSE_STEPS[0], check=check)
    inverse = _right_between(invert(forward, resize_displacement(coarse, shape), INVERSE_STEPS[1], check=check))
    for round_ in range(RETURN_ROUNDS):
        check()
        back = compose(inverse, resize_displacement(forward, shape))
        check()
        error = length(back)[:, None]
        if float(error.max()) <= RETURN_VOXELS:
            break
        bad = F.adaptive_max_pool3d((error > RETURN_VOXELS).float(), tuple(forward.shape[2:])) > 0
        forward = untangled(_smoothed_near(forward, bad, 2 + round_ // 3)[0], check)
        inverse = _right_between(invert(forward, inverse, 1, check=check))
    return forward, inverse


def _right_between(values: Tensor) -> Tensor:
    """(1, 3, D, H, W) that are right at the voxels -> the same, a little off there and nearer between them.

    Linear interpolation cuts every bend short, by a twelfth of the second difference on average. Three quarters of
    that are taken back: on brains the mean error between the voxels falls by a third, in both directions.
    """
    corrected = values.clone()
    for dim in (2, 3, 4):
        inner = values.shape[dim] - 2
        corrected.narrow(dim, 1, inner).sub_(values.diff(dim=dim).diff(dim=dim), alpha=OVERSHOOT)
    return corrected


def _smoothed_near(displacement: Tensor, bad: Tensor, reach: int, strength: float = 1.0) -> tuple[Tensor, Box]:
    """The displacement, blurred within `reach` voxels of the bad ones, where `strength` 1 is the whole blur, and
    gradually less beyond; and the box outside of which nothing has changed. Few voxels may stay bad for many rounds:
    only their surroundings are computed."""
    fading, blur = 0.7 * reach, 0.8 + 0.1 * reach
    box = _box_around(bad, reach + math.ceil(3 * fading) + math.ceil(3 * blur))  # a blur ends at three sigmas
    part = displacement[box]
    near = F.max_pool3d(bad[box].float(), 2 * reach + 1, 1, reach)
    share = gaussian(near, [fading] * 3).clamp(0, 1) * strength
    share = share * (border_window(tuple(part.shape[2:]), share) > 0)  # the border stays at zero
    smoothed = displacement.clone()
    smoothed[box] = part + share * (gaussian(part, [blur] * 3) - part)
    return smoothed, box


def _box_around(bad: Tensor, margin: int) -> Box:
    """The smallest box (of a tensor (B, C, D, H, W)) with all bad voxels in it and `margin` voxels around them."""
    low, high = bounding_box(bad[0, 0])
    ends = zip(low[::-1].tolist(), high[::-1].tolist(), strict=True)
    return (slice(None), slice(None), *(slice(max(first - margin, 0), last + margin) for first, last in ends))


def _bad_again(displacement: Tensor, before: Tensor, box: Box) -> Tensor:
    """Which voxels are bad after a change within `box`, which has more around it than the change reaches."""
    bad = before.clone()
    bad[box] = _bad_voxels(displacement[box])
    # Where the box ends within the lattice its outermost voxels lack their neighbours; nothing was bad there, or is.
    for dim, (ends, size) in enumerate(zip(box[2:], displacement.shape[2:], strict=True), 2):
        for plane, inside in ((ends.start, ends.start > 0), (ends.stop - 1, ends.stop < size)):
            if inside:
                bad.select(dim, plane).zero_()
    return bad


def _bad_voxels(displacement: Tensor) -> Tensor:  # -> (1, 1, D, H, W) bool
    folded, cells = [], []
    for first, last, low, high in slabs_with_neighbours(displacement):
        central = jacobian_determinant(displacement[:, :, low:high])[:, first - low : last - low]
        folded.append(central <= MARGIN)
        if first + 1 < high:  # the cells behind this slab's voxels
            smallest, largest = extreme_determinants(displacement[:, :, first:high])
            cells.append((smallest <= MARGIN) | (largest >= 1 / MARGIN))
    at_corners = F.max_pool3d(F.pad(torch.cat(cells, dim=2).float(), [1] * 6), 2, 1) > 0
    return at_corners | torch.cat(folded, dim=1)[:, None]


def inner_tetrahedra(displacement: Tensor) -> Iterator[Tensor]:
    """Determinants (1, 1, …) of the tetrahedra through alternate corners of each cell; 2 for an unmoved cell."""
    d, h, w = (n - 1 for n in displacement.shape[2:])

    def corner(x, y, z):
        offset = torch.tensor([x, y, z], dtype=displacement.dtype, device=displacement.device).view(1, 3, 1, 1, 1)
        return displacement[:, :, z : z + d, y : y + h, x : x + w] + offset

    for apex, ends in (((0, 0, 0), ((1, 1, 0), (0, 1, 1), (1, 0, 1))), ((1, 1, 1), ((0, 0, 1), (0, 1, 0), (1, 0, 0)))):
        edges = [corner(*end) - corner(*apex) for end in ends]
        yield determinant(torch.stack(edges, dim=2))[:, None]

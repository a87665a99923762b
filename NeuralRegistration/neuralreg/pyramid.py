"""A pair on coarse and fine lattices: images with weights and landmarks, blurred and resampled as the ratio asks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from . import sampling

Shape = tuple[int, int, int]

BORDER_VOXELS = 2  # of the velocity lattice, over which velocities fall to zero
FILL_VOXELS = 2.0  # reach of what is painted over masked voxels
NOTHING = 0.02  # of the intensity range: what is darker is air


@dataclass(frozen=True)
class Landmarks:
    """Points that belong together, (1, 3, 1, 1, n), x y z, as fractions of the way between a lattice's corner voxels.

    All lattices of a pair share their corners, so the fractions hold for each of them.
    """

    fixed: Tensor
    moving: Tensor

    def residual_mm(self, displacement: Tensor, spacing: Tensor) -> Tensor:  # -> (1, 3, 1, 1, n)
        """How far beside their partners the fixed points end; displacement in voxels of a lattice of `spacing` mm."""
        last = torch.stack([spacing.new_full((), n - 1.0) for n in displacement.shape[:1:-1]]).view(1, 3, 1, 1, 1)
        start = self.fixed * last
        moved = start + sampling.sample(displacement, start, outside="border")
        return (moved - self.moving * last) * spacing.view(1, 3, 1, 1, 1)


@dataclass(frozen=True)
class Images:
    """A pair as tensors (1, 1, D, H, W) on one lattice, with weights or None, and the lattice's spacing in mm."""

    fixed: Tensor
    moving: Tensor
    fixed_weight: Tensor | None
    moving_weight: Tensor | None
    spacing: tuple[float, float, float]  # x, y, z
    landmarks: Landmarks | None = None

    @property
    def shape(self) -> Shape:
        """That of the lattice."""
        return tuple(self.fixed.shape[2:])

    def swapped(self) -> Images:
        """The same pair seen from the moving image."""
        landmarks = self.landmarks and Landmarks(self.landmarks.moving, self.landmarks.fixed)
        return Images(self.moving, self.fixed, self.moving_weight, self.fixed_weight, self.spacing, landmarks)

    def content(self) -> Tensor:  # -> (1, 1, D, H, W)
        """1 where the fixed image shows something: where nothing is, nothing is compared."""
        return dilated((self.fixed > NOTHING).float(), 2)

    def at(self, factor: float) -> Images:
        """The pair at `factor` times the smallest spacing; thick slices are not made thinner or thicker than needed.

        What does not count is painted over, lest it mix with what counts between voxels.
        """
        shape = coarser_shape(self.shape, self.spacing, factor)
        pairs = ((self.fixed, self.fixed_weight), (self.moving, self.moving_weight))
        images = [image if weight is None else filled(image, weight) for image, weight in pairs]
        images += [self.fixed_weight, self.moving_weight]
        if shape != self.shape:
            images = [None if image is None else downsample(image, shape) for image in images]
        return Images(*images, coarser_spacing(self.shape, self.spacing, shape), self.landmarks)


def coarser_shape(shape: Shape, spacing, factor: float) -> Shape:
    """Shape of the lattice with the same corners and spacing of about factor · min(spacing), nowhere finer than now."""
    target = factor * min(spacing)
    sizes = [round((n - 1) * s / max(s, target)) + 1 for n, s in zip(shape, spacing[::-1], strict=True)]
    return tuple(max(size, min(n, 4)) for size, n in zip(sizes, shape, strict=True))


def coarser_spacing(shape: Shape, spacing, new_shape: Shape) -> tuple[float, ...]:
    """Spacing (x, y, z, mm) of a lattice of `new_shape` with the corners of one of `shape` and `spacing`."""
    ratios = [(n - 1) / max(m - 1, 1) for n, m in zip(shape, new_shape, strict=True)][::-1]
    return tuple(s * r for s, r in zip(spacing, ratios, strict=True))


def downsample(image: Tensor, shape: Shape) -> Tensor:
    """Gaussian blur that suits the ratio, then trilinear: no detail of the fine image folds into noise of the coarse
    one.
    """
    sigmas = [0.4 * (n - 1) / max(m - 1, 1) for n, m in zip(image.shape[2:], shape, strict=True)]
    return sampling.resize(gaussian(image, [s if s > 0.45 else 0.0 for s in sigmas]), shape)


def filled(image: Tensor, weight: Tensor) -> Tensor:
    """The image with a Gaussian mean of what counts nearby where `weight` is 0, and 0 far away from all that counts."""
    there = gaussian(weight, [FILL_VOXELS] * 3)
    around = gaussian(image * weight, [FILL_VOXELS] * 3) / there.clamp_min(1e-6)
    return torch.where(weight > 0, image, around)


def gaussian(values: Tensor, sigmas) -> Tensor:
    """Gaussian blur of (B, C, D, H, W) with sigmas (z, y, x) in voxels; the border value continues outside.

    Each axis is one product with a banded matrix: on a CPU a third of the time of convolutions and their gradient.
    """
    sizes = values.shape[2:]
    return _multiplied(values, [_blur(n, s, values) if s > 0 else None for n, s in zip(sizes, sigmas, strict=True)])


def softened(image: Tensor, weight: float) -> Tensor:
    """(B, 1, D, H, W) with `weight` of either neighbour along each axis in place of as much of its own; 0 outside."""
    kernel = torch.tensor([weight, 1 - 2 * weight, weight], dtype=image.dtype, device=image.device)
    for axis in range(3):
        shape, padding = [1] * 5, [0] * 3
        shape[2 + axis], padding[axis] = 3, 1
        image = F.conv3d(image, kernel.view(shape), padding=padding)
    return image


def spline(coefficients: Tensor, shape: Shape) -> Tensor:
    """A displacement or velocity on a lattice of `shape`, as the uniform cubic B-spline of `coefficients` (1, 3, d, h,
    w) on a lattice with the same corners; beyond these the outermost coefficient continues -> (1, 3, D, H, W).

    Both are in voxels of their own lattice. (Rueckert et al., IEEE TMI 1999, for the basis.)
    """
    scaled = sampling.in_voxels_of(shape, coefficients)
    return _multiplied(scaled, [_basis(n, m, scaled) for n, m in zip(shape, coefficients.shape[2:], strict=True)])


def _multiplied(values: Tensor, matrices: list[Tensor | None]) -> Tensor:
    """Multiply (B, C, D, H, W) by a matrix (new size, size) along D, H and W each; None leaves an axis as it is."""
    along_d, along_h, along_w = matrices
    if along_w is not None:
        values = values @ along_w.T
    if along_h is not None:
        values = along_h @ values
    if along_d is not None:
        b, c, d, h, w = values.shape
        values = (along_d @ values.reshape(b, c, d, h * w)).view(b, c, -1, h, w)
    return values


def _basis(n: int, m: int, like: Tensor) -> Tensor:  # -> (n, m), rows sum to 1
    """What each of m coefficients gives to each of n points, the outermost of both in the same place."""
    places = torch.arange(n, dtype=like.dtype, device=like.device) * ((m - 1) / max(n - 1, 1))
    knots = torch.arange(-1, m + 1, device=like.device)
    weights = sampling.cubic_spline((places[:, None] - knots).abs())
    return like.new_zeros(n, m).index_add_(1, knots.clamp(0, m - 1), weights)


def _blur(n: int, sigma: float, like: Tensor) -> Tensor:  # -> (n, n), rows sum to 1
    radius = max(1, math.ceil(3 * sigma))
    x = torch.arange(-radius, radius + 1, dtype=like.dtype, device=like.device)
    kernel = torch.exp(-x.square() / (2 * sigma**2))
    rows = torch.arange(n, device=like.device)[:, None].expand(n, len(kernel))
    columns = (rows + x.long()).clamp(0, n - 1)
    matrix = like.new_zeros(n, n)
    return matrix.index_put_((rows, columns), (kernel / kernel.sum()).expand(n, -1), accumulate=True)


def dilated(mask: Tensor, radius: int) -> Tensor:
    """A mask (B, 1, D, H, W) widened by a cube of `radius` voxels, one axis after another."""
    for axis in range(3):
        size, padding = [1, 1, 1], [0, 0, 0]
        size[axis], padding[axis] = 2 * radius + 1, radius
        mask = F.max_pool3d(mask, tuple(size), 1, tuple(padding))
    return mask


def border_window(shape: Shape, like: Tensor, width: int = BORDER_VOXELS, smooth: bool = True) -> Tensor:
    """1 inside, falling to 0 at the faces over `width` voxels, smoothly or in a line -> (1, 1, D, H, W)."""
    window = torch.ones((), dtype=like.dtype, device=like.device)
    for dim, n in enumerate(shape):
        index = torch.arange(n, dtype=like.dtype, device=like.device)
        ramp = (torch.minimum(index, n - 1 - index) / width).clamp(0, 1)
        ramp = ramp * ramp * (3 - 2 * ramp) if smooth else ramp
        window = window * ramp.view([-1 if d == dim else 1 for d in range(3)])
    return window[None, None]

"""Transforms are functions of points: fixed → moving, LPS millimetres. `a @ b` applies b first.

Composition is lazy; `displacement(grid)` is the one explicit resampling. Points are (3, …), float64 where it matters;
arrays and lists are taken, too, and come back as tensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import sampling
from .image import Grid, Image, Watch, apply_matrix, as_points, checked_grid, invertible


class Transform:
    """A map of points (3, …) in LPS mm to points (3, …)."""

    __array_ufunc__ = None  # `array @ transform` is as wrong as `transform @ array`, and ends as that does

    def __call__(self, points: Tensor) -> Tensor:
        raise TypeError(f"{type(self).__name__} must define how it maps points")

    def inverse(self) -> Transform:
        raise TypeError(f"{type(self).__name__} must define its inverse")

    def __matmul__(self, first: Transform) -> Transform:
        if not isinstance(first, Transform):
            return NotImplemented
        if isinstance(self, Affine) and isinstance(first, Affine):
            return Affine(self.matrix @ first.matrix)
        return Composite((*parts_of(self), *parts_of(first)))

    def displacement(self, grid: Grid, watch: Watch | None = None) -> DisplacementField:
        """This transform as a displacement field on `grid`; outside the grid the field is zero."""
        checked_grid(grid, "displacement")
        mm = torch.empty(*grid.shape, 3).movedim(-1, 0)  # as files want it: a field of a whole CT is not copied twice
        for first, last in grid.slabs(watch):
            points = grid.points(first, last)
            mm[:, first:last] = self(points) - points
        return DisplacementField(mm, grid)


@dataclass(frozen=True, eq=False)
class Affine(Transform):
    """x ↦ A x + t with a 4×4 float64 matrix."""

    matrix: np.ndarray

    def __post_init__(self):
        object.__setattr__(self, "matrix", invertible(self.matrix, "Affine: matrix"))

    @classmethod
    def identity(cls) -> Affine:
        return cls(np.eye(4))

    def __call__(self, points: Tensor) -> Tensor:
        return apply_matrix(self.matrix, points)

    def inverse(self) -> Affine:
        return Affine(np.linalg.inv(self.matrix))


@dataclass(frozen=True, eq=False)
class DisplacementField(Transform):
    """x ↦ x + u(x): u in mm (3, D, H, W) on a grid, trilinear between voxels.

    ITK leaves points outside the field where they are; so do we, or Slicer would show another warp.
    """

    mm: Tensor
    grid: Grid

    def __post_init__(self):
        _check_field(self)

    @classmethod
    def from_voxels(cls, displacement_vox: Tensor, grid: Grid) -> DisplacementField:
        """From displacements (1, 3, D, H, W) in voxels of `grid`: the one place where voxels become millimetres."""
        return cls(_rotate(grid.world_from_index, displacement_vox.detach()[0]), grid)

    def to_voxels(self) -> Tensor:  # -> (1, 3, D, H, W) in voxels of the field's grid
        return _rotate(self.grid.index_from_world, self.mm)[None]

    def __call__(self, points: Tensor) -> Tensor:
        points = as_points(points)
        shape = points.shape
        volume = points if points.ndim == 4 else points.reshape(3, 1, 1, -1)
        moved = volume + Image(self.mm, self.grid).at(volume).to(volume)
        return moved.reshape(shape)

    def inverse(self) -> DisplacementField:
        """The inverse, found numerically, on this grid or, where that is too coarse, on a finer one of the same extent:
        exact at its voxels, interpolated between them."""
        found = sampling.invert_between(self.to_voxels())
        grid = self.grid.with_shape(tuple(found.shape[2:]))
        # A field ends half a voxel beyond its outermost ones: as many of the finer voxels are added at each end.
        margin = (grid.size[0] - 1) // max(self.grid.size[0] - 1, 1) // 2
        found = torch.nn.functional.pad(found, [margin] * 6, mode="replicate")
        return DisplacementField.from_voxels(found, grid.cropped([-margin] * 3, np.array(grid.size) + margin))


@dataclass(frozen=True, eq=False)
class VelocityField(Transform):
    """x ↦ exp(v)(x) for a stationary velocity field v in mm (3, D, H, W), integrated in 2**steps parts."""

    mm: Tensor
    grid: Grid
    steps: int = 7

    def __post_init__(self):
        _check_field(self)
        if not isinstance(self.steps, int) or self.steps < 0:
            raise ValueError(f"VelocityField: steps must be a whole number, 0 or larger, got {self.steps!r}")

    def exp(self) -> DisplacementField:
        velocity_vox = _rotate(self.grid.index_from_world, self.mm)[None]
        return DisplacementField.from_voxels(sampling.integrate(velocity_vox, self.steps), self.grid)

    def __call__(self, points: Tensor) -> Tensor:
        return self.exp()(points)

    def inverse(self) -> VelocityField:
        return VelocityField(-self.mm, self.grid, self.steps)


@dataclass(frozen=True, eq=False)
class Composite(Transform):
    """transforms[0] ∘ transforms[1] ∘ …: the last one is applied first."""

    transforms: tuple[Transform, ...]

    def __post_init__(self):
        parts = tuple(self.transforms) if isinstance(self.transforms, list | tuple) else (self.transforms,)
        wrong = [type(part).__name__ for part in parts if not isinstance(part, Transform)]
        if wrong:
            raise ValueError(f"Composite: transforms must be transforms, got {', '.join(wrong)}")
        object.__setattr__(self, "transforms", parts)

    def __call__(self, points: Tensor) -> Tensor:
        points = as_points(points)
        for transform in reversed(self.transforms):
            points = transform(points)
        return points

    def inverse(self) -> Composite:
        return Composite(tuple(t.inverse() for t in reversed(self.transforms)))


def jacobian_determinant(transform: Transform, grid: Grid, watch: Watch | None = None) -> Image:
    """det ∇transform on `grid` -> (1, D, H, W), by central differences between voxels: det(I + ∂u/∂x).

    The map of index to index has the same determinant as the map of mm to mm because both ends use one grid; direction
    cosines, which `sitk.DisplacementFieldJacobianDeterminant` forgets, are therefore taken into account.
    """
    determinant = torch.empty(1, *grid.shape)
    for first, last in grid.slabs(watch):
        low, high = max(first - 1, 0), min(last + 1, grid.shape[0])  # one slice more on each side for the differences
        points = grid.points(low, high)
        displacement = _rotate(grid.index_from_world, (transform(points) - points).float())[None]
        determinant[:, first:last] = sampling.jacobian_determinant(displacement)[:, first - low : last - low]
    return Image(determinant, grid)


def _check_field(field: Any) -> None:
    """Raise ValueError unless its vectors `mm` are floating-point (3, D, H, W) on its `grid`."""
    name = type(field).__name__
    if not isinstance(field.mm, Tensor) or not field.mm.is_floating_point():
        found = getattr(field.mm, "dtype", type(field.mm).__name__)
        raise ValueError(f"{name}: mm must be a tensor of floating point (torch.from_numpy makes one), got {found}")
    if not isinstance(field.grid, Grid):
        raise ValueError(f"{name}: grid must be a Grid, got {type(field.grid).__name__}")
    expected = (3, *field.grid.shape)
    if tuple(field.mm.shape) != expected:
        raise ValueError(f"{name}: mm must be {expected} for this grid, got {tuple(field.mm.shape)}")


def _rotate(matrix: np.ndarray, vectors: Tensor) -> Tensor:
    """The 3×3 part of a matrix applied to vectors (3, …): displacements have no origin."""
    return torch.einsum("ab,b...->a...", torch.from_numpy(np.ascontiguousarray(matrix[:3, :3])).to(vectors), vectors)


def parts_of(transform: Transform) -> tuple[Transform, ...]:
    """What a transform is composed of; the last one is applied first."""
    return transform.transforms if isinstance(transform, Composite) else (transform,)

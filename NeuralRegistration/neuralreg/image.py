"""Where voxels are: `Grid` (a lattice in LPS millimetres) and `Image` (a tensor on a grid).

Geometry is float64 on the CPU; voxels are float32 wherever they are needed. Coordinates are x, y, z; array axes are
z, y, x.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .job import RegistrationError, choose
from .sampling import sample

SMALLEST = torch.finfo(torch.float32).tiny  # range of intensities that is divided by; in SI units some are tiny
SLAB_VOXELS = 1_000_000  # float64 coordinates of one slab stay within a few processor caches' worth of memory

Watch = Callable[[float], object]  # called often by what takes long, with the share (0 to 1) that is done; may raise


@dataclass(frozen=True, eq=False)
class Grid:
    """A lattice of voxels: array shape (D, H, W) and the 4×4 float64 matrix from index (i, j, k) to LPS mm."""

    shape: tuple[int, int, int]
    world_from_index: np.ndarray

    def __post_init__(self):
        if not _is_shape(self.shape):
            raise ValueError(f"Grid: shape must be three positive sizes (D, H, W), got {self.shape!r}")
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "world_from_index", invertible(self.world_from_index, "Grid: world_from_index"))

    @classmethod
    def from_parts(cls, size, origin=(0, 0, 0), spacing=(1, 1, 1), direction=None) -> Grid:
        """Grid from ITK's parts: size (x, y, z), origin and spacing in mm, 3×3 direction cosines."""
        matrix = np.eye(4)
        axes = np.eye(3) if direction is None else np.asarray(direction, dtype=np.float64).reshape(3, 3)
        matrix[:3, :3] = axes * np.asarray(spacing, dtype=np.float64)
        matrix[:3, 3] = origin
        return cls(tuple(size)[::-1], matrix)

    @property
    def size(self) -> tuple[int, int, int]:
        """(x, y, z), as ITK counts."""
        return self.shape[::-1]

    @property
    def index_from_world(self) -> np.ndarray:
        return np.linalg.inv(self.world_from_index)

    @property
    def spacing(self) -> np.ndarray:  # (3,) mm, xyz
        return np.linalg.norm(self.world_from_index[:3, :3], axis=0)

    @property
    def direction(self) -> np.ndarray:  # (3, 3) unit columns
        return self.world_from_index[:3, :3] / self.spacing

    @property
    def origin(self) -> np.ndarray:
        return self.world_from_index[:3, 3]

    @property
    def center(self) -> np.ndarray:  # (3,) LPS mm
        return self.place((np.array(self.size) - 1) / 2)

    def place(self, index: np.ndarray) -> np.ndarray:  # (3,) voxel coordinates x, y, z -> (3,) LPS mm
        return self.world_from_index[:3, :3] @ index + self.origin

    def same_as(self, other: Grid, tolerance_mm: float = 1e-3) -> bool:
        """Whether both grids put every voxel at the same place, within `tolerance_mm` and a tenth of a voxel."""
        if self.shape != other.shape:
            return False
        corners = np.array([[*(np.array(c) * (np.array(self.size) - 1)), 1.0] for c in np.ndindex(2, 2, 2)])
        apart = np.abs((self.world_from_index - other.world_from_index) @ corners.T).max()
        return bool(apart <= min(tolerance_mm, 0.1 * self.spacing.min()))

    def points(self, first: int = 0, last: int | None = None) -> Tensor:  # -> (3, d, H, W) float64 LPS mm
        """World coordinates of the voxels in slices `first` to `last` (all of them by default)."""
        d, h, w = self.shape
        z, y, x = (
            torch.arange(*r, dtype=torch.float64) for r in ((first, d if last is None else last), (0, h), (0, w))
        )
        matrix = torch.from_numpy(self.world_from_index)
        out = matrix[:3, 3].view(3, 1, 1, 1)
        for column, values in zip(
            range(3), (x.view(1, 1, 1, -1), y.view(1, 1, -1, 1), z.view(1, -1, 1, 1)), strict=True
        ):
            out = out + matrix[:3, column].view(3, 1, 1, 1) * values
        return out

    def slabs(self, watch: Watch | None = None) -> Iterator[tuple[int, int]]:
        """Ranges of slices that cover the grid, each small enough for float64 coordinates."""
        return slabs(self.shape, watch)

    def indices(self, points: Tensor) -> Tensor:  # (3, …) LPS mm -> (3, …) voxel coordinates x, y, z
        return apply_matrix(self.index_from_world, points)

    def holds(self, index: Tensor) -> Tensor:  # (3, …) voxel coordinates -> (…) bool
        """Whether they lie within the lattice's voxels, which end half a voxel beyond the outermost centres."""
        size = torch.tensor(self.size, dtype=index.dtype, device=index.device).view(3, *[1] * (index.ndim - 1))
        return ((index >= -0.5) & (index < size - 0.5)).all(0)

    def with_shape(self, shape: tuple[int, int, int]) -> Grid:
        """The lattice of another shape with the same corner voxels."""
        old, new = np.array(self.size), np.array(tuple(shape)[::-1])
        scale = (old - 1) / np.maximum(new - 1, 1)
        matrix = self.world_from_index.copy()
        matrix[:3, :3] = matrix[:3, :3] * np.where(scale > 0, scale, 1.0)
        return Grid(shape, matrix)

    def cropped(self, low, high) -> Grid:
        """The lattice from index `low` to `high` (x, y, z; high excluded). Indices may lie outside: that pads."""
        low, high = np.asarray(low, dtype=np.int64), np.asarray(high, dtype=np.int64)
        matrix = self.world_from_index.copy()
        matrix[:3, 3] += matrix[:3, :3] @ low
        return Grid(tuple((high - low)[::-1]), matrix)


@dataclass(frozen=True, eq=False)
class Image:
    """Values (C, D, H, W) on a grid. Scalars have C = 1."""

    data: Tensor
    grid: Grid

    def __post_init__(self):
        if not isinstance(self.data, Tensor):
            raise ValueError(f"Image: data must be a tensor (torch.from_numpy makes one), got {_kind(self.data)}")
        if not isinstance(self.grid, Grid):
            raise ValueError(f"Image: grid must be a Grid, got {_kind(self.grid)}")
        if self.data.is_complex():
            raise ValueError("Image: data must be real numbers, got complex ones")
        if self.data.ndim != 4 or tuple(self.data.shape[1:]) != self.grid.shape:
            raise ValueError(
                f"Image: data must be (C, {', '.join(map(str, self.grid.shape))}), got {tuple(self.data.shape)}"
            )

    def at(self, points: Tensor, mode: str = "bilinear", default: float = 0.0) -> Tensor:
        """Values at LPS points (3, d, h, w) in mm -> (C, d, h, w), `default` outside.

        Like ITK, the image ends half a voxel beyond its outermost voxel centres and is constant over that half voxel.
        """
        index = self.grid.indices(points)
        inside = self.grid.holds(index)
        if mode == "nearest":
            index = torch.floor(index + 0.5)  # ITK rounds halves up, torch rounds them to even
        values = sample(self.data[None].float(), index.float()[None].to(self.data.device), mode, "border")[0]
        return values.masked_fill_(~inside.to(values.device), default)


def _is_shape(shape: Any) -> bool:
    try:
        return len(shape) == 3 and all(n >= 1 and n == int(n) for n in shape)
    except (TypeError, ValueError):
        return False


def invertible(matrix: Any, name: str) -> np.ndarray:  # -> (4, 4) float64
    """A matrix that maps points and has an inverse. Raises ValueError with its name."""
    try:
        matrix = np.asarray(matrix, dtype=np.float64)
    except (TypeError, ValueError, RuntimeError):  # the last: a tensor that wants its gradient
        matrix = np.zeros(0)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:3, :3])) < 1e-12:
        raise ValueError(f"{name} must be an invertible 4×4 matrix")
    if not np.allclose(matrix[3], (0, 0, 0, 1)):
        raise ValueError(f"{name} must have 0 0 0 1 in its last row")
    return matrix


def checked_grid(grid: Any, what: str) -> Grid:
    """`grid`, unless it is none: RegistrationError with what asked for it."""
    if not isinstance(grid, Grid):
        raise RegistrationError(f"{what} needs a Grid, such as image.grid; got {_kind(grid)}.")
    return grid


def as_points(points: Any) -> Tensor:  # -> (3, …) float32 or float64
    """Points as a tensor: float32 if they are one, else float64, whether they come as an array, as lists, as whole
    numbers or in half precision. Raises RegistrationError."""
    try:
        found = points if isinstance(points, Tensor) else torch.from_numpy(np.array(points, dtype=np.float64))
    except (TypeError, ValueError, RuntimeError) as error:
        raise RegistrationError(f"Points are a tensor or an array (3, n) in LPS mm; got {_kind(points)}.") from error
    if found.ndim < 1 or found.shape[0] != 3:
        turned = ", so turn it round with .T" if found.ndim == 2 and found.shape[1] == 3 else ""
        raise RegistrationError(f"Points are (3, n): x, y and z in LPS mm in rows; got {tuple(found.shape)}{turned}.")
    return found if found.dtype == torch.float32 else found.double()


def _kind(value: Any) -> str:
    return type(value).__name__


def slabs(shape: tuple[int, ...], watch: Watch | None = None) -> Iterator[tuple[int, int]]:
    """Ranges of slices that cover an array (D, H, W), each of about SLAB_VOXELS: what is made of them stays small."""
    step = max(1, SLAB_VOXELS // (shape[1] * shape[2]))
    for first in range(0, shape[0], step):
        if watch is not None:
            watch(first / shape[0])
        yield first, min(first + step, shape[0])


def portion(watch: Watch | None, start: float, end: float) -> Watch | None:
    """The watch of one part of a computation, which runs from `start` to `end` of the whole."""
    return None if watch is None else lambda share: watch(start + (end - start) * share)


def bounding_box(mask: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """First index and last + 1 (x, y, z) of what is true in a mask (D, H, W); the whole lattice where nothing is."""
    ends = []
    for axis in (2, 1, 0):
        first, second = (other for other in range(3) if other != axis)
        along = mask.any(dim=second).any(dim=first).nonzero()
        ends.append((int(along[0]), int(along[-1]) + 1) if len(along) else (0, mask.shape[axis]))
    low, high = np.array(ends).T
    return low, high


def centre_of_mass(mass: Tensor) -> np.ndarray:  # (D, H, W) -> (3,) x, y, z in voxels
    """The middle of the lattice where there is no mass."""
    sums = [along.cpu().double() for along in (mass.sum((0, 1)), mass.sum((0, 2)), mass.sum((1, 2)))]
    total = float(sums[0].sum())  # on a CPU: not every GPU knows float64
    if total < 1e-6:
        return (np.array(mass.shape[::-1]) - 1) / 2
    return np.array([float(s @ torch.arange(len(s), dtype=torch.float64)) for s in sums]) / total


def apply_matrix(matrix: np.ndarray, points: Tensor) -> Tensor:
    """A 4×4 matrix applied to points (3, …); whole numbers become float64, or the matrix would lose its fractions."""
    points = as_points(points)
    m = torch.from_numpy(np.ascontiguousarray(matrix)).to(points)
    return torch.einsum("ab,b...->a...", m[:3, :3], points) + m[:3, 3].view(3, *[1] * (points.ndim - 1))


def resample(
    image: Image,
    target_from_grid: Callable[[Tensor], Tensor],
    grid: Grid,
    mode: str = "bilinear",
    default: float = 0.0,
    watch: Watch | None = None,
) -> Image:
    """`image ∘ target_from_grid` on `grid`: each point of the grid is mapped and the image is read there, once.

    mode: "bilinear" for intensities, "nearest" for labels, whose whole numbers come back as they are, however large.
    `default` is the value outside the image. Raises RegistrationError for an argument of another kind.
    """
    if not isinstance(image, Image) or not callable(target_from_grid):
        given = f"{_kind(image)} and {_kind(target_from_grid)}"
        raise RegistrationError(f"resample needs an Image, then a Transform; got {given}.")
    checked_grid(grid, "resample")
    mode = choose("mode", mode, ("bilinear", "nearest"))
    if mode == "nearest" and not image.data.is_floating_point() and image.data.dtype != torch.bool:
        return _resample_labels(image, target_from_grid, grid, int(default), watch)
    image = Image(image.data.float(), image.grid)
    out = image.data.new_empty(len(image.data), *grid.shape)
    for first, last in grid.slabs(watch):
        out[:, first:last] = image.at(target_from_grid(grid.points(first, last)), mode, default)
    return Image(out, grid)


def _resample_labels(
    labels: Image, target_from_grid: Callable[[Tensor], Tensor], grid: Grid, default: int, watch: Watch | None
) -> Image:
    """Whole numbers are sampled as ranks: float32 cannot tell apart labels above 2**24."""
    numbers = torch.unique(labels.data)
    beyond = torch.full_like(numbers[:1], default)
    numbers = torch.unique(torch.cat((numbers, beyond)))
    ranks = Image(torch.searchsorted(numbers, labels.data.contiguous()).float(), labels.grid)
    outside = float(torch.searchsorted(numbers, beyond))
    return Image(numbers[resample(ranks, target_from_grid, grid, "nearest", outside, watch).data.long()], grid)


def canonical(image: Image) -> Image:
    """The same image with its array axes reordered and flipped so that they run as nearly as possible along L, P, S.

    Nothing is interpolated. Storage order stops mattering here: every storage of one volume becomes the same tensor.
    """
    order, flips = _nearest_axes(image.grid.direction)
    data = image.data.permute(0, *(3 - a for a in order[::-1]))  # world axis a is array axis 3 − a of (C, D, H, W)
    old_from_new = np.zeros((4, 4))
    old_from_new[3, 3] = 1.0
    for new, old in enumerate(order):
        old_from_new[old, new] = -1.0 if flips[new] else 1.0
        old_from_new[old, 3] = image.grid.size[old] - 1 if flips[new] else 0.0
    if any(flips):  # flip copies, even along no axis
        data = data.flip([3 - new for new in range(3) if flips[new]])
    return Image(data.contiguous(), Grid(tuple(data.shape[1:]), image.grid.world_from_index @ old_from_new))


def _nearest_axes(direction: np.ndarray) -> tuple[list[int], list[bool]]:
    """For each of L, P, S the image axis nearest to it (each used once) and whether that axis must be flipped."""
    closeness = np.abs(direction)
    order = [-1, -1, -1]
    for _ in range(3):
        world, axis = np.unravel_index(np.argmax(closeness), (3, 3))
        order[world] = int(axis)
        closeness[world, :] = -1.0
        closeness[:, axis] = -1.0
    return order, [bool(direction[world, axis] < 0) for world, axis in enumerate(order)]

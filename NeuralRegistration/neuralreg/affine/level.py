"""One resolution of the search: points of the fixed image in small cubic blocks, their values, and the moving image.

Matrices are moving_from_fixed, 4×4 float64, LPS mm; only the matrix from points to moving voxels is float32.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..image import Grid, Image
from ..preprocess import shrunk
from ..pyramid import softened
from ..sampling import sample

BLOCK = 4  # points along each edge of a block
NOISE = 1e-4  # variance within a fixed block, for intensities from 0 to 1, at which a correlation counts half
SMOOTHING = 0.2  # weight of each neighbour


@dataclass(frozen=True)
class Volume:
    """An image for the search, (1, 2, D, H, W): intensities mapped to [0, 1] times the mask, and the mask."""

    data: Tensor
    grid: Grid

    @property
    def values(self) -> Tensor:  # (D, H, W)
        return self.data[0, 0] / self.data[0, 1].clamp(min=1e-6)

    @property
    def inside(self) -> Tensor:  # (D, H, W)
        return self.data[0, 1]

    def coarser(self, spacing: float) -> Volume:
        """Averaged over as many whole voxels as fit into `spacing` mm."""
        return Volume(*averaged(self.data, self.grid, spacing))

    def smoothed(self) -> Volume:
        """Blurred by three weights along each axis: without it, linear interpolation makes small false optima."""
        return Volume(softened(self.data.transpose(0, 1), SMOOTHING).transpose(0, 1), self.grid)


def averaged(data: Tensor, grid: Grid, spacing: float) -> tuple[Tensor, Grid]:
    """(1, C, D, H, W) averaged over as many whole voxels as fit into `spacing` mm, and its grid."""
    factors = [max(1, min(n, int(spacing / s + 0.01))) for s, n in zip(grid.spacing, grid.size, strict=True)]
    if max(factors) == 1:
        return data, grid
    coarse = shrunk(Image(data[0], grid), np.array(factors))
    return coarse.data[None], coarse.grid


@dataclass(frozen=True)
class Level:
    """One resolution: `points` (1, 3, 1, blocks, BLOCK³) in mm from `center` (LPS mm), the fixed values and
    weights there (blocks, BLOCK³), how much each fixed block has to say (blocks), the moving image as smooth.
    """

    points: Tensor
    fixed: Tensor
    weights: Tensor
    certainty: Tensor
    center: np.ndarray
    moving: Volume
    spacing: float

    @property
    def radius(self) -> float:
        """Root mean square distance of the points from the centre, mm."""
        return float(self.points.square().sum(1).mean().sqrt())

    def matrix(self, moving_from_fixed: np.ndarray) -> Tensor:
        """The map from points to moving voxels, (3, 4) float32."""
        index_from_point = self.moving.grid.index_from_world @ moving_from_fixed @ translation(self.center)
        return torch.from_numpy(index_from_point[:3]).float()

    def distance(self, a: np.ndarray, b: np.ndarray) -> float:
        """Mean distance in mm between where two matrices bring the points."""
        apart = torch.from_numpy(((a - b) @ translation(self.center))[:3]).float()
        moved = torch.einsum("ab,bn->an", apart[:, :3], self.points.reshape(3, -1)) + apart[:, 3:]
        return float(moved.norm(dim=0).mean())

    def warped(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Moving values at the points, and the weight of each inside both masks: (blocks, BLOCK³) twice."""
        coordinates = torch.einsum("ab,zbcde->zacde", matrix[:, :3], self.points) + matrix[:, 3].view(1, 3, 1, 1, 1)
        values, inside = sample(self.moving.data, coordinates)[0].reshape(2, *self.fixed.shape)
        return values / (inside + 1e-6), inside * self.weights


def make_level(fixed: Volume, moving: Volume, spacing: float, low: np.ndarray, high: np.ndarray) -> Level:
    """Blocks of points `spacing` mm apart that cover the indices `low` to `high` (x, y, z) of `fixed`, centred there.

    Blocks in which the fixed image hardly varies say nothing about position and are left out.
    """
    grid = fixed.grid  # both images come averaged and smoothed for this spacing
    counts = np.maximum(np.ceil((high - low + 1) * grid.spacing / (spacing * BLOCK) - 0.25), 1).astype(int)
    offsets = [(torch.arange(n * BLOCK, dtype=torch.float64) - (n * BLOCK - 1) / 2) * spacing for n in counts]
    z, y, x = torch.meshgrid(*offsets[::-1], indexing="ij")
    along = _blocks(torch.stack((x, y, z)), counts)
    middle = (low + high) / 2
    index = along / torch.from_numpy(grid.spacing).view(3, 1, 1) + torch.from_numpy(middle).view(3, 1, 1)
    values, weights = sample(fixed.data, index.float()[None, :, None])[0, :, 0]
    values = values / (weights + 1e-6)
    variance = _variance(values, weights)
    keep = _telling(variance, weights)
    points = torch.einsum("ab,bcd->acd", torch.from_numpy(grid.direction), along).float()[:, keep]
    center = grid.place(middle)
    certainty = (variance / (variance + NOISE))[keep]
    return Level(points[None, :, None], values[keep], weights[keep], certainty, center, moving, spacing)


def _blocks(values: Tensor, counts: np.ndarray) -> Tensor:  # (3, D, H, W) -> (3, blocks, BLOCK³)
    nx, ny, nz = (int(n) for n in counts)
    split = values.reshape(3, nz, BLOCK, ny, BLOCK, nx, BLOCK).permute(0, 1, 3, 5, 2, 4, 6)
    return split.reshape(3, nz * ny * nx, BLOCK**3)


def _variance(values: Tensor, weights: Tensor) -> Tensor:  # -> (blocks,)
    total = weights.sum(1, keepdim=True) + 1e-6
    mean = (weights * values).sum(1, keepdim=True) / total
    return (weights * (values - mean) ** 2).sum(1) / total[:, 0]


def _telling(variance: Tensor, weights: Tensor) -> Tensor:
    """Indices of the blocks that lie in the mask and vary; all of them in a flat image."""
    chosen = torch.nonzero((weights.mean(1) > 0.1) & (variance > NOISE)).flatten()
    return chosen if len(chosen) else torch.arange(len(variance))


def translation(by: np.ndarray) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, 3] = by
    return matrix

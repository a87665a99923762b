"""Grids in the four kinds of orientation that files come in, and a smooth transform on them."""

import numpy as np
import torch
from neuralreg.image import Grid, Image
from neuralreg.phantom import rotation
from neuralreg.transform import Affine, Composite, DisplacementField

TURN = np.array(
    [[0.8, -0.6, 0.0], [0.48, 0.64, -0.6], [0.36, 0.48, 0.8]]
)  # 3-4-5 triangles: a rotation to the last digit
DIRECTIONS = {
    "LPS": np.eye(3),
    "RAS": np.diag([-1.0, -1.0, 1.0]),
    "permuted and flipped": np.array([[0.0, 0.0, -1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]),
    "oblique, left-handed": TURN * np.array([1.0, 1.0, -1.0]),
}


def grid_of(kind: str, size=(14, 12, 10)) -> Grid:
    return Grid.from_parts(size, (12.5, -34.0, 7.0), (1.0, 1.5, 2.5), DIRECTIONS[kind])


def tilted_grid(size, spacing) -> Grid:
    """An oblique lattice around a point off the origin; size and spacing x, y, z."""
    size, matrix = np.asarray(size), np.eye(4)
    matrix[:3, :3] = rotation([0.2, 1.0, 0.3], 14.0) * np.asarray(spacing)
    matrix[:3, 3] = np.array([20.0, -35.0, 50.0]) - matrix[:3, :3] @ ((size - 1) / 2)
    return Grid(tuple(size[::-1]), matrix)


def image_on(grid: Grid, seed: int = 0) -> Image:
    generator = torch.Generator().manual_seed(seed)
    return Image(torch.rand(1, *grid.shape, generator=generator) * 100, grid)


def affine() -> Affine:
    matrix = np.eye(4)
    matrix[:3, :3] = TURN @ np.diag([1.05, 0.97, 1.02]) @ np.array([[1, 0.1, 0], [0, 1, 0.05], [0, 0, 1.0]])
    matrix[:3, 3] = (4.0, -3.0, 2.0)
    return Affine(matrix)


def field_on(grid: Grid, millimetres: float = 2.0) -> DisplacementField:
    """Waves that differ in each component and fall to zero at the border, as every field of this project does."""
    z, y, x = (torch.linspace(0, 3.14159265, n) for n in grid.shape)
    window = torch.sin(z)[:, None, None] * torch.sin(y)[None, :, None] * torch.sin(x)[None, None, :]
    waves = [torch.cos(2 * x)[None, None, :], torch.sin(3 * y)[None, :, None], torch.cos(z + 1)[:, None, None]]
    return DisplacementField(torch.stack([millimetres * window * wave for wave in waves]), grid)


def transform_on(grid: Grid) -> Composite:
    return affine() @ field_on(grid)


def points_in(grid: Grid, count: int = 60) -> torch.Tensor:
    """Points (3, n) inside the grid, in LPS mm."""
    index = np.random.default_rng(0).uniform(0.05, 0.95, (count, 3)) * (np.array(grid.size) - 1)
    return torch.from_numpy((grid.world_from_index[:3, :3] @ index.T) + grid.origin[:, None])

"""The search behind the affine stage: similarities at sampled points and a quasi-Newton descent over matrices.

A `Level` holds what one resolution needs: points of the fixed image in small cubic blocks, their values, and the moving
image. Matrices are moving_from_fixed, 4×4 float64, LPS mm; only the matrix from points to moving voxels is float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .image import Grid
from .sampling import sample

BINS = 32
BLOCK = 4  # points along each edge of a block
NOISE = 1e-4  # variance within a fixed block, for intensities from 0 to 1, at which a correlation counts half
ROUNDING = 1e-6
SMOOTHING = 0.2  # weight of each neighbour
SCALES = (0.6, 1.7)  # one organ is never that much smaller or larger in the other image: the search cannot collapse


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
        data = self.data.transpose(0, 1)  # each channel is one volume
        weights = torch.tensor([SMOOTHING, 1 - 2 * SMOOTHING, SMOOTHING], dtype=data.dtype, device=data.device)
        for axis in range(3):
            shape, padding = [1] * 5, [0] * 3
            shape[2 + axis], padding[axis] = 3, 1
            data = F.conv3d(data, weights.view(shape), padding=padding)
        return Volume(data.transpose(0, 1), self.grid)


def averaged(data: Tensor, grid: Grid, spacing: float) -> tuple[Tensor, Grid]:
    """(1, C, D, H, W) averaged over as many whole voxels as fit into `spacing` mm, and its grid."""
    factors = [max(1, min(n, int(spacing / s + 0.01))) for s, n in zip(grid.spacing, grid.size, strict=True)]
    if max(factors) == 1:
        return data, grid
    coarse = F.avg_pool3d(data, factors[::-1], ceil_mode=True, count_include_pad=False)
    matrix = grid.world_from_index.copy()
    matrix[:3, 3] += matrix[:3, :3] @ ((np.array(factors) - 1) / 2)
    matrix[:3, :3] = matrix[:3, :3] * factors
    return coarse, Grid(tuple(coarse.shape[2:]), matrix)


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
        return torch.from_numpy(index_from_point[:3]).float().to(self.points.device)

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
    values, weights = sample(fixed.data, index.float()[None, :, None].to(fixed.data.device))[0, :, 0]
    values = values / (weights + 1e-6)
    variance = _variance(values, weights)
    keep = _telling(variance, weights)
    points = torch.einsum("ab,bcd->acd", torch.from_numpy(grid.direction), along).float().to(values.device)[:, keep]
    center = grid.world_from_index[:3, :3] @ middle + grid.origin
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
    return chosen if len(chosen) else torch.arange(len(variance), device=variance.device)


def local_correlation(level: Level, matrix: Tensor) -> Tensor:  # -> ()
    """−mean squared correlation within blocks, over what lies in both images: precise for any contrast that is linear
    within a block, of either sign. To descend: an image that is cut off is not stretched to cover more blocks."""
    squared, overlap = _block_correlations(level, matrix)
    weight = overlap * level.certainty
    return -(squared * weight).sum() / (weight.sum() + 1e-6)


def covered_correlation(level: Level, matrix: Tensor) -> Tensor:  # -> ()
    """The same over all blocks, 0 where they leave the moving image. To judge: a small overlap never looks good."""
    squared, overlap = _block_correlations(level, matrix)
    all_of_it = level.weights.sum(1) @ level.certainty
    return -(squared * overlap) @ level.certainty / (all_of_it + 1e-6)


def _block_correlations(level: Level, matrix: Tensor) -> tuple[Tensor, Tensor]:  # -> (blocks,) ×2
    """Squared correlation of fixed and warped in each block, and the weight of the block's overlap.

    Noise is kept down by `certainty`, which only the fixed image decides: a constant added to the moving variance as
    well would reward motion that brings more contrast into a block, and shrinks a head by one per cent.
    """
    values, weights = level.warped(matrix)
    total = weights.sum(1, keepdim=True) + 1e-6
    share = weights / total
    f = level.fixed - (share * level.fixed).sum(1, keepdim=True)
    m = values - (share * values).sum(1, keepdim=True)
    ff, mm, fm = ((share * a * b).sum(1) for a, b in ((f, f), (m, m), (f, m)))
    return fm * fm / ((ff + ROUNDING) * (mm + ROUNDING)), total[:, 0]


def mutual_information(level: Level, matrix: Tensor) -> Tensor:  # -> ()
    """−normalised mutual information (Studholme 1999) of the points inside both images, linear Parzen windows."""
    values, weights = level.warped(matrix)
    bins = torch.arange(BINS, dtype=values.dtype, device=values.device)
    f, m = ((1 - (v.reshape(-1, 1) * (BINS - 1) - bins).abs()).clamp(min=0) for v in (level.fixed, values))
    joint = (f * weights.reshape(-1, 1)).T @ m
    joint = joint / (joint.sum() + 1e-6)
    together = _entropy(joint)
    return -(_entropy(joint.sum(0)) + _entropy(joint.sum(1)) - together) / (together + 1e-3)


def _entropy(probability: Tensor) -> Tensor:
    return -(probability * torch.log(probability + 1e-8)).sum()


Cost = Callable[[Level, Tensor], Tensor]


def evaluate(cost: Cost, level: Level, moving_from_fixed: np.ndarray) -> float:
    with torch.no_grad():
        return float(cost(level, level.matrix(moving_from_fixed)))


def _value_and_slope(cost: Cost, level: Level, at: np.ndarray, basis: np.ndarray) -> tuple[float, np.ndarray]:
    """The cost of the matrix `at` and its derivative by each motion of `basis` (n,)."""
    matrix = level.matrix(at).requires_grad_(True)
    value = cost(level, matrix)
    by_index = np.zeros((4, 4))
    by_index[:3] = torch.autograd.grad(value, matrix)[0].cpu().double().numpy()
    by_world = level.moving.grid.index_from_world.T @ by_index @ translation(level.center).T
    return float(value.detach()), np.einsum("nab,ac,bc->n", basis, by_world, at)


def translation(by: np.ndarray) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, 3] = by
    return matrix


def motions(kind: str, center: np.ndarray, radius: float) -> np.ndarray:  # -> (6 or 12, 4, 4)
    """Infinitesimal motions about `center` (moving space), scaled to move a point at `radius` mm by 1 mm.

    "rigid": translations and rotations; "affine": also the symmetric part, shears and scales.
    """
    basis = np.zeros((6 if kind == "rigid" else 12, 4, 4))
    for axis in range(3):
        a, b = (axis + 1) % 3, (axis + 2) % 3
        basis[axis, axis, 3] = 1.0
        basis[3 + axis, b, a], basis[3 + axis, a, b] = 1 / radius, -1 / radius
        if kind != "rigid":
            basis[6 + axis, b, a] = basis[6 + axis, a, b] = 1 / radius
            basis[9 + axis, axis, axis] = 1 / radius
    return translation(center) @ basis @ translation(-center)


def _moved(at: np.ndarray, basis: np.ndarray, step: np.ndarray) -> np.ndarray:
    return torch.linalg.matrix_exp(torch.from_numpy(np.tensordot(step, basis, 1))).numpy() @ at


def plausible(matrix: np.ndarray, origin: np.ndarray) -> bool:
    """Whether `matrix` stretches no direction beyond SCALES, compared with `origin`."""
    scales = np.linalg.svd(matrix[:3, :3] @ np.linalg.inv(origin[:3, :3]), compute_uv=False)
    return bool(SCALES[0] <= scales.min() and scales.max() <= SCALES[1])


def descend(
    cost: Cost,
    level: Level,
    start: np.ndarray,
    kind: str,
    iterations: int = 20,
    origin: np.ndarray | None = None,
    tolerance: float = 0.005,
    check: Callable[[], object] = lambda: None,
) -> tuple[np.ndarray, float]:
    """BFGS over motions applied after `start` -> (matrix, cost), never worse than the start.

    Steps are in mm at the edge of the object; the search ends below `tolerance` mm. `origin`: see `plausible`;
    `check` is called before every step.
    """
    origin = start if origin is None else origin
    basis = motions(kind, (start @ np.append(level.center, 1.0))[:3], max(level.radius, level.spacing))
    at, (value, slope) = start, _value_and_slope(cost, level, start, basis)
    inverse, fresh = _steepest(slope, level.spacing), True
    for _ in range(iterations):
        if np.linalg.norm(slope) < 1e-12:
            break
        check()
        found = _line_search(cost, level, at, basis, value, slope, _bounded(-inverse @ slope, level.spacing), origin)
        if found is None:
            if fresh:
                break
            inverse, fresh = _steepest(slope, level.spacing / 4), True
            continue
        at, value, new_slope, step = found
        inverse, fresh = _updated(inverse, step, new_slope - slope, fresh), False
        slope = new_slope
        if np.linalg.norm(step) < tolerance:
            break
    return at, value


def _steepest(slope: np.ndarray, length: float) -> np.ndarray:
    """An inverse curvature whose first step goes `length` mm downhill."""
    return np.eye(len(slope)) * length / max(np.linalg.norm(slope), 1e-12)


def _bounded(step: np.ndarray, spacing: float) -> np.ndarray:
    return step * min(1.0, 4 * spacing / max(np.linalg.norm(step), 1e-12))


def _line_search(cost, level, at, basis, value, slope, step, origin):
    """(matrix, cost, slope, step) for the first of ever shorter steps that lowers the cost enough (Armijo), or None."""
    for _ in range(6):
        there = _moved(at, basis, step)
        if plausible(there, origin):
            new, new_slope = _value_and_slope(cost, level, there, basis)
            if new <= value + min(1e-4 * (step @ slope), 0.0):
                return there, new, new_slope, step
        step = step * 0.35
    return None


def _updated(inverse: np.ndarray, step: np.ndarray, change: np.ndarray, fresh: bool) -> np.ndarray:
    """The BFGS update of the inverse curvature; after the first step it is rescaled to the curvature seen."""
    curvature = step @ change
    if curvature <= 1e-10:
        return inverse
    eye = np.eye(len(step))
    if fresh:
        inverse = eye * curvature / (change @ change)
    left = eye - np.outer(step, change) / curvature
    return left @ inverse @ left.T + np.outer(step, step) / curvature

"""A quasi-Newton descent over rigid or affine matrices moving_from_fixed, 4×4 float64, LPS mm."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from .level import Level, translation
from .similarity import Cost

SCALES = (0.6, 1.7)  # one organ is never that much smaller or larger in the other image: the search cannot collapse
TOLERANCE = 0.005  # mm


def _value_and_slope(cost: Cost, level: Level, at: np.ndarray, basis: np.ndarray) -> tuple[float, np.ndarray]:
    """The cost of the matrix `at` and its derivative by each motion of `basis` (n,)."""
    matrix = level.matrix(at).requires_grad_(True)
    value = cost(level, matrix)
    by_index = np.zeros((4, 4))
    by_index[:3] = torch.autograd.grad(value, matrix)[0].double().numpy()
    by_world = level.moving.grid.index_from_world.T @ by_index @ translation(level.center).T
    return float(value.detach()), np.einsum("nab,ac,bc->n", basis, by_world, at)


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
    check: Callable[[], object] = lambda: None,
) -> tuple[np.ndarray, float]:
    """BFGS over motions applied after `start` -> (matrix, cost), never worse than the start.

    Steps are in mm at the edge of the object; the search ends below TOLERANCE. `origin`: see `plausible`;
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
        if np.linalg.norm(step) < TOLERANCE:
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

"""A finished transform applied to more: images, label maps and points, in both directions, each resampled once."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from . import io
from .files import reading
from .image import Grid, Image, resample
from .job import INVERSE, TRANSFORM, RegistrationError
from .transform import Transform

NEWTON_STEPS, STEP_MM, TOLERANCE_MM = 30, 1e-2, 1e-6


@reading()
def load_pair(path: Path) -> tuple[Transform, Transform | None]:
    """moving_from_fixed of a run's folder or of a transform file, and the run's own inverse if there is one."""
    path = Path(path)
    path = path / TRANSFORM if path.is_dir() else path
    beside = path.with_name(INVERSE)
    inverse = io.read_transform(beside) if path.name == TRANSFORM and beside.exists() else None
    return io.read_transform(path), inverse


def apply_to_image(image: Image, target_from_grid: Transform, grid: Grid, labels: bool = False) -> Image:
    """`image ∘ target_from_grid` on `grid`; outside the image its lowest value, or label 0. Labels keep their type."""
    if labels:
        return resample(image, target_from_grid, grid, "nearest")
    return resample(image, target_from_grid, grid, default=float(image.data.min()))


def inverse_points(transform: Transform, points: Tensor, start: Tensor | None = None) -> Tensor:
    """The points x with transform(x) = points, (3, N) LPS mm, by damped Newton steps: exact, unlike a sampled inverse.

    start: a first guess (3, N). Raises RegistrationError for a transform that folds at one of the points.
    """
    guess = points.clone() if start is None else start.clone()
    residual = transform(guess) - points
    for _ in range(NEWTON_STEPS):
        if float(residual.norm(dim=0).max()) < TOLERANCE_MM:
            break
        # A pseudo-inverse, because a transform that folds is flat somewhere: what it cannot undo is said below.
        step = (torch.linalg.pinv(_jacobian(transform, guess)) @ residual.T[..., None])[..., 0].T
        for _ in range(8):
            candidate = guess - step
            changed = transform(candidate) - points
            worse = changed.norm(dim=0) > residual.norm(dim=0)
            step = torch.where(worse, step / 2, step)
            if not worse.any():
                break
        keep = changed.norm(dim=0) <= residual.norm(dim=0)
        guess, residual = torch.where(keep, candidate, guess), torch.where(keep, changed, residual)
    if float(residual.norm(dim=0).max()) > 0.1:
        raise RegistrationError(
            "The transform cannot be inverted at one of the points: it folds there; check its Jacobian map."
        )
    return guess


def _jacobian(transform: Transform, points: Tensor) -> Tensor:  # (3, N) -> (N, 3, 3) ∂transform_row / ∂point_column
    columns = []
    for axis in range(3):
        shift = torch.zeros(3, 1, dtype=points.dtype)
        shift[axis] = STEP_MM
        columns.append((transform(points + shift) - transform(points - shift)) / (2 * STEP_MM))
    return torch.stack(columns, dim=-1).transpose(0, 1)

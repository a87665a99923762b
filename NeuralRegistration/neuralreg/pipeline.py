"""The whole flow, left to right: volumes → working grid → affine → method → transform, warped volume, Jacobian,
metrics.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from . import metrics
from .affine import register_affine
from .devices import choose_device, use_threads
from .diffeomorphism import with_inverse
from .image import Grid, Image, portion, resample
from .job import AFFINE_STAGES, SIMILARITIES, Monitor, Part, choose
from .methods import make_method, suited
from .optimise import Fit
from .preprocess import Pair, PointPairs, make_pair, with_landmarks, working_grid
from .transform import Affine, Composite, DisplacementField, Transform, jacobian_determinant

MAX_VOXELS = 8_000_000  # of the working grid: 200³; larger volumes are registered on a coarser lattice
# Mean local correlation after the affine stage from which two images count as one contrast. Measured on a million
# voxels: T1 brains of two people 0.48 to 0.57, chest CT 0.58, hippocampi 0.46 and more; T1 with FLAIR 0.20, T2 with
# FLAIR 0.34, T1 with T2 -0.45.
SAME_CONTRAST = 0.4
CONTRAST_VOXELS = 1_000_000


@dataclass(frozen=True, eq=False)
class Registration:
    """What a registration found. `transform` maps fixed to moving points in LPS mm and resamples the moving image."""

    transform: Transform
    inverse: Transform
    warped: Image
    jacobian: Image
    metrics: dict[str, Any]
    timings: dict[str, float]
    loss: list[list[float]]
    warnings: list[str]
    device: str
    device_reason: str
    similarity: str
    options: dict[str, Any]
    grid: Grid
    stopped_early: bool


class _Deformable(Part):
    """Progress of the method; its previews, bare tensors of the working grid, become images in space."""

    def __init__(self, whole: Monitor, grid: Grid):
        super().__init__(whole, "deformable", 0.17, 0.88)
        self.grid = grid

    def preview(self, warped: Any) -> None:
        if self.whole.wants_preview():  # else the GPU need not wait for a copy that nobody looks at
            self.whole.preview(Image(warped[0].cpu(), self.grid.with_shape(tuple(warped.shape[2:]))))


@dataclass
class _Clock:
    """Seconds per stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[stage] = time.perf_counter() - start


def register(
    fixed: Image,
    moving: Image,
    method: str = "DNVF",
    *,
    preset: str = "balanced",
    similarity: str = "auto",
    affine: str = "affine",
    initial_transform: Transform | None = None,
    fixed_mask: Image | None = None,
    moving_mask: Image | None = None,
    landmarks: PointPairs | None = None,
    device: str = "auto",
    seed: int = 0,
    threads: int = 0,
    options: dict[str, Any] | None = None,
    monitor: Monitor | None = None,
) -> Registration:
    """Register `moving` to `fixed`; see `RegistrationJob` for the settings. Masks are images that are > 0 where they
    count. Landmarks, fixed and moving (3, n) in LPS mm, pull the deformation of methods that optimise.

    Raises RegistrationError with a sentence for input that cannot be registered, Cancelled when the monitor says so.
    """
    monitor, clock, warnings = monitor or Monitor(), _Clock(), []
    choose("affine", affine, AFFINE_STAGES)
    similarity = choose("similarity", similarity, SIMILARITIES)
    chosen = make_method(method, preset, options)
    where, reason = choose_device(device)
    use_threads(threads)
    if where == "cuda":
        torch.cuda.reset_peak_memory_stats()  # the memory of this run, not of an earlier one in the process
    torch.manual_seed(seed)
    with clock("affine"):
        part = Part(monitor, "affine", 0.0, 0.15)
        moving_from_aligned = _align(fixed, moving, affine, initial_transform, fixed_mask, moving_mask, part, warnings)
    with clock("prepare"):
        pair = _prepared(fixed, moving, moving_from_aligned, fixed_mask, moving_mask, landmarks, warnings)
        grid, compared = pair.grid, _similarity(similarity, pair, warnings)
        if changes := suited(method, preset, options, math.prod(grid.shape)):
            chosen = make_method(method, preset, {**(options or {}), **changes})
            warnings.append("The volume is small: more iterations see all of its voxels; an --option overrules this.")
    with clock("deformable"):
        fit, where, reason = _fit(chosen, pair, compared, where, reason, seed, _Deformable(monitor, grid), warnings)
        warnings += fit.warnings
        aligned_from_fixed, fixed_from_aligned = _diffeomorphic(fit, grid)
    with clock("outputs"):
        watch = Part(monitor, "outputs", 0.88, 0.93).step
        transform = moving_from_aligned @ aligned_from_fixed
        inverse = fixed_from_aligned @ moving_from_aligned.inverse()
        lowest = float(moving.data.min())
        warped = resample(moving, transform, fixed.grid, default=lowest, watch=portion(watch, 0.0, 0.5))
        jacobian = jacobian_determinant(transform, fixed.grid, portion(watch, 0.5, 1.0))
    with clock("metrics"):
        watch = Part(monitor, "metrics", 0.93, 0.97).step
        values = metrics.summary(fixed, moving, warped, jacobian, transform, inverse, fixed_mask, watch)
        if landmarks is not None:
            values |= _pulled(landmarks, transform, fit, warnings)
    return Registration(
        transform, inverse, warped, jacobian, values, clock.seconds, fit.curve, warnings, where, reason, compared,
        dataclasses.asdict(chosen), grid, fit.stopped,
    )  # fmt: skip


def _align(fixed, moving, kind, initial, fixed_mask, moving_mask, monitor, warnings) -> Transform:
    """moving_from_aligned. A non-linear initial transform is composed as is; a linear one starts the affine stage."""
    if initial is not None and not isinstance(initial, Affine):
        _warn_of_folds(initial, warnings)
        return (
            initial
            if kind == "none"
            else _behind(initial, fixed, moving, kind, fixed_mask, moving_mask, monitor, warnings)
        )
    if kind == "none":
        return initial or Affine.identity()
    found = register_affine(
        fixed, moving, kind, fixed_mask=fixed_mask, moving_mask=moving_mask, initial=initial, monitor=monitor
    )
    if found.warning:
        warnings.append(found.warning)
    return found.moving_from_aligned


def _warn_of_folds(initial: Transform, warnings: list[str]) -> None:
    """The result is the initial transform with a diffeomorphism behind it: it folds where that one folds."""
    parts = initial.transforms if isinstance(initial, Composite) else (initial,)
    fields = [part for part in parts if isinstance(part, DisplacementField)]
    everywhere = (torch.ones(field.grid.shape, dtype=torch.bool) for field in fields)
    shares = [metrics.non_diffeomorphic_volume(f.to_voxels(), e)[1] for f, e in zip(fields, everywhere, strict=True)]
    if max(shares, default=0.0) > 0:
        warnings.append(
            f"The initial transform folds space in {max(shares):.2g} % of its field, and so will the result; "
            "smooth it, or start from its linear part."
        )


def _behind(initial, fixed, moving, kind, fixed_mask, moving_mask, monitor, warnings) -> Transform:
    """The affine stage behind a deformation: it sees the moving image through it, and the two are composed."""
    seen = resample(moving, initial, fixed.grid, default=float(moving.data.min()))
    seen_mask = None if moving_mask is None else resample(moving_mask, initial, fixed.grid, "nearest")
    found = register_affine(
        fixed, seen, kind, fixed_mask=fixed_mask, moving_mask=seen_mask, initial=Affine.identity(), monitor=monitor
    )
    if found.warning:
        warnings.append(found.warning)
    return initial @ found.moving_from_aligned


def _prepared(fixed, moving, moving_from_aligned, fixed_mask, moving_mask, landmarks, warnings) -> Pair:
    """The pair on its working grid; a warning where that is coarser than the fixed volume."""
    grid = working_grid(fixed, MAX_VOXELS, fixed_mask)
    if grid.spacing.min() > fixed.grid.spacing.min() * 1.05:
        spacing = " × ".join(f"{s:.2f}" for s in grid.spacing)
        warnings.append(
            f"The fixed volume is large: it was registered at {spacing} mm; transform and outputs cover all of it."
        )
    pair = make_pair(fixed, moving, moving_from_aligned, grid, fixed_mask, moving_mask)
    return pair if landmarks is None else with_landmarks(pair, landmarks, moving_from_aligned, warnings)


def _similarity(wanted: str, pair: Pair, warnings: list[str]) -> str:
    """The similarity to use; "auto" takes local correlation for one contrast and mutual information for two."""
    if wanted != "auto":
        return wanted
    factor = max(1.0, (np.prod(pair.grid.shape) / CONTRAST_VOXELS) ** (1 / 3))
    images = pair.images("cpu").at(factor)
    if metrics.mean_local_correlation(images.fixed, images.moving) >= SAME_CONTRAST:
        return "lncc"
    warnings.append(
        "The two volumes look like different contrasts: normalised mutual information (nmi) is used instead of local "
        "correlation; --similarity overrules this."
    )
    return "nmi"


def _fit(method, pair, similarity, where, reason, seed, monitor, warnings) -> tuple[Fit, str, str]:
    """Run the method; when a GPU has too little memory, once more on the CPU, and say so."""
    try:
        torch.manual_seed(seed)
        return method(pair, similarity, where, monitor), where, reason
    except torch.OutOfMemoryError:
        pass  # leaving the clause lets go of the error, whose traceback keeps the GPU's tensors alive
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    warnings.append(
        "The GPU has too little free memory for this pair: the CPU was used; "
        "close other programs or use the preset fast."
    )
    torch.manual_seed(seed)
    return method(pair, similarity, "cpu", monitor), "cpu", "The GPU ran out of memory."


def _diffeomorphic(fit: Fit, grid: Grid) -> tuple[DisplacementField, DisplacementField]:
    """aligned_from_fixed without folds, and fixed_from_aligned.

    The inverse lies on the whole working grid: on the coarser lattice of the velocities it would be right at the voxels
    and off by a quarter of a millimetre between them.
    """
    if fit.chain.forward is None:
        still = torch.zeros(1, 3, *(min(n, 4) for n in grid.shape))
        field = DisplacementField.from_voxels(still, grid.with_shape(tuple(still.shape[2:])))
        return field, field
    forward, inverse = with_inverse(fit.chain.forward.cpu(), fit.chain.inverse.cpu(), grid.shape)
    lattice = grid.with_shape(tuple(forward.shape[2:]))
    return DisplacementField.from_voxels(forward, lattice), DisplacementField.from_voxels(inverse, grid)


def _pulled(landmarks: PointPairs, transform: Transform, fit: Fit, warnings: list[str]) -> dict[str, float]:
    """How far apart the given pairs are before and after; not an error of the result, which was fitted to them."""
    if not fit.curve:
        warnings.append("The landmarks did not count: this method optimises nothing; add --refine 60, or use DNVF.")
    fixed, moving = (points.double() for points in landmarks)
    before, after = (fixed - moving).norm(dim=0), metrics.tre(transform, fixed, moving)
    return {"landmarks_before_mm": float(before.mean()), "landmarks_after_mm": float(after.mean())}

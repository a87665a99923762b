"""The whole flow: volumes → working grid → affine → method → transform, warped volume, Jacobian, metrics."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from . import metrics, qa
from .affine import register_affine
from .allocator import kept_memory
from .devices import choose_device, ran_full, use_threads
from .diffeomorphism import with_inverse
from .image import Grid, Image, portion, resample
from .intensities import is_ct
from .job import AFFINE_STAGES, DEVICES, SIMILARITIES, Monitor, Part, RegistrationError, choose
from .methods import kind_of, make_method, suited
from .optimise import Fit
from .preprocess import Pair, PointPairs, check_mask, make_pair, with_landmarks, working_grid
from .transform import Affine, DisplacementField, Transform, jacobian_determinant, parts_of
from .usage import enough_memory

MAX_VOXELS = 8_000_000  # of the working grid: 200³; larger volumes are registered on a coarser lattice
# Two images are of one contrast from this share of their relation that is linear. Measured: T1 brains of two people, of
# other scanners, enhanced in places, under strong bias fields or noise 0.82 to 0.99, hippocampi 0.9 and more; T1 with
# FLAIR 0.17 to 0.58, where it is bent by 8 mm up to 0.75, T2 with T1 0 (Testing/RELIABILITY.md).
SAME_CONTRAST = 0.78
CONTENT = 0.05  # of normalised intensities: what is darker is background
CONTRAST_VOXELS = 1_000_000
VIEW_POINTS = 64  # per axis, at which the ends of initial fields are looked for

SUITED = {
    "small": "The volume is small: more iterations see all of its voxels; an option that you set overrules this.",
    "ct": "Both volumes are CT: a smooth deformation is sought, as within one patient; an option overrules this.",
}
FULL_GPU = (
    "The GPU has too little free memory for this pair: the CPU was used; close other programs or use the preset fast."
)
UNLIKE = (
    "After the linear alignment the two volumes have little in common: look whether they show the same part of the "
    "body and lie on each other; where they start too far apart, give an initial transform."
)
Ready = Callable[[str, Transform | Image], object]
NO_MEMORY = "There is not enough memory for this registration; use the preset fast, or resample or crop the images."


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
    similarity_reason: str = ""


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


@dataclass(frozen=True, eq=False)
class _Given:
    """What every stage may need: the volumes and their masks, who watches, and the notes for the user so far."""

    fixed: Image
    moving: Image
    fixed_mask: Image | None = None
    moving_mask: Image | None = None
    monitor: Monitor = field(default_factory=Monitor)
    warnings: list[str] = field(default_factory=list)
    measured: dict[str, float] = field(default_factory=dict)  # on the way; the rest is measured at the end


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
    ready: Ready | None = None,
) -> Registration:
    """Register `moving` to `fixed`; see `RegistrationJob` for the settings. Masks are images that are > 0 where they
    count. Landmarks, fixed and moving (3, n) in LPS mm, pull the deformation of methods that optimise. `ready` is told
    the name and value of "transform", "inverse", "warped" and "jacobian" as soon as each is final.

    Raises RegistrationError with a sentence for input that cannot be registered, Cancelled when the monitor says so.
    """
    given, clock = _Given(fixed, moving, fixed_mask, moving_mask, monitor or Monitor()), _Clock()
    affine, similarity = choose("affine", affine, AFFINE_STAGES), choose("similarity", similarity, SIMILARITIES)
    device = choose("device", str(device), DEVICES)
    chosen = make_method(method, preset, options)
    where, reason = _device(device, threads, seed)
    if hasattr(chosen, "check_model"):  # now, not when the minutes of a large affine stage are spent
        chosen.check_model(similarity)
    for name, image, mask in (("fixed", fixed, fixed_mask), ("moving", moving, moving_mask)):
        if mask is not None:
            check_mask(image, mask, name, given.warnings)
    with clock("affine"):
        moving_from_aligned = _align(given, affine, initial_transform)
        _check_ends(moving_from_aligned, fixed.grid, given.warnings)
    with clock("prepare"):
        pair = _prepared(given, moving_from_aligned, landmarks)
        compared, why = "", ""
        if getattr(chosen, "deforms", True):  # the affine stage compares in its own way
            compared, why = _similarity(similarity, pair, given.warnings, affine)
        kind = kind_of(math.prod(pair.grid.shape), all(is_ct(volume.data[0]) for volume in (fixed, moving)))
        if changes := suited(method, preset, options, kind):
            chosen = make_method(method, preset, {**(options or {}), **changes})
            given.warnings.append(SUITED[kind])
    with clock("deformable"), kept_memory(), enough_memory(NO_MEMORY):
        fit, where, reason = _fit(chosen, pair, compared, where, reason, seed, given)
        aligned_from_fixed, fixed_from_aligned = _diffeomorphic(fit, pair.grid, given.monitor)
    with clock("outputs"):
        transform = moving_from_aligned @ aligned_from_fixed
        inverse = fixed_from_aligned @ moving_from_aligned.inverse()
        warped, jacobian = _outputs(given, transform, inverse, ready or _nobody)
    with clock("metrics"):
        values = _measured(given, warped, jacobian, transform, inverse)
        if landmarks is not None:
            values |= _pulled(landmarks, transform, fit, given.warnings)
    return Registration(
        transform, inverse, warped, jacobian, metrics=values, timings=clock.seconds, loss=fit.curve,
        warnings=given.warnings, device=where, device_reason=reason, similarity=compared, similarity_reason=why,
        options=dataclasses.asdict(chosen), grid=pair.grid, stopped_early=fit.stopped,
    )  # fmt: skip


def _device(wanted: str, threads: int, seed: int) -> tuple[str, str]:
    """The device and why it was taken; it starts from the seed, on as many threads as wanted."""
    where, reason = choose_device(wanted)
    use_threads(threads)
    if where == "cuda":
        torch.cuda.reset_peak_memory_stats()  # the memory of this run, not of an earlier one in the process
    torch.manual_seed(seed)
    return where, reason


def _align(given: _Given, kind: str, initial: Transform | None) -> Transform:
    """moving_from_aligned. A linear initial transform is where the affine stage starts; behind any other one it comes
    second: it sees the moving image through that deformation, and the two are composed as they are."""
    if initial is not None:
        _check_initial(initial, given.warnings)
    if kind == "none":
        return initial or Affine.identity()
    if initial is None or isinstance(initial, Affine):
        return _affine(given, given.moving, given.moving_mask, kind, initial)
    lowest, watch = float(given.moving.data.min()), Part(given.monitor, "affine", 0.0, 0.01).step
    seen = resample(given.moving, initial, given.fixed.grid, default=lowest, watch=watch)
    mask = None if given.moving_mask is None else resample(given.moving_mask, initial, given.fixed.grid, "nearest")
    return initial @ _affine(given, seen, mask, kind, Affine.identity())


def _affine(given: _Given, moving: Image, mask: Image | None, kind: str, initial: Affine | None) -> Affine:
    part = Part(given.monitor, "affine", 0.0, 0.15)
    found = register_affine(
        given.fixed, moving, kind, fixed_mask=given.fixed_mask, moving_mask=mask, initial=initial, monitor=part
    )
    given.warnings.extend([found.warning] if found.warning else [])
    if found.alike is not None:
        given.measured["linear_correlation"] = found.alike
        given.warnings.extend([UNLIKE] if found.alike < qa.ALIKE else [])
    return found.moving_from_aligned


def _check_initial(initial: Transform, warnings: list[str]) -> None:
    """The result is the initial transform with a diffeomorphism behind it: it folds where that one folds, which is
    said, and mirrors if that one mirrors, which is refused with a RegistrationError."""
    parts = parts_of(initial)
    fields = [part for part in parts if isinstance(part, DisplacementField)]
    if not all(f.mm.isfinite().all() for f in fields):
        raise RegistrationError("The initial transform holds NaN or infinity; make it again.")
    if math.prod(np.linalg.det(part.matrix[:3, :3]) for part in parts if isinstance(part, Affine)) < 0:
        raise RegistrationError(
            "The initial transform mirrors the moving volume, so left would become right; take the mirroring out of it."
        )
    shares = [
        metrics.non_diffeomorphic_volume(f.to_voxels(), torch.ones(f.grid.shape, dtype=torch.bool))[1] for f in fields
    ]
    if max(shares, default=0.0) > 0:
        warnings.append(
            f"The initial transform folds space in {min(max(shares), 100):.3g} % of its field, and so will the result; "
            "smooth it, or start from its linear part."
        )


def _check_ends(moving_from_aligned: Transform, grid: Grid, warnings: list[str]) -> None:
    """A warning where space is torn within the fixed grid, by more than the quality check allows: where a field of the
    initial transform ends, points stay where they are, as in ITK."""
    coarse, torn = tuple(min(n, VIEW_POINTS) for n in grid.shape), 0.0
    points = grid.with_shape(coarse).points()
    for part in reversed(parts_of(moving_from_aligned)):
        moved = part(points)
        if isinstance(part, DisplacementField):
            inside, mm = part.grid.holds(part.grid.indices(points)), (moved - points).norm(dim=0)
            for axis in range(3):
                ends = inside.diff(dim=axis)
                first, last = (mm.narrow(axis, start, ends.shape[axis])[ends] for start in (0, 1))
                torn = max([torn, *torch.maximum(first, last).tolist()])
        points = moved
    if torn > grid.spacing.max():
        warnings.append(
            "The field of the initial transform ends within the fixed volume, where it still moves points by "
            f"{torn:.3g} mm: the result is torn there; start from a field that covers it or is zero at its border."
        )


def _prepared(given: _Given, moving_from_aligned: Transform, landmarks: PointPairs | None) -> Pair:
    """The pair on its working grid; a warning where that is coarser than the fixed volume."""
    part = Part(given.monitor, "prepare", 0.15, 0.17)
    part.step(0.0)
    grid = working_grid(given.fixed, MAX_VOXELS, given.fixed_mask)
    if grid.spacing.min() > given.fixed.grid.spacing.min() * 1.05:
        spacing = " × ".join(f"{s:.2f}" for s in grid.spacing)
        given.warnings.append(
            f"The fixed volume is large: it was registered at {spacing} mm; transform and outputs cover all of it."
        )
    masks = given.fixed_mask, given.moving_mask
    pair = make_pair(given.fixed, given.moving, moving_from_aligned, grid, *masks, part.step)
    return pair if landmarks is None else with_landmarks(pair, landmarks, moving_from_aligned, given.warnings)


def _similarity(wanted: str, pair: Pair, warnings: list[str], affine: str = "affine") -> tuple[str, str]:
    """The similarity to use and why; "auto" takes local correlation for one contrast and mutual information for two."""
    if wanted != "auto":
        return wanted, "It was asked for."
    found = _relation(pair)
    if found is None:
        return "lncc", "There is nothing by which two contrasts could be told apart."
    stage = "without a linear" if affine == "none" else f"after the {affine}"
    measured = (
        f"{stage} stage, what is brighter in one is brighter in the other to {found.linearity:.0%}, and from "
        f"{SAME_CONTRAST:.0%} it is one (joint histogram: correlation {found.correlation:.2f}, correlation ratio "
        f"{found.explained:.2f}, normalised mutual information {found.information:.3f})"
    )
    if found.linearity >= SAME_CONTRAST:
        return "lncc", f"The two volumes look like one contrast: {measured}."
    warnings.append(
        "The two volumes look like different contrasts: normalised mutual information (nmi) is used instead of local "
        "correlation; if that is wrong, say so yourself (Contrast in the panel, --similarity on the command line)."
    )
    return "nmi", f"The two volumes look like different contrasts: {measured}."


def _relation(pair: Pair) -> metrics.Relation | None:
    """Of the intensities, where both images show something that counts."""
    factor = max(1.0, (np.prod(pair.grid.shape) / CONTRAST_VOXELS) ** (1 / 3))
    images = pair.images("cpu").at(factor)
    both = (images.fixed > CONTENT) & (images.moving > CONTENT)
    for weight in (images.fixed_weight, images.moving_weight):
        both = both if weight is None else both & (weight > 0.5)
    return metrics.relation(images.fixed[0, 0], images.moving[0, 0], both[0, 0])


def _fit(
    method: Any, pair: Pair, similarity: str, where: str, reason: str, seed: int, given: _Given
) -> tuple[Fit, str, str]:
    """The fit, device and reason; when a GPU has too little memory, the fit is made on the CPU, with a warning."""
    monitor = _Deformable(given.monitor, pair.grid)
    try:
        torch.manual_seed(seed)
        fit = method(pair, similarity, where, monitor)
    except RuntimeError as error:
        if not ran_full(error):
            raise
        fit = None  # leaving the clause lets go of the error, whose traceback keeps the GPU's tensors alive
    if fit is None:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        given.warnings.append(FULL_GPU)
        torch.manual_seed(seed)
        fit, where, reason = method(pair, similarity, "cpu", monitor), "cpu", "The GPU ran out of memory."
    given.warnings.extend(fit.warnings)
    return fit, where, reason


def _diffeomorphic(fit: Fit, grid: Grid, monitor: Monitor) -> tuple[Transform, Transform]:
    """aligned_from_fixed without folds, and fixed_from_aligned; the identity where nothing was fitted.

    The inverse lies on the whole working grid: on the coarser lattice of the velocities it would be right at the voxels
    and off by a quarter of a millimetre between them.
    """
    if fit.chain.forward is None:
        return Affine.identity(), Affine.identity()
    forward, inverse = with_inverse(fit.chain.forward.cpu(), fit.chain.inverse.cpu(), grid.shape, monitor.check)
    lattice = grid.with_shape(tuple(forward.shape[2:]))
    return DisplacementField.from_voxels(forward, lattice), DisplacementField.from_voxels(inverse, grid)


def _nobody(name: str, value: Transform | Image) -> None:
    """Nobody waits for the outputs."""


def _outputs(given: _Given, transform: Transform, inverse: Transform, ready: Ready) -> tuple[Image, Image]:
    """The moving volume and the Jacobian determinant on the fixed grid; all four outputs are handed on at once."""
    watch = Part(given.monitor, "outputs", 0.88, 0.93).step
    ready("transform", transform)
    ready("inverse", inverse)
    lowest = float(given.moving.data.min())
    warped = resample(given.moving, transform, given.fixed.grid, default=lowest, watch=portion(watch, 0.0, 0.5))
    ready("warped", warped)
    jacobian = jacobian_determinant(transform, given.fixed.grid, portion(watch, 0.5, 1.0))
    ready("jacobian", jacobian)
    return warped, jacobian


def _measured(given: _Given, warped: Image, jacobian: Image, transform: Transform, inverse: Transform) -> dict:
    watch = Part(given.monitor, "metrics", 0.93, 0.97).step
    values = metrics.summary(given.fixed, given.moving, warped, jacobian, transform, inverse, given.fixed_mask, watch)
    return given.measured | values


def _pulled(landmarks: PointPairs, transform: Transform, fit: Fit, warnings: list[str]) -> dict[str, float]:
    """How far apart the given pairs are before and after; not an error of the result, which was fitted to them."""
    if not fit.curve:
        warnings.append(
            "The landmarks did not count: nothing is optimised; use DNVF, or a network with the option refine=20."
        )
    fixed, moving = (points.double() for points in landmarks)
    before, after = (fixed - moving).norm(dim=0), metrics.tre(transform, fixed, moving)
    return {"landmarks_before_mm": float(before.mean()), "landmarks_after_mm": float(after.mean())}

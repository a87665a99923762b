"""The linear stage: brings two images together from about 40 mm and 25° apart, in any contrast, on any two grids.

Centres and start rotations, compared by mutual information → the best few refined as rigid motions → local correlation
from coarse to fine, rigid and then affine → the same once more from places beside, should a better optimum lie there.
All of it again for the moving volume turned, should the two end unlike. All points lie on lattices that follow the
fixed image: nothing is random.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..devices import one_thread
from ..image import SMALLEST, Image, bounding_box, canonical, centre_of_mass, resample
from ..intensities import below_hot_spots
from ..job import Monitor, Part, Progress, choose
from ..transform import Affine
from .level import Level, Volume, averaged, make_level, translation
from .search import descend
from .similarity import (
    Cost,
    covered_correlation,
    covered_information,
    evaluate,
    local_correlation,
    mutual_information,
)

LEVEL_POINTS = (9_000, 30_000, 100_000)  # points in the box around the fixed object: 7.2, 4.8 and 3.2 mm for a brain
START_ANGLE = np.deg2rad(22.0)
REFINED_STARTS, FINALISTS = 8, 3
BESIDE = 2.0  # coarsest spacings between an optimum and where others are looked for: 14 mm in a brain, 33 mm in a trunk
CLEARLY = 0.02  # share by which another optimum must be more alike
LOST = 0.4  # mean squared local correlation below which volumes may lie turned; lost ones had up to 0.35
FAR_MORE = 0.25  # share by which a turned volume must be more alike
WORTH = 1e-5  # a gain in similarity below this is rounding
# Share of the variance that is left in means over 2 × 2 × 2 voxels, and how many of those can tell. An eighth of noise;
# measured: 0.84 inside a brain, 0.60 inside a lung, 0.33 to 0.66 inside single structures of a brain.
NOISE_SHARE, NOISE_BLOCKS = 0.2, 64
STRETCH = 1.4  # more than heads of people differ in length
ONLY_NOISE = (
    "Inside the {} mask there is nothing but noise to align the volumes by, so the start was kept; draw a mask that "
    "holds anatomy, or none."
)
KEPT = "The linear alignment found nothing better than its start; the start was kept."
TURNED = (
    "The moving volume is turned by about {:.0f} degrees against the fixed one; look whether that can be, and if not, "
    "give an initial transform."
)
STRETCHED = (
    "The linear alignment stretches the volume {:.2f} times in one direction and {:.2f} times in another; look whether "
    "that can be, and if not, give larger masks or none, or take a rigid alignment."
)


@dataclass(frozen=True)
class AffineResult:
    """Where the stage arrived, and what there is to say of it."""

    moving_from_aligned: Affine
    warning: str | None = None
    alike: float | None = None  # mean squared local correlation there, from 0 to 1


# Hundreds of steps on a few thousand points: handing each to several threads costs more than it saves (more than ten
# times as much on a busy machine) and would make the sums depend on the number of threads.
@one_thread()
def register_affine(
    fixed: Image,
    moving: Image,
    kind: str = "affine",
    *,
    fixed_mask: Image | None = None,
    moving_mask: Image | None = None,
    initial: Affine | None = None,
    monitor: Monitor | None = None,
) -> AffineResult:
    """The "rigid" or "affine" map from `fixed` to `moving` that makes them most alike, never worse than its start.

    Masks (> 0 counts) restrict what is compared. `initial` (moving_from_fixed) replaces the search for a start.
    Raises RegistrationError for an unknown `kind`, Cancelled when the monitor says so.
    """
    kind, monitor = choose("affine stage", kind, ("rigid", "affine")), monitor or Monitor()
    pair = _Pair.prepare(fixed, moving, fixed_mask, moving_mask, monitor.check)
    levels = pair.levels()
    _report(monitor, 0.1)
    references = [np.eye(4), pair.centred()] if initial is None else [initial.matrix]
    for name, image, mask in (("fixed", fixed, fixed_mask), ("moving", moving, moving_mask)):
        if mask is not None and _is_noise(image, mask):  # which has a best match, too, wherever that is
            return AffineResult(Affine(references[0]), ONLY_NOISE.format(name))
    if initial is None:
        found, note = _anywhere(pair, levels, kind, monitor)
    else:
        found, note = _descended(levels, initial.matrix, kind, monitor), None
    _report(monitor, 1.0)
    result = _never_worse(levels[-1], found, references)
    if note is None or result.warning == KEPT:
        return result
    return replace(result, warning=" ".join(filter(None, (note, result.warning))))


def _anywhere(pair: _Pair, levels: list[Level], kind: str, monitor: Monitor) -> tuple[list[np.ndarray], str | None]:
    """Matrices from coarse to fine, the last the best, and a sentence if only turning the volume made the two alike."""
    found = _searched(levels, pair.starts(), kind, Part(monitor, "affine", 0.1, 0.9))
    if -evaluate(local_correlation, levels[-1], found[-1]) >= LOST:
        return found, None
    turned = _searched(levels, pair.turned_starts(), kind, Part(monitor, "affine", 0.9, 1.0))
    if not _more_alike(levels[-1], turned[-1], found[-1], FAR_MORE):
        return found, None
    return turned, TURNED.format(_degrees(turned[-1]))


def _searched(levels: list[Level], starts: list[np.ndarray], kind: str, monitor: Monitor) -> list[np.ndarray]:
    start = _start(starts, levels, monitor)
    found = _descended(levels, start, kind, monitor)
    return found + _elsewhere(levels, found[-1], kind, start, monitor)


def _descended(levels: list[Level], start: np.ndarray, kind: str, monitor: Monitor) -> list[np.ndarray]:
    found = [descend(local_correlation, levels[1], start, "rigid", origin=start, check=monitor.check)[0]]
    for number, level in enumerate(levels[1:], 1):
        _report(monitor, 0.4 + 0.2 * number)
        found.append(descend(local_correlation, level, found[-1], kind, origin=start, check=monitor.check)[0])
    return found


def _degrees(matrix: np.ndarray) -> float:
    """The angle of the rotation in a matrix."""
    u, _, v = np.linalg.svd(matrix[:3, :3])
    return float(np.rad2deg(np.arccos(np.clip((np.trace(u @ v) - 1) / 2, -1, 1))))


def _elsewhere(levels: list[Level], at: np.ndarray, kind: str, start: np.ndarray, monitor: Monitor) -> list[np.ndarray]:
    """A clearly better optimum beside the one at hand, or nothing: trunks look alike a vertebra further up."""

    def descended(matrix: np.ndarray, level: Level) -> np.ndarray:
        return descend(local_correlation, level, matrix, kind, origin=start, check=monitor.check)[0]

    shifts = BESIDE * levels[0].spacing * np.concatenate((np.eye(3), -np.eye(3)))
    ends = [descended(translation(shift) @ at, levels[0]) for shift in shifts]
    other = _best(ends, covered_correlation, levels[1], 1)[0]
    if levels[0].distance(other, at) < levels[1].spacing:
        return []
    for level in levels[1:]:
        other = descended(other, level)
    return [other] if _more_alike(levels[-1], other, at, CLEARLY) else []


def _more_alike(level: Level, other: np.ndarray, at: np.ndarray, share: float) -> bool:
    """Whether `other` makes the images more alike than `at` does, by this share at least."""
    return evaluate(covered_correlation, level, other) < (1 + share) * evaluate(covered_correlation, level, at)


def _report(monitor: Monitor, fraction: float) -> None:
    monitor.check()
    monitor.report(Progress("affine", fraction))


def _is_noise(image: Image, mask: Image) -> bool:
    """Whether neighbouring voxels inside the mask have nothing in common."""
    inside = (resample(mask, lambda points: points, image.grid, "nearest").data[:1] > 0).float()[None]
    values = torch.nan_to_num(image.data[None, :1].float(), posinf=0.0, neginf=0.0)
    known = values[inside > 0]
    blocks = F.avg_pool3d(values, 2)[F.avg_pool3d(inside, 2) == 1]
    if len(blocks) < NOISE_BLOCKS or float(known.var()) == 0:
        return False
    return float(blocks.var() / known.var()) < NOISE_SHARE


def _never_worse(level: Level, found: list[np.ndarray], references: list[np.ndarray]) -> AffineResult:
    """The last of the matrices found that improves on the starts, else the best of the starts.

    Within masks the finest may not, where the rigid one does: it has left those of the moving image.
    """
    costs = [evaluate(covered_correlation, level, reference) for reference in references]
    best = int(np.argmin(costs))
    better = [m for m in found if evaluate(covered_correlation, level, m) < costs[best] - WORTH]
    matrix = better[-1] if better else references[best]
    warning = _stretched(matrix, references) if better else KEPT
    return AffineResult(Affine(matrix), warning, -evaluate(local_correlation, level, matrix))


def _stretched(matrix: np.ndarray, references: list[np.ndarray]) -> str | None:
    """A sentence where a map stretches more than the start did, and more than one anatomy differs from another."""
    scales = np.linalg.svd(matrix[:3, :3] @ np.linalg.inv(references[0][:3, :3]), compute_uv=False)
    return STRETCHED.format(scales.max(), scales.min()) if max(scales.max(), 1 / scales.min()) > STRETCH else None


@dataclass(frozen=True)
class _Pair:
    """Both images, the box (lowest, highest fixed index, x y z) around the fixed object, and centres of both."""

    fixed: Volume
    moving: Volume
    box: tuple[np.ndarray, np.ndarray]
    objects: tuple[np.ndarray, np.ndarray]  # centres of mass, LPS mm
    grids: tuple[np.ndarray, np.ndarray]  # centres of the fields of view, LPS mm

    @classmethod
    def prepare(cls, fixed, moving, fixed_mask, moving_mask, check) -> _Pair:
        field_mm = np.array(fixed.grid.size) * fixed.grid.spacing
        spacing = 0.6 * (np.prod(field_mm) / LEVEL_POINTS[-1]) ** (1 / 3)
        f = _volume(fixed, fixed_mask, spacing)
        check()
        m = _volume(moving, moving_mask, spacing)
        check()
        # One mask alone would shift the centre of one object only.
        by_mask = fixed_mask is not None and moving_mask is not None
        masses = [v.inside if by_mask else _contrast(v) for v in (f, m)]
        low, high = bounding_box((f.inside if fixed_mask is not None else masses[0]) > 0.1)
        objects = tuple(v.grid.place(centre_of_mass(mass.double())) for v, mass in zip((f, m), masses, strict=True))
        return cls(f, m, (low, high - 1), objects, (fixed.grid.center, moving.grid.center))

    def levels(self) -> list[Level]:
        low, high = self.box
        volume_mm = np.prod((high - low + 1) * self.fixed.grid.spacing)
        finest = float(self.fixed.grid.spacing.min())
        spacings = [max((volume_mm / n) ** (1 / 3), finest) for n in LEVEL_POINTS]
        return [self._level(s) for s in spacings]

    def _level(self, spacing: float) -> Level:
        fixed, moving = (v.coarser(0.8 * spacing).smoothed() for v in (self.fixed, self.moving))
        index_from_index = fixed.grid.index_from_world @ self.fixed.grid.world_from_index
        low, high = ((index_from_index @ np.append(end, 1.0))[:3] for end in self.box)
        return make_level(fixed, moving, spacing, low, high)

    def centred(self) -> np.ndarray:
        return _about(*self.objects, np.eye(3))

    def starts(self) -> list[np.ndarray]:
        """Rotations about the axes of the fixed grid, with centres of mass or of the fields of view brought together,
        or with the images where their files place them."""
        return self._starts([self.objects, self.grids, (self.objects[0], self.objects[0])], _rotations())

    def turned_starts(self) -> list[np.ndarray]:
        """The other 23 ways to lay a box upon itself: for a volume of which the file says what lies where wrongly."""
        return self._starts([self.objects, self.grids], _turns_of_a_cube())

    def _starts(self, centres, rotations) -> list[np.ndarray]:
        u, _, v = np.linalg.svd(self.fixed.grid.direction)  # a sheared lattice has no rotation of its own: the nearest
        axes = u @ v
        return [_about(*pair, axes @ turn @ axes.T) for pair in centres for turn in rotations]


def _about(fixed_point: np.ndarray, moving_point: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, moving_point - rotation @ fixed_point
    return matrix


def _rotations() -> list[np.ndarray]:
    """No rotation first, then START_ANGLE about each axis, edge and corner direction of a cube: 27 in all."""
    turns = sorted(itertools.product((-1.0, 0.0, 1.0), repeat=3), key=lambda turn: np.abs(turn).sum())
    out = []
    for turn in turns:
        x, y, z = np.array(turn) * START_ANGLE / max(np.linalg.norm(turn), 1.0)
        cross = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
        out.append(torch.linalg.matrix_exp(cross).numpy())
    return out


def _turns_of_a_cube() -> list[np.ndarray]:
    signed = (
        np.array(signs)[:, None] * np.eye(3)[list(order)]
        for order in itertools.permutations(range(3))
        for signs in itertools.product((1.0, -1.0), repeat=3)
    )
    return [turn for turn in signed if np.linalg.det(turn) > 0 and np.trace(turn) < 3]


def _start(starts: list[np.ndarray], levels: list[Level], monitor: Monitor) -> np.ndarray:
    """The most promising rigid start: many compared, some refined, the finalists judged by local correlation."""
    promising = _best(starts, covered_information, levels[0], REFINED_STARTS)
    refined = [descend(mutual_information, levels[0], m, "rigid", 15, check=monitor.check)[0] for m in promising]
    _report(monitor, 0.4)
    best = _best(refined, covered_information, levels[0], FINALISTS)
    finalists = [descend(local_correlation, levels[0], m, "rigid", check=monitor.check)[0] for m in best]
    return _best(finalists, covered_correlation, levels[1], 1)[0]


def _best(matrices: list[np.ndarray], cost: Cost, level: Level, count: int) -> list[np.ndarray]:
    costs = [evaluate(cost, level, matrix) for matrix in matrices]
    return [matrices[index] for index in np.argsort(costs, kind="stable")[:count]]


def _volume(image: Image, mask: Image | None, spacing: float) -> Volume:
    """The first channel of an image averaged towards `spacing` mm, intensities mapped to [0, 1], NaN as background."""
    image = canonical(image)
    data = image.data[:1].float()
    if not bool(torch.isfinite(data.sum())):
        finite = data[torch.isfinite(data)]
        data = torch.nan_to_num(data, *[float(finite.min()) if finite.numel() else 0.0] * 3)
    if mask is None:
        values, grid = averaged(data[None], image.grid, spacing)
        inside = torch.ones_like(values)
    else:
        full = (resample(mask, lambda points: points, image.grid, "nearest").data[:1] > 0).float()
        values, grid = averaged((data * full)[None], image.grid, spacing)
        inside, _ = averaged(full[None], image.grid, spacing)
        values = values / inside.clamp(min=1e-6)
    known = values[inside > 0.5]
    low, high = _intensity_range((known if known.numel() else values).numpy().ravel())
    masked = values.where(inside > 0.5, low)  # with its surroundings: a mask's darkest quarter is body, not noise
    high = below_hot_spots(np.sort(masked.numpy(), axis=None), low, high)
    values = ((values - low) / max(high - low, SMALLEST)).clamp(0, 1)
    return Volume(torch.cat((values * inside, inside), dim=1), grid)


def _intensity_range(values: np.ndarray) -> tuple[float, float]:
    """Robust minimum and maximum, without the value far below all others that scanners write outside their bore."""
    low, high = _percentiles(values)
    bore = values <= values.min() + 0.005 * (high - values.min())
    if bore.mean() > 0.001 and not bore.all():
        above, _ = _percentiles(values[~bore])
        low = above if above - low > 0.15 * (high - low) else low
    return low, high


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    ranks = [round(p * (values.size - 1)) for p in (0.005, 0.995)]
    low, high = np.partition(values, ranks)[ranks]
    return float(low), float(high)


def _contrast(volume: Volume) -> Tensor:  # -> (D, H, W)
    """How far each voxel is from the background, which is the median over the faces of the field of view."""
    v = volume.values
    faces = torch.cat([v[[0, -1]].flatten(), v[:, [0, -1]].flatten(), v[:, :, [0, -1]].flatten()])
    return (v - faces.median()).abs() * volume.inside

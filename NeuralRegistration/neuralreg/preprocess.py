"""From two volumes to a pair of tensors on one working grid: lattice, intensities, weights.

The working grid follows the fixed volume's own axes in canonical order, so neither the storage order of the voxels nor
the orientation of the patient in the world changes what the methods see.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from .image import SMALLEST, Grid, Image, Watch, canonical, portion, resample, slabs
from .intensities import HU_SHARE, intensity_range, is_ct, quantile, some_sorted
from .job import RegistrationError
from .pyramid import Images, Landmarks

if TYPE_CHECKING:
    from .transform import Transform

PointPairs = tuple[torch.Tensor, torch.Tensor]  # fixed and moving, (3, n) each, LPS mm

HU_FAT = -50.0
HU_TISSUE, HU_SPREAD = 40.0, 30.0  # soft tissue, and within how much of it Hounsfield units keep most of their distance
FEWEST_VOXELS = 64  # of the working grid that both volumes must show
# A mask of so few finds no alignment. Measured: masks of a hundred to some hundreds ended up to 60 mm away.
FEWEST_MASKED = 500
# Of what a volume shows. A mask of both hippocampi and a margin found them from 5 % of the brain on, and not at 1.5 %.
SMALL_MASK = 0.05
MASKED_WRONGLY = (
    "if it marks what shall not count, such as a tumour, invert it; if it marks what shall, draw it with plenty of its "
    "surroundings."
)
MARGIN_VOXELS = 6  # room around the body in which the field falls to zero


@dataclass(frozen=True, eq=False)
class Pair:
    """What a method registers: both images in [0, 1] on the working grid, already linearly aligned; weights in [0, 1].

    A weight is None where every voxel of the grid counts.
    """

    fixed: Image
    moving: Image
    fixed_weight: Image | None = None
    moving_weight: Image | None = None
    landmarks: Landmarks | None = None

    @property
    def grid(self) -> Grid:
        return self.fixed.grid

    def images(self, device: str) -> Images:
        """The pair as tensors (1, 1, D, H, W) on a device."""
        parts = (self.fixed, self.moving, self.fixed_weight, self.moving_weight)
        tensors = (None if part is None else part.data[None].to(device) for part in parts)
        placed = self.landmarks and Landmarks(*(p.to(device) for p in (self.landmarks.fixed, self.landmarks.moving)))
        return Images(*tensors, tuple(self.grid.spacing), placed)


def working_grid(fixed: Image, max_voxels: int, mask: Image | None = None) -> Grid:
    """The lattice on which a pair is registered: the fixed volume's, cropped to the body, coarsened to `max_voxels`.

    A margin of MARGIN_VOXELS beyond the body (beyond the volume too, where the body is cut off) lets the field reach
    zero at the border. `mask`, where given, is kept inside as well.
    """
    image = canonical(fixed)
    low, high = _content_box(image.data[0])
    if mask is not None:
        low_mask, high_mask = _nonzero_box(canonical(mask).data[0])
        low, high = np.minimum(low, low_mask), np.maximum(high, high_mask)
    spacing = image.grid.spacing
    target = spacing.min()
    box = (high - low) * spacing
    while _voxels(box, np.maximum(spacing, target)) > max_voxels:
        target *= 1.05
    new_spacing = np.where(spacing * 1.02 >= target, spacing, target)
    margin = np.ceil(MARGIN_VOXELS * max(target, spacing.min()) / spacing).astype(int)
    margin = np.maximum(margin, 2)  # thick slices too need room over which velocities fall to zero
    cropped = image.grid.cropped(low - margin, high + margin)
    if np.array_equal(new_spacing, spacing):
        return cropped
    size = np.round((np.array(cropped.size) - 1) * spacing / new_spacing).astype(int) + 1
    return cropped.with_shape(tuple(size[::-1]))


def _voxels(box_mm: np.ndarray, spacing: np.ndarray) -> float:
    return float(np.prod(box_mm / spacing + 2 * MARGIN_VOXELS))


def _content_box(data: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """First index and last + 1 (x, y, z) of the voxels brighter than the background."""
    return _nonzero_box(data > _darkest_content(data))


def _darkest_content(data: torch.Tensor) -> float:
    low, high = intensity_range(data)
    return low + 0.04 * (high - low)


def check_mask(image: Image, mask: Image, name: str, warnings: list[str]) -> None:
    """A warning for a mask, on the grid of its image, that leaves little of what the image shows: often one that was
    meant the other way round. Raises RegistrationError where nothing could be registered by it."""
    darkest, shown, kept, voxels = _darkest_content(image.data[0]), 0, 0, 0
    for first, last in slabs(image.grid.shape):
        content, inside = image.data[0, first:last] > darkest, mask.data[0, first:last] > 0
        shown, voxels = shown + int(content.count_nonzero()), voxels + int(inside.count_nonzero())
        kept += int((content & inside).count_nonzero())
    if voxels < FEWEST_MASKED:
        raise RegistrationError(
            f"The {name} mask holds {voxels} voxels, and at least {FEWEST_MASKED} are needed: {MASKED_WRONGLY}"
        )
    if kept < SMALL_MASK * shown:
        warnings.append(
            f"The {name} mask holds only {100 * kept / shown:.2g} % of what the {name} volume shows, and nothing else "
            f"counted: {MASKED_WRONGLY}"
        )


def _nonzero_box(content: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    low, high = [], []
    for counts in _filled(content):
        # A few stray voxels (noise, a table) must not keep half of an empty volume.
        filled = torch.nonzero(counts > 1e-3 * counts.sum() / len(counts)).flatten()
        low.append(int(filled[0]) if len(filled) else 0)
        high.append(int(filled[-1]) + 1 if len(filled) else len(counts))
    return np.array(low), np.array(high)


def _filled(content: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """How many voxels above 0 the planes across x, y and z have. Slab by slab: to add, torch takes 8 bytes a voxel."""
    plane, along = torch.zeros(content.shape[1:], dtype=torch.int64), []
    for first, last in slabs(tuple(content.shape)):
        part = content[first:last] > 0
        plane += part.sum(0)
        along.append(part.sum((1, 2)))
    return plane.sum(0), plane.sum(1), torch.cat(along)


def normalised(image: Image, soft_tissue: bool = False) -> Image:
    """Intensities mapped linearly to [0, 1] by `intensity_range`, with some headroom; NaN and Inf become 0.

    `soft_tissue`, of a CT, gives two thirds of the range to what lies within 200 HU of soft tissue, with the inverse
    hyperbolic sine: linearly, grey and white matter are a 190th of it apart. Healthy lung then looks like air.
    """
    low, high = intensity_range(image.data[0])
    data = torch.nan_to_num(image.data[:1].float(), nan=low, posinf=low, neginf=low)  # the one copy; large in a CT
    if soft_tissue:
        data = data.sub_(HU_TISSUE).div_(HU_SPREAD).asinh_()
        low, high = (math.asinh((v - HU_TISSUE) / HU_SPREAD) for v in (low, high))
    return Image(data.sub_(low).div_(max(high - low, SMALLEST)).clamp_(0.0, 1.2), image.grid)


def _to_soft_tissue(volume: Image, other: Image) -> bool:
    """Whether `volume` is a CT and `other` none, not even a crop without air: what it shares with MR is soft tissue."""
    return is_ct(volume.data[0]) and quantile(some_sorted(other.data[0]), HU_SHARE) > HU_FAT


def make_pair(
    fixed: Image,
    moving: Image,
    moving_from_fixed: Transform,
    grid: Grid,
    fixed_mask: Image | None = None,
    moving_mask: Image | None = None,
    watch: Watch | None = None,
) -> Pair:
    """Both volumes on the working grid, the moving one through its linear (or initial) alignment.

    Raises RegistrationError when the volumes do not share any space under that alignment.
    """
    stay = lambda points: points  # noqa: E731
    watches = [portion(watch, share, share + 0.25) for share in (0.0, 0.25, 0.5, 0.75)]
    # In canonical axes: else the last digits depend on the storage, and a fit makes hundredths of a mm of them.
    soft = _to_soft_tissue(fixed, moving), _to_soft_tissue(moving, fixed)
    fixed_part = _read(normalised(canonical(fixed), soft[0]), stay, grid, watches[0])
    moving_part = _read(normalised(canonical(moving), soft[1]), moving_from_fixed, grid, watches[1])
    fixed_weight = _view(fixed, fixed_mask, stay, grid, watches[2])
    moving_weight = _view(moving, moving_mask, moving_from_fixed, grid, watches[3])
    shared = int((fixed_weight.data * moving_weight.data).sum())
    if shared < FEWEST_MASKED and (fixed_mask is not None or moving_mask is not None):
        raise RegistrationError(
            f"Inside the masks the volumes share {shared} of the {FEWEST_MASKED} voxels that are needed; draw larger "
            "masks or none, or switch on the affine stage."
        )
    if shared < FEWEST_VOXELS:
        raise RegistrationError(
            "The volumes do not overlap in physical space; centre them, switch on the affine stage, which does it, or"
            " correct the initial transform."
        )
    return Pair(fixed_part, moving_part, _unless_full(fixed_weight), _unless_full(moving_weight))


def with_landmarks(pair: Pair, landmarks: PointPairs, moving_from_aligned: Transform, warnings: list[str]) -> Pair:
    """The pair with fixed and moving points (3, n) ×2 in LPS mm, those outside the working grid left out with a note.

    Raises RegistrationError for points that are no pairs or of which none lies in the working grid.
    """
    if any(p.ndim != 2 or p.shape[0] != 3 for p in landmarks) or landmarks[0].shape != landmarks[1].shape:
        raise RegistrationError(
            "Landmarks are pairs: give as many fixed as moving points, in the same order, three coordinates each."
        )
    last = torch.tensor(pair.grid.size, dtype=torch.float64).view(3, 1) - 1
    places = (landmarks[0].double(), moving_from_aligned.inverse()(landmarks[1].double()))
    fixed, moving = (pair.grid.indices(points) / last for points in places)
    inside = ((fixed >= 0) & (fixed <= 1) & (moving >= 0) & (moving <= 1)).all(0)
    if not bool(inside.any()):
        raise RegistrationError("No landmark pair lies in the images; check that the point files belong to them.")
    if not bool(inside.all()):
        count = f"{int((~inside).sum())} of {len(inside)}"
        warnings.append(f"{count} landmark pairs lie outside the images and do not count.")
    placed = (points[:, inside].float().view(1, 3, 1, 1, -1) for points in (fixed, moving))
    return replace(pair, landmarks=Landmarks(*placed))


def _read(image: Image, image_from_grid, grid: Grid, watch: Watch | None) -> Image:
    """`image` on the grid; smoothed first where the grid is much coarser, lest detail turn into noise."""
    return resample(coarsened(image, grid.spacing.min()), image_from_grid, grid, watch=watch)


def coarsened(image: Image, spacing: float) -> Image:
    """Means over blocks of about `spacing` mm; the image itself where its voxels are as large."""
    factors = np.floor(spacing / image.grid.spacing + 0.3).astype(int)
    return shrunk(image, np.maximum(factors, 1)) if factors.max() > 1 else image


def shrunk(image: Image, factors: np.ndarray) -> Image:
    """Means over blocks of `factors` (x, y, z) voxels; what is left at the far border is a smaller block."""
    kernel = tuple(int(min(f, n)) for f, n in zip(factors[::-1], image.grid.shape, strict=True))
    data = torch.nn.functional.avg_pool3d(image.data[None], kernel, ceil_mode=True, count_include_pad=False)[0]
    matrix = image.grid.world_from_index.copy()
    matrix[:3, 3] += matrix[:3, :3] @ ((np.array(kernel[::-1]) - 1) / 2)
    matrix[:3, :3] = matrix[:3, :3] * np.array(kernel[::-1])
    return Image(data, Grid(tuple(data.shape[1:]), matrix))


def _view(image: Image, mask: Image | None, image_from_grid, grid: Grid, watch: Watch | None) -> Image:
    """1 where the image (and its mask) is seen from the grid, 0 elsewhere."""
    seen = _field_of_view(image.grid) if mask is None else Image(mask.data[:1], mask.grid)
    weight = resample(seen, image_from_grid, grid, "nearest", watch=watch)
    return Image((weight.data > 0).float(), grid)


def _field_of_view(grid: Grid) -> Image:
    """The field of view as one voxel of value 1: read by nearest neighbour it ends where the grid's voxels end."""
    matrix = grid.world_from_index.copy()
    matrix[:3, :3], matrix[:3, 3] = matrix[:3, :3] * np.array(grid.size), grid.center
    return Image(torch.ones(1, 1, 1, 1), Grid((1, 1, 1), matrix))


def _unless_full(weight: Image) -> Image | None:
    return None if bool((weight.data > 0).all()) else weight

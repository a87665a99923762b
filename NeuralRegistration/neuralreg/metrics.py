"""How good a registration is: pure functions on label maps, transforms and images.

Every quantity about the transform is taken on the fixed lattice and inside a mask of it. `moving_from_fixed` is the map
that resamples the moving image; its Jacobian determinant J is above 1 where a structure is larger in the moving image.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
import torch
from torch import Tensor

from . import sampling
from .body import body_mask, percentiles
from .diffeomorphism import inner_tetrahedra
from .image import Grid, Image, Watch, portion, resample, slabs
from .losses import box_mean
from .transform import Affine, DisplacementField, Transform

LOG_FLOOR = 1e-9  # where J ≤ 0 its logarithm is that of this number, as in the Learn2Reg challenge
HISTOGRAM_BINS = 32
CONTENT = 0.05  # of normalised intensities: what is darker is background
SLAB_CELLS = 300_000  # the ten determinants of a slab stay in the processor cache: six times as fast as in one go


# Overlap and distance of labels ---------------------------------------------------------------------------------------


def dice(fixed: Tensor, warped: Tensor, labels: Iterable[int] | None = None) -> dict[int, float]:
    """2|A∩B| / (|A|+|B|) for every label of two label maps (D, H, W); by default for all that occur, 0 excepted.

    A label that only one map has scores 0, one that neither has is left out.
    """
    present = np.array(sorted({0, *_labels(fixed, warped)}))
    # Labels are counted by rank: they may be negative, or millions apart.
    a, b = (np.searchsorted(present, _label_array(v)).ravel() for v in (fixed, warped))
    in_a, in_b, common = (np.bincount(v, minlength=len(present)) for v in (a, b, a[a == b]))
    scores = {int(label): 2 * c / (p + q) for label, c, p, q in zip(present, common, in_a, in_b, strict=True) if p + q}
    wanted = set(present.tolist()) - {0} if labels is None else set(labels)
    return {label: float(scores[label]) for label in sorted(wanted & set(scores))}


def hd95(fixed: Tensor, warped: Tensor, spacing, labels: Iterable[int] | None = None) -> dict[int, float]:
    """Hausdorff distance in mm at the 95th percentile for every label of two label maps (D, H, W).

    The larger of the two directed percentiles, between surface voxels (those with a face neighbour outside the label).
    spacing: (x, y, z) in mm. A label that one of the maps lacks has no distance and is left out.
    """
    arrays = [_label_array(v) for v in (fixed, warped)]
    boxes = [_bounding_boxes(a) for a in arrays]
    wanted = set(boxes[0]) & set(boxes[1])
    wanted = sorted(wanted if labels is None else wanted & set(labels))
    return {label: _hd95_of_one(arrays, [b[label] for b in boxes], label, spacing) for label in wanted}


def _hd95_of_one(arrays, boxes, label: int, spacing) -> float:
    low = np.minimum(boxes[0][0], boxes[1][0])
    high = np.maximum(boxes[0][1], boxes[1][1])
    masks = [np.pad(a[tuple(slice(p, q) for p, q in zip(low, high, strict=True))] == label, 1) for a in arrays]
    surfaces = [m & ~_eroded(m) for m in masks]
    distances = []
    for one, other in ((0, 1), (1, 0)):
        volume = sitk.GetImageFromArray(surfaces[other].astype(np.uint8))
        volume.SetSpacing([float(s) for s in spacing])
        far = sitk.SignedMaurerDistanceMap(volume, insideIsPositive=False, squaredDistance=False, useImageSpacing=True)
        distances.append(np.percentile(np.abs(sitk.GetArrayViewFromImage(far)[surfaces[one]]), 95))
    return float(max(distances))


def _eroded(mask: np.ndarray) -> np.ndarray:
    """Voxels whose six face neighbours are all in the mask; the mask must not touch the array's border."""
    inner = mask.copy()
    for axis in range(3):
        inner &= np.roll(mask, 1, axis) & np.roll(mask, -1, axis)
    return inner


def _bounding_boxes(labels: np.ndarray) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """{label: (first, last + 1)} as z, y, x indices."""
    shapes = sitk.LabelShapeStatisticsImageFilter()
    shapes.Execute(sitk.GetImageFromArray(labels.astype(np.uint32)))
    boxes = {}
    for label in shapes.GetLabels():
        first = np.array(shapes.GetBoundingBox(label)[:3][::-1])
        boxes[int(label)] = (first, first + np.array(shapes.GetBoundingBox(label)[3:][::-1]))
    return boxes


def _label_array(labels: Tensor) -> np.ndarray:
    return np.asarray(labels.detach().cpu().numpy()).round().astype(np.int64)


def _labels(*maps: Tensor) -> list[int]:
    return sorted({int(v) for m in maps for v in torch.unique(m).tolist()} - {0})


# Points and displacement ----------------------------------------------------------------------------------------------


def tre(moving_from_fixed: Transform, fixed_points: Tensor, moving_points: Tensor) -> Tensor:
    """Distance in mm of each mapped fixed landmark from its moving partner; (3, n) ×2 LPS mm -> (n,) float64."""
    mapped = moving_from_fixed(fixed_points.double())
    return (mapped - moving_points.double()).norm(dim=0)


def inverse_consistency_mm(
    moving_from_fixed: Transform,
    fixed_from_moving: Transform,
    grid: Grid,
    mask: Tensor,
    watch: Watch | None = None,
) -> tuple[float, float]:
    """Mean and largest |φ⁻¹(φ(x)) − x| in mm over the voxels of `mask` (D, H, W bool)."""
    lengths = _Moments()
    for first, last in grid.slabs(watch):
        points = grid.points(first, last)[:, mask[first:last]].reshape(3, 1, 1, -1)
        if points.numel():
            lengths.add((fixed_from_moving(moving_from_fixed(points)) - points).norm(dim=0))
    return lengths.mean, lengths.largest


@dataclass
class _Moments:
    """Mean, deviation and range of numbers that come in portions; all 0 where there are none."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    smallest: float = 0.0
    largest: float = 0.0

    def add(self, values: Tensor) -> None:
        if not values.numel():
            return
        values, low, high = values.double(), float(values.min()), float(values.max())
        self.smallest = min(self.smallest, low) if self.count else low
        self.largest = max(self.largest, high) if self.count else high
        self.count += values.numel()
        self.total += float(values.sum())
        self.squares += float(values.square().sum())

    @property
    def mean(self) -> float:
        return self.total / max(self.count, 1)

    @property
    def deviation(self) -> float:
        return max(self.squares / max(self.count, 1) - self.mean**2, 0.0) ** 0.5


# Regularity -----------------------------------------------------------------------------------------------------------


def folds_percent(jacobian: Tensor, mask: Tensor) -> float:
    """Share of the voxels of `mask` with J ≤ 0, in percent; both (D, H, W)."""
    return 100.0 * int(((jacobian <= 0) & mask).sum()) / max(int(mask.sum()), 1)


def sdlogj(jacobian: Tensor, mask: Tensor) -> float:
    """Standard deviation of log J over `mask`; J below 1e-9 counts as 1e-9. Both (D, H, W)."""
    logarithms = _Moments()
    for first, last in slabs(mask.shape):
        logarithms.add(jacobian[first:last][mask[first:last]].double().clamp(min=LOG_FLOOR).log())
    return logarithms.deviation


def non_diffeomorphic_volume(displacement_vox: Tensor, mask: Tensor) -> tuple[float, float]:
    """Volume that the digital transformation turns inside out: in voxels, and in percent of the cells looked at.

    Liu et al., "On finite difference Jacobian computation in deformable image registration", IJCV 2024, precisely:
    a cell of the lattice (the cube between eight voxel centres) can be cut into five tetrahedra in two ways, each with
    one tetrahedron through four alternate corners and one at each of the four other corners. After moving the corners
    by the displacement, a tetrahedron with edges e₁, e₂, e₃ from one corner has the signed volume det(e₁, e₂, e₃) / 6;
    the digital transformation is a diffeomorphism where all ten are positive. The volume is Σ ½ max(0, −det / 6) over
    the ten tetrahedra of all cells of which at least one corner lies in `mask`; the half is there because each way of
    cutting fills the cell once. Central differences skip the middle voxel and miss folds that this sees.

    displacement_vox: (1, 3, D, H, W) in voxels of its own lattice. mask: (D, H, W) bool.
    """
    negative, cells = _inside_out(displacement_vox, mask)
    return negative, 100.0 * negative / max(cells, 1)


def _inside_out(displacement_vox: Tensor, mask: Tensor) -> tuple[float, int]:
    """The volume in voxels, and the number of cells looked at."""
    negative, cells = 0.0, 0
    depth = displacement_vox.shape[2]
    step = max(1, SLAB_CELLS // (displacement_vox.shape[3] * displacement_vox.shape[4]))
    for first in range(0, depth - 1, step):
        last = min(first + step, depth - 1) + 1  # a slab of cells needs one slice of corners more
        inside = _cells_touching(mask[first:last])
        cells += int(inside.sum())
        part = displacement_vox[:, :, first:last]
        for determinants in (*sampling.corner_determinants(part).split(1, dim=1), *inner_tetrahedra(part)):
            if float(determinants.min()) < 0:  # rarely: picking the cells of the mask costs more than the determinants
                negative += float((-determinants[0, 0][inside]).clamp(min=0).double().sum()) / 12.0
    return negative, cells


def _cells_touching(mask: Tensor) -> Tensor:  # (D, H, W) -> (D-1, H-1, W-1) bool
    """Cells with at least one corner in the mask."""
    for dim in range(3):
        mask = mask.narrow(dim, 0, mask.shape[dim] - 1) | mask.narrow(dim, 1, mask.shape[dim] - 1)
    return mask


def regularity(
    moving_from_fixed: Transform, jacobian: Image, mask: Tensor, watch: Watch | None = None
) -> dict[str, float]:
    """Folds, non-diffeomorphic volume, SDlogJ, range of J and displacement over `mask`, on the Jacobian's grid."""
    determinant, grid = jacobian.data[0], jacobian.grid
    lengths, range_of_j, negative, cells = _Moments(), _Moments(), 0.0, 0
    for first, last in grid.slabs(watch):
        end = min(last + 1, grid.shape[0])  # the cells between this slab and the next
        points = grid.points(first, end)
        part = DisplacementField(
            (moving_from_fixed(points) - points).float(), grid.cropped((0, 0, first), (*grid.size[:2], end))
        )
        found = _inside_out(part.to_voxels(), mask[first:end])
        negative, cells = negative + found[0], cells + found[1]
        inside = mask[first:last]
        lengths.add(part.mm[:, : last - first].norm(dim=0)[inside])
        range_of_j.add(determinant[first:last][inside])
    return {
        "folds_percent": folds_percent(determinant, mask),
        "folds_in_view": int((determinant <= 0).sum()),
        "non_diffeomorphic_volume_voxels": negative,
        "non_diffeomorphic_volume_percent": 100.0 * negative / max(cells, 1),
        "sdlogj": sdlogj(determinant, mask),
        "jacobian_min": range_of_j.smallest,
        "jacobian_max": range_of_j.largest,
        "displacement_mean_mm": lengths.mean,
        "displacement_max_mm": lengths.largest,
    }


# Similarity -----------------------------------------------------------------------------------------------------------


def ncc(fixed: Tensor, warped: Tensor, mask: Tensor, watch: Watch | None = None) -> float:
    """Pearson correlation of two images over `mask`; 0 where one of them is constant. All (D, H, W)."""
    count, sums = 0, np.zeros(5)
    for first, last in slabs(mask.shape, watch):
        a, b = (v[first:last][mask[first:last]].double() for v in (fixed, warped))
        count += len(a)
        sums += [float(values) for values in (a.sum(), b.sum(), a @ a, b @ b, a @ b)]
    mean_a, mean_b, aa, bb, ab = sums / max(count, 1)
    variances = aa - mean_a**2, bb - mean_b**2
    if min(variances[0] - 1e-12 * aa, variances[1] - 1e-12 * bb) <= 0:
        return 0.0
    return float((ab - mean_a * mean_b) / np.sqrt(variances[0] * variances[1]))


def mean_local_correlation(fixed: Tensor, warped: Tensor, window: int = 7) -> float:
    """Mean signed correlation within windows of window³ voxels, where both images have content; (1, 1, D, H, W) ×2.

    Two images of one contrast agree in the sign of their local differences, two contrasts do not; a common outline,
    which dominates the correlation over the whole image, hardly counts. 1 where there is no content to compare.
    """
    mean = lambda values: box_mean(values, window)  # noqa: E731
    content = (fixed > CONTENT) & (warped > CONTENT)
    if not bool(content.any()):
        return 1.0
    mean_f, mean_w = mean(fixed), mean(warped)
    covariance = mean(fixed * warped) - mean_f * mean_w
    variances = [(mean(v * v) - m * m).clamp(min=1e-5) for v, m in ((fixed, mean_f), (warped, mean_w))]
    return float((covariance / (variances[0] * variances[1]).sqrt())[content].mean())


def mutual_information(
    fixed: Tensor, warped: Tensor, mask: Tensor, bins: int = HISTOGRAM_BINS, watch: Watch | None = None
) -> float:
    """h(F) + h(W) − h(F, W) in nats from a joint histogram over `mask`, each image clipped to its 0.5–99.5 % range."""
    images = [(image, *percentiles(image, mask)) for image in (fixed, warped)]
    joint = torch.zeros(bins * bins, dtype=torch.float64)
    for first, last in slabs(mask.shape, watch):
        inside = mask[first:last]
        rows, columns = (
            ((v[first:last][inside].double() - low) / max(high - low, 1e-12) * bins).long().clamp(0, bins - 1)
            for v, low, high in images
        )
        joint += torch.bincount(rows * bins + columns, minlength=bins * bins)
    joint = joint.view(bins, bins) / joint.sum().clamp(min=1.0)
    independent = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
    filled = joint > 0
    return float((joint[filled] * (joint[filled] / independent[filled]).log()).sum())


def agreement(fixed: Image, before: Image, after: Image, mask: Tensor, watch: Watch | None = None) -> dict[str, float]:
    """Correlation and mutual information with the fixed image before and after; three images on one grid."""
    values = {}
    for start, when, image in ((0.0, "before", before), (0.5, "after", after)):
        parts = [portion(watch, start + share, start + share + 0.25) for share in (0.0, 0.25)]
        values[f"ncc_{when}"] = ncc(fixed.data[0], image.data[0], mask, parts[0])
        values[f"mutual_information_{when}"] = mutual_information(fixed.data[0], image.data[0], mask, watch=parts[1])
    return values


def summary(
    fixed: Image,
    moving: Image,
    warped: Image,
    jacobian: Image,
    moving_from_fixed: Transform,
    fixed_from_moving: Transform,
    fixed_mask: Image | None,
    watch: Watch | None = None,
) -> dict[str, float]:
    """Everything that can be said of a registration without labels or landmarks; `fixed_mask` or the body counts."""
    mask = body_mask(fixed, portion(watch, 0.0, 0.1)) if fixed_mask is None else fixed_mask.data[0] > 0
    mean, largest = inverse_consistency_mm(
        moving_from_fixed, fixed_from_moving, fixed.grid, mask, portion(watch, 0.1, 0.3)
    )
    lowest = float(moving.data.min())
    before = resample(moving, Affine.identity(), fixed.grid, default=lowest, watch=portion(watch, 0.3, 0.4))
    return {
        **agreement(fixed, before, warped, mask, portion(watch, 0.4, 0.6)),
        **regularity(moving_from_fixed, jacobian, mask, portion(watch, 0.6, 1.0)),
        "inverse_consistency_mean_mm": mean,
        "inverse_consistency_max_mm": largest,
        "largest_voxel_mm": float(np.max(fixed.grid.spacing)),
    }

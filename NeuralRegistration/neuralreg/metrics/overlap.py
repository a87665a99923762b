"""Overlap and distance of label maps."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import SimpleITK as sitk
import torch
from torch import Tensor


def dice(fixed: Tensor, warped: Tensor, labels: Iterable[int] | None = None) -> dict[int, float]:
    """2|A∩B| / (|A|+|B|) for every label of two label maps (D, H, W); by default for all that occur, 0 excepted.

    A label that only one map has scores 0, one that neither has is left out.
    """
    present, ranked = _ranked(fixed, warped)
    a, b = (ranks.ravel() for ranks in ranked)
    in_a, in_b, common = (np.bincount(v, minlength=len(present)) for v in (a, b, a[a == b]))
    scores = {int(label): 2 * c / (p + q) for label, c, p, q in zip(present, common, in_a, in_b, strict=True) if p + q}
    wanted = set(present.tolist()) - {0} if labels is None else set(labels)
    return {label: float(scores[label]) for label in sorted(wanted & set(scores))}


def hd95(fixed: Tensor, warped: Tensor, spacing, labels: Iterable[int] | None = None) -> dict[int, float]:
    """Hausdorff distance in mm at the 95th percentile for every label of two label maps (D, H, W).

    The larger of the two directed percentiles, between surface voxels (those with a face neighbour outside the label).
    spacing: (x, y, z) in mm. A label that one of the maps lacks has no distance and is left out.
    """
    present, arrays = _ranked(fixed, warped)
    boxes = [_bounding_boxes(a) for a in arrays]
    both = sorted(set(boxes[0]) & set(boxes[1]))
    found = {int(present[rank]): rank for rank in both if present[rank]}
    wanted = found.keys() if labels is None else found.keys() & set(labels)
    return {
        label: _hd95_of_one(arrays, [b[found[label]] for b in boxes], found[label], spacing) for label in sorted(wanted)
    }


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
    shapes.SetBackgroundValue(-1)
    shapes.Execute(sitk.GetImageFromArray(labels.astype(np.int32)))
    boxes = {}
    for label in shapes.GetLabels():
        first = np.array(shapes.GetBoundingBox(label)[:3][::-1])
        boxes[int(label)] = (first, first + np.array(shapes.GetBoundingBox(label)[3:][::-1]))
    return boxes


def _ranked(*maps: Tensor) -> tuple[np.ndarray, list[np.ndarray]]:
    """The labels of all maps and 0, in order, and the maps with each label's rank among them: they may be negative, or
    millions apart."""
    present = np.array(sorted({0, *(int(v) for m in maps for v in torch.unique(m).tolist())}))
    return present, [np.searchsorted(present, m.detach().cpu().numpy().round().astype(np.int64)) for m in maps]

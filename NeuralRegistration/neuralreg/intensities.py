"""Which grey values of a volume are its black and its white, in the registration and in its pictures: numpy only.

Volumes are arrays, or tensors on the CPU, of any shape.
"""

from __future__ import annotations

from typing import Any

import numpy as np

HU_AIR, HU_LUNG, HU_BONE = -1000.0, -500.0, 700.0
# What a CT has of air, and a crop without air of fat. An MR that was resampled with splines or a windowed sinc goes as
# far below zero beside its edges, measured in 0.14 to 0.5 % of its voxels.
HU_SHARE = 0.02
HU_HIGHEST = 3071.0  # what 12 bits hold, as scanners store them; metal alone lies above
# Times the 95th percentile. Measured, 99.5th to 95th: heads, hippocampi and chests of MR and CT 1.05 to 1.55, a lung by
# itself 2, painted PET with a full bladder 15 and more.
HOT = 4.0
SOME = 500_000  # voxels that decide for all


def is_ct(data: Any) -> bool:
    """Whether the values look like Hounsfield units: one in fifty at least is air, or padding below it, something is
    denser than lung, and less than one in fifty is metal."""
    return _in_hounsfield(some_sorted(data))


def _in_hounsfield(ordered: np.ndarray) -> bool:
    # The upper limits: other volumes too have values far below zero, of an offset or a phase.
    densest, dense = quantile(ordered, 0.999), quantile(ordered, 0.98)
    return quantile(ordered, HU_SHARE) <= HU_LUNG < densest and dense <= HU_HIGHEST


def some_sorted(data: Any) -> np.ndarray:
    values = np.asarray(data).ravel()
    return np.sort(np.nan_to_num(values[:: max(1, values.size // SOME)], nan=0.0, posinf=0.0, neginf=0.0))


def quantile(ordered: np.ndarray, share: float) -> float:
    return float(ordered[min(int(share * len(ordered)), len(ordered) - 1)])


def intensity_range(data: Any) -> tuple[float, float]:
    """Values that become 0 and 1: air and bone for CT; elsewhere background and the 99.5th percentile of the rest, as
    far as that is no hot spot."""
    ordered = some_sorted(data)
    if _in_hounsfield(ordered):
        return HU_AIR, HU_BONE
    low, top = quantile(ordered, 0.005), quantile(ordered, 0.995)
    body = ordered[ordered > low + 0.02 * (top - low)]
    return low, below_hot_spots(ordered, low, quantile(body, 0.995) if len(body) else top)


def below_hot_spots(ordered: np.ndarray, low: float, high: float) -> float:
    """`high`, or less where it belongs to a few hot spots: beside a bladder in PET all the rest would be one grey.

    The noise around a small body, darker than HOT times the darkest quarter, does not count: the body is no hot spot.
    """
    ordered = ordered[ordered >= low]
    shown = ordered[ordered > low + HOT * (quantile(ordered, 0.25) - low)]
    return min(high, low + HOT * (quantile(shown, 0.95) - low)) if len(shown) else high

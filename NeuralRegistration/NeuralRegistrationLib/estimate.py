"""How long a run will take: learnt from the runs on this computer, before the first one from a reference computer."""

from __future__ import annotations

import qt

REFERENCE_CORES = 2
# Seconds for the whole run of a 1 mm brain (7 million voxels) on two CPU cores, and on a data-centre GPU.
REFERENCE_MEGAVOXELS = 7.0
REFERENCE = {
    "cpu": {"fast": 25.0, "balanced": 50.0, "best": 240.0},
    "cuda": {"fast": 4.0, "balanced": 6.0, "best": 12.0},
}
FIXED_SHARE = 0.2  # of the reference time that does not depend on the size
LARGEST_WORKING_GRID = 8.0  # megavoxels; larger volumes are registered on a coarser lattice


def remember(method: str, preset: str, device: str, megavoxels: float, seconds: float) -> None:
    """Note how long a run took, relative to the reference, for the next estimate."""
    ratio = seconds / _reference(preset, device, megavoxels)
    qt.QSettings().setValue(_key(method, preset, device), f"{ratio:.4f}")


def estimate(method: str, preset: str, device: str, megavoxels: float, cores: int) -> tuple[float, bool]:
    """(seconds, whether they come from a run on this computer)."""
    reference = _reference(preset, device, megavoxels)
    stored = qt.QSettings().value(_key(method, preset, device))
    if stored:
        return reference * float(stored), True
    faster = 1.0 if device == "cuda" else min(cores, 8) / REFERENCE_CORES
    return reference / faster, False


def in_words(seconds: float) -> str:
    """A duration as one says it: no false precision."""
    if seconds < 10:
        return f"{seconds:.0f} s"
    if seconds < 90:
        return f"{round(seconds / 5) * 5:.0f} s"
    return f"{round(seconds / 30) / 2:g} min"


def _reference(preset: str, device: str, megavoxels: float) -> float:
    size = min(megavoxels, LARGEST_WORKING_GRID) / REFERENCE_MEGAVOXELS
    seconds = REFERENCE["cuda" if device == "cuda" else "cpu"][preset]
    return seconds * (FIXED_SHARE + (1 - FIXED_SHARE) * size)


def _key(method: str, preset: str, device: str) -> str:
    return f"NeuralRegistration/speed/{method}/{preset}/{device}"

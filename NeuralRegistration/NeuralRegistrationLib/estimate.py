"""How long a run will take: learnt from the runs on this computer; before the first one scaled from a computer on which
it was measured, by how fast this one does the same piece of work (neuralreg/calibration.py)."""

from __future__ import annotations

import qt

# Measured: CPU seconds of a whole run from files to files for a pair of 1 mm brains (brain_labelled 1000 and 1001 of
# Testing/benchmark/RESULTS.md) on a computer that takes 7.6 ms for the piece of work. "best" is reckoned from its
# iterations, and methods that are not named are taken for DNVF.
MEASURED_MEGAVOXELS = 5.8
MEASURED_CALIBRATION = 0.0076
CPU_SECONDS = {
    "DNVF": {"fast": 38.0, "balanced": 125.0, "best": 600.0},
    "VoxelMorph": {"fast": 11.0, "balanced": 11.0, "best": 30.0},
    "FNOReg": {"fast": 12.0, "balanced": 12.0, "best": 30.0},
    "Cas-DNVF": {"fast": 24.0, "balanced": 84.0, "best": 200.0},
}
# A guess: nothing was measured on a GPU yet.
GPU_SECONDS = {"fast": 4.0, "balanced": 6.0, "best": 12.0}
FIXED_SHARE = 0.2  # of the time that does not depend on the size
SERIAL_SHARE = 0.28  # of the CPU time that more cores do not shorten: 115 CPU seconds on one core take 73.5 s on two
LARGEST_WORKING_GRID = 8.0  # megavoxels; larger volumes are registered on a coarser lattice


def remember(method: str, preset: str, device: str, megavoxels: float, seconds: float) -> None:
    """Note how long a run took, relative to the size, for the next estimate."""
    qt.QSettings().setValue(_key(method, preset, device), f"{seconds / _size(megavoxels):.4f}")


def estimate(
    method: str, preset: str, device: str, megavoxels: float, cores: int, calibration: float | None = None
) -> tuple[float, bool]:
    """(seconds, whether they come from a run on this computer); `calibration` is the worker's, once it is known."""
    stored = qt.QSettings().value(_key(method, preset, device))
    if stored:
        return float(stored) * _size(megavoxels), True
    if device == "cuda":
        return GPU_SECONDS[preset] * _size(megavoxels), False
    slower = (calibration or MEASURED_CALIBRATION) / MEASURED_CALIBRATION
    spread = SERIAL_SHARE + (1 - SERIAL_SHARE) / max(cores, 1)
    seconds = CPU_SECONDS.get(method, CPU_SECONDS["DNVF"])[preset]
    return seconds * slower * spread * _size(megavoxels), False


def in_words(seconds: float) -> str:
    """A duration as one says it: no false precision."""
    if seconds < 10:
        return f"{max(seconds, 1):.0f} s"
    if seconds < 90:
        return f"{round(seconds / 5) * 5:.0f} s"
    return f"{round(seconds / 30) / 2:g} min"


def _size(megavoxels: float) -> float:
    """How much longer a pair takes than the measured one."""
    return FIXED_SHARE + (1 - FIXED_SHARE) * min(megavoxels, LARGEST_WORKING_GRID) / MEASURED_MEGAVOXELS


def _key(method: str, preset: str, device: str) -> str:
    return f"NeuralRegistration/seconds/{method}/{preset}/{device}"

"""How long a run will take: reckoned from the iterations that this pair gets and scaled by the runs on this computer;
before the first one by how fast it does a piece of work that was timed elsewhere (neuralreg/calibration.py)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import qt
from neuralreg.job import RegistrationError
from neuralreg.methods import kind_of, make_method, work
from slicer.i18n import tr as _

from . import dependencies
from .worker import Worker

# Measured: CPU seconds of DNVF with the presets fast and balanced, from files to files, for a pair of 1 mm brains
# (brain_labelled 1000 and 1001 of Testing/benchmark/RESULTS.md), for a computer that takes 7.6 ms for the piece of work
# (33 and 110 s on one that took 10.7 ms, 2026-11-22). What lies between the two are the iterations.
MEASURED_MEGAVOXELS = 5.8
MEASURED_CALIBRATION = 0.0076
SECONDS = {"cpu": (24.0, 77.0), "cuda": (4.0, 6.0)}  # on a GPU: a guess, nothing was measured there yet
# More, at that size, for methods with a trained network: its start, and each pass at the spacing of its training,
# 2 mm (on a GPU guesses, too).
NETWORK_SECONDS = {"cpu": (2.5, 1.0), "cuda": (1.0, 0.05)}
PASSES = (1.5, 0.85, 0.5)  # of voxelmorph_t1, where the user names no others
START_SECONDS = 4.0  # the same for every size
SERIAL_SHARE = 0.16  # of the CPU time that more cores do not shorten: 62 CPU seconds on one core take 36 s on two
LARGEST_WORKING_GRID = 8.0  # megavoxels; larger volumes are registered on a coarser lattice
MARGIN_VOXELS = 12  # of the working grid, on each axis beyond the body
LUNG_HU = -500.0  # a volume with values below is taken for CT


@dataclass(frozen=True)
class Task:
    """What a run is about: settings, and the size of the fixed volume (voxels and mm, x y z)."""

    method: str
    preset: str
    size: tuple[int, ...]
    spacing: tuple[float, ...] = (1.0, 1.0, 1.0)
    both_ct: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, fixed, moving, method: str, preset: str, options: dict[str, Any]) -> Task:
        """The task of two volume nodes; `moving` may be None or empty as yet."""
        volumes = [volume.GetImageData() for volume in (fixed, moving) if volume is not None]
        both_ct = all(v is not None and v.GetScalarRange()[0] <= LUNG_HU for v in volumes) and len(volumes) == 2
        spacing = tuple(abs(s) for s in fixed.GetSpacing())
        return cls(method, preset, volumes[0].GetDimensions(), spacing, both_ct, options)

    def seconds(self, device: str) -> float:
        """On one core of the computer on which it was measured, or on a GPU."""
        kind = kind_of(math.prod(n + MARGIN_VOXELS for n in self.size), self.both_ct)
        share = min(math.prod(self.size) / 1e6, LARGEST_WORKING_GRID) / MEASURED_MEGAVOXELS
        kind_of_device = "cuda" if device.startswith("cuda") else "cpu"
        fast, balanced = SECONDS[kind_of_device]
        few, many = work("DNVF", "fast"), work("DNVF", "balanced")
        each = (balanced - fast) / (many - few)
        passing = max(fast - few * each - START_SECONDS, 0.0) + self._network_seconds(kind_of_device)
        iterating = each * work(self.method, self.preset, self.options, kind, self.spacing)
        return START_SECONDS + share * (passing + iterating)

    def _network_seconds(self, kind_of_device: str) -> float:
        chosen = make_method(self.method, self.preset, self.options)
        if not hasattr(chosen, "scales"):
            return 0.0
        start, each = NETWORK_SECONDS[kind_of_device]
        return start + each * sum(scale**-3 for scale in chosen.scales or PASSES)


def remember(task: Task, device: str, seconds: float) -> None:
    """Note how long a run took, as a multiple of what was reckoned, for the next estimate."""
    qt.QSettings().setValue(_key(task.method, device), f"{seconds / task.seconds(device):.4f}")


def estimate(task: Task, device: str, cores: int, calibration: float | None = None) -> tuple[float, bool]:
    """(seconds, whether they come from a run on this computer); `calibration` is the worker's, once it is known."""
    stored = qt.QSettings().value(_key(task.method, device))
    if stored:
        return float(stored) * task.seconds(device), True
    if device == "cuda":
        return task.seconds(device), False
    slower = (calibration or MEASURED_CALIBRATION) / MEASURED_CALIBRATION
    spread = SERIAL_SHARE + (1 - SERIAL_SHARE) / max(cores, 1)
    return task.seconds(device) * slower * spread, False


def sentence(volumes: tuple, method: str, preset: str, options: dict[str, Any], device: str, worker: Worker) -> str:
    """How long it will take to register two volume nodes (fixed and moving, or None), and how well that is known.

    `device` is the user's choice; what "auto" comes to, the worker knows once it is ready.
    """
    if volumes[0] is None or volumes[0].GetImageData() is None:
        return _("The time is estimated once there is a fixed volume.")
    task = Task.of(*volumes, method, preset, options)
    try:
        found = "cpu" if device == "cpu" else worker.device.partition(": ")[0] or "cpu"
        seconds, learnt = estimate(task, found, dependencies.cores(), worker.calibration)
    except RegistrationError:  # said where the run is started
        return _("The time is estimated once the options fit together.")
    known = _("About {time}, going by runs on this computer.")
    guessed = _("About {time}: an estimate until the first run on this computer.")
    return (known if learnt else guessed).format(time=in_words(seconds))


def learn(request: Any, measurements: dict[str, Any]) -> None:
    """Note how long a run took that went to its end."""
    seconds = measurements.get("seconds total")
    if request.fixed.GetImageData() is not None and seconds:
        task = Task.of(request.fixed, request.moving, request.method, request.preset, request.options)
        remember(task, measurements.get("device", "cpu"), seconds)


def in_words(seconds: float) -> str:
    """A duration as one says it: no false precision."""
    if seconds < 10:
        return f"{max(seconds, 1):.0f} s"
    if seconds < 90:
        return f"{round(seconds / 5) * 5:.0f} s"
    return f"{round(seconds / 30) / 2:g} min"


def _key(method: str, device: str) -> str:
    return f"NeuralRegistration/seconds/{method}/{device}"

"""The pair of volumes that the demo registers: Slicer's MRBrainTumor1 and 2 where they can be had, else the phantom."""

from __future__ import annotations

import hashlib
import os
import queue
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import io
from .files import replacing
from .job import RegistrationError
from .phantom import demo_phantom

# As in Slicer's SampleData module: two T1 scans of one patient, before and after the growth of a tumour.
URL = "https://github.com/Slicer/SlicerTestingData/releases/download/SHA256/"
BRAIN_TUMOR_1 = ("MRBrainTumor1.nrrd", "998cb522173839c78657f4bc0ea907cea09fd04e44601f17c82ea27927937b95")
BRAIN_TUMOR_2 = ("MRBrainTumor2.nrrd", "1a64f3f422eb3d1c9b093d1a18da354b13bcf307907c66317e2463ee530b7a97")
ANSWER_WITHIN, DOWNLOAD_WITHIN = 10.0, 120.0  # seconds
LARGEST_FILE = 64 << 20  # bytes; both are a few MB

Open = Callable[[str], Any]


@dataclass(frozen=True)
class Sample:
    """Files of a pair; labels and landmarks where the truth is known. `note`: one sentence on what it is."""

    fixed: Path
    moving: Path
    note: str
    fixed_labels: Path | None = None
    moving_labels: Path | None = None
    landmarks: Path | None = None


def sample_pair(folder: Path, cache: Path | None = None, offline: bool = False, connect: Open | None = None) -> Sample:
    """A pair to try a registration on. Downloads go to `cache` (checksummed); the phantom is written to `folder`."""
    reason = "no download was wanted"
    if not offline:
        try:
            files = [
                fetch(*item, cache or cache_folder(), connect or _connect) for item in (BRAIN_TUMOR_1, BRAIN_TUMOR_2)
            ]
            return Sample(*files, note="Slicer's sample data MRBrainTumor1 (fixed) and MRBrainTumor2 (moving).")
        # Offline, a proxy in the way, a changed file, a user without a home for the cache: the demo goes on.
        except (OSError, ValueError, RuntimeError) as error:
            reason = f"Slicer's sample data could not be downloaded: {getattr(error, 'reason', error)}"
    return phantom_pair(folder, reason)


def phantom_pair(folder: Path, reason: str, spacing_mm: float = 1.5) -> Sample:
    """The phantom of `neuralreg.phantom` as files, with its labels and with landmarks at their true places."""
    folder.mkdir(parents=True, exist_ok=True)
    phantom = demo_phantom(spacing_mm)
    names = ("fixed", "moving", "fixed_labels", "moving_labels")
    paths = {name: folder / f"{name}.nii.gz" for name in names}
    landmarks = folder / "landmarks.csv"
    rows = np.concatenate([points.numpy() for points in phantom.landmarks()]).T
    header = "fixed_x,fixed_y,fixed_z,moving_x,moving_y,moving_z"
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder) as made:
        for name, path in paths.items():
            io.write_image(getattr(phantom, name), Path(made, path.name), np.int16)
        np.savetxt(Path(made, landmarks.name), rows, delimiter=",", header=header, comments="", fmt="%.4f")
        _put(sorted(Path(made).iterdir()), folder)
    note = f"A brain-like phantom with a known deformation ({reason})."
    return Sample(**paths, landmarks=landmarks, note=note)


def _put(files: list[Path], folder: Path) -> None:
    """Move files into a folder. Raises RegistrationError where others, somebody's own, have their names."""
    for file in files:
        there = folder / file.name
        if there.exists() and there.read_bytes() != file.read_bytes():
            raise RegistrationError(f"{there} is not the phantom's and would be replaced; choose another folder.")
    for file in files:
        file.replace(folder / file.name)


def cache_folder() -> Path:
    """Where downloads are kept: NEURALREG_CACHE, or the system's place for caches."""
    given = os.environ.get("NEURALREG_CACHE")
    if given:
        return Path(given)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "neuralreg"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "neuralreg"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "neuralreg"


def fetch(name: str, sha256: str, cache: Path, connect: Open) -> Path:
    """The file from the cache or the net, with the right checksum. Raises OSError or ValueError."""
    path = cache / name
    if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256:
        return path
    content = _read(_within(ANSWER_WITHIN, connect, URL + sha256))
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(f"{name} arrived with another checksum than expected")
    cache.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_bytes(content)
    return path


def _connect(url: str) -> Any:
    return urllib.request.urlopen(url, timeout=ANSWER_WITHIN)


def _within(seconds: float, function: Callable, *arguments: Any) -> Any:
    """The answer of a function, or TimeoutError: looking up a host name knows no timeout of its own."""
    answers: queue.Queue = queue.Queue()

    def work() -> None:
        try:
            answers.put((function(*arguments), None))
        except (OSError, ValueError) as error:
            answers.put((None, error))

    threading.Thread(target=work, daemon=True).start()
    try:
        answer, error = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds:.0f} s") from None
    if error is not None:
        raise error
    return answer


def _read(response: Any) -> bytes:
    """The body of an answer. Raises ValueError when it is longer than any of the files or takes too long."""
    parts, size, end = [], 0, time.monotonic() + DOWNLOAD_WITHIN
    with response:
        while part := response.read(1 << 16):
            parts.append(part)
            size += len(part)
            if size > LARGEST_FILE or time.monotonic() > end:
                raise ValueError("the download is too large or too slow")
    return b"".join(parts)

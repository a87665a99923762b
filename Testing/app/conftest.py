"""The page as its users have it: a process started by the command line, and a real browser.

The page lives in an environment of its own (`pip install ".[app,browser]"`). NEURALREG_TEST_PYTHON names the Python
that registers, where that environment has no PyTorch: it plays Slicer's launcher, PythonSlicer.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ROOT / "NeuralRegistration"
START_SECONDS = 240  # drawing without a GPU on a busy computer
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# A browser that asks nobody on the network, in a container, without a GPU.
BROWSER_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
                     "--disable-background-networking", "--disable-component-update"]  # fmt: skip

for name in ("aiohttp", "trame", "trame_slicer", "slicer_layer_dm", "SimpleITK"):
    pytest.importorskip(name, reason=f'the page needs {name}: pip install ".[app]" in an environment of its own')
if not os.environ.get("NEURALREG_TEST_PYTHON"):
    pytest.importorskip("torch", reason="the page's children need PyTorch; name one with NEURALREG_TEST_PYTHON")
if str(PACKAGES) not in sys.path:
    sys.path.insert(0, str(PACKAGES))


class Site:
    """A page that runs; `folder` is where it may put temporary files."""

    def __init__(self, folder: Path, *arguments: str):
        self.folder = folder / "temporary"
        self.folder.mkdir()
        self._log = folder / "log.txt"
        environment = {
            **os.environ, "PYTHONPATH": str(PACKAGES), "TMPDIR": str(self.folder), "OMP_NUM_THREADS": "1",
            "PATH": os.pathsep.join([str(launcher(folder)), os.environ["PATH"]]),
        }  # fmt: skip
        command = [sys.executable, "-m", "neuralreg", "app", "--no-browser", *arguments]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        self.address = self._wait_for_address()
        self.root = self.address.partition("?")[0]

    def log(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def _wait_for_address(self) -> str:
        end = time.monotonic() + START_SECONDS
        while not (found := re.search(r"^http://\S+token=\S+$", self.log(), re.MULTILINE)):
            assert self.process.poll() is None and time.monotonic() < end, self.log()
            time.sleep(0.1)
        return found.group()

    def stop(self) -> int:
        """Ctrl-C; returns the exit code."""
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


def launcher(folder: Path) -> Path:
    """A folder with the program PythonSlicer, when another Python than this one shall register."""
    place = folder / "bin"
    place.mkdir()
    python = os.environ.get("NEURALREG_TEST_PYTHON")
    if python:
        script = place / "PythonSlicer"
        script.write_text(f'#!/bin/sh\nexec "{Path(python).absolute()}" "$@"\n')
        script.chmod(0o755)
    return place


@pytest.fixture(scope="session")
def pair(tmp_path_factory) -> tuple[Path, Path]:
    """Two small volumes, fixed and moving: a body with structures, and the same body bent by some millimetres."""
    import SimpleITK as sitk

    folder = tmp_path_factory.mktemp("pair")
    index = np.stack(np.meshgrid(*[np.arange(n) for n in (28, 32, 30)], indexing="ij"), axis=-1) * 3.0
    place = index - index.reshape(-1, 3).mean(axis=0)
    paths = []
    for name, bend in (("first", 0.0), ("second", 5.0)):
        z, y, x = np.moveaxis(place + bend * np.exp(-(place**2).sum(-1, keepdims=True) / 650), -1, 0)
        inside = 1 / (1 + np.exp(((x / 34) ** 2 + (y / 38) ** 2 + (z / 32) ** 2 - 1) * 12))
        grey = inside * (100 + 60 * np.exp(-((x - 12) ** 2 + y**2 + z**2) / 90) + 12 * np.sin(x / 4) * np.sin(y / 5))
        image = sitk.GetImageFromArray(grey.astype(np.float32))
        image.SetSpacing((3.0, 3.0, 3.0))
        paths.append(folder / f"{name}.nii.gz")
        sitk.WriteImage(image, str(paths[-1]))
    return tuple(paths)


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium: playwright's own, else the system's."""
    playwright = pytest.importorskip("playwright.sync_api", reason="these tests need a browser: pip install playwright")
    with playwright.sync_playwright() as running:
        own = running.chromium.executable_path
        found = own if Path(own).exists() else next((p for p in map(shutil.which, BROWSERS) if p), None)
        if found is None:
            pytest.skip("no browser: `playwright install chromium`, or install the package chromium")
        chromium = running.chromium.launch(executable_path=found, args=BROWSER_ARGUMENTS)
        yield chromium
        chromium.close()

"""The page as its users have it: a process started by the command line. Importing this skips what cannot have one.

The page lives in an environment of its own (`pip install ".[app,browser]"`). NEURALREG_TEST_PYTHON names the Python
that registers, where that environment has no PyTorch: it plays Slicer's launcher, PythonSlicer.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PACKAGES = Path(__file__).resolve().parents[2] / "NeuralRegistration"
SECONDS = 240  # for whatever starts, answers or ends on a busy computer: there is no GPU to draw with

for name in ("aiohttp", "trame", "trame_slicer", "slicer_layer_dm", "SimpleITK"):
    pytest.importorskip(name, reason=f'the page needs {name}: pip install ".[app]" in an environment of its own')
if not os.environ.get("NEURALREG_TEST_PYTHON"):
    pytest.importorskip("torch", reason="the page's children need PyTorch; name one with NEURALREG_TEST_PYTHON")


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(PACKAGES), "OMP_NUM_THREADS": "1"}


class Site:
    """A page that runs; `folder` is where it may put temporary files, `home` where it is started.

    Without `wait` it may not have an address yet.
    """

    def __init__(self, folder: Path, *arguments: str, home: Path | None = None, wait: bool = True):
        self.folder = folder / "temporary"
        self.folder.mkdir()
        self._log = folder / "log.txt"
        environment = {
            **ENVIRONMENT, "TMPDIR": str(self.folder),
            "PATH": os.pathsep.join([str(launcher(folder)), os.environ["PATH"]]),
        }  # fmt: skip
        command = [sys.executable, "-m", "neuralreg", "app", "--no-browser", *arguments]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=home,
                preexec_fn=_listening if os.name == "posix" else None,
            )
        self.address = self._wait_for_address() if wait else ""
        self.root = self.address.partition("?")[0]

    def log(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def _wait_for_address(self) -> str:
        end = time.monotonic() + SECONDS
        while not (found := re.search(r"^(http://\S+token=\S+)\n", self.log(), re.MULTILINE)):
            assert self.process.poll() is None and time.monotonic() < end, self.log()
            time.sleep(0.1)
        return found.group(1)

    def stop(self, how: signal.Signals = signal.SIGINT) -> int:
        """Ctrl-C, unless another signal is named; returns the exit code."""
        self.process.send_signal(how)
        try:
            return self.process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


def _listening() -> None:
    """In the page's process: hear signals as in a terminal; under nohup or in the background it would ignore some."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_DFL)


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

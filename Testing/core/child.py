"""The core in a process of its own: what a signal, a limit or a crash does to it must not happen to the tests."""

import os
import subprocess
import sys
from pathlib import Path

CORE = Path(__file__).resolve().parents[2] / "NeuralRegistration"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(CORE), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def python(code: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    """Run Python code to its end."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)


def start(*arguments: str | int | Path, cwd: Path) -> subprocess.Popen:
    """Start `neuralreg …` with pipes for what it says."""
    pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    command = [sys.executable, "-m", "neuralreg", *map(str, arguments)]
    return subprocess.Popen(command, cwd=cwd, env=ENVIRONMENT, text=True, **pipes)


def wait_for_iterations(child: subprocess.Popen, lines: int = 3) -> None:
    """Until the optimisation has begun."""
    seen = 0
    for line in child.stdout:
        seen += '"loss"' in line
        if seen >= lines:
            return
    raise AssertionError(child.stderr.read())

"""The core in a process of its own: what a signal, a limit or a crash does to it must not happen to the tests."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CORE = Path(__file__).resolve().parents[2] / "NeuralRegistration"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(CORE), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
PATIENCE = 900  # seconds; a busy computer may take minutes to import torch


class Child(subprocess.Popen):
    """A process that does not outlive a test that has failed."""

    def __exit__(self, kind, *error) -> None:
        if kind is not None:
            self.kill()
        super().__exit__(kind, *error)


@contextmanager
def interruptible() -> Iterator[None]:
    """What is started here hears Ctrl-C, also when the tests run in the background and ignore it themselves."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def python(code: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    """Run Python code to its end."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, encoding="utf-8", timeout=PATIENCE)


def start(*arguments: str | int | Path, cwd: Path) -> Child:
    """Start `neuralreg …` with pipes for what it says."""
    pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
    command = [sys.executable, "-m", "neuralreg", *map(str, arguments)]
    with interruptible():
        return Child(command, cwd=cwd, env=ENVIRONMENT, encoding="utf-8", **pipes)


def wait_for_iterations(child: subprocess.Popen, lines: int = 3) -> None:
    """Until the optimisation has begun."""
    seen = 0
    for line in child.stdout:
        seen += '"loss"' in line
        if seen >= lines:
            return
    raise AssertionError(child.stderr.read())


def two_processes(arguments: list[str | Path], environment: dict[str, str]) -> subprocess.CompletedProcess:
    """`torchrun --nproc-per-node 2 ARGUMENTS` to its end.

    A fixed meeting point on this computer: `--standalone` looks up the computer's own name, which not every network
    resolves, and takes a process that gets no time for a while on a busy computer for dead.
    """
    environment = {**environment, "OMP_NUM_THREADS": "1"}
    if sys.platform.startswith("linux"):
        environment["GLOO_SOCKET_IFNAME"] = "lo"
    for _ in range(5):
        meeting = ["--master-addr", "127.0.0.1", "--master-port", str(free_port())]
        command = [sys.executable, "-m", "torch.distributed.run", *meeting, "--nproc-per-node", "2"]
        done = subprocess.run(
            [*command, *map(str, arguments)], capture_output=True, encoding="utf-8", timeout=PATIENCE, env=environment
        )
        if "EADDRINUSE" not in done.stderr:  # another program may take the port before torchrun does
            break
    return done


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]

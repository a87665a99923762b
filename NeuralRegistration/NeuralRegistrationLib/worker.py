"""The child process that registers: started early, given one job, read without blocking, ended with its whole tree.

It is the command line, `python -m neuralreg serve`: it imports torch, says that it is ready, waits for the path of a
job file on its standard input, and writes one JSON line of progress per step. Its output goes to files that are read
as they grow: unlike pipes and threads this cannot block the window, and it works alike on all systems. Only the
standard library is used here; whoever owns a Worker calls `poll` from a timer.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from neuralreg.job import Progress

PACKAGE_FOLDER = Path(__file__).resolve().parents[1]  # where the package `neuralreg` lies
SERVE = ("-m", "neuralreg", "serve", "--progress", "json", "--end-with-stdin")
USER_ERROR, CANCELLED = 2, 130  # exit codes of the command line
PREFIX = "neuralreg: "  # before the one sentence that it prints


@dataclass(frozen=True)
class Ending:
    """How a child ended: its exit code, and what to tell the user when it was not the way it should."""

    code: int
    message: str = ""


def python_executable() -> str:
    """Slicer's Python; outside Slicer the one that runs this."""
    return shutil.which("PythonSlicer") or sys.executable


def serve_command() -> list[str]:
    """The command line that waits for a job."""
    return [python_executable(), *SERVE]


class Worker:
    """One child at a time. `command` is what runs instead of the real command line (tests)."""

    def __init__(self, command: list[str] | None = None):
        self.command = command
        self.ready = False
        self.device = ""  # the child's word on what it will compute with, once it is ready
        self._process: subprocess.Popen | None = None
        self._folder: Path | None = None
        self._reader = None
        self._rest = b""
        self._sent = False

    @property
    def alive(self) -> bool:
        """Whether there is a child."""
        return self._process is not None and self._process.poll() is None

    @property
    def busy(self) -> bool:
        """Whether a job was sent whose end has not been told by `poll`."""
        return self._sent

    @property
    def process_id(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def warm(self) -> None:
        """Start the child, unless there is one, so that torch is imported before it is needed.

        Raises OSError when the process cannot be started.
        """
        if self.alive:
            return
        self.kill()
        self._folder = Path(tempfile.mkdtemp(prefix="neuralreg-"))
        command = self.command or serve_command()
        with (self._folder / "out").open("wb") as out, (self._folder / "err").open("wb") as err:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=out, stderr=err, env=_environment(), **_own_group()
            )
        self._reader = (self._folder / "out").open("rb")

    def run(self, command: list[str]) -> None:
        """Run another command to its end; `poll` tells how it ended. Raises OSError when it cannot be started."""
        self.kill()
        self.command = command
        self.warm()
        self._sent = True

    def start(self, job: Path) -> None:
        """Give the child its job. Raises OSError when no child can be started."""
        self.warm()
        try:
            self._send(job)
        except OSError:  # the warm child died unnoticed: one more, fresh (Windows calls that EINVAL, not EPIPE)
            self.kill()
            self.warm()
            self._send(job)
        self._sent = True

    def _send(self, job: Path) -> None:
        self._process.stdin.write(f"{job}\n".encode())
        self._process.stdin.flush()

    def poll(self) -> list[Progress | Ending]:
        """What has happened since the last call; an Ending comes last, once, and only after a job was sent."""
        if self._process is None:
            return []
        ended = self._process.poll() is not None  # asked before reading, so that the last lines are not missed
        events: list[Progress | Ending] = []
        for progress in self._read():
            if progress.stage == "ready":
                self.ready, self.device = True, progress.message
            else:
                events.append(progress)
        if ended:
            ending = self._ending()
            if self._sent:
                events.append(ending)
            self.kill()
        return events

    def _read(self) -> list[Progress]:
        *lines, self._rest = (self._rest + self._reader.read()).split(b"\n")
        parsed = [Progress.from_line(line.decode("utf-8", "replace")) for line in lines]
        return [progress for progress in parsed if progress is not None]

    def _ending(self) -> Ending:
        code = self._process.returncode
        return Ending(code, "" if code == 0 else explain(code, self._errors()))

    def _errors(self) -> str:
        return (self._folder / "err").read_text(encoding="utf-8", errors="replace")

    def kill(self) -> None:
        """End the child and everything it started, at once; take its files away."""
        if self._process is not None:
            _kill_tree(self._process)
            with contextlib.suppress(OSError):  # closing flushes what a dead child never took
                self._process.stdin.close()
            self._reader.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._process = self._folder = self._reader = None
        self._rest, self._sent, self.ready = b"", False, False


def explain(code: int, errors: str) -> str:
    """One sentence for an exit code and what the child wrote to its standard error."""
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    sentences = [line.removeprefix(PREFIX) for line in lines if line.startswith(PREFIX)]
    if code == USER_ERROR and sentences:
        return sentences[-1]
    if code == CANCELLED:
        return "The registration was cancelled."
    if "No module named 'torch'" in errors:
        return "PyTorch is not installed in Slicer's Python; install it with the button in the panel."
    if code in (-signal.SIGTERM, -getattr(signal, "SIGKILL", 9), 137):
        return ("The registration process was ended from outside, usually because memory ran out; "
                "choose the preset Fast, or crop or resample the volumes.")
    last = f" Its last words: {lines[-1]}" if lines else ""
    return f"The registration process ended unexpectedly (code {code}); nothing was changed. Try again.{last}"


def _environment() -> dict[str, str]:
    environment = dict(os.environ)
    known = environment.get("PYTHONPATH")
    environment["PYTHONPATH"] = os.pathsep.join([str(PACKAGE_FOLDER), *([known] if known else [])])
    environment["PYTHONUNBUFFERED"] = "1"
    environment["PYTHONUTF8"] = "1"  # paths go through pipes; Windows would decode them with the code page
    environment["PYTHONDONTWRITEBYTECODE"] = "1"  # the extension's folder may be read-only, and is not ours to fill
    return environment


def _own_group() -> dict:
    """A process group of its own, so that the launcher and the interpreter behind it can be ended together."""
    if os.name == "nt":
        return {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    return {"start_new_session": True}


def _kill_tree(process: subprocess.Popen) -> None:
    if os.name == "nt":
        if process.poll() is None:
            subprocess.run(["taskkill", "/F", "/T", "/PID", str(process.pid)], capture_output=True, check=False,
                           creationflags=subprocess.CREATE_NO_WINDOW)
    else:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # the whole group is gone already
            os.killpg(process.pid, signal.SIGKILL)  # also when the launcher has ended: the group may live on
    process.wait()

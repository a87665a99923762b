"""The child process that registers: started early, given one job, read without blocking, ended with its whole tree.

It is the command line, `python -m neuralreg serve`: it imports torch, says that it is ready, waits for a job file in a
private folder, and writes one JSON line of progress per step. Its output goes to files that are read as they grow:
unlike pipes and threads this cannot block the window, it works alike on all systems, and it does not matter what a
launcher between the two programs passes on. Whoever owns a Worker calls `poll` from a timer.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from neuralreg.inbox import Inbox
from neuralreg.job import EXIT_CANCELLED, EXIT_USER_ERROR, Progress
from slicer.i18n import tr as _

from .endings import explain, torch_trouble

PACKAGE_FOLDER = Path(__file__).resolve().parents[1]  # where the package `neuralreg` lies
LAST_SECONDS = 2  # for a killed child to be gone
OUT, ERR = "out.txt", "err.txt"  # what the child says, beside its job


@dataclass(frozen=True)
class Ending:
    """How a child ended: its exit code, and what to tell the user when it was not the way it should."""

    code: int
    message: str = ""


def python_executable() -> str:
    """Slicer's Python; outside Slicer the one that runs this."""
    return shutil.which("PythonSlicer") or sys.executable


def serve_command(inbox: Path) -> list[str]:
    """The command line that waits for a job in a folder, and ends when the folder or this process is gone."""
    return [
        python_executable(),
        "-m",
        "neuralreg",
        "serve",
        "--progress",
        "json",
        "--inbox",
        str(inbox),
        "--parent-pid",
        str(os.getpid()),
    ]


class Worker:
    """One child at a time. `command(inbox)` is what runs instead of the real command line (tests)."""

    def __init__(self, command: Callable[[Path], list[str]] | None = None):
        self.command = command
        self.ready = False
        self.device = ""  # the child's word on what it will compute with, once it is ready
        self.calibration: float | None = None  # seconds of a standard piece of work, likewise
        self.trouble = ""  # why the last child could not import torch
        self._process: subprocess.Popen | None = None
        self._folder: Path | None = None
        self._reader: BinaryIO | None = None
        self._rest = b""
        self._sent = False

    @property
    def alive(self) -> bool:
        """Whether there is a child."""
        return self._process is not None and self._process.poll() is None

    @property
    def process_id(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def warm(self) -> None:
        """Start the child, unless there is one, so that torch is imported before it is needed.

        Raises OSError when the process cannot be started.
        """
        if self.alive:
            return
        self._launch(self.command or serve_command)

    def run(self, command: list[str]) -> None:
        """Run another command to its end; `poll` tells how it ended. Raises OSError when it cannot be started."""
        self._launch(lambda inbox: command)
        self._sent = True

    def start(self, job: Path) -> None:
        """Give the child its job. Raises OSError when no child can be started."""
        self.warm()
        Inbox(self._inbox).put(job)
        self._sent = True

    def _launch(self, command: Callable[[Path], list[str]]) -> None:
        self.kill()
        self._folder = Path(tempfile.mkdtemp(prefix="neuralreg-"))
        try:
            self._inbox.mkdir()
            with (self._folder / OUT).open("wb") as out, (self._folder / ERR).open("wb") as err:
                self._reader = (self._folder / OUT).open("rb")
                self._process = subprocess.Popen(
                    command(self._inbox), stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=_environment(),
                    **_own_group(),
                )  # fmt: skip
        except OSError:
            self.kill()
            raise

    @property
    def _inbox(self) -> Path:
        """A folder of its own: Windows cannot take one away that holds a file which a surviving child has open."""
        return self._folder / "inbox"

    def poll(self) -> list[Progress | Ending]:
        """What has happened since the last call; an Ending comes last, once, and only after a job was sent."""
        if self._process is None:
            return []
        ended = self._process.poll() is not None  # asked before reading, so that the last lines are not missed
        events: list[Progress | Ending] = []
        for progress in self._read():
            if progress.stage == "ready":
                self.ready, self.device, self.calibration = True, progress.message, progress.calibration
                self.trouble = ""
            else:
                events.append(progress)
        if ended:
            ending = self._ending()
            if ending.code and not self.ready:
                self.trouble = torch_trouble(self._errors())
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
        if code and not self._folder.exists():
            return Ending(EXIT_USER_ERROR, _("The temporary folder was deleted during the run; register again."))
        if code not in (0, EXIT_CANCELLED, EXIT_USER_ERROR):  # the sentence is for the user, this for a report of a bug
            logging.error("neuralreg ended with exit code %s and wrote:\n%s", code, self._errors())
        return Ending(code, "" if code == 0 else explain(code, self._errors()))

    def _errors(self) -> str:
        """What the child wrote to its standard error; nothing where somebody has tidied its file away."""
        with contextlib.suppress(FileNotFoundError):
            return (self._folder / ERR).read_text(encoding="utf-8", errors="replace")
        return ""

    def kill(self) -> None:
        """End the child and everything it started, at once; take its files away."""
        if self._process is not None:
            _kill_tree(self._process)
        if self._reader is not None:
            self._reader.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._process = self._folder = self._reader = None
        self._rest, self._sent, self.ready = b"", False, False


def _environment() -> dict[str, str]:
    environment = dict(os.environ)
    known = environment.get("PYTHONPATH")
    environment["PYTHONPATH"] = os.pathsep.join([str(PACKAGE_FOLDER), *([known] if known else [])])
    environment["PYTHONSAFEPATH"] = "1"  # or a json.py in the folder where Slicer was started would be taken for json
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
            subprocess.run(
                ["taskkill", "/F", "/T", "/PID", str(process.pid)],
                capture_output=True,
                check=False,
                creationflags=subprocess.CREATE_NO_WINDOW,
            )
    else:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # the whole group is gone already
            os.killpg(process.pid, signal.SIGKILL)  # also when the launcher has ended: the group may live on
    with contextlib.suppress(subprocess.TimeoutExpired):  # what hangs in a driver must not make the window hang
        process.wait(LAST_SECONDS)

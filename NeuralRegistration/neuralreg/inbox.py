"""How a waiting process gets its job and learns that nobody wants it any more: a folder, and the caller's process id.

Not standard input: a launcher between the two programs need not pass it on. Standard library only.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
import threading
import time
from pathlib import Path

from .job import EXIT_CANCELLED, JOB

LOOK_EVERY = 0.02  # seconds between two looks for a job
WATCH_EVERY = 0.5  # seconds between two looks at the caller
GRACE = 10.0  # seconds for an orderly end once the caller is gone


class Inbox:
    """A folder into which the caller puts one job; it is abandoned when the folder or the caller is gone."""

    def __init__(self, folder: Path, parent_pid: int | None = None):
        self.folder = Path(folder)
        self.parent = Process(parent_pid) if parent_pid is not None else None

    def put(self, job: Path) -> None:
        """Copy a job file in: under another name first, so that whoever waits never reads half of it."""
        unfinished = self.folder / f"{JOB}.part"
        shutil.copyfile(job, unfinished)
        unfinished.replace(self.folder / JOB)

    def wait(self) -> Path | None:
        """The job file once it is there, or None when the inbox is abandoned."""
        job = self.folder / JOB
        while not self.abandoned():
            if job.exists():
                return job
            time.sleep(LOOK_EVERY)
        return None

    def abandoned(self) -> bool:
        """Whether the caller is gone, or has taken the folder away."""
        return not self.folder.is_dir() or (self.parent is not None and not self.parent.alive())

    def end_when_abandoned(self) -> None:
        """From another thread: end this process if it is still there some time after the caller went."""

        def watch() -> None:
            while not self.abandoned():
                time.sleep(WATCH_EVERY)
            time.sleep(GRACE)
            os._exit(EXIT_CANCELLED)

        threading.Thread(target=watch, daemon=True).start()


class Process:
    """Another process, known by its id."""

    def __init__(self, pid: int):
        self.pid = pid
        self._handle = _windows_handle(pid) if sys.platform == "win32" else None

    def alive(self) -> bool:
        """Whether it still runs. Where the system does not let us know, it counts as running."""
        if sys.platform == "win32":
            return _windows_alive(self._handle)
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except OSError:  # it belongs to somebody else
            return True
        return True


# On Windows os.kill ends the process whatever the signal. A handle, kept open, also keeps the id from being used anew.
SYNCHRONIZE, INVALID_PARAMETER, WAIT_OBJECT_0 = 0x00100000, 87, 0


def _windows_handle(pid: int) -> int | None:
    """A handle to wait on; 0 when there is no such process, None when it may not be watched."""
    kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    kernel.OpenProcess.restype = ctypes.c_void_p
    kernel.OpenProcess.argtypes = [ctypes.c_uint32, ctypes.c_int, ctypes.c_uint32]
    handle = kernel.OpenProcess(SYNCHRONIZE, False, pid)
    return handle or (0 if ctypes.get_last_error() == INVALID_PARAMETER else None)


def _windows_alive(handle: int | None) -> bool:
    if not handle:
        return handle is None
    kernel = ctypes.WinDLL("kernel32")
    kernel.WaitForSingleObject.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    return kernel.WaitForSingleObject(handle, 0) != WAIT_OBJECT_0

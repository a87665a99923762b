"""What this process has used, what it runs on, and what it says when memory ends. Standard library only; nothing here
names the user or the machine.
"""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .job import RegistrationError

TOO_LARGE = "There is not enough memory for volumes of this size; resample or crop them, or close other programs."


@contextmanager
def enough_memory(sentence: str = TOO_LARGE) -> Iterator[None]:
    """Raises RegistrationError with `sentence` where the memory does not suffice for what is done within."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not memory_ended(error):
            raise
        raise RegistrationError(sentence) from error


def memory_ended(error: Exception) -> bool:
    """Whether there was too little memory, in the words of Python, PyTorch, its GPUs or ITK."""
    said = str(error).lower()
    return isinstance(error, MemoryError) or any(w in said for w in ("allocate memory", "out of memory", "bad_alloc"))


def peak_memory_mb() -> float:
    """Largest resident memory of this process so far, in MB; 0 where the system does not say."""
    if sys.platform == "win32":
        return _windows_peak() / 1e6
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would include what the parent held when it forked
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (peak if sys.platform == "darwin" else peak * 1024) / 1e6


def versions() -> dict[str, str]:
    """Versions of what decides the result of a run."""
    from . import __version__

    found = {
        "neuralreg": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    for name in ("torch", "numpy", "SimpleITK"):
        found[name] = getattr(sys.modules.get(name), "__version__", None) or _installed(name)
    return found


def _installed(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _windows_peak() -> int:
    """PeakWorkingSetSize of this process in bytes (PROCESS_MEMORY_COUNTERS)."""
    import ctypes

    class Counters(ctypes.Structure):
        _fields_ = [("cb", ctypes.c_uint32), ("faults", ctypes.c_uint32)] + [
            (f"size{i}", ctypes.c_size_t) for i in range(8)
        ]

    counters = Counters(cb=ctypes.sizeof(Counters))
    kernel = ctypes.windll.kernel32
    kernel.GetCurrentProcess.restype = ctypes.c_void_p
    if not kernel.K32GetProcessMemoryInfo(
        ctypes.c_void_p(kernel.GetCurrentProcess()), ctypes.byref(counters), counters.cb
    ):
        return 0
    return counters.size0

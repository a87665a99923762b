"""What the end of the child process means: one sentence for every family of exit codes.

Slicer's launcher stands between the panel and the interpreter. It passes ordinary exit codes on, but turns every crash
and every kill into 1 and the words "exit abnormally". Without it a signal arrives as -9 (Python), 137 (a shell) or 9
(Qt), and a crash on Windows as 0xC0000005 or the negative number with the same bits.
"""

from __future__ import annotations

import signal

from neuralreg.job import EXIT_CANCELLED, EXIT_USER_ERROR
from slicer.i18n import tr as _

PREFIX = "neuralreg: "  # before the one sentence that the command line prints
LAUNCHER = "exit abnormally"

KILLED = frozenset({9, 15})  # SIGKILL is also how Linux ends the largest process when memory runs out
CRASHED = frozenset({4, 6, 7, 8, 10, 11})  # SIGILL, SIGABRT, SIGBUS, SIGFPE, SIGBUS (macOS), SIGSEGV
WINDOWS_MEMORY = frozenset({0xC0000017, 0xC0000044, 0xC000012D})  # no memory, quota, commitment limit
WINDOWS_CRASHED = frozenset({0xE06D7363, 0x40000015})  # a C++ exception, abort(); beside all of 0xC…
MEMORY_WORDS = ("out of memory", "outofmemoryerror", "memoryerror", "bad_alloc", "can't allocate memory")
BROKEN_TORCH_WORDS = ("DLL load failed", "[WinError 126]", "[WinError 127]", "[WinError 1114]", "undefined symbol")


def explain(code: int, errors: str) -> str:
    """One sentence for an exit code other than 0 and what the child wrote to its standard error."""
    lines = [line.strip() for line in errors.splitlines() if line.strip() and LAUNCHER not in line]
    sentences = [line.removeprefix(PREFIX) for line in lines if line.startswith(PREFIX)]
    if code == EXIT_USER_ERROR and sentences:
        return sentences[-1]
    if code == EXIT_USER_ERROR and not lines:  # the sentence itself did not fit on the disk
        return _("The disk of the temporary folder is full; make room on it and try again.")
    if code == EXIT_CANCELLED:
        return _("The registration was cancelled.")
    return torch_trouble(errors) or _abrupt(code, lines[-1] if lines else "", LAUNCHER in errors)


def torch_trouble(errors: str) -> str:
    """The sentence when a child could not import torch, by what it wrote; empty for other troubles."""
    if "No module named 'torch'" in errors:
        return _("PyTorch is not installed in Slicer's Python; install it with the button in the panel.")
    if any(word in errors for word in BROKEN_TORCH_WORDS):
        return _("PyTorch cannot be loaded; install it again and restart Slicer.")
    return ""


def _abrupt(code: int, last: str, said_by_launcher: bool) -> str:
    """The sentence for an end that the command line did not foresee; `last` is its last line."""
    family, number = _signal(code), code & 0xFFFFFFFF
    if family in KILLED or number in WINDOWS_MEMORY or any(word in last.lower() for word in MEMORY_WORDS):
        return _(
            "The registration process was ended from outside, usually because memory ran out; "
            "choose the preset Fast, or crop or resample the volumes."
        )
    if family in CRASHED or number in WINDOWS_CRASHED or 0xC0000000 <= number < 0xD0000000:
        return _(
            "The registration process crashed ({code}); nothing was changed. Try again with the device CPU only, "
            "or update the graphics driver."
        ).format(code=_name(family, number))
    if said_by_launcher or not last:
        return _(
            "The registration process ended without a word: memory or disk space ran out, or it crashed. Choose "
            "the preset Fast, crop the volumes, or try the device CPU only."
        )
    return _(
        "The registration process ended unexpectedly (code {code}); nothing was changed. Try again. Its last "
        "words: {words}"
    ).format(code=code, words=last)


def _signal(code: int) -> int | None:
    """The signal that ended a process, in any of the three ways in which it is told."""
    if -64 < code < 0:
        return -code
    if 128 < code < 192:
        return code - 128
    return code if code in KILLED | CRASHED else None


def _name(number: int | None, code: int) -> str:
    """A name for a support forum: SIGSEGV, or 0xC0000005."""
    if number is None:
        return f"0x{code:08X}"
    try:
        return signal.Signals(number).name
    except ValueError:  # a signal of another system
        return str(number)

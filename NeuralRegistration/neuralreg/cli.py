"""The command line: `neuralreg COMMAND …`.

Exit codes: 0 done, 2 with one sentence for what the user can put right, 130 cancelled.
"""

from __future__ import annotations

import _thread
import argparse
import atexit
import contextlib
import os
import signal
import sys
import threading
import warnings
from pathlib import Path
from types import FrameType

from . import __version__
from .allocator import keep_memory
from .commands import app, apply, batch, demo, inspect, register, training
from .job import EXIT_CANCELLED, EXIT_USER_ERROR, Cancelled, RegistrationError
from .monitor import line_again
from .usage import enough_memory

COMMANDS = (
    register.add_register,
    register.add_run,
    register.add_serve,
    batch.add_batch,
    apply.add_apply,
    inspect.add_evaluate,
    inspect.add_report,
    app.add_app,
    demo.add_demo,
    inspect.add_methods,
    training.add_train,
    training.add_pack,
    training.add_models,
)

SIGNALS = (signal.SIGINT, signal.SIGTERM)
COMPILED = ("torch", "SimpleITK", "numpy")
AGAIN = 0.01  # seconds until a signal that was lost, or came at a bad moment, comes again

# Of a thread of GNU OpenMP that waits for the others of its team. The 300,000 that are usual take the processor from
# them on a computer that has other work, where a run then takes three times as long (Testing/benchmark/RESULTS.md).
SPINS = "2500"

EPILOG = """examples:
  neuralreg register fixed.nii.gz moving.nii.gz -o result
  neuralreg apply result --reference fixed.nii.gz --labels moving_labels.nii.gz -o labels_on_fixed.nii.gz
  neuralreg evaluate result --fixed-labels fixed_labels.nii.gz --moving-labels moving_labels.nii.gz
  neuralreg report result
"""


def program() -> None:
    """`main` as a process of its own, which ends at once: Python would spend 1 to 2 s on taking torch apart."""
    keep_memory()
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # heard when torch is imported
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started the program
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115
    warnings.showwarning = lambda message, *_: print(f"note: {message}", file=sys.stderr)
    code = main()
    for name in SIGNALS:  # all is done or tidied up: an impatient second Ctrl-C changes nothing
        signal.signal(name, signal.SIG_IGN)
    atexit._run_exitfuncs()
    os._exit(code)


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit code. Only what the user can put right is caught: a bug keeps its traceback."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a file name that the terminal cannot show must not end a run
            stream.reconfigure(errors="replace")
    try:
        with _signals(), enough_memory():
            options = parser().parse_args(arguments)
            options.function(options)
            sys.stdout.flush()
    except RegistrationError as error:
        _say(str(error))
        return EXIT_USER_ERROR
    except (Cancelled, KeyboardInterrupt) as error:
        _say(str(error) or "cancelled.")
        return EXIT_CANCELLED
    except BrokenPipeError:  # whoever read our output is gone, and with it the reason to go on
        return EXIT_CANCELLED
    except OSError as error:
        if error.filename is None:
            said = f"what it says cannot be written ({error.strerror}); choose another place."
        elif isinstance(error, PermissionError):
            said = f"you may not use {error.filename}; ask its owner, or choose another place."
        else:
            raise
        _say(said)
        return EXIT_USER_ERROR
    return 0


def _say(why: str) -> None:
    """Why a command ended, in the place of the bar that it may have left behind."""
    print(f"{line_again(sys.stderr)}neuralreg: {why}", file=sys.stderr)


def parser() -> argparse.ArgumentParser:
    """The parser with every command of COMMANDS."""
    top = argparse.ArgumentParser(
        prog="neuralreg",
        description="Register medical images: transform, inverse, warped image, and the numbers to judge them by.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"neuralreg {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in COMMANDS:
        add(commands)
    return top


@contextlib.contextmanager
def _signals():
    """SIGTERM ends a command like Ctrl-C: everything half-written is removed. A second signal cannot disturb that."""
    received, report = [], sys.unraisablehook

    def cancel(number: int, frame: FrameType | None) -> None:
        if _is_importing():
            _come_again()
            return
        received.append(number)
        for name in SIGNALS:
            signal.signal(name, signal.SIG_IGN)
        raise KeyboardInterrupt  # no Exception: libraries catch those, above all while they are being imported

    def lost(unraisable: sys.UnraisableHookArgs) -> None:
        """Python drops what is raised while an object dies (in `__del__`, or in the callback of a weak reference)."""
        if not isinstance(unraisable.exc_value, KeyboardInterrupt):
            report(unraisable)
            return
        for name in SIGNALS:
            signal.signal(name, cancel)
        _come_again()  # here it would be dropped again

    try:
        before = {name: signal.signal(name, cancel) for name in SIGNALS}
    except ValueError:  # not the main thread: signals are somebody else's
        before = {}
    else:
        sys.unraisablehook = lost
    try:
        yield
    except Exception as error:
        if not received or isinstance(error, Cancelled):
            raise
        raise Cancelled from error  # in the middle of an import it may come back as another error
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
        if before:
            sys.unraisablehook = report


def _is_importing() -> bool:
    """What is raised meanwhile may meet C++ that does not pass it on: torch's ends the process with a dump of its
    stack, SimpleITK's drops it, and the command would go on."""
    modules = (sys.modules.get(name) for name in COMPILED)
    return any(getattr(getattr(module, "__spec__", None), "_initializing", False) for module in modules)


def _come_again() -> None:
    threading.Timer(AGAIN, _thread.interrupt_main).start()

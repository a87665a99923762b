"""`neuralreg serve` as it is, with one fault that strikes in the middle of the optimisation: see FAULTS."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

STRIKES_AT = 3  # the report of progress in the deformable stage at which the fault happens


def command(fault: str):
    """What a Worker runs instead of `serve_command`, to have the real child with a fault in it."""
    return lambda inbox: [sys.executable, __file__, fault, str(inbox), str(os.getpid())]


def gpu_memory_once():
    import torch

    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def full_disk():
    """From now on no file can grow over 3 kB: the results do not fit."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))


def bug():
    raise ZeroDivisionError("a bug")


FAULTS = {
    "GPU memory once": gpu_memory_once,
    "GPU memory always": gpu_memory_once,
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "killed behind the launcher": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "crash": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "full disk": full_disk,
    "bug": bug,
}


def launcher(arguments: list[str]) -> int:
    """Slicer's launcher, as its source has it: a crash of the program becomes a line and exit code 1."""
    code = subprocess.run([sys.executable, __file__, "killed", *arguments], check=False).returncode
    if code < 0:
        print(f"error: [{sys.executable}] exit abnormally - Report the problem.", file=sys.stderr)
    return 1 if code < 0 else code


def main(fault: str, inbox: str, parent: str) -> None:
    from neuralreg import cli
    from neuralreg.monitor import FileMonitor

    report, seen = FileMonitor.report, []

    def faulty(self, progress) -> None:
        report(self, progress)
        if progress.stage == "deformable":
            seen.append(progress)
            if len(seen) == STRIKES_AT or (len(seen) > STRIKES_AT and fault.endswith("always")):
                FAULTS[fault]()

    FileMonitor.report = faulty
    sys.argv = ["neuralreg", "serve", "--progress", "json", "--inbox", inbox, "--parent-pid", parent]
    cli.program()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "NeuralRegistration"))
    if sys.argv[1] == "killed behind the launcher":
        sys.exit(launcher(sys.argv[2:]))
    main(*sys.argv[1:])

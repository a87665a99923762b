"""Is PyTorch there, which GPU could it use, and how to install it. Nothing is imported from torch, nothing is installed
before the user has said yes."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import slicer
from neuralreg.job import RegistrationError
from slicer.i18n import tr as _

REQUIREMENT = ">=2.1"


def torch_problem() -> str:
    """What is wrong with PyTorch in this Python, as a sentence with the remedy; empty when nothing is."""
    spec = importlib.util.find_spec("torch")
    if spec is None:
        return _("PyTorch is not installed; the button installs it (about 1 GB).")
    if spec.origin is None:  # an empty folder is what an interrupted installation leaves
        return _("PyTorch is only half installed; install it again with the button.")
    return ""


def gpu_present() -> bool:
    """Whether the computer seems to have an NVIDIA GPU, whatever PyTorch thinks of it."""
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def device_line(worker_device: str) -> tuple[str, bool]:
    """(text, whether it is a warning) on what will compute, from what the worker said when it was ready."""
    problem = torch_problem()
    if problem:
        return problem, True
    if not worker_device:
        try:
            version = importlib.metadata.version("torch")
        except importlib.metadata.PackageNotFoundError:
            version = ""
        return _("PyTorch {version} is installed.").format(version=version), False
    device, _colon, reason = worker_device.partition(": ")
    if device == "cpu" and gpu_present():
        return _("There is a GPU, but it is not used. {reason}").format(reason=reason), True
    return reason, False


def install_torch(ask: Callable[[str], bool]) -> bool:
    """Install PyTorch through the PyTorch extension; returns whether it is there now.

    `ask` shows a question and returns the answer. Raises RegistrationError when the extension is missing.
    """
    if not hasattr(slicer.modules, "pytorchutils"):
        raise RegistrationError(
            _("The PyTorch extension is missing; install it in the Extensions Manager and restart Slicer.")
        )
    if not ask(_("PyTorch will be downloaded and installed into Slicer's Python (about 1 GB, 2 GB for a GPU). Go on?")):
        return False
    import PyTorchUtils

    torch = PyTorchUtils.PyTorchUtilsLogic().installTorch(askConfirmation=False, torchVersionRequirement=REQUIREMENT)
    importlib.invalidate_caches()
    if torch is None or torch_problem():
        raise RegistrationError(_("PyTorch could not be installed; restart Slicer and try again."))
    return True


def cores() -> int:
    """Processor cores that a run may use: all but one, which stays with Slicer."""
    return max(1, (os.cpu_count() or 2) - 1)

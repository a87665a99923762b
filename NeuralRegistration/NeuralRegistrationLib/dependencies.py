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
LONGEST_REASON = 160  # characters of what pip says


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


def device_line(worker_device: str, trouble: str, cpu_chosen: bool) -> tuple[str, bool]:
    """(text, whether it is a warning) on what will compute, from what the worker said when it was ready.

    trouble: why there is no torch, here or in the worker. cpu_chosen: the user wants no GPU.
    """
    if trouble:
        return trouble, True
    if cpu_chosen:
        return _("The CPU, as chosen under Advanced."), False
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


def install_torch(ask: Callable[[str], bool], say: Callable[[str], None]) -> bool:
    """Install PyTorch through the PyTorch extension; returns False when the user has said no.

    `ask` shows a question and returns the answer, `say` shows a sentence. Raises RegistrationError when the extension
    is missing and when the installation fails.
    """
    if not hasattr(slicer.modules, "pytorchutils"):
        raise RegistrationError(
            _("The PyTorch extension is missing; install it in the Extensions Manager and restart Slicer.")
        )
    if not ask(_("PyTorch will be downloaded and installed into Slicer's Python (about 1 GB, 2 GB for a GPU). Go on?")):
        return False
    say(_("PyTorch is being installed: some minutes, in which Slicer does not react."))
    slicer.app.processEvents()  # or the sentence would be seen only afterwards
    try:
        import PyTorchUtils

        installer = PyTorchUtils.PyTorchUtilsLogic()
        torch = installer.installTorch(askConfirmation=False, torchVersionRequirement=REQUIREMENT)
        reason = "" if torch is not None else _("the extension refused")
    except Exception as error:  # whatever it is that pip, or the first import of torch, raises
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)[:LONGEST_REASON].rstrip(".")
    importlib.invalidate_caches()
    reason = reason or torch_problem().rstrip(".")
    if reason:
        raise RegistrationError(
            _(
                "PyTorch could not be installed ({reason}). Check the network and the free disk space, restart Slicer "
                "and try again; if that does not help, uninstall PyTorch in the module PyTorch Utils first."
            ).format(reason=reason)
        )
    return True


def cores() -> int:
    """Processor cores that a run may use: all but one, which stays with Slicer."""
    return max(1, (os.cpu_count() or 2) - 1)

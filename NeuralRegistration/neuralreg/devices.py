"""Which device computes, and why: an answer that the panel can show."""

from __future__ import annotations

import os

import torch

from .job import RegistrationError


def choose_device(wanted: str) -> tuple[str, str]:
    """The device for "auto", "cpu", "cuda" or "mps", and one sentence on why.

    Raises RegistrationError when a device is asked for by name that is not there.
    """
    if wanted == "cpu":
        return "cpu", "The CPU was asked for."
    if wanted in ("auto", "cuda") and torch.cuda.is_available():
        return "cuda", f"{torch.cuda.get_device_name()} was found."
    if wanted == "mps" and torch.backends.mps.is_available():
        return "mps", "The GPU of this Mac was asked for."
    if wanted == "auto":
        return "cpu", f"Running on the CPU, because {_why_no_cuda()}"
    raise RegistrationError(f'The device "{wanted}" cannot be used because {_why_no_cuda()} Or choose --device cpu.')


def _why_no_cuda() -> str:
    if torch.version.cuda is None:
        return "this PyTorch has no GPU support; if the computer has an NVIDIA GPU, install the CUDA build of PyTorch."
    return "PyTorch finds no usable GPU; check the graphics driver."


def use_threads(threads: int) -> None:
    """Let torch use `threads` CPU threads; 0 means one per core that this process may use."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(min(threads, available) if threads else available)

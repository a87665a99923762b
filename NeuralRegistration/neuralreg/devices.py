"""Which device computes, and why: an answer that the panel can show."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .job import DEVICES, RegistrationError, choose


def choose_device(wanted: str) -> tuple[str, str]:
    """The device for "auto", "cpu", "cuda" or "mps", and one sentence on why.

    A GPU counts as found when it has computed something: "auto" goes on without it otherwise. Raises RegistrationError
    when a device is asked for by name that is unknown, not there, or does not work.
    """
    wanted = choose("device", wanted, DEVICES)
    if wanted == "cpu":
        return "cpu", "The CPU was asked for."
    name, problem = _gpu(wanted)
    if problem is None:
        return name, f"{_title(name)} was found."
    if wanted == "auto":
        return "cpu", f"Running on the CPU, because {problem}"
    raise RegistrationError(f'The device "{wanted}" cannot be used because {problem} Or choose the device cpu.')


def _gpu(wanted: str) -> tuple[str, str | None]:
    """The GPU that is meant, and what is wrong with it."""
    if wanted == "mps":
        missing = "this computer, or this PyTorch, has no GPU of Apple's kind."
        return "mps", _fault("mps") if torch.backends.mps.is_available() else missing
    return "cuda", _fault("cuda") if torch.cuda.is_available() else _why_no_cuda()


def _fault(name: str) -> str | None:
    """What keeps a GPU from computing, with the remedy; None where it computes.

    That a GPU is there does not say so: the PyTorch at hand may hold no code for one so old or so new, the driver may
    be of another version, and another program may have all of the memory.
    """
    try:
        if _computes(name):
            return None
        reason, remedy = "it computes wrong results", "check the graphics driver."
    except (RuntimeError, AssertionError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".;")[:160]
        remedy = _remedy(error, reason.lower())
    return f"{_title(name)} does not work ({reason}): {remedy}"


def _computes(name: str) -> bool:
    """Whether a GPU convolves, and reads a volume between its voxels with gradients, which not every kind can."""
    volume, kernel = (torch.ones(1, 1, 3, 3, 3, device=name).requires_grad_() for _ in range(2))
    middle = torch.nn.functional.grid_sample(volume, volume.new_zeros(1, 1, 1, 1, 3), align_corners=True)
    (torch.nn.functional.conv3d(volume, kernel) + middle).sum().backward()
    return float(volume.grad.sum()) == 28.0 and float(kernel.grad.sum()) == 27.0


def ran_full(error: Exception) -> bool:
    """Whether a GPU had too little memory; its libraries, and Apple's, say so in words of their own."""
    said = str(error).lower()
    return isinstance(error, torch.cuda.OutOfMemoryError) or "out of memory" in said or "alloc_failed" in said


def _remedy(error: Exception, reason: str) -> str:
    if ran_full(error):
        return "its memory is full; close other programs that use it."
    if "not currently implemented" in reason:
        return "install a newer PyTorch."
    if "no kernel image" in reason or "not compiled" in reason or "compute capability" in reason:
        return "install a PyTorch that was built for this GPU (its website has one for each version of CUDA)."
    return "update the graphics driver, or install the PyTorch that was built for it."


def _title(name: str) -> str:
    return torch.cuda.get_device_name() if name == "cuda" else "The GPU of this Mac"


def _why_no_cuda() -> str:
    if torch.version.cuda is None:
        return "this PyTorch has no GPU support; if the computer has an NVIDIA GPU, install the CUDA build of PyTorch."
    return "PyTorch finds no usable GPU; check the graphics driver."


def use_threads(threads: int) -> None:
    """Let torch use `threads` CPU threads; 0 means one per core that this process may use."""
    torch.set_num_threads(min(threads, cores()) if threads else cores())


@contextmanager
def one_thread() -> Iterator[None]:
    """Within, torch computes on one CPU thread; afterwards on as many as before."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus() -> list[str]:
    """The CUDA devices that may be used, by the names that CUDA_VISIBLE_DEVICES takes."""
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return [visible[number] if visible else str(number) for number in range(torch.cuda.device_count())]

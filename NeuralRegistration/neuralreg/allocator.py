"""Keeping freed memory for the next tensor instead of handing it back. Standard library only.

glibc maps every large block anew and gives it back when it is freed. An optimisation frees and takes the same tensors
a hundred times, and the kernel then spends an eighth of the whole CPU time of a registration on clearing their pages.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD, MMAP_MAX = -1, -2, -3, -4  # the names that malloc.h has for them, less M_
MEGABYTE = 1 << 20
KEEPING = {MMAP_MAX: 0, TRIM_THRESHOLD: 2047 * MEGABYTE, TOP_PAD: 256 * MEGABYTE}
# What glibc itself arrives at in a process that has freed large blocks; its own adapting ends with the first mallopt.
USUAL = {MMAP_MAX: 65536, MMAP_THRESHOLD: 32 * MEGABYTE, TRIM_THRESHOLD: 64 * MEGABYTE, TOP_PAD: 0}


def keep_memory() -> None:
    """Let freed blocks stay with the process until the first `kept_memory` ends.

    For a process of our own, in which much comes before that, such as the affine stage. Does nothing without glibc.
    """
    libc = _glibc()
    if libc is not None:
        for name in (MMAP_MAX, TRIM_THRESHOLD):
            libc.mallopt(name, KEEPING[name])


@contextmanager
def kept_memory() -> Iterator[None]:
    """Within, freed blocks stay with the process; at the end they are given back. Does nothing without glibc."""
    libc = _glibc()
    if libc is None:
        yield
        return
    for name, value in KEEPING.items():
        libc.mallopt(name, value)
    try:
        yield
    finally:
        for name, value in USUAL.items():
            libc.mallopt(name, value)
        libc.malloc_trim(ctypes.c_size_t(0))


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "gnu_get_libc_version") else None

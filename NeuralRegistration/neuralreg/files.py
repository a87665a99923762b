"""Files that are whole or absent. Standard library only."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to; it replaces `path` when the block succeeds and vanishes when it fails."""
    path = Path(path)
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def check_written(path: Path, needed: int) -> None:
    """Raise OSError (no space left) unless a file just written holds `needed` bytes, decompressed if it is gzip."""
    with path.open("rb") as file:
        gzip = file.read(2) == b"\x1f\x8b"
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 4, 0))
        trailer = file.read()
    # A complete gzip file ends with the size of its content, modulo 2³².
    whole = trailer == struct.pack("<I", needed % 2**32) if gzip else size >= needed
    if not whole:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

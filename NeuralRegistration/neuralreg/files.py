"""What files can do to us: headers that promise more than the file holds, and disks that fill up half-way.

SimpleITK reads a truncated NIfTI file as zeros, allocates whatever a header promises and does not notice a full disk
when it writes NIfTI (checked with 2.5.7). So a file is measured before it is read and after it was written.
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .job import RegistrationError

DEFLATE_RATIO = 1032  # the most that one byte of a deflate stream can hold
CHUNK = 1 << 20


def check_complete(path: Path, promised: int) -> None:
    """Raise RegistrationError unless the file holds the `promised` bytes of voxels; allocates nothing of that size."""
    data, offset, needed, compressed = _voxel_data(path, promised)
    if data is None:
        return
    if not data.exists():
        raise RegistrationError(
            f"{path} says that its voxels are in {data.name}, which is not there; put it beside the header."
        )
    stored = data.stat().st_size - offset
    if compressed and stored * DEFLATE_RATIO >= needed:
        stored = _inflated(data, offset, needed)
    if stored < needed:
        raise RegistrationError(
            f"{path} is incomplete or damaged: its header promises {_size(needed)} of voxels,"
            f" the file holds {_size(stored)}; copy or convert it again."
        )


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
        file.seek(0, os.SEEK_END)
        stored = file.tell()
        if gzip and stored > 4:  # a complete gzip file ends with the size of its content
            file.seek(-4, os.SEEK_END)
            stored = struct.unpack("<I", file.read(4))[0]
            needed %= 2**32
    if stored < needed:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def _size(count: int) -> str:
    return (
        f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count:,} bytes"
    )


def _voxel_data(path: Path, promised: int) -> tuple[Path | None, int, int, bool]:
    """(file with the voxels, where they begin, bytes needed, compressed) by format; no file: nothing is known of it."""
    with path.open("rb") as file:
        head = file.read(65536)
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz", ".hdr", ".img", ".img.gz")):
        return _nifti(path, head)
    if name.endswith((".nrrd", ".nhdr")):
        return _text_header(path, head, promised, (b"data file:", b"datafile:"), b"encoding:", b"\n\n")
    if name.endswith((".mha", ".mhd")):
        return _text_header(path, head, promised, (b"elementdatafile =",), b"compresseddata =", b"local\n")
    compressed = head[:2] == b"\x1f\x8b"  # DICOM and TIFF may hold compressed pixels of any kind, .mgz is gzip
    return (path, 0, promised, True) if compressed else (None, 0, promised, False)


def _nifti(path: Path, head: bytes) -> tuple[Path | None, int, int, bool]:
    """The header's own bits per voxel count, not ITK's pixel type, which is wider where the header rescales."""
    data = path
    if path.name.lower().endswith(".hdr"):
        pair = [path.with_suffix(end) for end in (".img", ".img.gz")]
        data = next((p for p in pair if p.exists()), pair[0])
    elif path.name.lower().endswith((".img", ".img.gz")):
        header = path.with_name(path.name[: path.name.lower().rindex(".img")] + ".hdr")
        head = header.read_bytes()[:65536] if header.exists() else b""
    if head[:2] == b"\x1f\x8b":
        head = zlib.decompressobj(31).decompress(head, 540)
    with data.open("rb") if data.exists() else open(os.devnull, "rb") as file:  # noqa: PTH123
        compressed = file.read(2) == b"\x1f\x8b"
    order = next((o for o in "<>" if head[:4] in (struct.pack(o + "i", 348), struct.pack(o + "i", 540))), None)
    if order is None or len(head) < 348:
        return None, 0, 0, False
    if struct.unpack(order + "i", head[:4])[0] == 348:
        dims, bits = struct.unpack(order + "8h", head[40:56]), struct.unpack(order + "h", head[72:74])[0]
        begin = struct.unpack(order + "f", head[108:112])[0]
    else:
        dims, bits = struct.unpack(order + "8q", head[16:80]), struct.unpack(order + "h", head[14:16])[0]
        begin = struct.unpack(order + "q", head[168:176])[0]
    voxels = 1
    for size in dims[1 : 1 + min(max(dims[0], 0), 7)]:
        voxels *= max(size, 1)
    begin = int(begin) if data == path and 0 <= begin < 2**40 else 0
    return data, 0, begin + (voxels * max(bits, 0) + 7) // 8, compressed


def _text_header(
    path: Path, head: bytes, promised: int, elsewhere: tuple[bytes, ...], encoding: bytes, end: bytes
) -> tuple[Path | None, int, int, bool]:
    """NRRD and MetaImage: lines of text, then the voxels, or the name of the file that has them."""
    head = head.replace(b"\r\n", b"\n")
    lower = head.lower()
    stop = lower.find(end)
    lines = [line.strip() for line in (lower[: stop + len(end)] if stop >= 0 else lower).split(b"\n")]
    how = next((line.split(encoding)[1].strip() for line in lines if line.startswith(encoding)), b"raw")
    if how in (b"ascii", b"text", b"txt", b"bz2", b"bzip2", b"hex") or b"binarydata = false" in lines:
        return None, 0, promised, False
    compressed = how in (b"gzip", b"gz", b"true")
    where = next((line for line in lines if line.startswith(elsewhere)), None)
    if where is not None and not where.endswith(b"local"):
        begin = lower.find(where)
        name = (
            head[begin : begin + len(where)]
            .decode("utf-8", "replace")
            .split(":" if b":" in where else "=", 1)[1]
            .strip()
        )
        several = name.split(" ")[0].upper() == "LIST" or "%" in name
        return (None, 0, promised, False) if several else (path.parent / name, 0, promised, compressed)
    return path, (stop + len(end) if stop >= 0 else len(head)), promised, compressed


def _inflated(path: Path, offset: int, limit: int) -> int:
    """How many bytes a gzip or zlib stream holds, hardly counting beyond `limit`; a wrong checksum is too few."""
    count, inflate = 0, zlib.decompressobj(47)
    with path.open("rb") as file:
        file.seek(offset)
        pending = file.read(CHUNK)
        while pending and count <= limit:
            try:
                count += len(inflate.decompress(pending, CHUNK))
            except zlib.error:
                return min(count, limit - 1)
            pending = inflate.unconsumed_tail
            if inflate.eof:  # several gzip members in a row are one file (pigz, bgzip)
                pending, inflate = inflate.unused_data, zlib.decompressobj(47)
            pending = pending or file.read(CHUNK)
    return count

"""Headers that promise more than the file holds.

SimpleITK reads a truncated NIfTI file as zeros and allocates whatever a header promises (checked with 2.5.7), so a file
is measured before it is read.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import freesurfer
from ..job import RegistrationError
from . import nifti

DEFLATE_RATIO = 1032  # the most that one byte of a deflate stream can hold
CHUNK = 1 << 20
NRRD_END = re.compile(rb"\r?\n\r?\n")
METAIMAGE_END = re.compile(rb"elementdatafile[ \t]*=[ \t]*local[ \t]*\r?\n", re.IGNORECASE)
TEXT_ENCODINGS = (b"ascii", b"text", b"txt", b"hex", b"bz2", b"bzip2")  # whose size does not tell how much they hold


@dataclass(frozen=True)
class Voxels:
    """Where the voxels of an image are stored: file, bytes before them, whether they are deflated."""

    path: Path
    offset: int
    deflated: bool


def check_header(path: Path) -> None:
    """Raise RegistrationError for a header that would crash the reader, or about which its libraries complain aloud."""
    header = nifti.read_header(path)
    if header is not None and (not header.shape or min(header.shape) < 1):
        raise RegistrationError(f"{path} is damaged: its header states no possible size; copy it again.")
    if header is not None and not all(m is None or np.isfinite(m).all() for m in (header.sform, header.qform)):
        raise RegistrationError(f"{path} is damaged: its header states no possible orientation; convert it again.")
    if not path.name.lower().endswith((".mha", ".mhd")):
        return
    with path.open("rb") as file:
        lines = file.read(CHUNK).splitlines()
    for line in lines:
        name, _, value = line.partition(b"=")
        # MetaIO reserves room for ten dimensions.
        if name.strip() == b"NDims" and not (value.strip().isdigit() and 1 <= int(value) <= 10):
            raise RegistrationError(
                f"{path} is damaged: its header states no possible number of dimensions; copy it again."
            )
        if name.strip() == b"ElementDataFile":
            return


def check_complete(path: Path, promised: int) -> None:
    """Raise RegistrationError unless the file holds the `promised` bytes of voxels; allocates nothing of that size."""
    header = nifti.read_header(path)
    if header is not None:  # its own bits per voxel count, not ITK's pixel type, which is wider for rescaled files
        voxels, promised = Voxels(header.data, 0, nifti.is_gzip(header.data)), header.needed
    else:
        voxels = _voxels(path)
    if voxels is None:
        return
    if not voxels.path.is_file():
        missing = voxels.path.name
        raise RegistrationError(
            f"{path} says that its voxels are in {missing}, which is not there; put it beside the header."
        )
    stored = voxels.path.stat().st_size - voxels.offset
    if voxels.deflated and stored * DEFLATE_RATIO >= promised:
        stored = _inflated(voxels, promised)
    if stored < promised:
        raise RegistrationError(
            f"{path} is incomplete or damaged: its header promises {_size(promised)} of voxels,"
            f" the file holds {_size(stored)}; copy or convert it again."
        )


def _voxels(path: Path) -> Voxels | None:
    """Where the voxels are, for the formats of which that is known."""
    name = path.name.lower()
    if name.endswith((".nrrd", ".nhdr")):
        return _after_text(path, b":", (b"data file", b"datafile"), b"encoding", NRRD_END)
    if name.endswith((".mha", ".mhd")):
        return _after_text(path, b"=", (b"elementdatafile",), b"compresseddata", METAIMAGE_END)
    packed = nifti.is_gzip(path)
    return Voxels(path, 0, packed) if packed or freesurfer.is_freesurfer(path) else None


def _after_text(
    path: Path, separator: bytes, elsewhere: tuple[bytes, ...], encoding: bytes, end: re.Pattern[bytes]
) -> Voxels | None:
    """NRRD and MetaImage: lines of text, then the voxels, or the name of the file that has them."""
    with path.open("rb") as file:
        head = file.read(65536)
    found = end.search(head)
    stop = found.end() if found else len(head)
    parts = (line.partition(separator) for line in head[:stop].splitlines())
    fields = {name.strip().lower(): value.strip() for name, _, value in parts}
    how = fields.get(encoding, b"raw").lower()
    if how in TEXT_ENCODINGS or fields.get(b"binarydata", b"").lower() == b"false":
        return None
    deflated = how in (b"gzip", b"gz", b"true")
    where = next((fields[name] for name in elsewhere if name in fields), b"local")
    if where.lower() == b"local":
        return Voxels(path, stop, deflated)
    name = where.decode("utf-8", "replace")
    several = name.split(" ")[0].upper() == "LIST" or "%" in name
    return None if several else Voxels(path.parent / name, 0, deflated)


def _inflated(voxels: Voxels, limit: int) -> int:
    """How many bytes a gzip or zlib stream holds, hardly counting beyond `limit`; a wrong checksum is too few."""
    count, inflate = 0, zlib.decompressobj(47)
    with voxels.path.open("rb") as file:
        file.seek(voxels.offset)
        pending = file.read(CHUNK)
        while pending and count <= limit:
            try:
                count += len(inflate.decompress(pending, CHUNK))
            except zlib.error:
                return min(count, limit - 1)
            pending = inflate.unconsumed_tail
            if inflate.eof and count >= limit:  # what follows is padding
                break
            if inflate.eof:  # several gzip members in a row are one file (pigz, bgzip)
                pending, inflate = inflate.unused_data, zlib.decompressobj(47)
            pending = pending or file.read(CHUNK)
    return count


def _size(count: int) -> str:
    if count >= 1e9:
        return f"{count / 1e9:,.1f} GB"
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count:,} bytes"

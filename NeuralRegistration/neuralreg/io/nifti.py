"""What SimpleITK does not tell of a NIfTI file: how long it should be, two orientations, NaN that it reads as 0."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ENDINGS = (".nii", ".nii.gz", ".hdr", ".img", ".img.gz")
FLOATS = {16: "f4", 64: "f8"}  # datatype codes


@dataclass(frozen=True, eq=False)
class NiftiHeader:
    """The parts of a header that are needed here. `sform`, `qform`: 4×4 index → LPS mm, None where the code is 0."""

    data: Path  # the file with the voxels
    offset: int  # bytes before them
    order: str  # "<" or ">"
    shape: tuple[int, ...]  # x first
    datatype: int
    bits: int
    spacing: tuple[float, float, float]
    sform: np.ndarray | None
    qform: np.ndarray | None

    @property
    def needed(self) -> int:
        """Bytes that the data file must hold, decompressed."""
        voxels = math.prod(max(size, 1) for size in self.shape)
        return self.offset + (voxels * max(self.bits, 0) + 7) // 8


def read_header(path: Path) -> NiftiHeader | None:
    """The header of a .nii(.gz) or a .hdr/.img pair; None for any other file, and when it is none of version 1 (ITK
    reads no other)."""
    name, header = path.name.lower(), path
    if name.endswith((".img", ".img.gz")):
        header = path.with_name(path.name[: name.rindex(".img")] + ".hdr")
    if not name.endswith(ENDINGS) or not header.is_file():
        return None
    with header.open("rb") as file:
        head = file.read(65536)
    if head[:2] == b"\x1f\x8b":
        try:
            head = zlib.decompressobj(31).decompress(head, 348)
        except zlib.error:
            return None
    if len(head) < 348:
        return None
    order = next((o for o in "<>" if struct.unpack(o + "i", head[:4])[0] == 348), None)
    return None if order is None else _parsed(head, order, header)


def _parsed(head: bytes, order: str, header: Path) -> NiftiHeader:
    def at(place: int, kind: str) -> tuple:
        return struct.unpack_from(order + kind, head, place)

    # Else it is Analyze 7.5, which has the patient's text in the places of the orientation.
    named = head[344:348] in (b"n+1\0", b"ni1\0")
    dims, (datatype, bits), (begin,) = at(40, "8h"), at(70, "2h"), at(108, "f")
    pixdim, codes, quaternion, rows = at(76, "8f"), at(252, "2h"), at(256, "6f"), at(280, "12f")
    data = header
    if header.name.lower().endswith(".hdr"):
        pair = [header.with_suffix(end) for end in (".img", ".img.gz")]
        data, begin = next((p for p in pair if p.is_file()), pair[0]), 0
    sane = np.isfinite(begin) and 0 <= begin < 2**40
    return NiftiHeader(
        data=data,
        offset=int(begin) if sane else 0,
        order=order,
        shape=tuple(dims[1 : 1 + dims[0]]) if 1 <= dims[0] <= 7 else (),
        datatype=datatype,
        bits=bits,
        spacing=pixdim[1:4],
        sform=_lps(np.array(rows).reshape(3, 4)) if named and codes[1] > 0 else None,
        qform=_lps(_quaternion_matrix(quaternion, pixdim)) if named and codes[0] > 0 else None,
    )


def _quaternion_matrix(parameters: tuple, pixdim: tuple) -> np.ndarray:  # -> (3, 4) index → RAS mm
    b, c, d = np.array(parameters[:3], dtype=float)
    rest = 1.0 - (b * b + c * c + d * d)
    if rest < 1e-7:  # a half turn, as the NIfTI library reads it: what float32 leaves of 1 is rounding
        b, c, d = np.array((b, c, d)) / np.sqrt(1.0 - rest)
    a = np.sqrt(rest) if rest >= 1e-7 else 0.0
    turn = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - c * c - b * b],
        ]
    )
    scale = np.abs(pixdim[1:4]) * np.array([1.0, 1.0, -1.0 if pixdim[0] < 0 else 1.0])
    return np.column_stack([turn * scale, parameters[3:]])


def _lps(rows: np.ndarray) -> np.ndarray:
    return np.vstack([rows * np.array([[-1.0], [-1.0], [1.0]]), [0.0, 0.0, 0.0, 1.0]])


def doubts(header: NiftiHeader) -> list[str]:
    """What the reader decided silently although the header leaves it open; each completes "<file> …"."""
    found = []
    if not all(np.isfinite(s) and s != 0 for s in header.spacing[: len(header.shape)]):
        found.append("does not say its voxel size on every axis; 1 mm was taken there")
    if header.sform is not None and header.qform is not None and np.isfinite(header.sform).all():
        corners = np.array([[*(np.array(c) * (np.array(header.shape[:3]) - 1)), 1.0] for c in np.ndindex(2, 2, 2)])
        apart = np.linalg.norm(((header.sform - header.qform) @ corners.T)[:3], axis=0).max()
        if apart > 0.5 * np.nanmin(np.abs(header.spacing)):
            found.append(f"has two orientations in its header, {apart:.1f} mm apart; check where it is shown")
    return found


def not_numbers(header: NiftiHeader, volume: int = 0) -> np.ndarray | None:
    """Where the file has NaN or infinity, (D, H, W) bool, which the NIfTI library replaces by 0; None: nowhere."""
    if header.datatype not in FLOATS:
        return None
    count = int(np.prod(header.shape[:3], dtype=np.int64))
    kind = np.dtype(header.order + FLOATS[header.datatype])
    opened = gzip.open if is_gzip(header.data) else open
    with opened(header.data, "rb") as file:
        file.seek(header.offset + volume * count * kind.itemsize)
        values = np.frombuffer(file.read(count * kind.itemsize), dtype=kind)
    wrong = ~np.isfinite(values)
    return wrong.reshape(header.shape[2::-1]) if wrong.any() else None


def is_gzip(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"

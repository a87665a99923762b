"""FreeSurfer's volumes, .mgz and .mgh, which SimpleITK does not read: T1, norm, brainmask, aseg … of a subject.

Format: https://surfer.nmr.mgh.harvard.edu/fswiki/FsTutorial/MghFormat (big-endian, x runs fastest).
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import SimpleITK as sitk

from .job import RegistrationError

ENDINGS = (".mgz", ".mgh")
# Version, four sizes, type, degrees of freedom; whether it says where it lies; spacing, axes, centre.
HEADER = struct.Struct(">7ih15f")
BEFORE_VOXELS = 284  # bytes
TYPES = {0: "u1", 1: ">i4", 3: ">f4", 4: ">i2", 10: ">u2"}
GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class Header:
    """What the file says of itself. `shape`: x first; `axes`: columns, RAS; `centre`: RAS mm of voxel shape / 2."""

    shape: tuple[int, int, int]
    frames: int
    kind: np.dtype
    spacing: np.ndarray
    axes: np.ndarray
    centre: np.ndarray

    @property
    def frame_bytes(self) -> int:
        return math.prod(self.shape) * self.kind.itemsize

    @property
    def needed(self) -> int:
        """Bytes that the file must hold, decompressed."""
        return BEFORE_VOXELS + self.frames * self.frame_bytes


def is_freesurfer(path: Path) -> bool:
    return path.suffix.lower() in ENDINGS


def read_header(path: Path) -> Header:
    """Raises RegistrationError for what is no such file, OSError for what cannot be decompressed."""
    with _opened(path) as file:
        head = file.read(HEADER.size)
    version, *sizes, kind, _, placed = HEADER.unpack(head)[:8] if len(head) == HEADER.size else [0] * 8
    if version != 1 or kind not in TYPES or min(sizes) < 1:
        raise RegistrationError(f"{path} is damaged or no volume of FreeSurfer; copy it again.")
    numbers = np.array(HEADER.unpack(head)[8:], float)
    spacing, axes, centre = numbers[:3], numbers[3:12].reshape(3, 3).T, numbers[12:]
    usable = np.isfinite(numbers).all() and spacing.min() > 0 and abs(np.linalg.det(axes)) > 0.5
    if placed < 1 or not usable:
        raise RegistrationError(
            f"{path} has no usable position, voxel size or orientation in its header; correct it or convert it again."
        )
    return Header(tuple(sizes[:3]), sizes[3], np.dtype(TYPES[kind]), spacing, axes, centre)


def read_frame(path: Path, header: Header, frame: int = 0) -> sitk.Image:
    """One volume of the file. Raises OSError or ValueError where it is incomplete."""
    with _opened(path) as file:
        file.seek(BEFORE_VOXELS + frame * header.frame_bytes)
        values = np.frombuffer(file.read(header.frame_bytes), header.kind)
    values = values.reshape(header.shape[::-1]).astype(header.kind.newbyteorder("="))
    volume = sitk.GetImageFromArray(values)
    first = header.centre - header.axes @ (header.spacing * header.shape) / 2
    to_lps = np.diag([-1.0, -1.0, 1.0])
    volume.SetSpacing(header.spacing.tolist())
    volume.SetDirection((to_lps @ header.axes).ravel().tolist())
    volume.SetOrigin((to_lps @ first).tolist())
    return volume


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """The file, decompressed. Raises OSError where that cannot be done."""
    with path.open("rb") as file:
        packed = file.read(2) == GZIP
    try:
        with gzip.open(path) if packed else path.open("rb") as file:
            yield file
    except (zlib.error, EOFError) as error:
        raise OSError("its compressed bytes are damaged") from error

"""Slices of a run as colour pictures: overlay, checkerboard, deformation grid, Jacobian. numpy and SimpleITK only.

All pictures of a plane share one slice of the fixed volume's own lattice (its axes ordered and flipped to run to L, P,
S), in square pixels and in radiological convention: the patient's right is on the left. Pictures are uint8 arrays
(rows, columns, 3 or 4).
"""

from __future__ import annotations

import base64
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .. import dicom, freesurfer
from ..files import alone, split_number
from ..intensities import intensity_range

LONGEST_SIDE = 320  # pixels
SMALLEST = 1e-30  # range of grey values that is divided by; in SI units some are tiny
MARGIN = 0.05  # of the body's extent
TILES = 8
GRID_LINES = 22
GRID_COLOR = (255, 196, 61)
FOLD_COLOR = (255, 214, 10)
# Blue: smaller in the moving volume; red: larger. ColorBrewer RdBu, readable with the common colour deficiencies.
DIVERGING = ((33, 102, 172), (103, 169, 207), (247, 247, 247), (239, 138, 98), (178, 24, 43))


@dataclass(frozen=True)
class Plane:
    """One slice through the body: a one-slice lattice, the order of its rows, and the letters at its four sides."""

    name: str
    lattice: sitk.Image
    flipped: bool
    sides: tuple[str, str, str, str]  # left, right, top, bottom

    def cut(self, volume: sitk.Image, interpolator: int = sitk.sitkLinear, outside: float = 0.0) -> np.ndarray:
        """The volume on this slice, where its header puts it -> (rows, columns) float64."""
        moved = sitk.Resample(volume, self.lattice, sitk.Transform(), interpolator, outside, sitk.sitkFloat64)
        return self._rows(sitk.GetArrayFromImage(moved)[0])

    def mapped(self, transform: sitk.Transform) -> np.ndarray:  # -> (rows, columns, 2) mm along the slice's own axes
        """Where a transform puts the points of this slice, seen along its columns and rows."""
        field = sitk.TransformToDisplacementField(
            transform, sitk.sitkVectorFloat64, self.lattice.GetSize(), self.lattice.GetOrigin(),
            self.lattice.GetSpacing(), self.lattice.GetDirection(),
        )  # fmt: skip
        axes = np.array(self.lattice.GetDirection()).reshape(3, 3)[:, :2]
        moved = sitk.GetArrayFromImage(field)[0] @ axes
        rows, columns = np.indices(moved.shape[:2])
        pixel = self.lattice.GetSpacing()[0]
        return self._rows(moved + np.stack((columns, rows), axis=-1) * pixel)

    def _rows(self, picture: np.ndarray) -> np.ndarray:
        return picture[::-1] if self.flipped else picture


def planes(fixed: sitk.Image) -> list[Plane]:
    """Axial, coronal and sagittal slices through the middle of the body, cropped to it."""
    oriented = sitk.DICOMOrient(fixed, "LPS")
    low, high = body_box(oriented)
    spacing = np.array(oriented.GetSpacing())
    axes = np.array(oriented.GetDirection()).reshape(3, 3)
    pixel = float(((high - low) * spacing).max() / LONGEST_SIDE)
    made = []
    for name, (a, b, c), flipped, sides in (
        ("Axial", (0, 1, 2), False, ("R", "L", "A", "P")),
        ("Coronal", (0, 2, 1), True, ("R", "L", "S", "I")),
        ("Sagittal", (1, 2, 0), True, ("A", "P", "S", "I")),
    ):
        start = np.array(low, dtype=float)
        # A little off the middle for the sagittal plane, which would otherwise run between the hemispheres.
        start[c] = low[c] + (high[c] - low[c]) * (0.43 if c == 0 else 0.5)
        count = [max(2, round((high[axis] - low[axis]) * spacing[axis] / pixel)) for axis in (a, b)]
        lattice = sitk.Image([*count, 1], sitk.sitkUInt8)
        lattice.SetOrigin(oriented.TransformContinuousIndexToPhysicalPoint(start.tolist()))
        lattice.SetSpacing([pixel] * 3)
        lattice.SetDirection(axes[:, [a, b, c]].ravel().tolist())
        made.append(Plane(name, lattice, flipped, sides))
    return made


def body_box(volume: sitk.Image) -> tuple[np.ndarray, np.ndarray]:
    """First and last index (x, y, z) of what is brighter than the background, with a small margin."""
    step = [max(1, n // 96) for n in volume.GetSize()]
    small = sitk.GetArrayFromImage(volume[:: step[0], :: step[1], :: step[2]]).astype(np.float64)
    low, high = intensity_range(small)
    inside = small > low + 0.15 * (high - low)
    size = np.array(volume.GetSize()) - 1
    if not inside.any():
        return np.zeros(3), size.astype(float)
    found = np.argwhere(inside)[:, ::-1] * step
    margin = MARGIN * (found.max(0) - found.min(0)) + 1
    return np.maximum(found.min(0) - margin, 0), np.minimum(found.max(0) + margin, size)


# Pictures -------------------------------------------------------------------------------------------------------------


def gray(cut: np.ndarray, limits: tuple[float, float]) -> np.ndarray:  # -> (rows, columns) in 0 … 1
    return np.clip((cut - limits[0]) / max(limits[1] - limits[0], SMALLEST), 0.0, 1.0)


def plain(picture: np.ndarray) -> np.ndarray:
    """0 … 1 as grey."""
    return _bytes(np.repeat(picture[..., None], 3, axis=2))


def overlay(fixed: np.ndarray, moving: np.ndarray) -> np.ndarray:
    """Fixed in green, moving in magenta: grey where they agree."""
    return _bytes(np.stack((moving, fixed, moving), axis=2))


def checkerboard(fixed: np.ndarray, moving: np.ndarray) -> np.ndarray:
    """Tiles of the one and the other in turn: edges run on across the tiles where they agree."""
    rows, columns = np.indices(fixed.shape)
    tile = max(fixed.shape) / TILES
    odd = (rows // tile + columns // tile) % 2 > 0
    return plain(np.where(odd, moving, fixed))


def deformation_grid(warped: np.ndarray, mapped: np.ndarray) -> np.ndarray:
    """The square grid of the moving space as it lies on the warped image; mapped: mm along columns and rows."""
    extent = np.ptp(mapped.reshape(-1, 2), axis=0).max()
    picture = np.repeat(warped[..., None] * 255.0, 3, axis=2)
    strength = np.zeros(warped.shape)
    for axis in (0, 1):
        turns = mapped[..., axis] / (extent / GRID_LINES)
        slope = np.hypot(*np.gradient(turns)).clip(1e-6)
        pixels = np.abs(turns - np.round(turns)) / slope  # distance from the nearest line
        strength = np.maximum(strength, np.clip(1.2 - pixels, 0.0, 1.0))
    mixed = picture + 0.85 * strength[..., None] * (np.array(GRID_COLOR) - picture)
    return np.clip(mixed, 0, 255).astype(np.uint8)


def jacobian_map(jacobian: np.ndarray, body: np.ndarray, largest: float) -> np.ndarray:
    """log J from 1 / largest (blue) over 1 (white) to largest (red), folds in their own colour, body only."""
    position = np.log(jacobian.clip(1e-6)) / np.log(largest) / 2 + 0.5
    color = diverging(position)
    color[jacobian <= 0] = FOLD_COLOR
    opaque = np.where(body | (jacobian <= 0), 255, 0)
    return np.concatenate((color, opaque[..., None].astype(np.uint8)), axis=2)


def diverging(position: np.ndarray) -> np.ndarray:  # 0 … 1 -> (…, 3) uint8
    anchors = np.linspace(0, 1, len(DIVERGING))
    channels = [np.interp(position, anchors, [color[c] for color in DIVERGING]) for c in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def body_of(picture: np.ndarray) -> np.ndarray:
    """What is brighter than the background in a slice, without holes."""
    bright = sitk.GetImageFromArray((picture > 0.06).astype(np.uint8))
    return sitk.GetArrayFromImage(sitk.BinaryFillhole(bright)) > 0


def _bytes(picture: np.ndarray) -> np.ndarray:
    return (np.clip(picture, 0, 1) * 255).round().astype(np.uint8)


# Files ----------------------------------------------------------------------------------------------------------------


def read_volume(name: str) -> sitk.Image:
    """A scalar volume from a file, a DICOM folder or one volume (`file@2`) of several; NaN and infinity become
    background, as when it was registered. Raises RuntimeError, OSError, ValueError or RegistrationError."""
    path, number = split_number(name)
    volume = _stored(path, number or 0)
    finite = np.isfinite(values := sitk.GetArrayViewFromImage(volume))
    if finite.all():
        return volume
    known = sitk.GetImageFromArray(np.where(finite, values, values[finite].min()))
    known.CopyInformation(volume)
    return known


def _stored(path: Path, number: int) -> sitk.Image:
    if dicom.is_dicom(path):
        found = dicom.stacks(path)
        return dicom.read_stack(found[number if len(found) > 1 else 0], path)
    if freesurfer.is_freesurfer(path):
        return freesurfer.read_frame(path, freesurfer.read_header(path), number)
    with alone(path) as only:
        volume = sitk.ReadImage(str(only))
    if volume.GetDimension() > 3:
        volume = volume[(slice(None), slice(None), slice(None), number, *[0] * (volume.GetDimension() - 4))]
    if volume.GetNumberOfComponentsPerPixel() > 1:
        volume = sitk.VectorIndexSelectionCast(volume, number)
    return volume


def deformable_part(transform: sitk.Transform) -> sitk.Transform:
    """A composite transform without its linear members: the grid then shows bending, not the tilt of the head."""
    if transform.GetName() != "CompositeTransform":
        return transform
    members = sitk.CompositeTransform(transform)
    parts = [members.GetNthTransform(i) for i in range(members.GetNumberOfTransforms())]
    return sitk.CompositeTransform([p for p in parts if not p.IsLinear()] or parts)


def png(picture: np.ndarray) -> bytes:
    """A PNG file of (rows, columns, 3 or 4) uint8 values."""
    rows, columns, channels = picture.shape
    header = struct.pack(">IIBBBBB", columns, rows, 8, {3: 2, 4: 6}[channels], 0, 0, 0)
    above = np.concatenate((np.zeros_like(picture[:1]), picture[:-1]))
    changes = (picture - above).reshape(rows, -1)  # filter 2: differences from the line above, modulo 256
    lines = np.concatenate((np.full((rows, 1), 2, np.uint8), changes), axis=1)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    packed = (struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def data_uri(picture: np.ndarray) -> str:
    return "data:image/png;base64," + base64.b64encode(png(picture)).decode("ascii")

"""A run's transform file (.h5) → a transform of the scene, piece by piece; and the way back.

Slicer's own reader takes half a second for the field of a 1 mm brain, its writer two, in which the window does not
react; where the disk is full the writer takes Slicer down. The core writes ITK's format in its plainest HDF5 layout
(neuralreg/hdf5.py): every array lies in the file as one block, so that it can be read as it is needed. ITK's
millimetres are LPS, the scene's are RAS.
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import slicer
import vtk
from neuralreg.hdf5 import ItkTransform, composed, write_itk_transforms
from vtk.util.numpy_support import vtk_to_numpy

DATATYPE, LAYOUT, SYMBOL_TABLE = 0x3, 0x8, 0x11  # messages of an object
ROOT_ADDRESS = 64  # of the address of the root group in the file's head
PIECE = 1 << 19  # vectors that are read at a time: some milliseconds
RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Block:
    """An array in a file: where it begins, its size in bytes, and the size of one number (4 or 8)."""

    offset: int
    size: int
    width: int


class TransformFile:
    """The transforms of a file, in the file's order: the last one acts first. Raises ValueError for another layout."""

    def __init__(self, file: BinaryIO):
        self.file = file
        if self._at(0, "8s")[0] != b"\x89HDF\r\n\x1a\n":
            raise ValueError("no HDF5 file")
        group = self._members(self._members(self._at(ROOT_ADDRESS, "<Q")[0])["TransformGroup"])
        self.parts = [self._members(group[number]) for number in sorted(group, key=int)]

    def read(self) -> Generator[None, None, vtk.vtkGeneralTransform]:
        """Yields after each piece and returns the whole transform."""
        whole = vtk.vtkGeneralTransform()
        for part in self.parts:
            kind = self._text(self._block(part["TransformType"]))
            if kind.startswith("AffineTransform"):
                whole.Concatenate(self._affine(part))
            elif kind.startswith("DisplacementFieldTransform"):
                field = self._empty_field(part)
                yield from self._fill(field, self._block(part["TransformParameters"]))
                whole.Concatenate(field)
            elif not kind.startswith("CompositeTransform"):
                raise ValueError(f"{kind} in a run's file")
        return whole

    def _affine(self, part: dict[str, int]) -> vtk.vtkMatrix4x4:
        parameters, centre = self._numbers(part["TransformParameters"]), self._numbers(part["TransformFixedParameters"])
        matrix = np.eye(4)
        matrix[:3, :3] = parameters[:9].reshape(3, 3)
        matrix[:3, 3] = parameters[9:] + centre - matrix[:3, :3] @ centre
        return slicer.util.vtkMatrixFromArray(RAS_FROM_LPS @ matrix @ RAS_FROM_LPS)

    def _empty_field(self, part: dict[str, int]):
        """A grid transform whose vectors are still to be read."""
        fixed = self._numbers(part["TransformFixedParameters"])
        direction = np.eye(4)
        direction[:3, :3] = fixed[9:].reshape(3, 3)
        image = vtk.vtkImageData()
        image.SetDimensions(*(int(n) for n in fixed[:3]))
        image.SetOrigin(*(RAS_FROM_LPS[:3, :3] @ fixed[3:6]))
        image.SetSpacing(*fixed[6:9])
        image.AllocateScalars(vtk.VTK_FLOAT, 3)
        field = slicer.vtkOrientedGridTransform()
        field.SetGridDirectionMatrix(slicer.util.vtkMatrixFromArray(RAS_FROM_LPS @ direction))
        field.SetDisplacementGridData(image)
        return field

    def _fill(self, field, block: Block) -> Iterator[None]:
        vectors = vtk_to_numpy(field.GetDisplacementGrid().GetPointData().GetScalars())
        if block.width != 4 or block.size != vectors.nbytes:
            raise ValueError("the field does not have the size that its lattice says")
        for start in range(0, len(vectors), PIECE):
            piece = vectors[start : start + PIECE]
            self.file.seek(block.offset + start * 12)
            if self.file.readinto(memoryview(piece).cast("B")) != piece.nbytes:
                raise ValueError("the file is cut short")
            piece[:, :2] *= -1
            yield

    def _numbers(self, address: int) -> np.ndarray:
        block = self._block(address)
        return np.frombuffer(self._bytes(block.offset, block.size), f"<f{block.width}").astype(np.float64)

    def _text(self, block: Block) -> str:
        """A text of variable length: a reference into a heap, where objects lie one after the other."""
        length, heap, wanted = self._at(block.offset, "<IQI")
        position = heap + 16
        index, _count, size = self._at(position, "<HH4xQ")
        while index != wanted:
            if index == 0:
                raise ValueError("a text is missing")
            position += 16 + size + -size % 8
            index, _count, size = self._at(position, "<HH4xQ")
        return self._bytes(position + 16, length).decode("ascii")

    def _block(self, address: int) -> Block:
        messages = self._messages(address)
        _version, _class, offset, size = struct.unpack("<BBQQ", messages[LAYOUT][:18])
        return Block(offset, size, struct.unpack("<I", messages[DATATYPE][4:8])[0])

    def _members(self, address: int) -> dict[str, int]:
        """{name: address} of the objects in a group."""
        tree, heap = struct.unpack("<QQ", self._messages(address)[SYMBOL_TABLE][:16])
        names = self._at(heap + 24, "<Q")[0]
        node = self._at(tree + 32, "<Q")[0]
        found = {}
        for number in range(self._at(node + 6, "<H")[0]):
            name, member = self._at(node + 8 + 40 * number, "<QQ")
            found[self._bytes(names + name, 64).split(b"\0")[0].decode("ascii")] = member
        return found

    def _messages(self, address: int) -> dict[int, bytes]:
        count = self._at(address + 2, "<H")[0]
        position, found = address + 16, {}
        for _ in range(count):
            kind, size = self._at(position, "<HH")
            found[kind] = self._bytes(position + 8, size)
            position += 8 + size
        return found

    def _at(self, offset: int, form: str) -> tuple:
        size = struct.calcsize(form)
        return struct.unpack(form, self._bytes(offset, size))

    def _bytes(self, offset: int, size: int) -> bytes:
        self.file.seek(offset)
        return self.file.read(size)


def read_transform(path: Path) -> Generator[None, None, vtk.vtkGeneralTransform]:
    """Yields after each piece and returns the transform of a run's file. Raises ValueError for any other file."""
    with Path(path).open("rb") as file:
        try:
            return (yield from TransformFile(file).read())
        except (struct.error, KeyError, UnicodeDecodeError) as error:
            raise ValueError(f"not laid out as expected ({error})") from error


def write_parts(parts: list, path: Path) -> None:
    """Write linear transforms and displacement grids, the first of which acts first. Raises OSError."""
    write_itk_transforms(path, composed([_stored(part) for part in reversed(parts)]))


def _stored(part) -> ItkTransform:
    if part.IsA("vtkHomogeneousTransform"):
        matrix = RAS_FROM_LPS @ slicer.util.arrayFromVTKMatrix(part.GetMatrix()) @ RAS_FROM_LPS
        parameters = np.concatenate([matrix[:3, :3].ravel(), matrix[:3, 3]])
        return ItkTransform("AffineTransform_double_3_3", np.zeros(3), parameters)
    image, direction = part.GetDisplacementGrid(), part.GetGridDirectionMatrix()
    axes = np.eye(3) if direction is None else slicer.util.arrayFromVTKMatrix(direction)[:3, :3]
    first = image.GetOrigin() + axes @ (np.array(image.GetSpacing()) * image.GetExtent()[::2])
    flip = RAS_FROM_LPS[:3, :3]
    fixed = np.concatenate([image.GetDimensions(), flip @ first, image.GetSpacing(), (flip @ axes).ravel()])
    vectors = vtk_to_numpy(image.GetPointData().GetScalars()).astype(np.float32)
    vectors *= part.GetDisplacementScale()
    vectors += part.GetDisplacementShift()
    vectors[:, :2] *= -1
    return ItkTransform("DisplacementFieldTransform_float_3_3", fixed, vectors)

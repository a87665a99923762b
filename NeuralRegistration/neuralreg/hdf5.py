"""ITK's transform file (.h5), written without the HDF5 library: float32 fields, and a full disk is an error.

SimpleITK stores displacement fields as float64 only, twice the size, and its HDF5 library ends the process with a
segmentation fault when the disk is full. The layout below is the oldest one of the HDF5 specification (version 0
superblock, symbol-table groups, contiguous data), which every reader knows:
https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html
Behind the end that the file states follows a checksum of it, because the HDF5 library may crash on a damaged file.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

if TYPE_CHECKING:
    from .image import Watch

SUPERBLOCK, NOWHERE, LEAF_K, NODE_K = 96, 2**64 - 1, 32, 16
MOST_MEMBERS = 2 * LEAF_K  # of a group, which is one node here
TYPE, COMPOSITE = b"TransformType", b"CompositeTransform_"
SIGNATURE, CHECKSUM = b"\x89HDF\r\n\x1a\n", b"crc32:nr"
CHUNK = 1 << 22
DATASPACE, DATATYPE, LAYOUT, SYMBOL_TABLE = 0x1, 0x3, 0x8, 0x11
FLOAT32 = struct.pack("<B3sIHHBBBBI", 0x11, b"\x20\x1f\x00", 4, 0, 32, 23, 8, 0, 23, 127)
FLOAT64 = struct.pack("<B3sIHHBBBBI", 0x11, b"\x20\x3f\x00", 8, 0, 64, 52, 11, 0, 52, 1023)
TEXT = struct.pack("<B3sIB3sIHH", 0x19, b"\x01\x00\x00", 16, 0x10, b"\x00\x00\x00", 1, 0, 8)  # variable length


@dataclass(frozen=True)
class ItkTransform:
    """One transform as ITK stores it: class name, fixed parameters (float64) and parameters (float64 or float32)."""

    kind: str
    fixed: np.ndarray
    parameters: np.ndarray


def composed(parts: list[ItkTransform]) -> list[ItkTransform]:
    """What a file holds so that its readers take several transforms for one, of which the last acts first."""
    nothing = np.zeros(0)
    return parts if len(parts) == 1 else [ItkTransform("CompositeTransform_double_3_3", nothing, nothing), *parts]


def write_itk_transforms(path: Path, transforms: list[ItkTransform], watch: Watch | None = None) -> None:
    """Write /TransformGroup/0, 1, … as ITK's HDF5TransformIO does, MOST_MEMBERS at most. Raises OSError."""
    with Path(path).open("wb") as file:
        out = _Writer(file, watch, sum(t.fixed.nbytes + t.parameters.nbytes for t in transforms))
        texts = out.texts([t.kind for t in transforms])
        groups = {}
        for number, transform in enumerate(transforms):
            members = {"TransformType": out.dataset(texts[number], TEXT, 1)}
            if transform.kind.split("_")[0] != "CompositeTransform":
                members["TransformFixedParameters"] = out.array(transform.fixed.astype(np.float64))
                members["TransformParameters"] = out.array(transform.parameters)
            groups[str(number)] = out.group(members)[0]
        root = out.group({"TransformGroup": out.group(groups)[0]})
        out.superblock(*root)


def uncomposed(path: Path) -> bool:
    """Whether a file holds several transforms side by side, of which ITK would use the first: a composite comes first
    in its file, and each transform names its type in an entry of its own."""
    with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        first = data.find(TYPE)
        several = first >= 0 and data.find(TYPE, first + 1) >= 0
        return several and data.find(COMPOSITE) < 0


def damaged(path: Path) -> bool:
    """Whether this is no HDF5 file, one that ends too early, or one with a checksum that it does not match."""
    with Path(path).open("rb") as file:
        head = file.read(SUPERBLOCK)
        if not head.startswith(SIGNATURE):
            return True
        end = file.seek(0, 2) - len(CHECKSUM) - 4
        file.seek(max(end, 0))
        trailer = file.read()
        if not trailer.startswith(CHECKSUM):  # somebody else's file
            return file.tell() < _stated_end(head)
        file.seek(SUPERBLOCK)
        checksum, left = 0, end - SUPERBLOCK
        while left > 0:
            block = file.read(min(CHUNK, left))
            checksum, left = zlib.crc32(block, checksum), left - len(block)
        return trailer[len(CHECKSUM) :] != struct.pack("<I", zlib.crc32(head, checksum))


def _stated_end(head: bytes) -> int:
    """The length of a file according to its superblock; 0 for a version of it that is not known."""
    place = {0: 40, 1: 44, 2: 28, 3: 28}.get(head[8] if len(head) == SUPERBLOCK else -1)
    return 0 if place is None else struct.unpack_from("<Q", head, place)[0]


class _Writer:
    """Appends blocks to a file; each method returns the address of what it wrote."""

    def __init__(self, file: BinaryIO, watch: Watch | None, expected: int):
        self.file, self.watch, self.expected = file, watch, max(expected, 1)  # bytes of numbers, the bulk of a file
        self.file.write(bytes(SUPERBLOCK))
        self.end = SUPERBLOCK
        self.checksum = 0

    def put(self, block: bytes | memoryview) -> int:
        address, size = self.end, len(block)
        for first in range(0, size, CHUNK):
            self._append(block[first : first + CHUNK])
            if self.watch is not None:
                self.watch(min((address + first) / self.expected, 1.0))
        self._append(bytes(-size % 8))
        self.end += size + -size % 8
        return address

    def _append(self, part: bytes | memoryview) -> None:
        self.file.write(part)
        self.checksum = zlib.crc32(part, self.checksum)

    def texts(self, texts: list[str]) -> list[int]:
        """Variable-length texts in one global heap -> addresses of their references."""
        objects = b""
        for index, text in enumerate(texts, 1):
            encoded = text.encode("ascii")
            objects += struct.pack("<HHIQ", index, 1, 0, len(encoded)) + encoded + bytes(-len(encoded) % 8)
        size = max(4096, 16 + len(objects) + 16)
        free = struct.pack("<HHIQ", 0, 0, 0, size - 16 - len(objects))
        heap = self.put((b"GCOL" + struct.pack("<B3xQ", 1, size) + objects + free).ljust(size, b"\0"))
        return [self.put(struct.pack("<IQI", len(text), heap, index)) for index, text in enumerate(texts, 1)]

    def array(self, values: np.ndarray) -> int:
        values = np.ascontiguousarray(values).reshape(-1)
        kind = FLOAT32 if values.dtype == np.float32 else FLOAT64
        data = self.put(memoryview(values.astype(values.dtype.newbyteorder("<"), copy=False)).cast("B"))
        return self.dataset(data, kind, values.size)

    def dataset(self, data: int, kind: bytes, count: int) -> int:
        space = struct.pack("<BBB5xQ", 1, 1, 0, count)
        size = count * struct.unpack("<I", kind[4:8])[0]
        return self._object([(DATASPACE, space), (DATATYPE, kind), (LAYOUT, struct.pack("<BBQQ", 3, 1, data, size))])

    def group(self, members: dict[str, int]) -> tuple[int, int, int]:
        """A group of named objects, MOST_MEMBERS at most -> addresses of its header, B-tree and heap."""
        names, entries = bytes(8), b""
        for name, address in sorted(members.items()):
            entries += struct.pack("<QQII16x", len(names), address, 0, 0)
            last, encoded = len(names), name.encode("ascii") + b"\0"
            names += encoded + bytes(-len(encoded) % 8)
        node = b"SNOD" + struct.pack("<BBH", 1, 0, len(members)) + entries
        node_address = self.put(node.ljust(8 + 40 * MOST_MEMBERS, b"\0"))
        tree = b"TREE" + struct.pack("<BBHQQQQQ", 0, 0, 1, NOWHERE, NOWHERE, 0, node_address, last)
        tree_address = self.put(tree.ljust(24 + 16 * 2 * NODE_K + 8, b"\0"))
        name_address = self.put(names)
        heap = self.put(b"HEAP" + struct.pack("<B3xQQQ", 0, len(names), 1, name_address))  # 1: no free block
        return self._object([(SYMBOL_TABLE, struct.pack("<QQ", tree_address, heap))]), tree_address, heap

    def superblock(self, root: int, tree: int, heap: int) -> None:
        """The head of the file is written last: a file cut short is no HDF5 file."""
        head = SIGNATURE + struct.pack("<8BHHI", 0, 0, 0, 0, 0, 8, 8, 0, LEAF_K, NODE_K, 0)
        head += struct.pack("<QQQQ", 0, NOWHERE, self.end, NOWHERE)
        head += struct.pack("<QQIIQQ", 0, root, 1, 0, tree, heap)
        self.file.write(CHECKSUM + struct.pack("<I", zlib.crc32(head, self.checksum)))
        self.file.seek(0)
        self.file.write(head)

    def _object(self, messages: list[tuple[int, bytes]]) -> int:
        body = b""
        for kind, message in messages:
            padded = message + bytes(-len(message) % 8)
            body += struct.pack("<HHB3x", kind, len(padded), 0) + padded
        return self.put(struct.pack("<BBHII4x", 1, 0, len(messages), 1, len(body)) + body)

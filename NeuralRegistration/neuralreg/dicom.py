"""The volumes in DICOM images: slices in files of their own, or frames of one file, told apart by where they lie.

ITK puts all images of a series on one stack: of several time points, echoes, or kinds of picture with the same slices
it makes a volume that is too tall, or none. The frames of a file it stacks in the file's order, evenly, wherever they
lie.
"""

from __future__ import annotations

import math
import mmap
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .files import check_name
from .job import RegistrationError

TILT = 1e-3  # tangent of a gantry's; files round positions to 1e-4 and better
UNEVEN = 0.1  # of the distance between slices; scanners round positions, a missing slice is 1.0
SAME_PLACE = 0.01  # mm between slices
KIND, FRAMES, BITS, NUMBER = "0008|0008", "0028|0008", "0028|0100", "0020|0013"
SAMPLES = "0028|0002"  # of a voxel
POSITION, AXES = "0020|0032", "0020|0037"
SPACING = "0028|0030"  # mm between rows, between columns
VOXELS = "7fe0|0010"
# The sequences in which each frame of a file, or all of them together, say so.
PLACES, ORIENTATIONS, MEASURES = "0020|9113", "0020|9116", "0028|9110"
ITEM = rb"(?:SQ\0\0)?.{4}\xfe\xff\0\xe0.{4}.{0,80}?"  # between a sequence's tag and one of the few within
LONGEST = 200  # bytes of a position or of axes
SYNTAX = re.compile(rb"\x02\0\x10\0UI..([0-9.]+)", re.DOTALL)  # how the voxels are encoded, near the file's beginning
PLAIN = (b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2.2")  # one after the other
PACKED_RATIO = 1000  # the most that a byte of the other encodings is taken to hold


@dataclass(frozen=True)
class Slice:
    """An image in a file of its own, or a frame of a file with several.

    position: LPS mm of its first voxel. axes: the directions of its rows and columns. Empty where it does not say.
    """

    file: str
    frame: int | None
    position: tuple[float, ...]
    axes: tuple[float, ...]
    number: float  # in the order in which the images were taken
    mosaic: bool
    promised: int  # bytes of voxels in the file, as its header says


def is_dicom(path: Path) -> bool:
    """Whether the path is a folder, or a file that ITK reads as DICOM."""
    return path.is_dir() or sitk.ImageFileReader.GetImageIOFromFileName(str(path)) == "GDCMImageIO"


def stacks(path: Path) -> list[list[Slice]]:
    """The volumes of a folder or file, each as its slices; series by series, and in the order in which they were taken.

    Raises RegistrationError where there is none, and RuntimeError where a file cannot be read.
    """
    if path.is_file():
        series = [[str(path)]]
    else:
        read = sitk.ImageSeriesReader
        series = [read.GetGDCMSeriesFileNames(str(path), uid) for uid in read.GetGDCMSeriesIDs(str(path))]
    if not series:
        raise RegistrationError(f"The folder {path} holds no DICOM images; give the folder with the slices, or a file.")
    return [stack for names in series for stack in _stacks_of(names)]


def read_stack(stack: list[Slice], path: Path) -> sitk.Image:
    """The volume that the slices make. Raises RegistrationError where they make none, and RuntimeError as ITK does."""
    first = stack[0]
    for one in stack if first.frame is None else [first]:
        _check_complete(one)
    if first.mosaic:
        raise RegistrationError(
            f"{path} holds mosaics, in which all slices of a volume lie side by side in one picture; let a DICOM"
            " converter such as dcm2niix take them apart."
        )
    if len(stack) == 1 and first.frame is None:  # one slice, or frames that share one position, such as those of SPECT
        return sitk.ReadImage(first.file)
    ordered, step = _in_order(stack, path)
    if first.frame is None:
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames([one.file for one in ordered])
        return reader.Execute()
    frames = sitk.ReadImage(first.file)
    volume = sitk.GetImageFromArray(
        sitk.GetArrayViewFromImage(frames)[[one.frame for one in ordered]],
        isVector=frames.GetNumberOfComponentsPerPixel() > 1,
    )
    volume.SetOrigin(ordered[0].position)
    volume.SetSpacing((*_in_plane(first.file), step))
    volume.SetDirection(_directions(first).T.ravel().tolist())
    return volume


def _stacks_of(names: list[str]) -> Iterator[list[Slice]]:
    """Of the files of a series."""
    parts = [_slices(name) for name in names]
    if all(len(part) == 1 for part in parts):
        parts = [[one for part in parts for one in part]]
    for part in sorted(parts, key=lambda part: part[0].number):  # a file with frames is one volume or several
        yield from _by_place(part)


def _by_place(slices: list[Slice]) -> list[list[Slice]]:
    """Where every place has as many slices as every other, as many volumes."""
    places = defaultdict(list)
    for one in sorted(slices, key=lambda one: (one.number, one.frame or 0)):
        places[tuple(round(x / SAME_PLACE) for x in one.position)].append(one)
    counts = {len(found) for found in places.values()}
    if len(places) == 1 or len(counts) > 1:
        return [slices]
    return [list(stack) for stack in zip(*places.values(), strict=True)]


def _slices(name: str) -> list[Slice]:
    check_name(name)
    reader = sitk.ImageFileReader()
    reader.SetFileName(name)
    reader.ReadImageInformation()
    known = (key for key in (KIND, SAMPLES, FRAMES, BITS, NUMBER, POSITION, AXES) if reader.HasMetaDataKey(key))
    stated = {key: reader.GetMetaData(key).strip() for key in known}
    mosaic = "MOSAIC" in stated.get(KIND, "").upper()
    number = (_numbers(stated.get(NUMBER, "")) or (0.0,))[0]
    voxels = math.prod(reader.GetSize()) * int(stated.get(SAMPLES) or 1)  # ITK makes three of a palette's one
    rest = number, mosaic, voxels * int(stated.get(BITS) or 8) // 8  # ITK's own type is wider for rescaled files
    count = int(stated.get(FRAMES) or 1)
    if count == 1 and POSITION in stated:
        return [Slice(name, None, _numbers(stated[POSITION]), _numbers(stated.get(AXES, "")), *rest)]
    if _lacks(name, rest[-1]):  # `read_stack` says so; there may be too many frames for a list
        return [Slice(name, None, (), (), *rest)]
    positions, axes = _values(name, POSITION, 3, within=PLACES), _values(name, AXES, 6, within=ORIENTATIONS)
    if count == 1:
        return [Slice(name, None, *(found[0] if len(found) == 1 else () for found in (positions, axes)), *rest)]
    if not positions and len(shared := _values(name, POSITION, 3)) == 1:
        return [Slice(name, None, shared[0], (), *rest)]
    if len(positions) != count or len(axes) not in (1, count):
        positions, axes = [()] * count, [()]
    axes = axes * count if len(axes) == 1 else axes
    frames = zip(positions, axes, strict=True)
    return [Slice(name, k, position, along, *rest) for k, (position, along) in enumerate(frames)]


def _check_complete(one: Slice) -> None:
    """Raise RegistrationError for a file that cannot hold the voxels that it promises; ITK would make room for them."""
    if _lacks(one.file, one.promised):
        raise RegistrationError(
            f"{one.file} is incomplete or damaged: it promises more voxels than it holds; copy it again."
        )


def _lacks(name: str, promised: int) -> bool:
    """Whether a file is too short for so many bytes of voxels."""
    with Path(name).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        syntax = SYNTAX.search(data, 0, 1000)
        plain = syntax is None or syntax[1] in PLAIN
        room = len(data) - _voxels_begin(data, promised) if plain else len(data) * PACKED_RATIO
    return room < promised


def _voxels_begin(data: mmap.mmap, promised: int) -> int:
    """Where so many bytes of voxels begin in a file that is not packed; 0 where its header does not say so."""
    length = re.escape(((promised + promised % 2) % 2**32).to_bytes(4, "little"))
    found = re.search(re.escape(_bytes(VOXELS)) + rb"(?:O[BW]\0\0)?" + length, data)
    return found.end() if found else 0


def _numbers(text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(value) for value in text.split("\\"))
    except ValueError:
        return ()
    return values if np.isfinite(values).all() else ()


def _values(name: str, key: str, count: int, within: str = "") -> list[tuple[float, ...]]:
    """The `count` numbers of a tag wherever it stands in the file, or only within a certain sequence.

    SimpleITK shows the outermost level only. Read are the common encodings: little endian, with and without the types.
    """
    tag = (re.escape(_bytes(within)) + ITEM if within else b"") + re.escape(_bytes(key))
    found = []
    with Path(name).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for match in re.finditer(tag, data, re.DOTALL):
            kind, length = data[match.end() : match.end() + 2], data[match.end() : match.end() + 4]
            size = int.from_bytes(length[2:] if kind == b"DS" else length, "little")
            text = data[match.end() + 4 : match.end() + 4 + min(size, LONGEST)]
            values = _numbers(text.decode("latin-1").strip("\0 "))
            found += [values] if len(values) == count else []
    return found


def _in_plane(name: str) -> tuple[float, float]:
    """mm between voxels along the rows and the columns; ITK has them only for frames in the order of their places."""
    found = set(_values(name, SPACING, 2, within=MEASURES))
    if len(found) != 1:
        raise RegistrationError(f"{name} states no voxel size, or several; let a DICOM converter convert it.")
    [(rows, columns)] = found
    return columns, rows


def _bytes(key: str) -> bytes:
    return b"".join(int(part, 16).to_bytes(2, "little") for part in key.split("|"))


def _directions(one: Slice) -> np.ndarray:
    """Unit vectors along a slice's rows, along its columns, and from slice to slice, (3, 3)."""
    right, down = np.array(one.axes).reshape(2, 3)
    return np.stack([right, down, np.cross(right, down)])


def _in_order(stack: list[Slice], path: Path) -> tuple[list[Slice], float]:
    """The slices along their normal, and the mm from one to the next. Raises RegistrationError for what is no volume.

    ITK would spread them evenly between the first and the last: with one missing, or each shifted against the one
    before, all distances would be wrong.
    """
    known = all(len(one.position) == 3 and len(one.axes) == 6 for one in stack)
    if not known or np.ptp([one.position for one in stack], axis=0).max() < SAME_PLACE:
        raise RegistrationError(
            f"The images in {path} do not say where they lie, or all lie at one place, so they make no volume; export"
            " the original series, or let a DICOM converter such as dcm2niix convert it."
        )
    if np.ptp([one.axes for one in stack], axis=0).max() > TILT:
        raise RegistrationError(
            f"The images in {path} lie in different directions, as those of a localizer do; give another series."
        )
    directions = _directions(stack[0])
    ordered = sorted(stack, key=lambda one: float(directions[2] @ one.position))
    places = np.array([one.position for one in ordered]) @ directions.T
    steps = np.diff(places[:, 2])
    step = float(np.median(steps))
    if step < SAME_PLACE or np.abs(steps - step).max() > UNEVEN * step:
        raise RegistrationError(
            f"The slices in {path} are not evenly spaced: one may be missing, thicker than others or belong to another"
            " series; export the series again or convert it to NIfTI with a DICOM converter."
        )
    if np.abs(places[-1, :2] - places[0, :2]).max() > TILT * steps.sum():
        raise RegistrationError(
            f"The slices in {path} are shifted against each other, as a tilted gantry does; let a DICOM converter"
            " correct the tilt, and give the corrected volume."
        )
    return ordered, float(steps.mean())

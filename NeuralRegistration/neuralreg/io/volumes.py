"""One scalar volume out of a file or a DICOM folder, as SimpleITK reads it, with what it keeps to itself said aloud.

A volume inside a file with several is named by its number: `scan.nii.gz@3`, `dicom_folder@0` (counted from 0).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .. import dicom, freesurfer
from ..files import alone, check_name, reading, split_number
from ..job import RegistrationError
from ..usage import memory_ended
from . import nifti
from .headers import check_complete, check_header

Warn = Callable[[str], object]

SHEARED = "The axes of {} are not at right angles; resample it to a regular grid first."
NOWHERE = "{} has no usable position, voxel size or orientation in its header; correct it or convert it again."
SKEW = 1e-3  # cosine between two axes; files round theirs to 1e-4 and better
MINC = (".mnc", ".mnc2")


@reading()
def load_volume(name: str | Path, warn: Warn) -> sitk.Image:
    """One scalar volume with three dimensions. Raises RegistrationError with one sentence where there is none."""
    check_name(name)
    path, number = split_number(str(name))
    if not path.exists():
        raise RegistrationError(f"There is no file or folder {path}; check the path.")
    if not (path.is_file() or path.is_dir()):  # a pipe or a device: one could wait for its end forever
        raise RegistrationError(f"{path} is no file; save the volume to one first.")
    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # ITK's own warnings would go to the terminal unasked
    try:
        if path.is_dir():
            return _load_dicom(path, number)
        with alone(path) as name:
            return _load_file(path, name, number, warn)
    except (MemoryError, RuntimeError, OSError, ValueError) as error:
        if memory_ended(error):
            raise RegistrationError(f"{path} does not fit into memory; resample or crop it first.") from error
        if "orthonormal" in str(error):
            raise RegistrationError(SHEARED.format(path)) from error
        if any(words in str(error) for words in ("determinant is 0", "Refusing to change spacing")):
            raise RegistrationError(NOWHERE.format(path)) from error
        raise RegistrationError(
            f"{path} cannot be read as an image ({reason(error)}); convert it to NIfTI, NRRD or MHA."
        ) from error


def reason(error: Exception) -> str:
    """The last line of ITK's message without its source paths: short enough for one sentence."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    last = lines[-1] if lines else type(error).__name__
    if "Unable to determine ImageIO" in last:
        return "the file is damaged or of an unknown type"
    return re.sub(r"^.*ERROR:\s*|\w+\(0x[0-9a-f]+\):\s*", "", last).rstrip(".")[:160]


def _load_file(path: Path, name: Path, number: int | None, warn: Warn) -> sitk.Image:
    """The volume in the file `path`, read under another of its names."""
    if path.suffix.lower() in MINC:  # whose axes run to R, A and S; ITK 5.4 takes them for L, P and S
        raise ValueError("left and right, front and back of MINC files would be exchanged")
    if freesurfer.is_freesurfer(path):
        return _load_freesurfer(path, number)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(name))
    check_header(path)
    reader.ReadImageInformation()
    size = list(reader.GetSize())
    voxel = _voxel_type(reader.GetPixelID()).itemsize * reader.GetNumberOfComponents()
    promised = voxel * int(np.prod([int(n) for n in size], dtype=object))
    check_complete(path, promised)
    if dicom.is_dicom(path):
        return _load_dicom(path, number)
    if len(size) < 3:
        raise RegistrationError(
            f"{path} has {len(size)} dimensions; give a volume with 3, for DICOM the folder with all slices."
        )
    if len(size) > 4 and max(size[4:]) > 1:
        raise RegistrationError(f"{path} has {len(size)} dimensions; give a volume with 3.")
    picked = 0
    if len(size) > 3:
        picked, number = (_pick(path, number, size[3], "volumes"), None) if size[3] > 1 else (0, number)
        reader.SetExtractIndex([0, 0, 0, picked, *[0] * (len(size) - 4)])
        reader.SetExtractSize([*size[:3], *[0] * (len(size) - 3)])
    volume = _scalar(_read(reader, promised), path, number)
    header = nifti.read_header(path)
    return volume if header is None else _as_stored(volume, header, picked, path, warn)


def _read(reader: sitk.ImageFileReader, promised: int) -> sitk.Image:
    """What the reader gives. Raises MemoryError where a file of `promised` bytes does not fit into memory."""
    try:
        return reader.Execute()
    except RuntimeError:
        # The NIfTI library, which holds a file beside the image made of it, says no more than that it failed.
        np.empty(2 * promised, np.uint8)
        raise


def _as_stored(volume: sitk.Image, header: nifti.NiftiHeader, picked: int, path: Path, warn: Warn) -> sitk.Image:
    """A NIfTI volume with its NaN put back, after saying what its header leaves open."""
    for doubt in nifti.doubts(header):
        warn(f"{path} {doubt}.")
    wrong = nifti.not_numbers(header, picked) if header.shape[:3] == volume.GetSize() else None
    if wrong is None:
        return volume
    values = sitk.GetArrayFromImage(volume)
    values[wrong] = np.nan
    return with_values(volume, values)


def with_values(volume: sitk.Image, values: np.ndarray) -> sitk.Image:
    """Other values (D, H, W) in the place of the volume's."""
    changed = sitk.GetImageFromArray(values)
    changed.CopyInformation(volume)
    return changed


def _scalar(volume: sitk.Image, path: Path, number: int | None) -> sitk.Image:
    """The volume itself, or the component of a vector volume that was picked."""
    components = volume.GetNumberOfComponentsPerPixel()
    if components > 1:
        return sitk.VectorIndexSelectionCast(volume, _pick(path, number, components, "values per voxel"))
    if number:
        raise RegistrationError(f"{path} holds one volume only; leave out the @{number}.")
    return volume


def _load_freesurfer(path: Path, number: int | None) -> sitk.Image:
    header = freesurfer.read_header(path)
    check_complete(path, header.needed)
    if header.frames > 1:
        return freesurfer.read_frame(path, header, _pick(path, number, header.frames, "volumes"))
    return _scalar(freesurfer.read_frame(path, header), path, number)


def _load_dicom(path: Path, number: int | None) -> sitk.Image:
    """A DICOM file, or one volume of a folder."""
    found = dicom.stacks(path)
    if len(found) == 1:
        return _scalar(dicom.read_stack(found[0], path), path, number)
    picked = _pick(path, number, len(found), "volumes", [len(stack) for stack in found])
    return _scalar(dicom.read_stack(found[picked], path), path, None)


def _pick(path: Path, number: int | None, count: int, what: str, sizes: list[int] | None = None) -> int:
    """The number that the user appended, if it is one of `count`; else a sentence that says how to append one."""
    if number is not None and 0 <= number < count:
        return number
    detail = f" ({', '.join(f'@{i}: {n} slices' for i, n in enumerate(sizes[:10]))})" if sizes else ""
    if sizes and len(set(sizes)) == 1:
        detail = f" of {sizes[0]} slices each"
    raise RegistrationError(
        f"{path} holds {count} {what}{detail}; pick one by its number, {path}@0 to {path}@{count - 1}."
    )


def _voxel_type(pixel: int) -> np.dtype:
    """The numpy type of a SimpleITK pixel type. Raises ValueError for complex numbers."""
    vector = "vector" in sitk.GetPixelIDValueAsString(pixel)
    one = sitk.Image([1, 1], pixel, 2) if vector else sitk.Image([1, 1], pixel)
    kind = sitk.GetArrayViewFromImage(one).dtype
    if kind.kind not in "iuf":
        raise ValueError("its voxels are not real numbers")
    return kind

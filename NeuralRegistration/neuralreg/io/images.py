"""Image files → `Image` and back, and the checks that every volume passes before it is used."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

from ..files import check_name, check_written, replacing
from ..image import Grid, Image, Watch, checked_grid, resample, slabs
from ..job import RegistrationError
from .nifti_write import write_nifti
from .segments import placed
from .volumes import NOWHERE, SHEARED, SKEW, Warn, load_volume, reason, with_values

SMALLEST_SIDE = 8  # voxels; below that no level of an image pyramid is left to register on
# SimpleITK takes the level but writes the same bytes at any (2.5.7: 0.12 s, 5.9 MB for a 1 mm brain in float32).
COMPRESSION_LEVEL = 1
WRITTEN = (".nii.gz", ".nii", ".nrrd", ".mha")  # one file each, so that it is whole or absent
# Of neighbours of one value: 0.65 to 0.9 in label maps of brains (the former of 4 mm, the latter of 140 structures of 1
# mm), 0.02 to 0.05 in their scans, also of 256 grey values. Dots that touch by chance are no scan yet.
SCAN_ALIKE, FEWEST_PAIRS, SOME_SLICES = 0.25, 100, 64
LABEL_TYPES = {np.dtype(np.uint16): np.int32, np.dtype(np.uint32): np.int64, np.dtype(np.uint64): np.int64}


def read_image(path: str | Path, warn: Warn = warnings.warn) -> Image:
    """A scalar volume as float32 (1, D, H, W). Raises RegistrationError with one sentence where it cannot be used."""
    return checked(_image(load_volume(path, warn), np.float32, str(path)), str(path), warn)


def read_map(path: str | Path, warn: Warn = warnings.warn) -> Image:
    """Like `read_image` for a volume that is moved along instead of registered: it may be small or constant."""
    return _finite(_image(load_volume(path, warn), np.float32, str(path)), str(path), warn)


def read_labels(path: str | Path, warn: Warn = warnings.warn) -> Image:
    """A label map as an integer (1, D, H, W), in its own integer type where torch has it; a scan of whole numbers is
    taken, with a warning. Raises RegistrationError."""
    volume = load_volume(path, warn)
    values = sitk.GetArrayViewFromImage(volume)
    if values.dtype.kind == "f":
        if not np.isfinite(values).all():
            warn(f"{path} holds NaN or infinity, which was treated as label 0.")
            values = np.nan_to_num(values, posinf=0.0, neginf=0.0)
            volume = with_values(volume, values)
        if not np.array_equal(values, np.rint(values)):
            raise RegistrationError(f"{path} holds fractions, so it is no label map; give it as an image instead.")
        if np.abs(values).max() >= 2**31:
            raise RegistrationError(f"{path} holds numbers that are too large for labels; give it as an image instead.")
    if _looks_like_scan(values):
        warn(f"{path} looks like a scan: hardly two voxels beside each other are alike; give a label map in its place.")
    kind = np.dtype(np.int32) if values.dtype.kind == "f" else values.dtype
    return _image(volume, LABEL_TYPES.get(kind, kind), str(path))


def _looks_like_scan(values: np.ndarray) -> bool:
    """Whether voxels (D, H, W) beside each other, that are no background, hardly ever have one value."""
    some = values[:: max(1, len(values) // SOME_SLICES)]
    shown = (some != 0) & (some != some.min())
    both = shown[..., 1:] & shown[..., :-1]
    alike = both & (some[..., 1:] == some[..., :-1])
    return both.sum() >= FEWEST_PAIRS and alike.sum() < SCAN_ALIKE * both.sum()


def read_grid(path: str | Path, warn: Warn = warnings.warn) -> Grid:
    """The grid of a volume. Raises RegistrationError."""
    return _grid(load_volume(path, warn), str(path))


def pixel_type(path: str | Path) -> type:
    """The numpy type of a file's voxels, for writing labels as they came. Raises RegistrationError."""
    return sitk.GetArrayViewFromImage(load_volume(path, lambda _: None)).dtype.type


def read_mask(path: str | Path, grid: Grid, warn: Warn = warnings.warn) -> Image:
    """A mask (every value above 0 counts) as float32 0/1 on `grid`. Raises RegistrationError when it is empty."""
    checked_grid(grid, "read_mask")
    volume = _image(load_volume(path, warn), np.float32, str(path))
    mask = Image((torch.nan_to_num(volume.data) > 0).float(), volume.grid)
    return resampled_mask(mask, grid, f"The mask {path}", warn)


def resampled_mask(mask: Image, grid: Grid, name: str, warn: Warn = warnings.warn) -> Image:
    """A mask brought to `grid` (nearest neighbour) if it lies on another one; `name` begins a sentence. Raises
    RegistrationError when empty."""
    if not mask.data.any():
        raise RegistrationError(f"{name} is empty; draw the region to use, or leave the mask out.")
    if mask.grid.same_as(grid, tolerance_mm=1e-2):
        return Image((mask.data > 0).float(), grid)
    warn(f"{name} lies on another grid than its image; it was resampled (nearest neighbour).")
    moved = resample(mask, lambda points: points, grid, "nearest")
    if not moved.data.any():
        raise RegistrationError(f"{name} does not overlap its image in space; choose the mask of this image.")
    return Image((moved.data > 0).float(), grid)


def checked(image: Image, name: str, warn: Warn = warnings.warn) -> Image:
    """`image` as a finite float32 volume that can be registered; NaN and infinity become background, with a warning."""
    channels, *shape = image.data.shape
    if channels != 1:
        raise RegistrationError(
            f"{name} has {channels} values per voxel; give a volume with one, e.g. a single channel of it."
        )
    if min(shape) < SMALLEST_SIDE:
        size = " × ".join(map(str, image.grid.size))
        hint = "give the folder with all slices" if shape[0] == 1 else "choose a larger volume"
        raise RegistrationError(
            f"{name} has only {size} voxels and at least {SMALLEST_SIDE} are needed on each axis; {hint}."
        )
    image = _finite(image, name, warn)
    if image.data.min() == image.data.max():
        raise RegistrationError(
            f"{name} has the same value in every voxel, or values too small or too large for 32 bits, so there is "
            "nothing to register; check the file, or give it another unit."
        )
    return image


def _finite(image: Image, name: str, warn: Warn) -> Image:
    data = image.data.float()
    # Slab by slab: torch would make a float64 copy of a large volume.
    if all(math.isfinite(float(data[:, a:b].sum(dtype=torch.float64))) for a, b in slabs(image.grid.shape)):
        return Image(data, image.grid)
    finite = torch.isfinite(data)
    if not finite.any():
        raise RegistrationError(
            f"{name} holds no number at all, only NaN, infinity or values too large for 32 bits; export it again."
        )
    share = 100.0 * (1.0 - finite.float().mean().item())
    warn(
        f"{name} holds NaN, infinity or values too large for 32 bits in {share:.2g} % of its voxels; they were treated "
        "as background."
    )
    return Image(torch.where(finite, data, data[finite].min()), image.grid)


def write_image(
    image: Image,
    path: str | Path,
    dtype: np.dtype | type | None = None,
    watch: Watch | None = None,
    segments: Mapping[str, str] | None = None,
) -> None:
    """Write (C, D, H, W) with its own integer type or float32, or as `dtype`; the file is whole or absent.

    segments: what `read_segments` found, for a NRRD file.
    Raises RegistrationError for a file type that cannot be written and a type of number that cannot hold the values,
    OSError when the disk is full.
    """
    check_name(path)
    path = Path(path)
    if not isinstance(image, Image):
        raise RegistrationError(f"write_image needs an Image, then its file; got {type(image).__name__}.")
    if not path.name.lower().endswith(WRITTEN):
        raise RegistrationError(f"{path} cannot be written; end its name with .nii.gz, .nrrd or .mha.")
    nifti = path.name.lower().endswith((".nii", ".nii.gz"))
    with replacing(path) as partial:
        if nifti and len(image.data) == 1:
            write_nifti(partial, _array(image, dtype)[0], image.grid, path.name.lower().endswith(".gz"), watch)
            return
        volume = to_sitk(image, dtype)
        for key, value in placed(segments or {}, image.grid).items():
            volume.SetMetaData(key, value)
        try:
            sitk.WriteImage(volume, str(partial), True, COMPRESSION_LEVEL)
        except RuntimeError as error:
            raise OSError(f"{path} cannot be written ({reason(error)})") from error
        if nifti:  # ITK does not notice when a NIfTI file does not fit
            check_written(partial, 352 + image.data.numel() * volume.GetSizeOfPixelComponent())


def to_sitk(image: Image, dtype: np.dtype | type | None = None) -> sitk.Image:
    """The SimpleITK image; several channels become a vector image."""
    values = _array(image, dtype)
    vector = values.shape[0] > 1
    volume = sitk.GetImageFromArray(
        np.ascontiguousarray(np.moveaxis(values, 0, -1)) if vector else values[0], isVector=vector
    )
    volume.SetSpacing(image.grid.spacing.tolist())
    volume.SetOrigin(image.grid.origin.tolist())
    volume.SetDirection(image.grid.direction.reshape(-1).tolist())
    return volume


def _array(image: Image, dtype: np.dtype | type | None) -> np.ndarray:  # -> (C, D, H, W)
    """The values in their own integer type or float32, or as `dtype`."""
    values = image.data.detach().cpu()
    values = values.byte() if values.dtype == torch.bool else values  # no file type has a truth value
    values = (values.float() if values.is_floating_point() else values).numpy()
    return values if dtype is None else _converted(values, dtype)


def _converted(values: np.ndarray, dtype: np.dtype | type | str) -> np.ndarray:
    """The values in another type of number, rounded if it is whole. Raises RegistrationError where they do not fit."""
    try:
        kind = np.dtype(np.uint8 if dtype is bool else dtype)
    except TypeError:
        kind = np.dtype(object)
    if kind.kind not in "iuf" or kind.itemsize > 8 or kind == np.float16:
        raise RegistrationError(f"Voxels cannot be written as {dtype}; choose whole numbers, float32 or float64.")
    if kind.kind == "f" or values.dtype == kind:
        return values.astype(kind)
    limits, low, high = np.iinfo(kind), values.min(), values.max()
    if not (limits.min <= low and high <= limits.max):  # nor where they hold NaN
        raise RegistrationError(
            f"Values from {low:g} to {high:g} do not fit into {kind}; choose a larger type of number."
        )
    return (np.rint(values) if values.dtype.kind == "f" else values).astype(kind)


def from_sitk(volume: sitk.Image) -> Image:
    """The `Image` of a 3D SimpleITK image, in its own integer type or float32. Raises RegistrationError."""
    if volume.GetDimension() != 3:
        raise RegistrationError(f"The image has {volume.GetDimension()} dimensions; give one volume with 3.")
    named = sitk.GetPixelIDValueAsString(volume.GetPixelID())
    if "complex" in named or "label" in named:  # ITK ends the whole process when asked for the values of a label map
        raise RegistrationError(f"The image holds {named} values; give one with a real number in each voxel.")
    kind = sitk.GetArrayViewFromImage(volume).dtype
    return _image(volume, np.float32 if kind.kind == "f" else LABEL_TYPES.get(kind, kind))


def _image(volume: sitk.Image, dtype: np.dtype | type, name: str = "An image") -> Image:
    values = sitk.GetArrayViewFromImage(volume)
    with np.errstate(over="ignore", invalid="ignore"):  # what float32 cannot hold becomes infinite, which is checked
        values = np.array(values, dtype=dtype)
    data = torch.from_numpy(values if volume.GetNumberOfComponentsPerPixel() > 1 else values[..., None]).movedim(-1, 0)
    return Image(data.contiguous(), _grid(volume, name))


def _grid(volume: sitk.Image, name: str = "An image") -> Grid:
    try:
        grid = Grid.from_parts(volume.GetSize(), volume.GetOrigin(), volume.GetSpacing(), volume.GetDirection())
    except ValueError as error:
        raise RegistrationError(NOWHERE.format(name)) from error
    if np.abs(grid.direction.T @ grid.direction - np.eye(3)).max() > SKEW:  # the outputs' type cannot hold that
        raise RegistrationError(SHEARED.format(name))
    return grid

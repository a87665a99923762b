"""Transform files → `Transform` and back. `sitk.CompositeTransform([a, b])` is `a @ b`: both apply b first."""

from __future__ import annotations

import functools
import operator
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import torch

from ..files import alone, check_name, reading, replacing
from ..hdf5 import MOST_MEMBERS, ItkTransform, composed, damaged, uncomposed, write_itk_transforms
from ..image import Grid, Image, Watch
from ..job import TRANSFORM, RegistrationError
from ..transform import Affine, Composite, DisplacementField, Transform, VelocityField
from .headers import check_complete, check_header
from .images import to_sitk, write_image
from .linear import SEVERAL, check_linear
from .volumes import reason

FIELD_FILES = (".nii", ".nii.gz", ".mha", ".mhd", ".nrrd", ".nhdr")
LINEAR_FILES = (".tfm", ".txt", ".mat")
HDF5_FILES = (".h5", ".hdf5")


@reading()
def read_transform(path: str | Path) -> Transform:
    """A linear, composite or displacement-field transform from .h5, .tfm, .txt, .mat or a vector image.

    Raises RegistrationError when there is none, or one of a kind that is not a point map of this core (B-splines).
    """
    check_name(path)
    path = Path(path)
    if path.is_dir():
        raise RegistrationError(f"{path} is a folder; name the transform file in it, {TRANSFORM} for that of a run.")
    if not path.is_file():
        raise RegistrationError(f"There is no transform file {path}; check the path.")
    try:
        if path.name.lower().endswith(FIELD_FILES):
            with alone(path) as name:
                return _read_field(path, name)
        if path.suffix.lower() in LINEAR_FILES:
            check_linear(path)
        elif path.suffix.lower() not in HDF5_FILES:  # MINC's .xfm, above all: ITK 5.4 takes its RAS for LPS
            raise ValueError("its type is not known")
        elif damaged(path):
            raise ValueError("the file is damaged or no HDF5 file")
        elif uncomposed(path):
            raise ValueError(SEVERAL)
        return from_sitk_transform(sitk.ReadTransform(str(path)))
    except (RuntimeError, ValueError, OSError) as error:
        raise RegistrationError(
            f"{path} cannot be read as a transform ({reason(error)}); give an ITK transform (.h5, .tfm, .mat)."
        ) from error


def write_transform(transform: Transform, path: str | Path, watch: Watch | None = None) -> None:
    """Write .h5 (any transform; fields as float32), .tfm/.txt/.mat (linear) or a vector image (one displacement field).

    Raises RegistrationError when the transform does not fit the file type, OSError when the disk is full.
    """
    check_name(path)
    path = Path(path)
    if not isinstance(transform, Transform):
        raise RegistrationError(f"write_transform needs a Transform, then its file; got {type(transform).__name__}.")
    name, parts = path.name.lower(), _leaves(transform)
    if name.endswith(HDF5_FILES):
        if len(parts) >= MOST_MEMBERS:
            raise RegistrationError(
                f"A transform of {len(parts)} parts has no room in one file, which takes {MOST_MEMBERS - 1}; write its "
                "displacement(grid) instead."
            )
        with replacing(path) as partial:
            write_itk_transforms(partial, composed([_part_to_itk(part) for part in parts]), watch)
    elif name.endswith(LINEAR_FILES) and len(parts) == 1 and isinstance(parts[0], Affine):
        with replacing(path) as partial:
            _write_linear(parts[0], partial, path)
    elif name.endswith(FIELD_FILES) and len(parts) == 1 and isinstance(parts[0], DisplacementField):
        write_image(Image(parts[0].mm, parts[0].grid), path)
    else:
        raise RegistrationError(f"This transform cannot be written as {path}; end the name with .h5.")


def _write_linear(transform: Affine, partial: Path, path: Path) -> None:
    try:
        sitk.WriteTransform(to_sitk_transform(transform), str(partial))
    except RuntimeError as error:
        raise OSError(f"{path} cannot be written ({reason(error)})") from error


def to_sitk_transform(transform: Transform) -> sitk.Transform:
    """The SimpleITK transform of the same point map."""
    converted = [_part_to_sitk(part) for part in _leaves(transform)]
    return converted[0] if len(converted) == 1 else sitk.CompositeTransform(converted)


def from_sitk_transform(transform: sitk.Transform) -> Transform:
    """The same point map as one of the core's transforms. Raises RegistrationError for 2D and for B-splines."""
    if transform.GetDimension() != 3:
        raise RegistrationError(f"The transform has {transform.GetDimension()} dimensions; give one with 3.")
    name = transform.GetName()
    if name == "CompositeTransform":
        composite = sitk.CompositeTransform(transform)
        parts = [from_sitk_transform(composite.GetNthTransform(i)) for i in range(composite.GetNumberOfTransforms())]
        return functools.reduce(operator.matmul, parts or [Affine.identity()])  # neighbours that are linear become one
    if name == "DisplacementFieldTransform":
        return _field(sitk.DisplacementFieldTransform(transform).GetDisplacementField())
    if transform.IsLinear():
        return _affine(transform)
    raise RegistrationError(f"Transforms of type {name} cannot be used; convert it to a displacement field first.")


def _affine(transform: sitk.Transform) -> Affine:
    """Any linear map is known from four points, whatever its centre and its parameters."""
    corners = [(0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)]
    origin, *ends = (np.array(transform.TransformPoint(corner)) for corner in corners)
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack([end - origin for end in ends], axis=1)
    matrix[:3, 3] = origin
    return Affine(matrix)


def _field(volume: sitk.Image) -> DisplacementField:
    values = np.array(sitk.GetArrayViewFromImage(volume), dtype=np.float32)
    if not np.isfinite(values).all():
        raise ValueError("its displacements hold NaN or infinity")
    grid = Grid.from_parts(volume.GetSize(), volume.GetOrigin(), volume.GetSpacing(), volume.GetDirection())
    return DisplacementField(torch.from_numpy(np.ascontiguousarray(np.moveaxis(values, -1, 0))), grid)


def _read_field(path: Path, name: Path) -> DisplacementField:
    """The field in the file `path`, read under another of its names."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(name))
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    check_header(path)
    reader.ReadImageInformation()
    if reader.GetDimension() != 3 or reader.GetNumberOfComponents() != 3:
        raise ValueError("a displacement field is a volume with 3 values per voxel")
    if "float" not in sitk.GetPixelIDValueAsString(reader.GetPixelID()):
        raise ValueError("its values are whole numbers, as colours are, not millimetres")
    check_complete(path, 3 * int(np.prod([int(n) for n in reader.GetSize()], dtype=object)))
    return _field(reader.Execute())


def _leaves(transform: Transform) -> list[Transform]:
    """Affines and displacement fields in the order of composition; a velocity field is integrated."""
    if isinstance(transform, Composite):
        return [leaf for part in transform.transforms for leaf in _leaves(part)]
    return [transform.exp() if isinstance(transform, VelocityField) else transform]


def _part_to_sitk(part: Transform) -> sitk.Transform:
    if isinstance(part, Affine):
        linear = sitk.AffineTransform(3)
        linear.SetMatrix(part.matrix[:3, :3].reshape(-1).tolist())
        linear.SetTranslation(part.matrix[:3, 3].tolist())
        return linear
    return sitk.DisplacementFieldTransform(to_sitk(Image(part.mm, part.grid), np.float64))


def _part_to_itk(part: Transform) -> ItkTransform:
    if isinstance(part, Affine):
        parameters = np.concatenate([part.matrix[:3, :3].reshape(-1), part.matrix[:3, 3]])
        return ItkTransform("AffineTransform_double_3_3", np.zeros(3), parameters)
    grid = part.grid
    fixed = np.concatenate([grid.size, grid.origin, grid.spacing, grid.direction.reshape(-1)])
    interleaved = np.moveaxis(part.mm.detach().cpu().float().numpy(), 0, -1)  # (D, H, W, 3) float32 mm
    return ItkTransform("DisplacementFieldTransform_float_3_3", fixed, np.ascontiguousarray(interleaved))

"""Test data in both worlds: volumes on awkward grids, a known transform, and a run directory as the core writes it."""

from __future__ import annotations

import dataclasses

import numpy as np
import SimpleITK as sitk
import slicer
import vtk
from neuralreg.job import INVERSE, JACOBIAN, RESULT, TRANSFORM, WARPED, Result
from plainfile import write_transform

SHAPE = (18, 22, 20)  # (D, H, W)


def _rotation(degrees, axis):
    axis = np.array(axis) / np.linalg.norm(axis)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    angle = np.deg2rad(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


#: name -> ijk to RAS of a grid (4, 4); the centre of each lies near the origin
GRIDS = {}
for _name, _axes in {
    "axial": np.diag([2.0, 2.0, 2.0]),
    "flipped": np.diag([-2.0, -2.0, 2.0]),
    "anisotropic": np.diag([1.5, 1.8, 3.0]),
    "oblique": _rotation(25, (1, 2, 3)) @ np.diag([1.6, 2.1, 2.6]),
    "permuted": np.array([[0, 0, 2.5], [-1.8, 0, 0], [0, 1.9, 0]]),
}.items():
    GRIDS[_name] = np.eye(4)
    GRIDS[_name][:3, :3] = _axes
    GRIDS[_name][:3, 3] = -_axes @ (np.array(SHAPE[::-1]) - 1) / 2 + (3, -4, 5)


def blobs(geometry, shape=SHAPE, shift=(0, 0, 0)) -> np.ndarray:
    """A smooth image that is zero near its border, drawn in RAS so that all grids show the same body."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape[::-1]], indexing="ij"), axis=-1)  # (W, H, D, 3)
    ras = index @ geometry[:3, :3].T + geometry[:3, 3] - np.array(shift)
    image = np.zeros(ras.shape[:3])
    for centre, width, height in (((3, -4, 5), 6, 100), ((-3, 2, 8), 3.5, 60), ((8, -8, 1), 3, -40)):
        image += height * np.exp(-((ras - centre) ** 2).sum(axis=-1) / (2 * width**2))
    return np.ascontiguousarray(image.T).astype(np.float32)


def add_volume(name, geometry, shift=(0, 0, 0), label=False):
    array = blobs(geometry, shift=shift)
    kind = "vtkMRMLLabelMapVolumeNode" if label else "vtkMRMLScalarVolumeNode"
    array = (array > 30).astype(np.uint8) if label else array
    return slicer.util.addVolumeFromArray(array, geometry, name, kind)


def as_sitk(volume) -> sitk.Image:
    """The volume as ITK sees its file: LPS, with the linear transforms under which it lies."""
    own, parents = vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(own)
    if volume.GetParentTransformNode() is not None:
        volume.GetParentTransformNode().GetMatrixTransformToWorld(parents)
    lps = np.diag([-1, -1, 1, 1]) @ slicer.util.arrayFromVTKMatrix(parents) @ slicer.util.arrayFromVTKMatrix(own)
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image = sitk.GetImageFromArray(slicer.util.arrayFromVolume(volume))
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    return image


def composite(fixed: sitk.Image, inverted=False) -> sitk.Transform:
    """ITK composite [affine, displacement field] on the fixed grid, a few millimetres, zero at the border."""
    affine = sitk.AffineTransform(3)
    affine.SetMatrix((_rotation(6, (3, 1, 2)) * 1.03).ravel().tolist())
    affine.SetTranslation((2.0, -1.5, 1.0))
    waves = [np.sin(np.pi * np.arange(n) / (n - 1)) for n in SHAPE]
    bump = waves[0][:, None, None] * waves[1][None, :, None] * waves[2][None, None, :]
    field = np.stack([2.0 * bump, -1.5 * bump, 1.0 * bump * np.cos(np.arange(SHAPE[2]) / 3)], axis=-1)
    image = sitk.GetImageFromArray(field, isVector=True)
    image.CopyInformation(fixed)
    displacement = sitk.DisplacementFieldTransform(image)
    if inverted:  # a rough inverse: tests of loading need a file, not an exact one
        negative = sitk.GetImageFromArray(-field, isVector=True)
        negative.CopyInformation(fixed)
        return sitk.CompositeTransform([sitk.DisplacementFieldTransform(negative), affine.GetInverse()])
    return sitk.CompositeTransform([affine, displacement])


def result(**changes) -> Result:
    """A small but complete result."""
    metrics = {
        "similarity_before": 0.31,
        "similarity_after": 0.87,
        "folds_percent": 0.0,
        "jacobian": {"min": 0.42, "max": 1.9},
        "dice": {"1": 0.9},
    }
    made = Result(
        files={},
        metrics=metrics,
        timings={"affine": 1.5, "total": 4.0},
        peak_memory_mb=800.0,
        device="cpu",
        device_reason="no GPU found",
        method="DNVF",
        options={},
        similarity="lncc",
        seed=0,
        versions={},
    )
    return dataclasses.replace(made, **changes)


def write_run(folder, fixed, moving) -> None:
    """The files of a finished run for two volume nodes."""
    fixed_image, moving_image = as_sitk(fixed), as_sitk(moving)
    transform = composite(fixed_image)
    write_transform(transform, folder / TRANSFORM)
    write_transform(composite(fixed_image, inverted=True), folder / INVERSE)
    sitk.WriteImage(sitk.Resample(moving_image, fixed_image, transform), str(folder / WARPED))
    jacobian = sitk.GetImageFromArray(np.linspace(-0.5, 2.5, int(np.prod(SHAPE))).reshape(SHAPE).astype(np.float32))
    jacobian.CopyInformation(fixed_image)
    sitk.WriteImage(jacobian, str(folder / JACOBIAN))
    result().save(folder / RESULT)

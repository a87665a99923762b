"""The lattice of a volume node in world space (RAS mm), and resampling onto another lattice.

A lattice is a vtkImageData with unit spacing and zero origin, and the 4×4 matrix (i, j, k) → RAS beside it.
"""

from __future__ import annotations

import itertools

import numpy as np
import slicer
import vtk

ORTHOGONAL_WITHIN = 1e-4  # cosine between axes, above which a lattice counts as sheared (files cannot hold shear)
SAME_WITHIN_MM = 1e-3  # files hold the places of voxels in float32
SAME_WITHIN_VOXELS = 0.01
SAMPLES_PER_AXIS = 9  # points per axis at which a bent volume is measured, so that bulges are not cut off


def local_geometry(volume) -> np.ndarray:
    """(4, 4) ijk → RAS of the node, without its parent transforms."""
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def world_from(parent) -> tuple[np.ndarray | None, vtk.vtkGeneralTransform | None]:
    """(matrix, None) when a transform node and those above it are linear, (None, general transform) when they bend,
    RAS to RAS; the unit matrix for None."""
    if parent is None:
        return np.eye(4), None
    if parent.IsTransformToWorldLinear():
        matrix = vtk.vtkMatrix4x4()
        parent.GetMatrixTransformToWorld(matrix)
        return slicer.util.arrayFromVTKMatrix(matrix), None
    general = vtk.vtkGeneralTransform()
    parent.GetTransformToWorld(general)
    return None, general


def is_orthogonal(geometry: np.ndarray) -> bool:
    """Whether the axes of an ijk → RAS matrix are at right angles."""
    axes = geometry[:3, :3] / np.linalg.norm(geometry[:3, :3], axis=0)
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() < ORTHOGONAL_WITHIN)


def in_world(image, geometry: np.ndarray, parent, labels: bool, background: float = 0.0):
    """(image, ijk → RAS) in world space of an image that lies under a transform node, or under none.

    Linear parents only change the matrix; where they bend or shear, the image is resampled (nearest for labels).
    """
    matrix, general = world_from(parent)
    if matrix is not None and is_orthogonal(matrix @ geometry):
        return image, matrix @ geometry
    general = general or _general(matrix)
    target, size = _enclosing_lattice(image, geometry, general)
    return _resample(image, geometry, general, target, size, labels, background), target


def on_lattice_of(volume, reference):
    """The voxels of a volume node, parent transforms applied, on another volume's own lattice.

    As they are where the lattice is the same.
    """
    image, target, size = volume.GetImageData(), local_geometry(reference), reference.GetImageData().GetDimensions()
    matrix, general = world_from(volume.GetParentTransformNode())
    same = matrix is not None and np.allclose(matrix @ local_geometry(volume), target, atol=SAME_WITHIN_MM)
    if same and image.GetDimensions() == size:
        return image
    labels = volume.IsA("vtkMRMLLabelMapVolumeNode")
    background = 0.0 if labels else volume.GetImageBackgroundScalarComponentAsDouble(0)
    return _resample(image, local_geometry(volume), general or _general(matrix), target, size, labels, background)


def on_whole_lattice_of(image, geometry: np.ndarray, reference):
    """(image, ijk → RAS) in world space, with 0 around it as far as a volume node reaches.

    As it is where it does not lie on voxels of that volume.
    """
    matrix, _bent = world_from(reference.GetParentTransformNode())
    if matrix is None:
        return image, geometry
    target, size = matrix @ local_geometry(reference), np.array(reference.GetImageData().GetDimensions())
    relative = np.linalg.inv(target) @ geometry
    first, part = np.round(relative[:3, 3]).astype(int), np.array(image.GetDimensions())
    relative[:3, 3] -= first
    beside = np.abs(relative - np.eye(4))[:3] @ [*part, 1]
    if beside.max() > SAME_WITHIN_VOXELS or (first < 0).any() or (first + part > size).any():
        return image, geometry
    placed = vtk.vtkImageData()
    placed.ShallowCopy(image)
    placed.SetExtent(*np.column_stack([first, first + part - 1]).ravel().tolist())
    padded = vtk.vtkImageConstantPad()
    padded.SetInputData(placed)
    padded.SetOutputWholeExtent(*np.column_stack([0 * size, size - 1]).ravel().tolist())
    padded.Update()
    return padded.GetOutput(), target


def _general(matrix: np.ndarray) -> vtk.vtkGeneralTransform:
    general = vtk.vtkGeneralTransform()
    general.Concatenate(slicer.util.vtkMatrixFromArray(matrix))
    return general


def world_bounds(volume) -> tuple[np.ndarray, np.ndarray]:
    """(lowest, highest) RAS mm of the box around a volume in world space."""
    points = _under(volume.GetParentTransformNode(), volume, _spread(volume.GetImageData()))
    return points.min(axis=0), points.max(axis=0)


def corners(volume, parent) -> np.ndarray:
    """(8, 3) RAS mm: where the corner voxels of a volume lie in world space when it is put under a transform node."""
    return _under(parent, volume, [(0, n - 1) for n in volume.GetImageData().GetDimensions()])


def _spread(image) -> list[np.ndarray]:
    """Voxel coordinates along each axis, spread over an image, voxel borders included."""
    return [np.linspace(-0.5, n - 0.5, SAMPLES_PER_AXIS) for n in image.GetDimensions()]


def _under(parent, volume, along: list) -> np.ndarray:
    """`_world_points` of a volume that is put under a transform node, or under none."""
    matrix, general = world_from(parent)
    geometry = local_geometry(volume) if matrix is None else matrix @ local_geometry(volume)
    return _world_points(along, geometry, general)


def _world_points(along: list, geometry: np.ndarray, general) -> np.ndarray:
    """(n, 3) RAS mm: every combination of the voxel coordinates along the three axes, in world space."""
    local = np.array(list(itertools.product(*along))) @ geometry[:3, :3].T + geometry[:3, 3]
    return local if general is None else np.array([general.TransformPoint(point) for point in local])


def _enclosing_lattice(image, geometry, general) -> tuple[np.ndarray, np.ndarray]:
    """(ijk → RAS, size) of an orthogonal lattice with the image's spacing that holds the whole bent image."""
    spacing = np.linalg.norm(geometry[:3, :3], axis=0)
    left, _, right = np.linalg.svd(geometry[:3, :3] / spacing)
    axes = left @ right  # the nearest orthonormal axes
    along = _world_points(_spread(image), geometry, general) @ axes / spacing  # in voxels of the new lattice
    low, high = along.min(axis=0), along.max(axis=0)
    target = np.eye(4)
    target[:3, :3] = axes * spacing
    target[:3, 3] = target[:3, :3] @ (low + 0.5)
    return target, np.maximum(np.ceil(high - low - 1e-3).astype(int), 1)


def _resample(image, geometry, general, target, size, labels, background):
    into_source = vtk.vtkGeneralTransform()  # output ijk → world → local RAS → input ijk
    into_source.PostMultiply()
    into_source.Concatenate(slicer.util.vtkMatrixFromArray(target))
    into_source.Concatenate(general.GetInverse())
    into_source.Concatenate(slicer.util.vtkMatrixFromArray(np.linalg.inv(geometry)))
    reslice = vtk.vtkImageReslice()
    reslice.SetInputData(image)
    reslice.SetResliceTransform(into_source)
    reslice.SetInterpolationMode(vtk.VTK_NEAREST_INTERPOLATION if labels else vtk.VTK_LINEAR_INTERPOLATION)
    reslice.TransformInputSamplingOff()
    reslice.AutoCropOutputOff()
    reslice.SetOutputDimensionality(3)
    reslice.SetOutputSpacing(1, 1, 1)
    reslice.SetOutputOrigin(0, 0, 0)
    reslice.SetOutputExtent(0, int(size[0]) - 1, 0, int(size[1]) - 1, 0, int(size[2]) - 1)
    reslice.SetBackgroundLevel(background)
    reslice.Update()
    return reslice.GetOutput()

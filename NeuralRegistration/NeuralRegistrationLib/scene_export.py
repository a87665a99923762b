"""Volumes, masks and transforms of the scene → files in world space (LPS), as the core reads them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import slicer
import vtk
from neuralreg.job import RegistrationError
from vtk.util.numpy_support import vtk_to_numpy

from .lattice import in_world, local_geometry, on_whole_lattice_of, world_bounds
from .plain_transform import plain_parts
from .transform_file import write_parts


def export_volume(volume, path: Path) -> str:
    """`export_volume_under` the transforms under which it lies."""
    return export_volume_under(volume.GetParentTransformNode(), volume, path)


def export_volume_under(parent, volume, path: Path) -> str:
    """Write a scalar volume as it lies when it is put under a transform node, or under none (None).

    Raises RegistrationError for an empty, vector or 4D volume, and when the file cannot be written.
    """
    image = _image_of(volume)
    labels = volume.IsA("vtkMRMLLabelMapVolumeNode")
    background = 0.0 if labels else volume.GetImageBackgroundScalarComponentAsDouble(0)
    return _write(*in_world(image, local_geometry(volume), parent, labels, background), path)


def export_mask(mask, reference, path: Path) -> str:
    """Write a mask, 1 inside and 0 outside, on its own lattice: a label map, or all segments of a segmentation, which
    Slicer keeps as the box around them and which goes on the lattice of its volume again.

    Raises RegistrationError when nothing is inside.
    """
    if mask.IsA("vtkMRMLSegmentationNode"):
        image, geometry = _merged(mask, reference)
    else:
        image, geometry = _image_of(mask), local_geometry(mask)
    inside = vtk.vtkImageThreshold()
    inside.SetInputData(image)
    inside.ThresholdByLower(0)
    inside.SetInValue(0)
    inside.SetOutValue(1)
    inside.SetOutputScalarTypeToUnsignedChar()
    inside.Update()
    if inside.GetOutput().GetScalarRange()[1] == 0:
        raise RegistrationError(f'The mask "{mask.GetName()}" is empty; draw something in it or choose none.')
    image, geometry = in_world(inside.GetOutput(), geometry, mask.GetParentTransformNode(), labels=True)
    if mask.IsA("vtkMRMLSegmentationNode"):
        image, geometry = on_whole_lattice_of(image, geometry, reference)
    return _write(image, geometry, path)


def export_transform(node, path: Path, reference) -> str:
    """Write a transform node with its parents as one ITK file (.h5), fixed → moving as ITK resamples.

    `reference` is the fixed volume: around it a transform that other programs cannot read is sampled on a lattice.
    Raises RegistrationError when the file cannot be written.
    """
    from_world = vtk.vtkGeneralTransform()
    node.GetTransformFromWorld(from_world)
    return write_transform(node, from_world, path, reference)


def write_transform(node, transform, path: Path, reference) -> str:
    """`export_transform` of what a node holds, or of that with what lies above it."""
    try:
        write_parts(plain_parts(transform, reference), path)
    except OSError as error:
        raise RegistrationError(
            f'The transform "{node.GetName()}" could not be written to {path} ({error.strerror}); make room on that '
            "disk and try again."
        ) from error
    return str(path)


def volumes_overlap(fixed, moving) -> bool:
    """Whether the boxes around two volumes meet in world space."""
    for volume in (fixed, moving):
        _image_of(volume)
    (low_a, high_a), (low_b, high_b) = world_bounds(fixed), world_bounds(moving)
    return bool(np.all(high_a > low_b) and np.all(high_b > low_a))


def _image_of(volume):
    """The voxels of a volume node, checked."""
    image = volume.GetImageData()
    if image is None or image.GetNumberOfPoints() == 0:
        raise RegistrationError(f'The volume "{volume.GetName()}" holds no image; load it again or choose another.')
    components = image.GetNumberOfScalarComponents()
    if components != 1:
        raise RegistrationError(
            f'The volume "{volume.GetName()}" has {components} values per voxel; make a scalar '
            'volume of it first, with the module "Vector to Scalar Volume".'
        )
    return image


def export_segments(segmentation, numbers: dict[str, int], reference, path: Path) -> str:
    """Write some segments, {id: number}, as one label map, where the last one counts; returns the path as text."""
    image, geometry = _merged(segmentation, reference, numbers)
    return _write(*in_world(image, geometry, segmentation.GetParentTransformNode(), labels=True), path)


def layers_of(segmentation, reference) -> dict[str, int]:
    """{id: layer} of all segments: those of one layer do not overlap. `reference` as for `_merged`."""
    binary = _make_binary(segmentation, reference)
    packed = slicer.vtkSegmentation()  # a copy: each segment may lie in a layer of its own, whether it must or not
    packed.DeepCopy(segmentation.GetSegmentation())
    packed.CollapseBinaryLabelmaps(False)
    return {segment_id: packed.GetLayerIndex(segment_id, binary) for segment_id in packed.GetSegmentIDs()}


def _make_binary(segmentation, reference) -> str:
    """Make sure that a segmentation has voxels; returns the name of that representation."""
    binary = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
    if not segmentation.GetSegmentation().ContainsRepresentation(binary):
        segmentation.SetReferenceImageGeometryParameterFromVolumeNode(reference)
        segmentation.CreateBinaryLabelmapRepresentation()
    return binary


def _merged(segmentation, reference, numbers: dict[str, int] | None = None) -> tuple[vtk.vtkImageData, np.ndarray]:
    """(voxels, ijk → RAS) of segments together (all of them by default), on the lattice on which they were drawn.

    `reference` gives the lattice for segments that are surfaces only.
    """
    _make_binary(segmentation, reference)
    if numbers is None:
        numbers = {segment_id: i for i, segment_id in enumerate(segmentation.GetSegmentation().GetSegmentIDs(), 1)}
    ids, values = vtk.vtkStringArray(), vtk.vtkIntArray()
    for segment_id, number in numbers.items():
        ids.InsertNextValue(segment_id)
        values.InsertNextValue(number)
    merged = slicer.vtkOrientedImageData()
    extent = slicer.vtkSegmentation.EXTENT_UNION_OF_SEGMENTS
    segmentation.GenerateMergedLabelmapForAllSegments(merged, extent, None, ids, values)
    if merged.GetNumberOfPoints() == 0:
        raise RegistrationError(f'"{segmentation.GetName()}" is empty; draw something in it or choose none.')
    return _plain(merged)


def _plain(oriented) -> tuple[vtk.vtkImageData, np.ndarray]:
    """(voxels, ijk → RAS) of a vtkOrientedImageData: first voxel at index 0, spacing and origin in the matrix only."""
    matrix = vtk.vtkMatrix4x4()
    oriented.GetImageToWorldMatrix(matrix)
    geometry = slicer.util.arrayFromVTKMatrix(matrix)
    extent = oriented.GetExtent()
    geometry[:3, 3] += geometry[:3, :3] @ extent[::2]
    plain = vtk.vtkImageData()
    plain.DeepCopy(oriented)
    plain.SetOrigin(0, 0, 0)
    plain.SetSpacing(1, 1, 1)
    plain.SetExtent(0, extent[1] - extent[0], 0, extent[3] - extent[2], 0, extent[5] - extent[4])
    return plain, geometry


def _write(image, geometry: np.ndarray, path: Path) -> str:
    """Write voxels and lattice as one uncompressed NRRD file: read once and thrown away, time matters, not size.

    Not through VTK's ITK writer: where the disk is full it throws through C++ and takes Slicer down.
    """
    array = vtk_to_numpy(image.GetPointData().GetScalars())
    try:
        with Path(path).open("wb") as file:
            file.write(_nrrd_header(array.dtype, image.GetDimensions(), geometry))
            file.write(array.data)
    except OSError as error:
        raise RegistrationError(
            f"The image could not be written to {path} ({error.strerror}); make room on that disk and try again."
        ) from error
    return str(path)


def _nrrd_header(dtype: np.dtype, size: tuple[int, int, int], geometry: np.ndarray) -> bytes:
    """The header of teem.sourceforge.net/nrrd/format.html, in ITK's space (LPS)."""
    lps = np.diag([-1, -1, 1, 1]) @ geometry
    vectors = ["({})".format(",".join(repr(float(x)) for x in column)) for column in lps[:3].T]
    kind = {
        "f": "float" if dtype.itemsize == 4 else "double",
        "i": f"int{dtype.itemsize * 8}",
        "u": f"uint{dtype.itemsize * 8}",
    }[dtype.kind]
    lines = [
        "NRRD0005",
        f"type: {kind}",
        "dimension: 3",
        "space: left-posterior-superior",
        f"sizes: {size[0]} {size[1]} {size[2]}",
        f"space directions: {' '.join(vectors[:3])}",
        "kinds: domain domain domain",
        f"endian: {sys.byteorder}",
        "encoding: raw",
        f"space origin: {vectors[3]}",
    ]
    return ("\n".join(lines) + "\n\n").encode("ascii")

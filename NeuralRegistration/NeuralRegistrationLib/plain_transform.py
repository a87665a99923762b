"""Any transform of the scene in the two kinds that all of ITK's readers know: linear ones and displacement grids.

Slicer also holds thin plates (of a landmark registration), B-splines, and inverses that are searched for point by
point; written to a file, most of these can be read by Slicer only.
"""

from __future__ import annotations

import numpy as np
import slicer
import vtk

from .lattice import world_bounds

CELLS = 80  # of the lattice that stands for such a transform, along its longest side: some hundred thousand points
MARGIN = 0.2  # of the longest side of the volume, beyond it on every side
FLAT = 1e-6  # determinant below which a matrix has no inverse worth having
SAMPLES_PER_AXIS = 7  # points to which the linear part is fitted


def plain_parts(transform, reference) -> list:
    """The parts of a transform, the first of which acts first, where these are linear or displacement grids only.

    Otherwise its linear part, and before it the rest as a displacement grid around the volume node `reference`.
    """
    parts = parts_of(transform)
    if all(_is_plain(part) for part in parts):
        return parts
    low, high = world_bounds(reference)
    margin = MARGIN * (high - low).max()
    matrix, linear = _linear_part(transform, low, high), vtk.vtkTransform()
    linear.SetMatrix(slicer.util.vtkMatrixFromArray(matrix))
    return [_grid(_rest(transform, matrix), low - margin, high + margin), linear]


def parts_of(transform) -> list:
    """The simple transforms of which a transform is made, the first of which acts first."""
    if not transform.IsA("vtkGeneralTransform"):
        return [transform]
    transform.Update()  # one that is the inverse of another knows its parts only then
    every = [transform.GetConcatenatedTransform(i) for i in range(transform.GetNumberOfConcatenatedTransforms())]
    return [part for one in every for part in parts_of(one)]


def _is_plain(part) -> bool:
    return part.IsA("vtkHomogeneousTransform") or (
        part.IsA("vtkOrientedGridTransform")
        and not slicer.vtkMRMLTransformNode.IsAbstractTransformComputedFromInverse(part)
    )


def _linear_part(transform, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """(4, 4) the affine matrix that comes nearest to a transform within a box; the unit matrix where it is flat."""
    axes = [np.linspace(*ends, SAMPLES_PER_AXIS) for ends in zip(low, high, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    moved = np.array([transform.TransformPoint(point) for point in points])
    matrix = np.eye(4)
    matrix[:3] = np.linalg.lstsq(np.column_stack([points, np.ones(len(points))]), moved, rcond=None)[0].T
    return matrix if abs(np.linalg.det(matrix)) > FLAT else np.eye(4)


def _rest(transform, linear: np.ndarray):
    """What is to be done before the linear part, so that both together are the transform."""
    rest = vtk.vtkGeneralTransform()
    rest.PostMultiply()
    rest.Concatenate(transform)
    rest.Concatenate(slicer.util.vtkMatrixFromArray(np.linalg.inv(linear)))
    return rest


def _grid(transform, low: np.ndarray, high: np.ndarray):
    """A transform sampled within a box, as a displacement grid."""
    spacing = (high - low).max() / CELLS
    last = np.ceil((high - low) / spacing).astype(int)
    sampler = vtk.vtkTransformToGrid()
    sampler.SetInput(transform)
    sampler.SetGridOrigin(low)
    sampler.SetGridSpacing(spacing, spacing, spacing)
    sampler.SetGridExtent(0, int(last[0]), 0, int(last[1]), 0, int(last[2]))
    sampler.SetGridScalarTypeToFloat()
    sampler.Update()
    grid = slicer.vtkOrientedGridTransform()
    grid.SetDisplacementGridData(sampler.GetOutput())
    grid.SetInterpolationModeToLinear()
    return grid

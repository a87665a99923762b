"""Real registrations for tests of the panel: a pair whose truth is known, clicks that register it, ITK as oracle."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import SimpleITK as sitk
import slicer
import vtk
from clicks import failing_on_slot_errors, wait_for
from neuralreg.job import TRANSFORM
from NeuralRegistrationLib import samples
from NeuralRegistrationLib.results import runs

BEND_MM, WIDTH_MM = 5.0, 18.0  # of samples.addSmallPair
STRUCTURES = np.array([(12.0, 0, 0), (-12.0, 0, 0), (0, 15.0, 5.0), (5.0, -12.0, -8.0)])  # in the fixed volume, RAS mm
TURN = np.array([[0.9925, -0.1219, 0, 9], [0.1219, 0.9925, 0, -7], [0, 0, 1, 5], [0, 0, 0, 1.0]])  # 7°, and a shift


def linear(name, matrix):
    """A linear transform node."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
    node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    return node


def place(matrix, points):
    """Points (n, 3) through a 4×4 matrix."""
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def truth(points):
    """Where points (n, 3) of the small fixed volume lie in the moving one, before any parent transform; RAS mm."""
    moved = points
    for _ in range(30):
        weight = np.exp(-(moved**2).sum(axis=1, keepdims=True) / (2 * WIDTH_MM**2))
        moved = points - BEND_MM * weight * np.array([1.0, -0.7, 0.5])
    return moved


def choose_pair(panel, fixed=None, moving=None, preset="Fast"):
    """Choose two volumes, by default a new small pair; returns them."""
    if fixed is None:
        fixed, moving = samples.addSmallPair()
    panel.ui.fixedSelector.setCurrentNode(fixed)
    panel.ui.movingSelector.setCurrentNode(moving)
    panel.ui.presetComboBox.setCurrentText(preset)
    return fixed, moving


def register(panel, wait=wait_for):
    """Click Register, wait for the end, which must be a good one; returns the run."""
    assert panel.ui.applyButton.enabled, panel.ui.hintLabel.text
    panel.ui.applyButton.click()
    wait(lambda: not panel.logic.running)
    assert "Done" in panel.ui.statusLabel.text, panel.ui.statusLabel.text
    return runs()[0]


def finished(panel, watch=lambda: None):
    """A registration by clicks, of a moving volume that lies under a turn; `watch` is called again and again meanwhile.

    Everything about it, for the tests of a file that share it.
    """
    fixed, moving = choose_pair(panel)
    moving.SetAndObserveTransformNodeID(linear("turn", TURN).GetID())
    assert panel.logic.worker.alive, "it imports torch while the user looks around"
    with failing_on_slot_errors() as errors:

        def wait(condition):
            wait_for(lambda: (watch(), condition())[1], slot_errors=errors)

        run = register(panel, wait)
    return SimpleNamespace(panel=panel, ui=panel.ui, run=run, fixed=fixed, moving=moving, file=run_file(panel))


def run_file(panel) -> sitk.Transform:
    """The transform that the worker wrote, as ITK reads it: fixed to moving, LPS."""
    return sitk.ReadTransform(str(files_of_newest(panel) / TRANSFORM))


def files_of_newest(panel):
    """The directory of the run that has ended last."""
    return panel.logic.folders.of(runs()[0])


def through(transform: sitk.Transform, points):
    """Points (n, 3) in RAS mm through an ITK transform."""
    flip = np.array([-1.0, -1.0, 1.0])
    return np.array([transform.TransformPoint((flip * point).tolist()) for point in points]) * flip


def geometry(volume):
    """(4, 4) ijk to RAS of a volume node, without its parent transforms."""
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def point_list(name, points):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", name)
    for point in points:
        node.AddControlPoint(*map(float, point))
    return node


def positions(markups):
    """(n, 3) RAS mm of a point list in world space."""
    found = np.zeros((markups.GetNumberOfControlPoints(), 3))
    for index, row in enumerate(found):
        markups.GetNthControlPointPositionWorld(index, row)
    return found


def segmentation(name, volume, **limits):
    """A segmentation on a volume's lattice and under its parent, a segment for each lowest grey value."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    for segment, lowest in limits.items():
        labels = labels_of(volume, lowest, segment)
        slicer.modules.segmentations.logic().ImportLabelmapToSegmentationNode(labels, node)
        node.GetSegmentation().GetNthSegment(node.GetSegmentation().GetNumberOfSegments() - 1).SetName(segment)
        slicer.mrmlScene.RemoveNode(labels)
    node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    return node


def labels_of(volume, lowest, name="labels"):
    """A label map node on a volume's own lattice, 1 where it is brighter than `lowest`."""
    inside = (slicer.util.arrayFromVolume(volume) > lowest).astype(np.uint8)
    return slicer.util.addVolumeFromArray(inside, geometry(volume), name, "vtkMRMLLabelMapVolumeNode")

"""What belongs to a volume goes with it: every kind of node, clicked through a real registration; ITK is the oracle."""

import numpy as np
import pytest
import qt
import SimpleITK as sitk
import slicer
import vtk
from clicks import scene_as_ids
from fakerun import as_sitk
from NeuralRegistrationLib import results
from NeuralRegistrationLib.dependencies import torch_problem
from realrun import (
    STRUCTURES,
    TURN,
    finished,
    labels_of,
    place,
    point_list,
    positions,
    segmentation,
    through,
)

pytestmark = pytest.mark.skipif(bool(torch_problem()), reason="the real worker needs PyTorch")

TO_FIXED, TO_MOVING = 0, 1


@pytest.fixture(scope="module")
def done(kept_module):
    return finished(kept_module)


@pytest.fixture(autouse=True)
def tidy(done):
    """Each test leaves the scene as it found it."""
    before = scene_as_ids()
    yield
    done.moving.SetAndObserveTransformNodeID(slicer.util.getNode("turn").GetID())
    for node_id in scene_as_ids() - before:
        node = slicer.mrmlScene.GetNodeByID(node_id)
        if node is not None:
            slicer.mrmlScene.RemoveNode(node)


def move(done, nodes, direction=TO_FIXED, harden=False, folder=None):
    """Check the nodes, choose the folder, click."""
    ui = done.ui
    for node in nodes:
        ui.applySelector.setCheckState(node, qt.Qt.Checked)
    ui.folderComboBox.setCurrentIndex(folders_offered(done).index(folder) if folder else 0)
    ui.directionComboBox.setCurrentIndex(direction)
    ui.hardenCheckBox.checked = harden
    ui.moveButton.click()
    for node in nodes:
        ui.applySelector.setCheckState(node, qt.Qt.Unchecked)


def folders_offered(done):
    return [done.ui.folderComboBox.itemText(i) for i in range(done.ui.folderComboBox.count)]


def in_moving_space(done):
    """Where the structures of the fixed volume lie in moving space; RAS mm, world."""
    return through(done.file, STRUCTURES)


@pytest.mark.parametrize("harden", [False, True])
def test_points_land_on_their_structures(done, harden):
    points = point_list("points", in_moving_space(done))
    move(done, [points], harden=harden)
    assert done.ui.statusLabel.text == "1 moved."
    assert np.abs(positions(points) - STRUCTURES).max() < 0.1
    assert (points.GetParentTransformNode() is None) == harden


@pytest.mark.parametrize("harden", [False, True])
def test_points_under_the_parent_of_the_moving_volume(done, harden):
    """As the user has them who placed them on the moving volume where it lies: twice moved is moved once."""
    points = point_list("points", place(np.linalg.inv(TURN), in_moving_space(done)))
    points.SetAndObserveTransformNodeID(slicer.util.getNode("turn").GetID())
    before = scene_as_ids()
    move(done, [points], harden=harden)
    if not harden:
        move(done, [points])
    assert np.abs(positions(points) - STRUCTURES).max() < 0.1
    assert len(scene_as_ids() - before) == (0 if harden else 1), "only what stands for the parents, while it is needed"


@pytest.mark.parametrize("with_inverse", [True, False])
def test_back_to_moving_space(done, with_inverse):
    if not with_inverse:
        done.run.table.SetNodeReferenceID("NeuralRegistration.inverse", None)
        done.panel.refresh()
    points = point_list("points", STRUCTURES)
    try:
        move(done, [points], TO_MOVING)
        assert np.abs(positions(points) - in_moving_space(done)).max() < 0.1
        move(done, [points], TO_FIXED)
        assert np.abs(positions(points) - STRUCTURES).max() < 0.1, "there and back again"
    finally:
        done.run.table.SetNodeReferenceID("NeuralRegistration.inverse", done.run.inverse.GetID())


@pytest.mark.parametrize("harden", [False, True])
def test_a_volume_becomes_the_warped_volume(done, harden):
    volume = slicer.modules.volumes.logic().CloneVolume(slicer.mrmlScene, done.moving, "copy")
    volume.SetAndObserveTransformNodeID(done.moving.GetTransformNodeID())
    expected = sitk.GetArrayFromImage(sitk.Resample(as_sitk(done.moving), as_sitk(done.fixed), done.file))
    move(done, [volume], harden=harden)
    shown = slicer.modules.volumes.logic().ResampleVolumeToReferenceVolume(volume, done.fixed)
    difference = np.abs(slicer.util.arrayFromVolume(shown) - expected)[3:-3, 3:-3, 3:-3]
    if harden:  # resampled twice: on its own lattice, then here
        assert difference.mean() < 0.02 * np.ptp(expected)
    else:
        assert difference.max() < 1e-3 * np.ptp(expected)


def arrived(node, harden):
    """Hardens a node that was moved without, after a look at whether it hangs under a transform as asked."""
    assert (node.GetParentTransformNode() is None) == harden
    if not harden:
        node.HardenTransform()


@pytest.mark.parametrize("harden", [False, True])
@pytest.mark.parametrize("kind", ["segmentation", "label map"])
def test_labels_cover_the_body_of_the_fixed_volume(done, kind, harden):
    if kind == "segmentation":
        node = segmentation("parts", done.moving, body=60)
    else:
        node = labels_of(done.moving, 60)
        node.SetAndObserveTransformNodeID(done.moving.GetTransformNodeID())
    body = slicer.util.arrayFromVolume(done.fixed) > 60
    move(done, [node], harden=harden)
    arrived(node, harden)
    if kind == "segmentation":
        shown = slicer.util.arrayFromSegmentBinaryLabelmap(node, node.GetSegmentation().GetNthSegmentID(0), done.fixed)
    else:
        image = sitk.Resample(as_sitk(node), as_sitk(done.fixed), sitk.Transform(), sitk.sitkNearestNeighbor)
        shown = sitk.GetArrayFromImage(image)
    dice = 2 * (body & (shown > 0)).sum() / (body.sum() + (shown > 0).sum())
    assert dice > 0.93, dice


@pytest.mark.parametrize("harden", [False, True])
def test_a_model_goes_point_by_point(done, harden):
    data = vtk.vtkPolyData()
    data.SetPoints(vtk.vtkPoints())
    for point in in_moving_space(done):
        data.GetPoints().InsertNextPoint(*point)
    model = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode", "model")
    model.SetAndObservePolyData(data)
    move(done, [model], harden=harden)
    arrived(model, harden)
    assert np.abs(slicer.util.arrayFromModelPoints(model) - STRUCTURES).max() < 0.1


@pytest.mark.parametrize("harden", [False, True])
def test_a_folder_with_all_that_is_in_it_but_not_what_is_there_already(done, wait, harden):
    tree, name = results.hierarchy(), f"patient, {harden}"
    folder = tree.CreateFolderItem(tree.GetSceneItemID(), name)
    inner = tree.CreateFolderItem(folder, "study")
    lists = [point_list(f"list {i}", in_moving_space(done)) for i in range(3)]
    for node, item in zip(lists[:2], (folder, inner), strict=True):
        results.put_into_folder(node, item)
    results.put_into_folder(done.run.jacobian, inner)  # is in fixed space already
    results.put_into_folder(done.fixed, folder)
    wait(lambda: name in folders_offered(done))  # without another click
    move(done, [], folder=name, harden=harden)
    assert done.ui.statusLabel.text == "2 moved."
    for node in lists[:2]:
        arrived(node, harden)
        assert np.abs(positions(node) - STRUCTURES).max() < 0.1
    assert np.abs(positions(lists[2]) - in_moving_space(done)).max() < 1e-6


def test_nothing_chosen_is_said(done):
    move(done, [])
    assert "Choose at least one node" in done.ui.statusLabel.text

"""What an earlier result has moved: moved by another one, moved back, measured, used as an input, looked at."""

import numpy as np
import pytest
import qt
import slicer
import vtk
from clicks import register, scene_as_ids
from fakerun import write_run
from neuralreg.job import RegistrationError
from NeuralRegistrationLib import apply, batch, evidence, results
from NeuralRegistrationLib.scene import load_run
from realrun import TURN, labels_of, linear, place, positions
from realrun import point_list as named_list
from test_apply_and_look import POINT, moving_from_fixed, point_list, run, world  # noqa: F401


@pytest.fixture
def second(run, tmp_path):  # noqa: F811
    """Another result of the same pair: a shift by 4 mm."""
    second = load_run(tmp_path, run.fixed, run.moving, "second")
    for node, way in ((second.transform, 1), (second.inverse, -1)):
        further = vtk.vtkTransform()
        further.Translate(4.0 * way, 0, 0)
        node.SetAndObserveTransformFromParent(further)
    return second


@pytest.mark.parametrize("parent", [False, True])
@pytest.mark.parametrize("harden", [False, True])
def test_a_second_result_of_the_pair_takes_the_place_of_the_first(run, second, parent, harden):  # noqa: F811
    points, drawn = point_list(POINT), POINT
    if parent:
        points.SetAndObserveTransformNodeID(linear("parent", TURN).GetID())
        drawn = place(TURN, POINT[None])[0]
    before = scene_as_ids()
    apply.move([points], run)
    apply.move([points], second, harden=harden)
    assert np.allclose(world(points), drawn - (4, 0, 0), atol=1e-3), "as if the first had never moved it"
    assert len(scene_as_ids() - before) == (1 if parent and not harden else 0), "nothing is left of the first move"


@pytest.mark.parametrize("parent", [False, True])
def test_back_is_where_it_was(run, parent):  # noqa: F811
    """Also the moving volume itself may go back, which would be refused as long as it lies in its place."""
    own = linear("parent", TURN) if parent else None
    points = point_list(POINT)
    for node in (points, run.moving):
        node.SetAndObserveTransformNodeID(own.GetID() if parent else None)
    drawn = world(points)
    assert apply.is_there(run.moving, run, apply.TO_MOVING)
    apply.move([points, run.moving], run)
    assert np.abs(world(points) - drawn).max() > 0.5
    assert not apply.is_there(run.moving, run, apply.TO_MOVING)
    apply.move([points, run.moving], run, apply.TO_MOVING)
    assert np.allclose(world(points), drawn, atol=1e-9), "not through the inverse, which is never exact"
    assert apply.is_there(run.moving, run, apply.TO_MOVING)


def test_what_was_drawn_on_the_fixed_volume_is_not_brought_there(run):  # noqa: F811
    """The classic confusion: the direction is the wrong one, or a folder holds the structures of both."""
    tree = results.hierarchy()
    folder, drawn = tree.CreateFolderItem(tree.GetSceneItemID(), "patient"), []
    for volume in (run.fixed, run.moving):
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"on {volume.GetName()}")
        node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        results.put_into_folder(node, folder)
        drawn.append(node)
    assert apply.to_move(folder, run, apply.TO_FIXED) == drawn[1:]
    assert apply.to_move(folder, run, apply.TO_MOVING) == drawn[:1]
    apply.move(drawn[:1], run, apply.TO_MOVING)
    assert apply.to_move(folder, run, apply.TO_FIXED) == drawn, "it may go back"


def test_a_result_found_on_top_of_another_goes_on_top(run, tmp_path):  # noqa: F811
    """The moving volume lay under the first transform when the second registration began."""
    run.moving.SetAndObserveTransformNodeID(run.transform.GetID())
    further = load_run(tmp_path, run.fixed, run.moving, "further")
    points = point_list(POINT)
    apply.move([points], run)
    apply.move([points], further)
    first = np.array(run.transform.GetTransformToParent().TransformPoint(POINT))
    assert np.allclose(world(points), further.transform.GetTransformToParent().TransformPoint(first), atol=1e-3)


def test_a_copy_of_a_moved_node_stays_when_that_one_is_hardened(run):  # noqa: F811
    """Slicer's Clone gives the copy the same parent."""
    parent = linear("parent", TURN)
    points, copy = point_list(POINT), point_list(POINT)
    points.SetAndObserveTransformNodeID(parent.GetID())
    apply.move([points], run)
    copy.SetAndObserveTransformNodeID(points.GetTransformNodeID())
    moved = world(points)
    apply.move([points], run, harden=True)
    assert np.allclose(world(points), moved, atol=1e-6) and np.allclose(world(copy), moved, atol=1e-6)


def test_evidence_that_was_moved_is_not_measured(run, second, tmp_path):  # noqa: F811
    """The transform would count twice, and what it has brought itself would agree with it by itself."""
    fixed, moving = named_list("f", [POINT]), named_list("m", [moving_from_fixed(run, POINT)])
    folder = tmp_path / "run"
    folder.mkdir()
    for mover in (run, second):
        apply.move([moving], mover)
        with pytest.raises(RegistrationError, match=f'"m" was moved by "{mover.name}"'):
            evidence.command(run, folder, (None, None), (fixed, moving))
        apply.move([moving], mover, apply.TO_MOVING)
        evidence.command(run, folder, (None, None), (fixed, moving))
    apply.move([moving], run)
    for measured in (run, second):
        with pytest.raises(RegistrationError, match="agrees with it whatever"):
            evidence.command(measured, folder, (None, None), (moving, fixed))
    apply.move([fixed], run, apply.TO_MOVING)
    with pytest.raises(RegistrationError, match=f'"f" was moved by "{run.name}"'):
        evidence.command(run, folder, (None, None), (fixed, named_list("other", [POINT])))


def test_evidence_of_a_run_that_began_under_another_is_measured_there(run, tmp_path):  # noqa: F811
    run.moving.SetAndObserveTransformNodeID(run.transform.GetID())
    folder = tmp_path / "run"
    write_run_into(folder, run)
    further = load_run(folder, run.fixed, run.moving, "further")
    moving = named_list("m", [POINT])
    apply.move([moving], run)
    evidence.command(further, folder, (None, None), (named_list("f", [POINT]), moving))


def write_run_into(folder, run):  # noqa: F811
    folder.mkdir()
    run.moving.SetAndObserveTransformNodeID(None)
    write_run(folder, run.fixed, run.moving)
    run.moving.SetAndObserveTransformNodeID(run.transform.GetID())


def test_inputs_that_were_moved_are_said_before_apply(panel, wait):
    register(panel, wait)
    run, ui = results.runs()[0], panel.ui  # noqa: F811
    mask = labels_of(run.moving, 10, "tumour")
    ui.movingMaskSelector.setCurrentNode(mask)
    assert ui.applyButton.enabled
    apply.move([mask], run)
    panel.refresh()
    assert '"tumour" was moved by' in ui.hintLabel.text and not ui.applyButton.enabled
    apply.move([run.moving], run)
    panel.refresh()
    assert ui.applyButton.enabled, "both lie there"
    assert "goes on top" in ui.overlapLabel.text and not ui.overlapLabel.isHidden()


def test_before_is_not_shown_of_a_volume_that_was_moved(panel, wait):
    """It would look as if the registration had changed nothing."""
    register(panel, wait)
    run, ui = results.runs()[0], panel.ui  # noqa: F811
    tip = ui.beforeButton.toolTip
    for direction, shown in ((0, False), (1, True)):
        ui.applySelector.setCheckState(run.moving, qt.Qt.Checked)
        ui.directionComboBox.setCurrentIndex(direction)
        ui.moveButton.click()
        assert ui.statusLabel.text == "1 moved."
        assert ui.beforeButton.enabled == shown
        assert (ui.beforeButton.toolTip == tip) == shown
    run.moving.SetAndObserveTransformNodeID(linear("parent", TURN).GetID())
    panel.refresh()
    assert not ui.beforeButton.enabled and "was moved since it was registered" in ui.beforeButton.toolTip


@pytest.fixture
def shown_sequence(run):  # noqa: F811
    """A sequence of two volumes, and the volume node in which Slicer shows one of them."""
    sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "breath")
    for index in range(2):
        sequence.SetDataNodeAtValue(run.moving, str(index))
    browser = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "browser")
    browser.AddSynchronizedSequenceNode(sequence)
    slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
    return sequence, browser.GetProxyNode(sequence)


def test_a_segmentation_that_goes_where_it_was_drawn_is_doubted(panel, wait):
    register(panel, wait)
    run, ui = results.runs()[0], panel.ui  # noqa: F811
    drawn = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "tumour")
    drawn.SetReferenceImageGeometryParameterFromVolumeNode(run.moving)
    ui.applySelector.setCheckState(drawn, qt.Qt.Checked)
    for direction, said in ((0, ""), (1, ""), (1, "was the other direction meant?")):
        ui.directionComboBox.setCurrentIndex(direction)
        ui.moveButton.click()
        assert ui.statusLabel.text.startswith("1 moved.") and ui.statusLabel.text.endswith(said or "moved.")


def test_a_segmentation_under_a_deformation_is_not_to_be_edited_yet(panel, tmp_path):
    """The effects of Segment Editor know linear transforms only, and paint elsewhere without a word."""
    ui, parameters = panel.ui, panel.parameters
    write_run(tmp_path, parameters.fixedVolume, parameters.movingVolume)
    load_run(tmp_path, parameters.fixedVolume, parameters.movingVolume, "bent")
    panel.refresh()
    drawn = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "tumour")
    ui.applySelector.setCheckState(drawn, qt.Qt.Checked)
    ui.moveButton.click()
    assert ui.statusLabel.text.startswith('1 moved. Harden "tumour" before you edit it')
    ui.hardenCheckBox.checked = True
    ui.moveButton.click()
    assert drawn.GetParentTransformNode() is None and ui.statusLabel.text == "1 moved."


def test_one_time_point_of_a_sequence_is_not_hardened(run, shown_sequence):  # noqa: F811
    """The next time point, and this one when it comes back, would lie where they lay."""
    _sequence, shown = shown_sequence
    with pytest.raises(RegistrationError, match="only the time point shown"):
        apply.move([shown], run, harden=True)
    assert shown.GetParentTransformNode() is None
    apply.move([shown], run)
    assert shown.GetParentTransformNode() is run.transform


def test_a_sequence_that_is_shown_elsewhere_is_not_registered_where_it_is_not_seen(shown_sequence):
    sequence, shown = shown_sequence
    assert len(batch.items_of([], sequence)) == 2
    shown.SetAndObserveTransformNodeID(linear("shift", TURN).GetID())
    with pytest.raises(RegistrationError, match='under the transform "shift"'):
        batch.items_of([], sequence)


def test_a_folder_that_was_hidden_or_coloured_is_still_one(run):  # noqa: F811
    """Slicer gives it a display node then, as its data."""
    tree = results.hierarchy()
    folder, points = tree.CreateFolderItem(tree.GetSceneItemID(), "patient"), point_list(POINT)
    results.put_into_folder(points, folder)
    tree.SetItemDataNode(folder, slicer.mrmlScene.AddNewNodeByClass("vtkMRMLFolderDisplayNode"))
    tree.SetItemName(folder, "patient")
    assert (folder, "patient") in apply.folders() and apply.nodes_in(folder) == [points]


def test_what_was_known_at_the_start_is_saved_with_the_scene(run, tmp_path):  # noqa: F811
    run.moving.SetAndObserveTransformNodeID(run.transform.GetID())
    load_run(tmp_path, run.fixed, run.moving, "further")
    points = named_list("p", [POINT])
    apply.move([points], run)
    assert slicer.util.saveScene(str(tmp_path / "s.mrb"), {})
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "s.mrb"), {})
    further, _first = results.runs()
    points = slicer.util.getNode("p")
    here = positions(points)[0]
    apply.move([points], further)
    assert np.allclose(positions(points)[0], further.transform.GetTransformToParent().TransformPoint(here), atol=1e-3)

"""Landmark pairs as an input: checked before Apply, exported in world space, pulling the field, owned up to."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import slicer
from clicks import finish, play
from fakerun import GRIDS, add_volume
from neuralreg.job import RegistrationError
from NeuralRegistrationLib import landmarks, trust
from NeuralRegistrationLib.request import Request, write_job
from NeuralRegistrationLib.results import runs
from test_scene_export import RIGID, linear_parent


def point_list(name, positions, labels=()):
    """A point list in RAS mm."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", name)
    for index, position in enumerate(positions):
        node.AddControlPoint(*map(float, position))
        if labels:
            node.SetNthControlPointLabel(index, labels[index])
    return node


def choose(panel, fixed, moving):
    panel.ui.startSection.collapsed = False
    panel.ui.guideFixedSelector.setCurrentNode(fixed)
    panel.ui.guideMovingSelector.setCurrentNode(moving)


def said(panel):
    """What stands beside the selectors; Apply agrees with it."""
    label = panel.ui.landmarksLabel
    return "" if label.isHidden() else label.text


def test_lists_are_checked_before_apply(panel, wait):
    assert said(panel) == "" and panel.ui.applyButton.enabled
    fixed, moving = point_list("f", [(1, 2, 3), (4, 5, 6)]), point_list("m", [(1, 2, 3)])
    choose(panel, fixed, None)
    assert "point list of the other volume" in said(panel) and not panel.ui.applyButton.enabled
    choose(panel, fixed, fixed)
    assert "are the same" in said(panel) and not panel.ui.applyButton.enabled
    choose(panel, fixed, moving)
    assert "2 and 1 points" in said(panel) and panel.ui.hintLabel.text == said(panel)
    moving.AddControlPoint(4.0, 5.0, 7.0)
    wait(lambda: panel.ui.applyButton.enabled)  # nobody has to choose the list again
    assert said(panel).endswith("guide the registration: 2")
    moving.SetNthControlPointPositionMissing(1)
    wait(lambda: not panel.ui.applyButton.enabled)
    assert '"m-2" of "m" is not placed' in said(panel)
    for markups in (fixed, moving):
        markups.RemoveAllControlPoints()
    wait(lambda: "0 and 0 points" in said(panel))
    choose(panel, None, None)
    assert said(panel) == "" and panel.ui.applyButton.enabled


def test_where_landmarks_have_no_effect_it_is_said_before_apply(panel):
    choose(panel, point_list("f", [(1, 2, 3)]), point_list("m", [(1, 2, 4)]))
    panel.ui.methodComboBox.setCurrentText("VoxelMorph")
    assert "Set Refine under Advanced" in said(panel) and panel.ui.applyButton.enabled
    panel.parameters.options = json.dumps({"VoxelMorph": {"refine": 5}})
    assert said(panel).endswith(": 1")
    panel.parameters.options = json.dumps({"VoxelMorph": {"refine": 5, "landmark_weight": 0}})
    assert "their weight is 0" in said(panel)


@pytest.mark.parametrize("labels", [("a", "b", "c"), ("b", "c", "a"), ("x", "y", "z"), ("a", "y", "z")])
def test_files_are_in_world_space_with_partners_in_the_same_row(scene, tmp_path, labels):
    """Under parent transforms; paired by label where both lists have the same, else in order."""
    places = np.array([(1.0, 2.0, 3.0), (-4.0, 5.0, 6.0), (7.0, -8.0, 9.0)])
    fixed, moving = point_list("f", places, ("a", "b", "c")), point_list("m", places + 1, labels)
    moving.SetAndObserveTransformNodeID(linear_parent(RIGID).GetID())
    pair = add_volume("fixed", GRIDS["axial"]), add_volume("moving", GRIDS["oblique"])
    job = json.loads(write_job(Request(*pair, fixed_landmarks=fixed, moving_landmarks=moving), tmp_path).read_text())
    order = [labels.index(label) for label in "abc"] if sorted(labels) == ["a", "b", "c"] else [0, 1, 2]
    moved = (np.array(RIGID) @ np.c_[places + 1, np.ones(3)].T).T[order, :3]
    for side, expected in (("fixed", places), ("moving", moved)):
        with Path(job[f"{side}_landmarks"]).open(newline="") as file:
            rows = [[float(row[axis]) for axis in "xyz"] for row in csv.DictReader(file)]
        assert np.allclose(rows, expected * (-1, -1, 1), atol=1e-6)
    table = landmarks.write_table(fixed, moving, tmp_path / "table.csv")
    assert np.allclose(np.loadtxt(table, delimiter=",", skiprows=1)[:, 3:], moved * (-1, -1, 1), atol=1e-6)


@pytest.mark.parametrize("labels", [("c", "b", "x"), ("x", "c", "y"), ("a", "a", "b")])
def test_an_order_that_contradicts_the_labels_pairs_nothing(panel, labels):
    """With a slip in one label the others would be paired with strangers, without a word."""
    places = [(1, 2, 3), (-4, 5, 6), (7, -8, 9)]
    choose(panel, point_list("f", places, ("a", "b", "c")), point_list("m", places, labels))
    assert "give partners the same label" in said(panel) and not panel.ui.applyButton.enabled


def test_a_full_disk_is_a_sentence(scene, tmp_path):
    with pytest.raises(RegistrationError, match="could not be written"):
        landmarks.write_table(point_list("f", [(1, 2, 3)]), point_list("m", [(1, 2, 3)]), tmp_path / "no" / "t.csv")


def test_lists_are_kept_in_the_scene_and_left_out_of_a_batch(panel, wait, tmp_path):
    import qt

    choose(panel, point_list("f", [(1, 2, 3)]), point_list("m", [(1, 2, 4)]))
    play(panel, "quick")
    for name in ("second", "third"):
        panel.ui.batchSelector.setCheckState(add_volume(name, GRIDS["axial"]), qt.Qt.Checked)
    panel.ui.batchButton.click()
    section = next(s for s in panel.sections if hasattr(s, "batch"))
    wait(lambda: not section.batch.running)
    assert not list((panel.logic.folders.of(runs()[0]).parent / "inputs").glob("*landmarks*"))
    path = str(tmp_path / "scene.mrb")
    assert slicer.util.saveScene(path, {})
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(path, {})
    panel.enter()
    assert panel.parameters.fixedLandmarks.GetName() == "f" and panel.parameters.movingLandmarks.GetName() == "m"
    assert said(panel).endswith(": 1")


def test_landmarks_pull_the_field_and_the_table_owns_up_to_it(module, wait):
    """With the real worker: images that say nothing about a shift that the landmarks know."""
    pytest.importorskip("torch", reason="the real worker needs PyTorch")
    random = np.random.default_rng(0)
    volumes = []
    for name in ("fixed", "moving"):
        volume = add_volume(name, GRIDS["axial"])
        slicer.util.arrayFromVolume(volume)[:] = random.normal(100, 30, (18, 22, 20))
        volumes.append(volume)
    places = np.array([(x, y, z) for x in (-8, 8) for y in (-12, 0) for z in (0, 10)], dtype=float)
    shift = np.array([0.0, 5.0, 0.0])
    ui = module.ui
    ui.fixedSelector.setCurrentNode(volumes[0])
    ui.movingSelector.setCurrentNode(volumes[1])
    ui.presetComboBox.setCurrentText("Fast")
    ui.linearComboBox.setCurrentText("None: already aligned")
    module.parameters.options = json.dumps({"DNVF": {"landmark_weight": 3, "iterations": [30, 10]}})
    choose(module, point_list("f", places), point_list("m", places + shift))
    ui.applyButton.click()
    finish(module, wait)
    run = runs()[0]
    figures = run.measurements
    assert figures["landmarks_before_mm"] == pytest.approx(5.0) and figures["landmarks_after_mm"] < 1.5
    moved = run.transform.GetTransformFromParent().TransformPoint(places.mean(axis=0))
    assert np.linalg.norm(moved - places.mean(axis=0) - shift) < 2.5, "also between the landmarks"
    assert any(check.name == "Guiding landmarks" and "no evidence" in check.rule for check in trust.figures(run))
    ui.fixedLandmarksSelector.setCurrentNode(module.parameters.fixedLandmarks)
    ui.movingLandmarksSelector.setCurrentNode(module.parameters.movingLandmarks)
    ui.evaluateButton.click()
    section = next(s for s in module.sections if hasattr(s, "chooseFile"))
    wait(lambda: not section.task.running)
    check = next(check for check in trust.checks(runs()[0]) if check.name == "Landmarks (TRE)")
    assert "8 of 8 guided the registration" in check.value and check.light == "amber"

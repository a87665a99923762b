"""Inputs, methods, outputs, stopping, many pairs and models, each by clicks through real registrations."""

import json
import shutil

import numpy as np
import pytest
import qt
import SimpleITK as sitk
import slicer
from clicks import reopen
from fakerun import as_sitk
from neuralreg.job import JOB, RESULT, Result
from NeuralRegistrationLib import models, results, samples
from NeuralRegistrationLib.dependencies import torch_problem
from NeuralRegistrationLib.results import runs
from NeuralRegistrationLib.widget_batch import BatchSection
from NeuralRegistrationLib.widget_method import MethodSection
from NeuralRegistrationLib.widget_trust import TrustSection
from realrun import (
    STRUCTURES,
    TURN,
    choose_pair,
    files_of_newest,
    labels_of,
    linear,
    place,
    point_list,
    register,
    run_file,
    segmentation,
    through,
    truth,
)

pytestmark = pytest.mark.skipif(bool(torch_problem()), reason="the real worker needs PyTorch")


@pytest.fixture
def panel(kept_module):
    """The shared panel, whose worker is warm, in an empty scene."""
    slicer.mrmlScene.Clear(0)
    yield kept_module
    slicer.mrmlScene.Clear(0)


def shift(*mm):
    matrix = np.eye(4)
    matrix[:3, 3] = mm
    return matrix


def type_option(panel, name, text):
    """Fill in a field under Advanced."""
    editor = panel.section(MethodSection).editors[name]
    editor.text = text
    editor.editingFinished.emit()


def error_mm(panel, moved_by=None):
    """How far from their places the structures are taken, on average."""
    there = truth(STRUCTURES) if moved_by is None else place(moved_by, truth(STRUCTURES))
    return np.linalg.norm(through(run_file(panel), STRUCTURES) - there, axis=1).mean()


def linear_part(panel):
    """(3, 3) of the run's linear stage; the identity when there is none."""
    whole = run_file(panel)
    first = sitk.CompositeTransform(whole).GetNthTransform(0) if whole.GetName() == "CompositeTransform" else whole
    if not first.IsLinear():
        return np.eye(3)
    return np.array(first.GetParameters()[:9]).reshape(3, 3)


def test_centring_and_the_rigid_stage(panel):
    """Said before Register is clicked, and then it brings them together."""
    _fixed, moving = choose_pair(panel)
    away = shift(400, 0, 0) @ TURN
    moving.SetAndObserveTransformNodeID(linear("away", away).GetID())
    panel.refresh()
    ui = panel.ui
    assert "do not overlap" in ui.overlapLabel.text and not ui.overlapLabel.isHidden()
    assert not ui.applyButton.enabled and "switch on Centre" in ui.hintLabel.text
    ui.centreCheckBox.click()
    ui.linearComboBox.setCurrentText("Rigid")
    register(panel)
    assert error_mm(panel, away) < 2.0
    matrix = linear_part(panel)
    assert np.allclose(matrix @ matrix.T, np.eye(3), atol=1e-6) and np.linalg.det(matrix) > 0
    assert not np.allclose(matrix, np.eye(3), atol=0.02), "it turns"


def test_initial_transform_without_linear_stage_on_the_cpu(panel):
    _fixed, moving = choose_pair(panel)
    start = shift(300, -20, 10)
    moving.SetAndObserveTransformNodeID(linear("there", start).GetID())
    ui = panel.ui
    ui.initialTransformSelector.setCurrentNode(linear("start", np.linalg.inv(start)))
    ui.linearComboBox.setCurrentText("None: already aligned")
    ui.methodComboBox.setCurrentText("FNOReg")
    ui.deviceComboBox.setCurrentText("CPU only")
    assert ui.overlapLabel.isHidden() or ui.applyButton.enabled
    assert "as chosen" in ui.deviceLabel.text
    run = register(panel)
    assert run.name.endswith("(FNOReg)") and Result.load(files_of_newest(panel) / RESULT).device == "cpu"
    assert np.allclose(linear_part(panel), np.eye(3))
    moved = through(run_file(panel), STRUCTURES) - STRUCTURES
    assert np.abs(moved - start[:3, 3]).max() < 10, "all that the network may add is some millimetres"


def test_masks_and_options_typed_in(panel):
    """What the masks hide, a bright thing in one of the volumes, does not spoil the rest."""
    fixed, moving = choose_pair(panel)
    ui = panel.ui
    voxels = slicer.util.arrayFromVolume(moving)
    voxels[8:20, 10:22, 19:26] = 500.0  # to the left of the middle: index i runs against R
    slicer.util.arrayFromVolumeModified(moving)
    seen = segmentation("seen", fixed, body=20)
    trusted = labels_of(moving, 20, "trusted")
    slicer.util.arrayFromVolume(trusted)[voxels > 400] = 0
    ui.fixedMaskSelector.setCurrentNode(seen)
    ui.movingMaskSelector.setCurrentNode(trusted)
    type_option(panel, "iterations", "60, 40")
    type_option(panel, "smoothness", "0.5")
    run = register(panel)
    result = Result.load(files_of_newest(panel) / RESULT)
    assert list(result.options["iterations"]) == [60, 40] and result.options["smoothness"] == 0.5
    job = json.loads((files_of_newest(panel) / JOB).read_text(encoding="utf-8"))
    for side, labels in (("fixed", slicer.util.arrayFromVolume(fixed) > 20), ("moving", voxels)):
        assert job[f"{side}_mask"], "the worker is told of it"
        mask = sitk.ReadImage(job[f"{side}_mask"])
        expected = slicer.util.arrayFromVolume(trusted) if side == "moving" else labels
        assert sitk.GetArrayFromImage(mask).sum() == expected.sum()
    found = through(run_file(panel), STRUCTURES[[0, 3]])  # the two that both volumes show
    assert np.linalg.norm(found - truth(STRUCTURES[[0, 3]]), axis=1).mean() < 2.5  # without masks 3.1
    assert run.measurements["folds_percent"] == 0


def test_other_contrast_into_existing_nodes_and_none(panel):
    fixed, moving = choose_pair(panel, preset="Balanced")
    voxels = slicer.util.arrayFromVolume(moving)
    voxels[voxels > 40] = 230.0 - voxels[voxels > 40]
    slicer.util.arrayFromVolumeModified(moving)
    ui = panel.ui
    ui.methodComboBox.setCurrentText("Cas-DNVF")
    ui.contrastComboBox.setCurrentText("Different (T1 to T2, CT to MR)")
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "my transform")
    warped = slicer.modules.volumes.logic().CloneVolume(slicer.mrmlScene, fixed, "my volume")
    ui.outputTransformSelector.setCurrentNode(transform)
    ui.outputWarpedSelector.setCurrentNode(warped)
    ui.wantInverseCheckBox.click()
    ui.wantJacobianCheckBox.click()
    before = error_without(panel)
    run = register(panel)
    assert Result.load(files_of_newest(panel) / RESULT).similarity in ("nmi", "mind")
    assert error_mm(panel) < before
    assert run.transform is transform and run.warped is warped and run.inverse is None and run.jacobian is None
    assert not ui.jacobianButton.enabled
    expected = sitk.GetArrayFromImage(sitk.Resample(as_sitk(moving), as_sitk(fixed), run_file(panel)))
    difference = np.abs(slicer.util.arrayFromVolume(warped) - expected)[2:-2, 2:-2, 2:-2]
    assert difference.max() <= 1e-3 * np.ptp(expected)
    here = [transform.GetTransformFromParent().TransformPoint(point) for point in STRUCTURES]
    assert np.abs(here - through(run_file(panel), STRUCTURES)).max() < 1e-3
    tree = results.hierarchy()
    assert tree.GetItemName(tree.GetItemParent(tree.GetItemByDataNode(transform))) == run.name


def error_without(panel):
    return np.linalg.norm(truth(STRUCTURES) - STRUCTURES, axis=1).mean()


def test_stop_and_keep(panel, wait):
    choose_pair(panel, preset="Best")
    panel.ui.applyButton.click()
    wait(lambda: panel.runSection().progress.curve.stages)
    panel.ui.stopButton.click()
    wait(lambda: not panel.logic.running)
    assert "stopped early" in panel.ui.statusLabel.text and Result.load(files_of_newest(panel) / RESULT).stopped_early
    run = runs()[0]
    back = [run.inverse.GetTransformFromParent().TransformPoint(p) for p in through(run_file(panel), STRUCTURES)]
    assert np.abs(back - STRUCTURES).max() < 0.1, "a whole result: there and back again"
    assert run.measurements["folds_percent"] == 0 and run.warped is not None


def test_a_list_and_a_sequence_with_one_failure(panel, wait):
    fixed, first = samples.addSmallPair()
    second = slicer.modules.volumes.logic().CloneVolume(slicer.mrmlScene, first, "second")
    second.SetAndObserveTransformNodeID(linear("turn", TURN).GetID())
    empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")
    sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "breath")
    sequence.SetDataNodeAtValue(first, "0.5")
    choose_pair(panel, fixed, first)
    kept = linear("kept", np.eye(4))
    panel.ui.outputTransformSelector.setCurrentNode(kept)
    for volume in (empty, second):
        panel.ui.batchSelector.setCheckState(volume, qt.Qt.Checked)
    panel.ui.sequenceSelector.setCurrentNode(sequence)
    panel.ui.batchButton.click()
    batch = panel.section(BatchSection).batch
    wait(lambda: not batch.running)
    assert panel.ui.statusLabel.text == "2 of 3 registered; failed: empty."
    by_name = {run.name.split(" to ")[0]: run for run in runs()}
    assert set(by_name) == {"second", "breath [0.5]"}
    for name, matrix in (("second", TURN), ("breath [0.5]", np.eye(4))):
        transform = by_name[name].transform.GetTransformFromParent()
        there = np.array([transform.TransformPoint(point) for point in STRUCTURES])
        assert np.linalg.norm(there - place(matrix, truth(STRUCTURES)), axis=1).mean() < 2.0, name
    assert by_name["second"].moving is second
    ours, role = by_name["breath [0.5]"], kept.GetMovingNodeReferenceRole()
    assert ours.moving is None and ours.transform.GetNodeReference(role) is None, "an item of a sequence is in no scene"
    assert np.allclose(kept.GetTransformFromParent().TransformPoint(STRUCTURES[0]), STRUCTURES[0]), "not overwritten"
    (table,) = [t for t in slicer.util.getNodesByClass("vtkMRMLTableNode") if t.GetName().startswith("Registrations")]
    cells = [[table.GetTable().GetValue(row, column).ToString() for column in range(7)] for row in range(3)]
    assert [row[:2] for row in cells] == [["second", "done"], ["empty", "failed"], ["breath [0.5]", "done"]]
    assert "holds no image" in cells[1][2] and cells[1][3:] == [""] * 4
    after, before = float(cells[0][6]), float(cells[0][5])
    assert after > before and float(cells[0][4]) == 0
    assert panel.ui.batchTable.item(1, 1).text() == "failed"


def test_a_reopened_scene_is_measured_and_reported_to_the_last_digit(panel, wait, tmp_path):
    """The files of the run are made again from its nodes; nothing says that they are not the first ones."""
    fixed, moving = choose_pair(panel)
    moving.SetAndObserveTransformNodeID(linear("turn", TURN).GetID())
    register(panel)
    for name, volume in (("f parts", fixed), ("m parts", moving)):
        segmentation(name, volume, body=60, bright=118)
    point_list("f points", STRUCTURES)
    point_list("m points", place(TURN, truth(STRUCTURES)))
    figures, pages = [], []
    for name in ("first.html", "second.html"):
        measured, page = evidence_and_report(panel, wait, tmp_path / name)
        figures.append(measured)
        pages.append(page)
        reopen(tmp_path / "scene.mrb")
    assert figures[0] == figures[1] and figures[0]["dice"]["body"] > 0.9
    assert pages[0] == pages[1]


def evidence_and_report(panel, wait, path):
    """Click Evaluate and Report; returns figures and page."""
    section = panel.section(TrustSection)
    section.chooseFile = lambda *_texts: str(path)
    for side in ("fixed", "moving"):
        for kind, name in (("Structures", "parts"), ("Landmarks", "points")):
            getattr(panel.ui, f"{side}{kind}Selector").setCurrentNode(slicer.util.getNode(f"{side[0]} {name}"))
    for button in (panel.ui.evaluateButton, panel.ui.reportButton):
        assert button.enabled, button.toolTip
        button.click()
        wait(lambda: not section.task.running)
    return runs()[0].measurements, path.read_text(encoding="utf-8")


def test_a_model_from_a_file_is_listed_and_used(panel, monkeypatch, tmp_path):
    """VoxelMorph at its best, with a refinement of few iterations."""
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))
    panel.logic.worker.kill()  # it started with another home
    for suffix in (".pt", ".json"):
        shutil.copyfile(models.SHIPPED / f"voxelmorph_t1{suffix}", tmp_path / f"mine{suffix}")
    ui = panel.ui
    ui.modelPath.setCurrentPath(str(tmp_path / "mine.pt"))
    ui.addModelButton.click()
    cells = [[ui.modelsTable.item(row, column).text() for column in (0, 1)] for row in range(ui.modelsTable.rowCount)]
    assert {"voxelmorph_t1", "fnoreg_t1"} <= {name for name, _purpose in cells}
    assert cells[-1][0] == "mine" and cells[-1][1].startswith("VoxelMorph")
    choose_pair(panel, preset="Best")
    ui.methodComboBox.setCurrentText("VoxelMorph")
    type_option(panel, "model", "mine")
    type_option(panel, "refine", "5")
    register(panel)
    options = Result.load(files_of_newest(panel) / RESULT).options
    assert options["model"] == "mine" and options["refine"] == 5
    panel.logic.worker.kill()


def test_linear_only_and_rigid(panel):
    choose_pair(panel)
    ui = panel.ui
    ui.methodComboBox.setCurrentText("Linear")
    ui.linearComboBox.setCurrentText("Rigid")
    assert "nothing is bent" in ui.methodLabel.text and ui.estimateLabel.text.startswith("About")
    before = error_without(panel)
    run = register(panel)
    assert run.transform.IsA("vtkMRMLLinearTransformNode") and run.inverse.IsA("vtkMRMLLinearTransformNode")
    matrix = slicer.util.arrayFromTransformMatrix(run.transform)[:3, :3]
    assert np.allclose(matrix @ matrix.T, np.eye(3), atol=1e-9)
    here = [run.transform.GetTransformFromParent().TransformPoint(point) for point in STRUCTURES]
    assert np.abs(here - through(run_file(panel), STRUCTURES)).max() < 1e-9
    assert error_mm(panel) < before

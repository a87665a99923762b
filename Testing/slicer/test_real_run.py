"""The whole way once, with the real worker: panel, child process, torch, scene; then evidence and the report."""

import numpy as np
import pytest
import slicer
from NeuralRegistrationLib import samples, trust
from NeuralRegistrationLib.lattice import local_geometry
from NeuralRegistrationLib.logic import NeuralRegistrationLogic
from NeuralRegistrationLib.results import runs
from test_worker import gone

pytest.importorskip("torch", reason="the real worker needs PyTorch")


def test_click_register_evaluate_report(module, wait, tmp_path):
    fixed, moving = samples.addSmallPair()
    ui = module.ui
    ui.fixedSelector.setCurrentNode(fixed)
    ui.movingSelector.setCurrentNode(moving)
    ui.presetComboBox.setCurrentText("Fast")
    assert module.logic.worker.alive, "it shall import torch while the user looks around"
    ui.applyButton.click()
    wait(lambda: not module.logic.running)
    assert "Done" in ui.statusLabel.text, ui.statusLabel.text
    run = runs()[0]
    assert run.measurements["mutual_information_after"] > run.measurements["mutual_information_before"]
    moving.SetAndObserveTransformNodeID(run.transform.GetID())
    shown = slicer.modules.volumes.logic().ResampleVolumeToReferenceVolume(moving, fixed)
    warped = slicer.util.arrayFromVolume(run.warped)
    difference = np.abs(slicer.util.arrayFromVolume(shown) - warped)[2:-2, 2:-2, 2:-2]
    assert difference.max() <= 1e-3 * np.ptp(warped)
    moving.SetAndObserveTransformNodeID(None)
    check_evidence(module, wait, fixed, moving)
    check_report(module, wait, tmp_path)


def check_evidence(module, wait, fixed, moving):
    ui = module.ui
    for selector, volume in ((ui.fixedStructuresSelector, fixed), (ui.movingStructuresSelector, moving)):
        labels = slicer.util.arrayFromVolume(volume) > 60
        node = slicer.util.addVolumeFromArray(
            labels.astype(np.uint8), local_geometry(volume), f"{volume.GetName()} labels", "vtkMRMLLabelMapVolumeNode"
        )
        segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"{volume.GetName()} body")
        slicer.modules.segmentations.logic().ImportLabelmapToSegmentationNode(node, segmentation)
        segment = segmentation.GetSegmentation().GetNthSegment(0)
        segment.SetName("body")
        selector.setCurrentNode(segmentation)
    for selector in (ui.fixedLandmarksSelector, ui.movingLandmarksSelector):
        points = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "landmarks")
        for position in ((12, 0, 0), (-12, 0, 0), (0, 15, 5)):
            points.AddControlPoint(*position)
        selector.setCurrentNode(points)
    ui.evaluateButton.click()
    section = next(s for s in module.sections if hasattr(s, "chooseFile"))
    wait(lambda: not section.task.running)
    run = runs()[0]
    assert run.measurements["dice"]["body"] > 0.9, ui.statusLabel.text
    assert 0 < run.measurements["tre_mean_mm"] < 10 and len(run.measurements["tre_mm"]) == 3
    assert {"Overlap of structures (Dice)", "Landmarks (TRE)"} <= {check.name for check in trust.checks(run)}
    names = [ui.trustTable.item(row, 0).text() for row in range(ui.trustTable.rowCount)]
    assert "Landmarks (TRE)" in names and "Displacement" in names and "Local change of volume" in names


def check_report(module, wait, tmp_path):
    section = next(s for s in module.sections if hasattr(s, "chooseFile"))
    section.chooseFile = lambda *_: str(tmp_path / "report.html")
    module.ui.reportButton.click()
    wait(lambda: not section.task.running)
    assert (tmp_path / "report.html").stat().st_size > 10_000, module.ui.statusLabel.text


def test_logic_from_python_and_cancel(scene, wait):
    fixed, moving = samples.addSmallPair()
    logic, outcomes = NeuralRegistrationLogic(), []
    try:
        logic.register(fixed, moving, wait=False, preset="best", onFinished=outcomes.append)
        child = logic.worker.process_id
        wait(lambda: logic.worker.ready)
        logic.cancel()
        assert gone(child)
        assert outcomes[0].status == "cancelled" and not runs()
    finally:
        logic.close()

"""A scene that was saved, closed and opened again: everything that could be done after the run can be done then."""

import json
import shutil
import sys

import numpy as np
import pytest
import slicer
from clicks import register, reopen, temporary_files
from fakerun import GRIDS, add_volume, write_run
from neuralreg.job import JOB, RESULT, RegistrationJob
from NeuralRegistrationLib import results
from NeuralRegistrationLib.results import runs
from NeuralRegistrationLib.scene import export_volume, load_run
from NeuralRegistrationLib.widget_trust import TrustSection
from realrun import geometry, point_list, segmentation

SHIFT = np.array([0.5, 0.0, 0.0])  # of the fake child's transform, fixed to moving; LPS mm
POINTS = np.array([[3.0, -4.0, 5.0], [-3.0, 2.0, 8.0]])  # RAS mm


def measure(panel, wait):
    """Click Evaluate; returns what the panel says."""
    assert panel.ui.evaluateButton.enabled, panel.ui.evaluateButton.toolTip
    panel.ui.evaluateButton.click()
    wait(lambda: not panel.section(TrustSection).task.running)
    return panel.ui.statusLabel.text


def landmarks(panel, off=1.0):
    """Two lists chosen as evidence, that miss each other by `off` mm after the registration."""
    moving = POINTS + np.array([-1, -1, 1]) * SHIFT + np.array([0.0, off, 0.0])
    panel.ui.fixedLandmarksSelector.setCurrentNode(point_list("f", POINTS))
    panel.ui.movingLandmarksSelector.setCurrentNode(point_list("m", moving))


def report(panel, wait, path):
    """Click Report; returns the page."""
    section = panel.section(TrustSection)
    section.chooseFile = lambda *_texts: str(path)
    assert panel.ui.reportButton.enabled, panel.ui.reportButton.toolTip
    panel.ui.reportButton.click()
    wait(lambda: not section.task.running)
    assert "Saved" in panel.ui.statusLabel.text, panel.ui.statusLabel.text
    return path.read_text(encoding="utf-8")


def named(name):
    return slicer.util.getNode(name)


@pytest.fixture
def opened(panel, wait, tmp_path):
    """The panel after a run whose scene was saved, closed and opened again."""
    register(panel, wait)
    reopen(tmp_path / "scene.mrb")
    assert not temporary_files() and panel.run().table is runs()[0].table
    return panel


def test_evidence_and_report_as_if_the_run_had_just_ended(panel, wait, tmp_path):
    register(panel, wait)
    landmarks(panel, off=2.0)
    measure(panel, wait)
    reopen(tmp_path / "scene.mrb")
    assert runs()[0].measurements["tre_mean_mm"] == pytest.approx(2.0, abs=1e-3), "saved with the scene"
    before = report(panel, wait, tmp_path / "first.html")
    assert "2.000 mm" in before and "Fast" not in before and "balanced" in before
    figures = dict(runs()[0].measurements)
    landmarks(panel, off=1.0)
    assert "Measured" in measure(panel, wait)
    measured = runs()[0].measurements
    assert measured["tre_mean_mm"] == pytest.approx(1.0, abs=1e-3)
    others = {name: value for name, value in measured.items() if "tre" not in name}
    assert others == {name: value for name, value in figures.items() if "tre" not in name}
    assert len(temporary_files()) == 1
    slicer.mrmlScene.Clear(0)
    assert not temporary_files()


def test_structures_without_inverse_warped_and_jacobian(panel, wait, tmp_path):
    for name in ("Inverse", "Warped", "Jacobian"):
        getattr(panel.ui, f"want{name}CheckBox").click()
    register(panel, wait)
    reopen(tmp_path / "scene.mrb")
    bodies = [segmentation(name, named(name), body=30) for name in ("fixed", "moving")]
    for name, node in zip(("fixed", "moving"), bodies, strict=True):
        node.SetName(f"{name} body")
        getattr(panel.ui, f"{name}StructuresSelector").setCurrentNode(node)
    assert "Measured" in measure(panel, wait)
    assert 0.7 < runs()[0].measurements["dice"]["body"] <= 1
    assert report(panel, wait, tmp_path / "report.html").count("<img") == 27


def test_landmarks_that_guided_the_run_are_still_no_evidence(panel, wait, tmp_path):
    lists = [point_list(name, POINTS) for name in ("f guide", "m guide")]
    for side, node in zip(("fixed", "moving"), lists, strict=True):
        setattr(panel.parameters, f"{side}Landmarks", node)
    register(panel, wait)
    reopen(tmp_path / "scene.mrb")
    for side, name in (("fixed", "f guide"), ("moving", "m guide")):
        getattr(panel.ui, f"{side}LandmarksSelector").setCurrentNode(named(name))
    measure(panel, wait)
    assert runs()[0].measurements["landmarks_guiding"] == len(POINTS)


def test_a_result_of_the_command_line_is_kept_with_all_that_belongs_to_it(panel, wait, tmp_path):
    """As the page and scripts load it; its folder, with paths relative to it, may be gone the next day."""
    folder, volumes = tmp_path / "work" / "run", [named(name) for name in ("fixed", "moving")]
    folder.mkdir(parents=True)
    write_run(folder, *volumes)
    for volume in volumes:
        export_volume(volume, folder.parent / f"{volume.GetName()} scan.nrrd")
    guides = {f"{side}_landmarks": f"../{side}.points.csv" for side in ("fixed", "moving")}
    lps = np.array([-1, -1, 1])
    for name in guides.values():
        np.savetxt(folder / name, lps * POINTS, delimiter=",", header="x,y,z", comments="")
    RegistrationJob("../fixed scan.nrrd", "../moving scan.nrrd", ".", preset="best", **guides).save(folder / JOB)
    result = json.loads((folder / RESULT).read_text())
    (folder / RESULT).write_text(json.dumps({**result, "inputs": {"fixed": "00c0ffee", "moving": "00c0ffee"}}))
    load_run(folder, *volumes, "by command line")
    reopen(tmp_path / "scene.mrb")
    shutil.rmtree(folder.parent)
    for side in ("fixed", "moving"):
        getattr(panel.ui, f"{side}LandmarksSelector").setCurrentNode(point_list(side, POINTS))
    assert "Measured" in measure(panel, wait), panel.ui.statusLabel.text
    assert runs()[0].measurements["landmarks_guiding"] == len(POINTS)
    page = report(panel, wait, tmp_path / "report.html")
    assert "fixed scan.nrrd" in page and "best" in page and str(tmp_path) not in page
    assert "Changed since" not in page, "files made again from the nodes have other bytes"


@pytest.mark.harness_only
def test_a_reloaded_module_can_measure_what_the_old_one_made(panel, wait):
    register(panel, wait)
    ours = [name for name in sys.modules if name.split(".")[0] in ("NeuralRegistrationLib", "neuralreg")]
    known = {name: sys.modules[name] for name in ours}
    try:
        panel.onReload()
        assert not temporary_files() and slicer.modules.NeuralRegistrationWidget is not panel
        slicer.modules.NeuralRegistrationWidget.enter()
        ui = slicer.modules.NeuralRegistrationWidget.ui
        assert ui.runComboBox.count == 1 and ui.evaluateButton.enabled and ui.reportButton.enabled
    finally:
        sys.modules.update(known)  # what the other tests have imported


def test_look_and_apply_as_before(opened):
    ui, run = opened.ui, opened.run()
    enabled = ("before", "flicker", "checker", "side", "grid", "jacobian", "displacement", "reset", "move", "csv")
    assert all(getattr(ui, f"{name}Button").enabled for name in enabled)
    tree = results.hierarchy()
    inside = {tree.GetItemName(tree.GetItemParent(tree.GetItemByDataNode(node))) for node in run.outputs()}
    assert inside == {run.name}
    assert "Settings" in {ui.trustTable.item(row, 0).text() for row in range(ui.trustTable.rowCount)}


def test_the_transform_bends_as_before(panel, tmp_path):
    """From a file Slicer reads a grid as cubic; the registration, its figures and ITK are linear."""
    volumes = add_volume("fixed", GRIDS["oblique"]), add_volume("moving", GRIDS["axial"])
    write_run(tmp_path, *volumes)
    before = taken(load_run(tmp_path, *volumes, "bent"))
    reopen(tmp_path / "scene.mrb")
    assert np.abs(taken(runs()[0]) - before).max() < 1e-4


def taken(run):
    """Where transform and inverse of a run take some points."""
    points = np.random.default_rng(0).uniform(-12, 12, (50, 3)) + POINTS[0]
    nodes = run.transform, run.inverse
    return np.array([[node.GetTransformFromParent().TransformPoint(point) for point in points] for node in nodes])


def test_two_results_and_the_same_scene_twice(panel, wait, tmp_path):
    """Each result is measured by its own transform, also where names are the same."""
    register(panel, wait)
    register(panel, wait)
    reopen(tmp_path / "scene.mrb")
    reopen(tmp_path / "again.mrb", clear=False)
    wait(lambda: len(runs()) == panel.ui.runComboBox.count == 4)
    assert len({run.transform.GetID() for run in runs()}) == 4 == len({run.fixed.GetID() for run in runs()}) * 2
    landmarks(panel)
    for index in (0, 3):  # another run, of another scene
        panel.ui.runComboBox.setCurrentIndex(index)
        measure(panel, wait)
    found = [run.measurements.get("tre_mean_mm") for run in runs()]
    assert found == [pytest.approx(1.0, abs=1e-3), None, None, pytest.approx(1.0, abs=1e-3)]
    assert len(temporary_files()) == 2
    slicer.mrmlScene.RemoveNode(runs()[3].transform)
    panel.ui.runComboBox.setCurrentIndex(3)
    assert panel.ui.evaluateButton.enabled, "its files are there"


def test_names_and_parents_do_not_count(opened, wait):
    """Volumes may be renamed, and the moving one may lie under its result: it is not taken for what was registered."""
    run = opened.run()
    run.fixed.SetName("before & after / Größe")
    run.moving.SetAndObserveTransformNodeID(run.transform.GetID())
    landmarks(opened)
    assert measure(opened, wait).endswith("in the table of the run.")
    assert runs()[0].measurements["tre_mean_mm"] == pytest.approx(1.0, abs=1e-3)
    moving = opened.logic.folders.whole(run, ("fixed", "moving")).parent / "inputs" / "moving.nrrd"
    volume = slicer.util.loadVolume(str(moving))
    assert np.array_equal(slicer.util.arrayFromVolume(volume), slicer.util.arrayFromVolume(run.moving))
    assert np.abs(geometry(volume) - geometry(run.moving)).max() < 1e-6


def refused(panel, button):
    panel.refresh()
    assert not getattr(panel.ui, button).enabled
    return getattr(panel.ui, button).toolTip


def test_a_hardened_moving_volume_can_be_measured_on_but_not_pictured(opened, wait):
    run = opened.run()
    run.moving.SetAndObserveTransformNodeID(run.transform.GetID())
    run.moving.HardenTransform()
    assert '"moving" was moved or changed since' in refused(opened, "reportButton")
    landmarks(opened)
    assert 'moving" was moved since it was registered' in measure(opened, wait)
    assert runs()[0].measurements["tre_mean_mm"] == pytest.approx(1.0, abs=1e-3)


def test_nodes_without_their_files_are_not_shown(panel, wait, tmp_path):
    """Each file can be left out in the dialog that saves a scene; its node is there the next day, and empty."""
    register(panel, wait)
    run = runs()[0]
    for node in (run.warped, run.jacobian):
        node.SetAndObserveImageData(None)
    reopen(tmp_path / "scene.mrb")
    for name in ("checker", "side", "displacement", "jacobian"):
        assert not getattr(panel.ui, f"{name}Button").enabled, name
    landmarks(panel)
    measure(panel, wait)
    assert runs()[0].measurements["tre_mean_mm"] == pytest.approx(1.0, abs=1e-3)


def test_what_cannot_be_done_says_why(opened):
    """Nothing is measured with a transform, or on a volume, that is not that of the registration any more."""
    run, away = opened.run(), slicer.vtkMRMLLinearTransformNode()
    matrix = slicer.util.arrayFromVTKMatrix(away.GetMatrixTransformToParent())
    matrix[0, 3] = 3.0
    run.fixed.ApplyTransformMatrix(slicer.util.vtkMatrixFromArray(matrix))
    assert '"fixed" was moved or changed since; put it back' in refused(opened, "evaluateButton")
    run.fixed.ApplyTransformMatrix(slicer.util.vtkMatrixFromArray(np.linalg.inv(matrix)))
    opened.refresh()
    assert opened.ui.evaluateButton.enabled and opened.ui.reportButton.enabled
    run.transform.Inverse()
    assert f'"{run.transform.GetName()}" was changed since' in refused(opened, "evaluateButton")
    run.transform.Inverse()
    slicer.mrmlScene.RemoveNode(run.moving)
    assert "moving volume is no longer in the scene" in refused(opened, "reportButton")
    assert opened.ui.evaluateButton.enabled
    slicer.mrmlScene.RemoveNode(run.transform)
    assert "transform is no longer in the scene; register again" in refused(opened, "evaluateButton")
    assert opened.ui.csvButton.enabled


def test_what_has_changed_since_the_last_look_is_noticed_at_the_click(opened):
    run = opened.run()
    landmarks(opened)
    opened.refresh()
    run.fixed.SetSpacing(1.0, 1.0, 1.0)
    opened.ui.evaluateButton.click()
    assert '"fixed" was moved or changed since' in opened.ui.statusLabel.text and not temporary_files()


def test_no_path_of_this_computer_is_saved(opened):
    kept = opened.run().table.GetAttribute("NeuralRegistration.Files")
    assert slicer.app.temporaryPath not in kept
    assert json.loads(kept)["job.json"]["names"] == {"fixed": "fixed", "moving": "moving"}


def test_the_disk_may_be_full(opened, monkeypatch):
    landmarks(opened)

    def full(path, transforms):
        path.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("NeuralRegistrationLib.transform_file.write_itk_transforms", full)
    opened.ui.evaluateButton.click()
    assert "(No space left on device); make room" in opened.ui.statusLabel.text and not temporary_files()

"""The panel, clicked through with a child that plays the command line: every click path, and every fault."""

import ast
import importlib.util
import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import slicer
from fakechild import PLAYS
from fakerun import GRIDS, add_volume
from NeuralRegistrationLib import estimate, look, results
from NeuralRegistrationLib.results import runs
from test_worker import gone


@pytest.fixture
def panel(fake_worker, module):
    """The panel with two volumes chosen."""
    module.ui.fixedSelector.setCurrentNode(add_volume("fixed", GRIDS["axial"]))
    module.ui.movingSelector.setCurrentNode(add_volume("moving", GRIDS["oblique"]))
    return module


def play(panel, name, method="DNVF"):
    number = next(key for key, value in PLAYS.items() if value == name)
    panel.parameters.options = json.dumps({method: {"hidden": number}})


def finish(panel, wait):
    wait(lambda: not panel.logic.running, 20)


def register(panel, wait, name="quick"):
    play(panel, name)
    panel.ui.applyButton.click()
    finish(panel, wait)


def temporary_files():
    return sorted(p.name for p in Path(slicer.app.temporaryPath).glob("NeuralRegistration-*"))


def test_apply_says_what_is_missing(fake_worker, module):
    ui = module.ui
    assert not ui.applyButton.enabled and "fixed and a moving" in ui.applyButton.toolTip
    volume = add_volume("a", GRIDS["axial"])
    ui.fixedSelector.setCurrentNode(volume)
    ui.movingSelector.setCurrentNode(volume)
    assert not ui.applyButton.enabled and "same volume" in ui.applyButton.toolTip
    ui.movingSelector.setCurrentNode(add_volume("b", GRIDS["axial"]))
    assert ui.applyButton.enabled


def test_no_overlap_is_said_before_apply_and_centring_helps(panel):
    far = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "far")
    far.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(
        np.array([[1.0, 0, 0, 900], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])))
    panel.parameters.movingVolume.SetAndObserveTransformNodeID(far.GetID())
    panel.refresh()
    assert not panel.ui.overlapLabel.isHidden() and not panel.ui.applyButton.enabled
    panel.ui.centreCheckBox.checked = True
    assert panel.ui.applyButton.enabled


def test_panel_and_parameter_node_agree(panel):
    ui, node = panel.ui, panel.parameters
    ui.seedSpinBox.value = 17
    assert node.seed == 17
    node.preset = type(node.preset).BEST
    assert ui.presetComboBox.currentText == "Best"
    ui.wantInverseCheckBox.checked = False
    assert not node.wantInverse


def test_worker_is_warm_and_names_its_device(panel, wait):
    wait(lambda: panel.logic.worker.ready)
    assert "because this is a test" in panel.ui.deviceLabel.text
    assert panel.ui.installButton.isHidden()


def test_register_fills_the_scene(panel, wait):
    register(panel, wait)
    assert "Done" in panel.ui.statusLabel.text
    run = runs()[0]
    assert run.name == "moving to fixed (DNVF)" and len(run.outputs()) == 5
    assert run.fixed is panel.parameters.fixedVolume
    view = look.slice_views()[0]
    assert view.GetBackgroundVolumeID() == run.fixed.GetID() and view.GetForegroundVolumeID() == run.warped.GetID()
    assert panel.ui.trustTable.rowCount >= 3 and "object" in panel.ui.verdictLabel.text
    assert panel.ui.applyButton.enabled and not panel.ui.applyButton.isHidden()


def test_outputs_that_are_not_wanted_are_not_made(panel, wait):
    panel.ui.wantInverseCheckBox.checked = False
    panel.ui.wantJacobianCheckBox.checked = False
    target = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "mine")
    panel.ui.outputWarpedSelector.setCurrentNode(target)
    register(panel, wait)
    run = runs()[0]
    assert run.inverse is None and run.jacobian is None and run.warped is target


def test_progress_preview_and_cancel(panel, wait):
    background = add_volume("before", GRIDS["axial"])
    look.overlay(background, None)
    nodes = slicer.mrmlScene.GetNumberOfNodes()
    play(panel, "endless")
    panel.ui.applyButton.click()
    wait(lambda: panel.ui.progressBar.value > 300)
    assert panel.runSection().preview.node is not None and panel.runSection().curve.stages
    assert panel.ui.applyButton.isHidden() and not panel.ui.cancelButton.isHidden()
    child = panel.logic.worker.process_id
    start = time.monotonic()
    panel.ui.cancelButton.click()
    assert gone(child) and time.monotonic() - start < 1
    assert "scene is unchanged" in panel.ui.statusLabel.text and panel.ui.applyButton.enabled
    assert slicer.mrmlScene.GetNumberOfNodes() == nodes and not temporary_files()
    assert look.slice_views()[0].GetBackgroundVolumeID() == background.GetID()


def test_stop_and_keep(panel, wait):
    play(panel, "endless")
    panel.ui.applyButton.click()
    wait(lambda: panel.ui.progressBar.value > 300)
    panel.ui.stopButton.click()
    finish(panel, wait)
    assert "stopped early" in panel.ui.statusLabel.text and runs()[0].transform is not None


@pytest.mark.parametrize(("name", "words"), [
    ("crash", "unexpectedly"), ("killed", "memory"), ("sentence", "nothing in common"), ("full disk", "is full"),
    ("no result", "no result file"),
])
def test_faults_end_in_one_sentence(panel, wait, name, words):
    nodes = slicer.mrmlScene.GetNumberOfNodes()
    register(panel, wait, name)
    assert words in panel.ui.statusLabel.text and "\n" not in panel.ui.statusLabel.text
    assert slicer.mrmlScene.GetNumberOfNodes() == nodes and not temporary_files()
    register(panel, wait)  # and the panel can be used again
    assert "Done" in panel.ui.statusLabel.text


def test_closed_scene(panel, wait):
    play(panel, "endless")
    panel.ui.applyButton.click()
    wait(lambda: panel.ui.progressBar.value > 200)
    child = panel.logic.worker.process_id
    slicer.mrmlScene.Clear(0)
    assert gone(child) and not panel.logic.running and not temporary_files()
    assert "scene was closed" in panel.ui.statusLabel.text
    assert panel.parameters is not None and not panel.ui.applyButton.enabled


@pytest.mark.parametrize("which", ["fixedVolume", "movingVolume"])
def test_deleted_input(panel, wait, which):
    play(panel, "endless")
    panel.ui.applyButton.click()
    wait(lambda: panel.ui.progressBar.value > 200)
    slicer.mrmlScene.RemoveNode(getattr(panel.parameters, which))
    assert "was deleted" in panel.ui.statusLabel.text and not panel.logic.running and not temporary_files()


def test_application_exit(panel, wait):
    play(panel, "endless")
    panel.ui.applyButton.click()
    wait(lambda: panel.ui.progressBar.value > 200)
    child = panel.logic.worker.process_id
    panel.logic.close()  # what aboutToQuit() calls
    assert gone(child) and not temporary_files()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_full_disk_while_exporting(panel, wait, monkeypatch):
    from NeuralRegistrationLib import scene_export

    monkeypatch.setattr(scene_export, "Path", lambda path: Path("/dev/full"))
    play(panel, "quick")
    panel.ui.applyButton.click()
    assert "make room on that disk" in panel.ui.statusLabel.text and not panel.logic.running and not temporary_files()


def test_settings_survive_saving_and_loading(panel, wait, tmp_path):
    register(panel, wait)
    panel.ui.seedSpinBox.value = 23
    path = str(tmp_path / "scene.mrb")
    assert slicer.util.saveScene(path, {})
    slicer.mrmlScene.Clear(0)
    assert not runs()
    slicer.util.loadScene(path, {})
    panel.enter()
    assert panel.parameters.seed == 23 and panel.parameters.movingVolume.GetName() == "moving"
    run = runs()[0]
    assert run.transform is not None and run.fixed is panel.parameters.fixedVolume
    assert panel.ui.trustTable.rowCount >= 3


def test_options_are_checked_and_can_be_reset(panel):
    section = next(s for s in panel.sections if hasattr(s, "editors"))
    editor = section.editors["smoothness"]
    editor.text = "2.5"
    editor.editingFinished.emit()
    assert json.loads(panel.parameters.options)["DNVF"]["smoothness"] == 2.5
    editor.text = "much"
    editor.editingFinished.emit()
    assert '"much" is no value' in panel.ui.statusLabel.text
    panel.ui.defaultsButton.click()
    assert section.options_of(panel.parameters) == {} and section.editors["smoothness"].text == "1"


def test_time_is_learnt_from_runs(panel, wait):
    import qt

    qt.QSettings().remove("NeuralRegistration/speed")
    panel.refresh()
    assert "not yet measured" in panel.ui.estimateLabel.text
    estimate.remember("DNVF", "balanced", "cpu", 0.008, 3.0)
    panel.refresh()
    assert "on this computer" in panel.ui.estimateLabel.text and "About 3 s" in panel.ui.estimateLabel.text


def test_many_pairs_one_failure_does_not_end_the_batch(panel, wait):
    import qt

    play(panel, "quick")
    empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")
    volumes = [panel.parameters.movingVolume, empty, add_volume("third", GRIDS["flipped"])]
    for volume in volumes:
        panel.ui.batchSelector.setCheckState(volume, qt.Qt.Checked)
    panel.ui.batchButton.click()
    section = next(s for s in panel.sections if hasattr(s, "batch"))
    wait(lambda: not section.batch.running, 30)
    assert "2 of 3 registered; failed: empty" in panel.ui.statusLabel.text
    assert len(runs()) == 2
    table = next(t for t in slicer.util.getNodesByClass("vtkMRMLTableNode") if t.GetName().startswith("Registrations"))
    assert table.GetNumberOfRows() == 3 and "holds no image" in table.GetTable().GetValue(1, 2).ToString()


def test_sequence_of_volumes(panel, wait):
    play(panel, "quick")
    sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "4D")
    for index in range(2):
        sequence.SetDataNodeAtValue(panel.parameters.movingVolume, str(index))
    panel.ui.sequenceSelector.setCurrentNode(sequence)
    panel.ui.batchButton.click()
    section = next(s for s in panel.sections if hasattr(s, "batch"))
    wait(lambda: not section.batch.running, 30)
    assert {run.name for run in runs()} == {"4D [0] to fixed (DNVF)", "4D [1] to fixed (DNVF)"}


def test_csv(panel, wait, tmp_path):
    register(panel, wait)
    section = next(s for s in panel.sections if hasattr(s, "chooseFile"))
    section.chooseFile = lambda *_: str(tmp_path / "table.csv")
    panel.ui.csvButton.click()
    text = (tmp_path / "table.csv").read_text(encoding="utf-8-sig")
    assert "Folding (Jacobian ≤ 0)" in text and "displacement_max_mm,8.7" in text and "TG-132" in text


def scene_as_ids():
    scene = slicer.mrmlScene
    return {scene.GetNthNode(i).GetID() for i in range(scene.GetNumberOfNodes())}


@pytest.mark.parametrize("moment", ["between two steps", "within a step"])
def test_cancel_while_the_result_is_loaded(panel, wait, moment, monkeypatch):
    """The process has ended, its nodes are half there: they go again, and nothing happens twice."""
    monkeypatch.setattr("NeuralRegistrationLib.logic.LOAD_SECONDS", 0)  # one step at a time
    before, added = scene_as_ids(), []

    def on_node_added(caller, event):
        added.append(event)
        if moment == "within a step" and len(added) == 1:
            panel.ui.cancelButton.click()
            panel.logic.poll()  # what a timer does when somebody lets events through

    play(panel, "quick")
    panel.ui.previewCheckBox.checked = False
    panel.ui.applyButton.click()
    wait(lambda: panel.logic._loading is not None or not panel.logic.running)
    panel.logic._timer.stop()
    observer = slicer.mrmlScene.AddObserver(slicer.mrmlScene.NodeAddedEvent, on_node_added)
    try:
        while not added:
            panel.logic.poll()
        if moment == "between two steps" and panel.logic.running:
            panel.ui.cancelButton.click()
    finally:
        slicer.mrmlScene.RemoveObserver(observer)
    assert not panel.logic.running and "scene is unchanged" in panel.ui.statusLabel.text
    assert scene_as_ids() == before and not temporary_files()
    register(panel, wait)
    assert "Done" in panel.ui.statusLabel.text


def test_stop_while_the_result_is_loaded_changes_nothing(panel, wait, monkeypatch):
    monkeypatch.setattr("NeuralRegistrationLib.logic.LOAD_SECONDS", 0)
    play(panel, "quick")
    panel.ui.applyButton.click()
    wait(lambda: panel.logic._loading is not None or not panel.logic.running)
    panel.ui.stopButton.click()
    finish(panel, wait)
    assert "Done" in panel.ui.statusLabel.text


def test_closed_scene_while_the_result_is_loaded(panel, wait, monkeypatch):
    monkeypatch.setattr("NeuralRegistrationLib.logic.LOAD_SECONDS", 0)
    play(panel, "quick")
    panel.ui.applyButton.click()
    wait(lambda: panel.logic._loading is not None)
    slicer.mrmlScene.Clear(0)
    assert not panel.logic.running and not temporary_files() and not runs()
    assert "scene was closed" in panel.ui.statusLabel.text


def test_reload_keeps_nothing_of_the_old_panel(panel, wait):
    play(panel, "endless")
    panel.ui.applyButton.click()
    wait(lambda: panel.ui.progressBar.value > 200)
    child, old = panel.logic.worker.process_id, panel.logic
    ours = [name for name in sys.modules if name.split(".")[0] in ("NeuralRegistrationLib", "neuralreg")]
    known = {name: sys.modules[name] for name in ours}
    try:
        panel.onReload()
        assert sys.modules["NeuralRegistrationLib.logic"] is not known["NeuralRegistrationLib.logic"]
    finally:
        sys.modules.update(known)  # what the other tests have imported
    assert gone(child) and not temporary_files() and results.runs() == []
    assert slicer.modules.NeuralRegistrationWidget is not panel
    assert panel.logic is None and not panel.sections and not old._timer.active and not old.Observations


@pytest.mark.harness_only
def test_a_closed_logic_is_connected_to_nothing(panel):
    """What Slicer would go on calling, and what keeps the old code alive after a reload."""
    slots = slicer.app._slots["aboutToQuit"]
    assert panel.logic.close in slots
    old = panel.logic
    panel.cleanup()
    assert all(slot.__self__ is not old for slot in slots)
    panel.cleanup()  # Slicer may say it again when it ends
    panel.enter()
    panel.exit()


def test_a_panel_that_cannot_be_built_says_so_once(fake_worker, scene, monkeypatch, slot_errors):
    from NeuralRegistrationLib import widget

    class Broken(widget.ModelsSection):
        def __init__(self, panel):
            raise RuntimeError("the table of models is missing")

    monkeypatch.setattr(widget, "SECTIONS", (*widget.SECTIONS[:-1], Broken))
    made = widget.NeuralRegistrationWidget(holder())
    with pytest.raises(RuntimeError, match="table of models"):
        made.setup()
    for call in (made.enter, made.exit, made.cleanup):
        call()
    shown = made.parent.layout().itemAt(made.parent.layout().count() - 1).widget()
    assert "could not be built: the table of models is missing" in shown.text
    assert made.logic is None and not made.Observations


def test_an_old_python_is_one_sentence(scene, monkeypatch):
    """Slicer 5.8 brings Python 3.9: the module loads and says what to do."""
    from conftest import MODULE_FILE
    from NeuralRegistrationLib import outdated

    for path in (MODULE_FILE, Path(outdated.__file__)):
        ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))
    spec = importlib.util.spec_from_file_location("OldPython", MODULE_FILE)
    module = importlib.util.module_from_spec(spec)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "version_info", (3, 9, 10, "final", 0))
        spec.loader.exec_module(module)
    made = module.NeuralRegistrationWidget(holder())
    made.setup()
    assert "Slicer 5.10 or newer" in made.parent.layout().itemAt(0).widget().text
    with pytest.raises(RuntimeError, match="needs Slicer"):
        module.NeuralRegistrationLogic().register(None, None)


def holder():
    """An empty parent for a panel."""
    import qt

    parent = slicer.qMRMLWidget()
    parent.setLayout(qt.QVBoxLayout())
    parent.setMRMLScene(slicer.mrmlScene)
    return parent

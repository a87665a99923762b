"""How runs and panels end: every fault, cancelling at the worst moment, reloading. Nothing may stay behind."""

import ast
import gc
import importlib.util
import shutil
import sys
import time
from pathlib import Path

import pytest
import qt
import slicer
from clicks import PATIENCE, finish, play, register, scene_as_ids, temporary_files
from fakerun import GRIDS, add_volume
from NeuralRegistrationLib import results
from NeuralRegistrationLib.logic import DONE, NeuralRegistrationLogic
from NeuralRegistrationLib.results import runs
from NeuralRegistrationLib.widget_batch import BatchSection
from test_worker import gone


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("crash", "unexpectedly"),
        ("killed", "memory"),
        ("sentence", '"fixed" and "moving" have nothing in common'),  # names of nodes, not of temporary files
        ("full disk", "is full"),
        ("no result", "no result file"),
    ],
)
def test_faults_end_in_one_sentence(panel, wait, name, words):
    nodes = slicer.mrmlScene.GetNumberOfNodes()
    register(panel, wait, name)
    assert words in panel.ui.statusLabel.text and "\n" not in panel.ui.statusLabel.text
    assert slicer.mrmlScene.GetNumberOfNodes() == nodes and not temporary_files()
    register(panel, wait)  # and the panel can be used again
    assert "Done" in panel.ui.statusLabel.text


def test_slicers_log_says_where_it_broke_down(panel, wait, caplog, monkeypatch):
    """The panel shows one sentence; who shall find the bug needs what the process wrote, and the files are gone."""
    register(panel, wait, "crash")
    assert "in optimise" in caplog.text and "RuntimeError: a bug" in caplog.text
    monkeypatch.setattr("NeuralRegistrationLib.scene_load._copy_units", lambda *_: {}["another bug"])
    register(panel, wait)
    assert "in _join" in caplog.text and "KeyError: 'another bug'" in caplog.text


def test_what_the_user_can_put_right_is_no_bug(panel, wait, caplog):
    register(panel, wait, "sentence")
    register(panel, wait, "no result")
    assert not caplog.records


def test_closed_scene(panel, wait):
    play(panel, "endless")
    panel.ui.applyButton.click()
    wait(lambda: panel.ui.progressBar.value > 200)
    child = panel.logic.worker.process_id
    slicer.mrmlScene.Clear(0)
    assert gone(child) and not panel.logic.running and not temporary_files()
    assert "scene was closed" in panel.ui.statusLabel.text
    assert panel.parameters is not None and not panel.ui.applyButton.enabled


def test_a_closed_scene_takes_the_files_of_its_last_run_along(panel, wait):
    register(panel, wait)
    assert temporary_files(), "for the evaluation and the report"
    slicer.mrmlScene.Clear(0)
    assert not temporary_files()


@pytest.mark.parametrize("name", ["quick", "sentence"])
def test_a_closed_scene_gives_its_memory_back(panel, wait, name):
    """Volumes are large: neither the last run nor the last batch may hold those of a scene that is gone."""
    image = panel.parameters.movingVolume.GetImageData()  # the views may go on drawing the others
    register(panel, wait, name)
    panel.ui.batchSelector.setCheckState(panel.parameters.movingVolume, qt.Qt.Checked)
    panel.ui.batchButton.click()
    wait(lambda: not panel.section(BatchSection).batch.running)
    slicer.mrmlScene.Clear(0)
    slicer.app.processEvents()
    gc.collect()
    assert image.GetReferenceCount() == 1, "only this test still has it"


def test_deleted_temporary_folder(panel, wait):
    """Some tidy the disk while a program runs; then the child ends, and nothing is left of its last words."""
    play(panel, "endless")
    panel.ui.applyButton.click()
    wait(lambda: panel.ui.progressBar.value > 200)
    shutil.rmtree(panel.logic.worker._folder)
    finish(panel, wait)
    assert "temporary folder was deleted" in panel.ui.statusLabel.text and not temporary_files()
    register(panel, wait)
    assert "Done" in panel.ui.statusLabel.text


def test_a_callback_that_raises_does_not_lose_the_end_of_a_run(fake_worker, scene, wait, monkeypatch):
    """The lines of a child come several at a time; the last of them may stand behind the one that raised."""
    logic, outcomes, raised = NeuralRegistrationLogic(), [], []
    monkeypatch.setattr(sys, "excepthook", lambda kind, value, trace: raised.append(value))

    def fail(progress):
        raise ValueError(progress.stage)

    pair = add_volume("fixed", GRIDS["axial"]), add_volume("moving", GRIDS["oblique"])
    logic.register(*pair, wait=False, onProgress=fail, onFinished=outcomes.append)
    logic.worker._process.wait()
    wait(lambda: outcomes, 5)
    assert raised and outcomes[0].status == DONE and not logic.running
    logic._timer.setInterval(10**6)  # what a slot raises does not reach the caller
    with pytest.raises(ValueError, match="affine"):
        logic.register(*pair, onProgress=fail)
    assert not logic.running, "a call that waits does not leave a run behind"
    logic.close()


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


def load_in_steps(panel, monkeypatch):
    """A run that has ended and whose result is about to be loaded, one step at each `poll`, which no timer calls."""
    monkeypatch.setattr("NeuralRegistrationLib.logic.LOAD_SECONDS", 0)
    play(panel, "quick")
    panel.ui.applyButton.click()
    panel.logic._timer.stop()
    end = time.monotonic() + PATIENCE
    while panel.logic._loading is None:
        assert panel.logic.running and time.monotonic() < end, panel.ui.statusLabel.text
        panel.logic.poll()
        time.sleep(0.01)


@pytest.mark.parametrize("moment", ["between two steps", "within a step"])
def test_cancel_while_the_result_is_loaded(panel, wait, moment, monkeypatch):
    """The process has ended, its nodes are half there: they go again, and nothing happens twice."""
    before, added = scene_as_ids(), []

    def on_node_added(caller, event):
        added.append(event)
        if moment == "within a step" and len(added) == 1:
            panel.ui.cancelButton.click()
            panel.logic.poll()  # what a timer does when somebody lets events through

    panel.ui.previewCheckBox.checked = False
    load_in_steps(panel, monkeypatch)
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


def test_the_panel_may_be_closed_within_a_step_of_loading(panel, monkeypatch):
    """By somebody who hears of a new node and lets Slicer end."""
    before, logic, added = scene_as_ids(), panel.logic, []

    def on_node_added(caller, event):
        if not added:
            added.append(event)
            panel.cleanup()

    panel.ui.previewCheckBox.checked = False
    load_in_steps(panel, monkeypatch)
    observer = slicer.mrmlScene.AddObserver(slicer.mrmlScene.NodeAddedEvent, on_node_added)
    try:
        while not added and logic.running:
            logic.poll()
    finally:
        slicer.mrmlScene.RemoveObserver(observer)
    assert added and not logic.running and scene_as_ids() == before and not temporary_files()


def test_stop_while_the_result_is_loaded_changes_nothing(panel, wait, monkeypatch):
    load_in_steps(panel, monkeypatch)
    panel.ui.stopButton.click()
    panel.logic._timer.start()
    finish(panel, wait)
    assert "Done" in panel.ui.statusLabel.text


def test_closed_scene_while_the_result_is_loaded(panel, monkeypatch):
    load_in_steps(panel, monkeypatch)
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
    assert "Slicer 5.12 or newer" in made.parent.layout().itemAt(0).widget().text
    with pytest.raises(RuntimeError, match="needs Slicer"):
        module.NeuralRegistrationLogic().register(None, None)


def holder():
    """An empty parent for a panel."""
    import qt

    parent = slicer.qMRMLWidget()
    parent.setLayout(qt.QVBoxLayout())
    parent.setMRMLScene(slicer.mrmlScene)
    return parent

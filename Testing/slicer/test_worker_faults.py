"""Faults in the real worker, in the middle of a real registration: one sentence, nothing left, the panel usable."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import faultychild
import pytest
import slicer
from clicks import PATIENCE, scene_as_ids, temporary_files
from NeuralRegistrationLib import samples
from NeuralRegistrationLib.results import runs
from test_worker import gone, wait_until

pytest.importorskip("torch", reason="the real worker needs PyTorch")


@pytest.fixture
def pair(module):
    """The panel with a small pair and a worker of the test's choice."""
    fixed, moving = samples.addSmallPair()
    module.logic.worker.kill()
    module.ui.fixedSelector.setCurrentNode(fixed)
    module.ui.movingSelector.setCurrentNode(moving)
    module.ui.presetComboBox.setCurrentText("Fast")
    module.logic.worker.kill()
    return module


def start(panel, wait, fault=None):
    """Click Register with a fault in the worker; returns the scene before."""
    if fault is not None:
        panel.logic.worker.command = faultychild.command(fault)
    before = scene_as_ids()
    panel.ui.applyButton.click()
    assert panel.logic.running, panel.ui.statusLabel.text
    return before


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("GPU memory always", "not enough memory for this registration; use the preset fast"),
        ("killed", "memory ran out"),
        ("killed behind the launcher", "without a word"),
        ("crash", "crashed (SIGSEGV)"),
        ("full disk", "is full"),
        ("bug", "Its last words: ZeroDivisionError: a bug"),
    ],
)
def test_fault_in_the_worker_is_one_sentence(pair, wait, fault, words):
    if sys.platform == "win32" and fault in ("full disk", "killed", "killed behind the launcher", "crash"):
        pytest.skip("made with the signals and limits of POSIX")
    before = start(pair, wait, fault)
    child = pair.logic.worker.process_id
    wait(lambda: not pair.logic.running)
    said = pair.ui.statusLabel.text
    assert words in said and "\n" not in said and "Traceback" not in said, said
    assert scene_as_ids() == before and not temporary_files() and gone(child)
    assert pair.ui.applyButton.enabled and not pair.ui.applyButton.isHidden() and pair.ui.cancelButton.isHidden()


def test_too_little_gpu_memory_falls_back_to_the_cpu_and_says_so(pair, wait):
    start(pair, wait, "GPU memory once")
    wait(lambda: not pair.logic.running)
    assert "Done" in pair.ui.statusLabel.text and "GPU has too little free memory" in pair.ui.statusLabel.text
    assert runs()[0].measurements["device"] == "cpu"


@pytest.mark.parametrize("event", ["scene closed", "cancelled"])  # test_ends.py has the others, with a child of its own
def test_what_ends_a_real_run_from_outside(pair, wait, event):
    pair.ui.presetComboBox.setCurrentText("Best")  # long enough to be caught in the middle
    before = start(pair, wait)
    wait(lambda: pair.runSection().progress.curve.stages, 100)
    child = pair.logic.worker.process_id
    if event == "scene closed":
        slicer.mrmlScene.Clear(0)
    else:
        pair.ui.cancelButton.click()
    assert gone(child) and not pair.logic.running and not temporary_files() and not runs()
    said = {"scene closed": "scene was closed", "cancelled": "scene is unchanged"}[event]
    assert said in pair.ui.statusLabel.text and pair.ui.cancelButton.isHidden()
    assert event != "cancelled" or scene_as_ids() == before, "cancelling leaves the scene as it was"


APPLICATION = """
import sys
sys.path[:0] = [sys.argv[1], sys.argv[2]]
import conftest
from NeuralRegistrationLib import samples
from NeuralRegistrationLib.logic import NeuralRegistrationLogic
import slicer, time
fixed, moving = samples.addSmallPair()
logic, seen = NeuralRegistrationLogic(), []
long = {"preset": "best", "options": {"networks": ["siren", "siren", "encoded", "encoded"]}}  # a minute at least
logic.register(fixed, moving, wait=False, **long, onProgress=seen.append)
while not any(progress.loss is not None for progress in seen):
    slicer.app.processEvents()
    time.sleep(0.01)
print(logic.worker.process_id, logic.folders.current, logic.worker._folder, flush=True)
if sys.argv[3] == "killed":
    time.sleep(600)
if sys.argv[3] == "quit":
    slicer.app.emit("aboutToQuit")
sys.exit()
"""


@pytest.mark.harness_only
@pytest.mark.skipif(sys.platform == "win32", reason="uses signals of POSIX")
@pytest.mark.parametrize("how", ["quit", "exit", "killed"])
def test_application_ends_in_the_middle(how):
    """Whether it says goodbye (aboutToQuit), just ends (atexit) or is killed: no process stays."""
    folders = [str(Path(__file__).parent), str(Path(__file__).resolve().parents[2] / "NeuralRegistration")]
    command = [sys.executable, "-c", APPLICATION, *folders, how]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as application:
        child, *folders = application.stdout.readline().split()
        if how == "killed":
            os.kill(application.pid, signal.SIGKILL)
        application.wait(PATIENCE)
    wait_until(lambda: gone(int(child)))
    if how != "killed":  # a killed program cannot tidy up; its files lie in the system's temporary folder
        assert not any(Path(folder).exists() for folder in folders)

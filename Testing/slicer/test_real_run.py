"""A registration from Python, with the real worker: waiting for it, and not; the clicks are in test_real_clicks.py."""

import re
from pathlib import Path

import pytest
import slicer
from clicks import temporary_files
from NeuralRegistrationLib import samples
from NeuralRegistrationLib.dependencies import torch_problem
from NeuralRegistrationLib.logic import NeuralRegistrationLogic as Logic
from NeuralRegistrationLib.results import runs
from test_worker import gone

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guide.md"
# With its SIRENs, which small volumes get only when asked for, it takes a minute at least.
LONG = {"preset": "best", "options": {"networks": ["siren", "siren", "encoded", "encoded"]}}
pytestmark = pytest.mark.skipif(bool(torch_problem()), reason="the real worker needs PyTorch")


def test_the_test_of_the_module_itself(module):
    """What "Reload and Test" does: a small pair, registered by a call that waits."""
    import NeuralRegistration

    NeuralRegistration.NeuralRegistrationTest().runTest()
    (run,) = runs()
    assert run.fixed.GetName() == "Small fixed" and len(run.outputs()) == 5
    assert not temporary_files(), "the logic was closed"


def test_the_example_of_the_guide_for_the_console(module, capsys):
    for node, name in zip(samples.addSmallPair(), ("MRBrainTumor1", "MRBrainTumor2"), strict=True):
        node.SetName(name)
    (code,) = re.findall(r"```python\n(from NeuralRegistration .*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    exec(code, {"slicer": slicer})
    assert "folds_percent" in capsys.readouterr().out and len(runs()) == 1
    assert not temporary_files(), "the logic was closed"


def test_a_call_that_does_not_wait_can_be_cancelled(scene, wait):
    fixed, moving = samples.addSmallPair()
    nodes = slicer.mrmlScene.GetNumberOfNodes()
    logic, outcomes = Logic(), []
    try:
        logic.register(fixed, moving, wait=False, **LONG, onFinished=outcomes.append)
        child = logic.worker.process_id
        wait(lambda: logic.worker.ready)
        logic.cancel()
        assert gone(child)
        assert outcomes[0].status == "cancelled" and not runs() and slicer.mrmlScene.GetNumberOfNodes() == nodes
    finally:
        logic.close()

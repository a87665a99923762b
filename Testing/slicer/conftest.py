"""The same tests in two worlds: in a real Slicer, and in the harness (slicer-core + PySide6 under PythonQt's rules).

Inside Slicer `slicer.app` exists before this file is read; elsewhere the harness is started. NEURALREG_SLICER_PYTHON
may name the folder `Base/Python/slicer` of Slicer's sources: the harness then uses Slicer's own Python layer.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULE_FILE = ROOT / "NeuralRegistration" / "NeuralRegistration.py"

os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")  # pictures without a screen

slicer = pytest.importorskip("slicer", reason="needs 3D Slicer, or `pip install slicer-core PySide6-Essentials`")
IN_SLICER = hasattr(slicer, "app") and hasattr(slicer, "mrmlScene")
if str(MODULE_FILE.parent) not in sys.path:
    sys.path.insert(0, str(MODULE_FILE.parent))


def import_harness():
    """Import the package `harness` by its path: with Testing/ on sys.path slicer-core would swallow Testing/slicer."""
    folder = ROOT / "Testing" / "harness"
    spec = importlib.util.spec_from_file_location(
        "harness", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    sys.modules["harness"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["harness"])


if not IN_SLICER:
    pytest.importorskip("PySide6", reason="the harness needs PySide6-Essentials")
    import_harness()
    from harness.start import boot

    boot(os.environ.get("NEURALREG_SLICER_PYTHON"))


def pytest_collection_modifyitems(items):
    """Tests of the harness itself mean nothing inside Slicer."""
    skip = pytest.mark.skip(reason="tests the harness, not Slicer")
    for item in items:
        if IN_SLICER and "harness_only" in item.keywords:
            item.add_marker(skip)


def pytest_configure(config):
    config.addinivalue_line("markers", "harness_only: not run inside a real Slicer")


@pytest.fixture(autouse=True)
def slot_errors():
    from clicks import failing_on_slot_errors

    with failing_on_slot_errors() as seen:
        yield seen


@pytest.fixture
def scene():
    slicer.mrmlScene.Clear(0)
    yield slicer.mrmlScene
    slicer.mrmlScene.Clear(0)


@pytest.fixture
def wait(slot_errors):
    """`wait(condition, seconds)`: let the event loop run until the condition holds."""

    from clicks import wait_for

    return lambda condition, seconds=60: wait_for(condition, seconds, slot_errors)


@pytest.fixture
def fake_worker(monkeypatch):
    """The panel's child is a small program without torch that behaves as the command line does (fakechild.py)."""
    from fakechild import command
    from NeuralRegistrationLib import worker

    monkeypatch.setattr(worker, "serve_command", command)
    return monkeypatch


@contextmanager
def shown_panel():
    if IN_SLICER:
        slicer.util.selectModule("Welcome" if hasattr(slicer.modules, "welcome") else "Data")
        slicer.util.selectModule("NeuralRegistration")
        yield slicer.util.getModuleWidget("NeuralRegistration")
        slicer.util.reloadScriptedModule("NeuralRegistration")  # closes the panel with all that it runs
        return
    from harness.start import load_module

    yield load_module(MODULE_FILE)[2]
    widget = slicer.modules.NeuralRegistrationWidget  # another one after a reload
    widget.cleanup()
    import shiboken6

    shiboken6.delete(widget.parent)  # deleteLater needs an event loop; what lives on would go on observing the scene


@pytest.fixture
def module(scene):
    """The panel, shown; its worker is the real one unless the test also asks for `fake_worker` first."""
    with shown_panel() as widget:
        yield widget


@pytest.fixture(scope="module")
def kept_module():
    """The panel with the real worker and its scene, for all tests of a file: they share what costs seconds."""
    slicer.mrmlScene.Clear(0)
    with shown_panel() as widget:
        yield widget
    slicer.mrmlScene.Clear(0)


@pytest.fixture
def panel(fake_worker, module):
    """The panel with two volumes chosen and a child without torch."""
    from fakerun import GRIDS, add_volume

    module.ui.fixedSelector.setCurrentNode(add_volume("fixed", GRIDS["axial"]))
    module.ui.movingSelector.setCurrentNode(add_volume("moving", GRIDS["oblique"]))
    return module

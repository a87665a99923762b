"""The device line and the button that installs PyTorch: what users see, and that nothing happens unasked."""

import importlib.metadata
import importlib.util
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest
import slicer
from NeuralRegistrationLib import dependencies, theme
from NeuralRegistrationLib.worker import Worker

WHOLE = SimpleNamespace(origin="torch/__init__.py")
HALF = SimpleNamespace(origin=None)


@pytest.fixture
def torch(monkeypatch):
    """How PyTorch is found in this Python; the test changes `torch.spec`."""
    state, find = SimpleNamespace(spec=WHOLE), importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: state.spec if name == "torch" else find(name, *rest)
    )
    return state


@pytest.fixture
def extension(monkeypatch, torch):
    """The PyTorch extension, which installs when it is told to; `outcome` may be an exception that it raises."""
    state = SimpleNamespace(calls=[], outcome=None)

    class PyTorchUtilsLogic:
        def installTorch(self, **settings):
            state.calls.append(settings)
            if isinstance(state.outcome, BaseException):
                raise state.outcome
            return state.outcome() if state.outcome else None

    utils = ModuleType("PyTorchUtils")
    utils.PyTorchUtilsLogic = PyTorchUtilsLogic
    monkeypatch.setitem(sys.modules, "PyTorchUtils", utils)
    monkeypatch.setattr(slicer.modules, "pytorchutils", object(), raising=False)
    return state


@pytest.fixture
def asked(panel):
    """The panel without worker; its questions are kept and answered with `asked.answer`."""
    panel.logic.worker.kill()
    state = SimpleNamespace(panel=panel, ui=panel.ui, answer=True, questions=[], said=[])
    show = panel.say

    def ask(question):
        state.questions.append(question)
        return state.answer

    def say(text, kind="info"):
        state.said.append((text, kind))
        show(text, kind)

    panel.ask, panel.say = ask, say
    return state


def show(asked, torch, spec):
    torch.spec = spec
    asked.panel.refresh()


def is_warning(asked):
    return theme.colour(asked.ui.deviceLabel, "warning") in asked.ui.deviceLabel.styleSheet


def install(state, torch):
    def done():
        torch.spec = WHOLE
        return ModuleType("torch")

    state.outcome = done


@pytest.mark.parametrize(
    ("spec", "words"), [(None, "PyTorch is not installed; the button installs it"), (HALF, "only half installed")]
)
def test_missing_torch_is_said_with_the_remedy_and_nothing_is_started(asked, torch, spec, words):
    show(asked, torch, spec)
    ui = asked.ui
    assert words in ui.deviceLabel.text and "button" in ui.deviceLabel.text and is_warning(asked)
    assert not ui.installButton.isHidden() and not asked.panel.logic.worker.alive
    ui.applyButton.click()
    assert words in ui.statusLabel.text and not asked.panel.logic.running and asked.questions == []


def test_declined_means_that_nothing_happens(asked, torch, extension):
    show(asked, torch, None)
    asked.answer = False
    asked.ui.installButton.click()
    (question,) = asked.questions
    assert "downloaded" in question and "1 GB" in question and question.endswith("?")
    assert extension.calls == [] and asked.said == [] and not asked.ui.installButton.isHidden()


def test_without_the_extension_it_says_where_to_get_it(asked, torch, monkeypatch):
    monkeypatch.delattr(slicer.modules, "pytorchutils", raising=False)
    show(asked, torch, None)
    asked.ui.installButton.click()
    assert asked.ui.statusLabel.text == (
        "The PyTorch extension is missing; install it in the Extensions Manager and restart Slicer."
    )
    assert asked.questions == [], "there is nothing to agree to"


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (None, "the extension refused"),
        (subprocess.CalledProcessError(1, ["PythonSlicer", "-m", "pip"]), "non-zero exit status 1"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (ValueError(""), "ValueError"),
        (lambda: ModuleType("torch"), "half installed"),
    ],
    ids=["refused", "pip fails", "full disk", "no words", "half of it"],
)
def test_a_failed_installation_is_one_sentence_with_a_remedy(asked, torch, extension, outcome, words):
    show(asked, torch, HALF)
    extension.outcome = outcome
    asked.ui.installButton.click()
    said = asked.ui.statusLabel.text
    assert said.startswith("PyTorch could not be installed (") and words in said and "restart Slicer" in said
    assert "\n" not in said and asked.said[-1][1] == "error"
    assert not asked.ui.installButton.isHidden() and len(extension.calls) == 1


@pytest.mark.parametrize("before", [None, HALF], ids=["missing", "half installed"])
def test_success(asked, torch, extension, before, wait):
    show(asked, torch, before)
    install(extension, torch)
    asked.ui.installButton.click()
    assert extension.calls == [{"askConfirmation": False, "torchVersionRequirement": ">=2.1"}], "asked once, by us"
    texts = [text for text, _kind in asked.said]
    assert "does not react" in texts[0] and texts[-1] == "PyTorch is installed." and asked.said[-1][1] == "good"
    assert asked.ui.installButton.isHidden() and not is_warning(asked)
    wait(lambda: asked.panel.logic.worker.ready)  # and the worker starts without another click
    assert "because this is a test" in asked.ui.deviceLabel.text


def say_device(asked, device, monkeypatch, gpu):
    monkeypatch.setattr(dependencies, "gpu_present", lambda: gpu)
    asked.panel.logic.worker.device = device
    asked.panel.refresh()


@pytest.mark.parametrize(
    "problem",
    [
        "this PyTorch has no GPU support; if the computer has an NVIDIA GPU, install the CUDA build of PyTorch.",
        "PyTorch finds no usable GPU; check the graphics driver.",
        "Quadro K2000 does not work (no kernel image): install a PyTorch that was built for this GPU.",
    ],
)
def test_a_gpu_that_cannot_be_used_is_a_warning_with_the_remedy(asked, torch, monkeypatch, problem):
    reason = f"Running on the CPU, because {problem}"
    say_device(asked, f"cpu: {reason}", monkeypatch, gpu=True)
    assert asked.ui.deviceLabel.text == f"There is a GPU, but it is not used. {reason}" and is_warning(asked)
    say_device(asked, f"cpu: {reason}", monkeypatch, gpu=False)
    assert asked.ui.deviceLabel.text == reason and not is_warning(asked), "no GPU is no fault"


def test_a_gpu_that_works_and_one_that_is_not_wanted(asked, torch, monkeypatch):
    say_device(asked, "cuda: NVIDIA RTX 4090 was found.", monkeypatch, gpu=True)
    assert asked.ui.deviceLabel.text == "NVIDIA RTX 4090 was found." and not is_warning(asked)
    assert asked.ui.installButton.isHidden()
    asked.ui.deviceComboBox.setCurrentText("CPU only")
    assert asked.ui.deviceLabel.text == "The CPU, as chosen under Advanced." and not is_warning(asked)


def test_before_the_worker_has_spoken(asked, torch, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.13.0")
    say_device(asked, "", monkeypatch, gpu=False)
    assert asked.ui.deviceLabel.text == "PyTorch 2.13.0 is installed." and not is_warning(asked)


def broken(inbox):
    """A child whose torch lacks its libraries, as an interrupted installation can leave it."""
    return [sys.executable, "-c", "raise ImportError('libtorch.so: undefined symbol: x')"]


def test_a_torch_that_cannot_be_loaded_is_said_before_apply_and_can_be_installed_again(asked, torch, extension, wait):
    panel, ui = asked.panel, asked.ui
    worker, started = panel.logic.worker, []
    worker.command = lambda inbox: started.append(inbox) or broken(inbox)
    panel.refresh()
    wait(lambda: worker.trouble)
    assert ui.deviceLabel.text.startswith("PyTorch cannot be loaded; install it again") and is_warning(asked)
    assert not ui.installButton.isHidden()
    for _ in range(3):
        panel.refresh()
    assert len(started) == 1, "it is not tried over and over"
    ui.applyButton.click()
    wait(lambda: not panel.logic.running)
    assert "cannot be loaded" in ui.statusLabel.text
    install(extension, torch)
    worker.command = None
    ui.installButton.click()
    wait(lambda: worker.ready)
    assert "because this is a test" in ui.deviceLabel.text and ui.installButton.isHidden()


def test_other_ends_of_a_waiting_child_are_no_trouble_with_torch(scene, wait):
    worker = Worker(lambda inbox: [sys.executable, "-c", "raise SystemExit(3)"])
    worker.warm()
    wait(lambda: worker.poll() == [] and not worker.alive)
    worker.poll()
    assert worker.trouble == ""

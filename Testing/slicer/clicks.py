"""Clicks that several test files share; `panel` in conftest.py is what they click on."""

from __future__ import annotations

import json
import sys
import time
import traceback
from contextlib import contextmanager
from pathlib import Path

import slicer
from fakechild import PLAYS

BUSY = 10  # times as long as on a quiet computer
PATIENCE = 60 * BUSY  # seconds


@contextmanager
def failing_on_slot_errors():
    """An exception inside a Qt slot or a VTK observer only reaches sys.excepthook: make it fail the test."""
    seen, before = [], sys.excepthook

    def remember(kind, value, trace):
        seen.append(value)
        traceback.print_exception(kind, value, trace)

    sys.excepthook = remember
    try:
        yield seen
    finally:
        sys.excepthook = before
    assert not seen, f"exception in a slot: {seen[0]!r}"


def wait_for(condition, seconds=60, slot_errors=()):
    """Let the event loop run until the condition holds; a new exception in a slot ends it.

    `seconds` is ample on a quiet computer; a busy one gets as much more as it may need.
    """
    end = time.monotonic() + BUSY * seconds
    while not condition():
        slicer.app.processEvents()
        assert not slot_errors, slot_errors[0]
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.005)


def idle(seconds):
    """Let the event loop run for a while: time for what must not happen."""
    end = time.monotonic() + seconds
    wait_for(lambda: time.monotonic() > end)


def play(panel, name, method="DNVF"):
    """Choose what the fake child shall play."""
    number = next(key for key, value in PLAYS.items() if value == name)
    panel.parameters.options = json.dumps({method: {"hidden": number}})


def finish(panel, wait):
    wait(lambda: not panel.logic.running)


def register(panel, wait, name="quick"):
    play(panel, name)
    panel.ui.applyButton.click()
    finish(panel, wait)


def temporary_files():
    return sorted(p.name for p in Path(slicer.app.temporaryPath).glob("NeuralRegistration-*"))


def reopen(path, clear=True):
    """Save the scene as one file (.mrb), close it, and open it again; or open it beside what is there."""
    assert slicer.util.saveScene(str(path))
    if clear:
        slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(path), {"clear": clear})


def scene_as_ids():
    scene = slicer.mrmlScene
    return {scene.GetNthNode(i).GetID() for i in range(scene.GetNumberOfNodes())}

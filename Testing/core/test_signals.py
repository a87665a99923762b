"""Signals, at whatever moment: a run leaves a whole result or none, and nothing temporary."""

import contextlib
import json
import random
import signal
import sys
import time
from pathlib import Path

import pytest
from child import ENVIRONMENT, PATIENCE, python, start, wait_for_iterations
from neuralreg import cli
from neuralreg.commands import inspect
from neuralreg.job import EXIT_CANCELLED
from neuralreg.workspace import RUN_FILES
from short_runs import ENDLESS, settings

STRIKES = Path(__file__).with_name("strikes.py")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["starting", "optimising"])
def test_signal_leaves_nothing_that_looks_whole(pair, number, moment):
    output = pair.folder / f"{number.name}{moment}"
    arguments = ("register", "fixed.nii.gz", "moving.nrrd", "-o", output, "--progress", "json", *ENDLESS)
    with start(*arguments, cwd=pair.folder) as child:
        if moment == "optimising":
            wait_for_iterations(child)
        time.sleep(random.Random(0).uniform(0.0, 0.5))
        child.send_signal(number)
        assert child.wait(PATIENCE) in (130, -number)  # while Python itself starts nobody has the signal in hand yet
    assert not output.exists()


def test_an_interruption_gets_past_those_who_catch_every_error(capsys, monkeypatch):
    """As libraries do around what they import: the command would go on, and hear no second signal."""
    before = signal.getsignal(signal.SIGTERM)

    def swallowing(options):
        with contextlib.suppress(Exception):
            signal.raise_signal(signal.SIGTERM)
        raise AssertionError("the command went on")

    monkeypatch.setattr(inspect, "_methods", swallowing)
    assert cli.main(["methods"]) == EXIT_CANCELLED and "cancelled" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


def test_termination_at_random_moments(pair, tmp_path, monkeypatch):
    """In every stage of a run, the files' included: the folder is whole or not there, and nothing temporary is left."""
    runs, temporary = tmp_path / "runs", tmp_path / "temporary"
    runs.mkdir()
    temporary.mkdir()
    monkeypatch.setitem(ENVIRONMENT, "TMPDIR", str(temporary))
    inputs = [str(pair.folder / name) for name in ("fixed.nii.gz", "moving.nrrd")]
    arguments = ("register", *inputs, *settings(iterations="8"))
    done = python(STRIKES.read_text(encoding="utf-8"), 7, 16, *arguments, cwd=runs)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    struck = [json.loads(line) for line in done.stdout.splitlines()]
    assert {code for _, _, code in struck} <= {0, 130, -signal.SIGTERM}
    left = {folder.name: sorted(path.name for path in folder.iterdir()) for folder in runs.iterdir()}
    assert set(map(tuple, left.values())) == {tuple(sorted(RUN_FILES))}
    assert len(struck) == 16 and any(name not in left for name, _, _ in struck)
    assert not list(temporary.iterdir())

"""Signals, at whatever moment: a run leaves a whole result or none, and nothing temporary."""

import contextlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from child import ENVIRONMENT, PATIENCE, python, start, wait_for_iterations
from neuralreg import cli, workspace
from neuralreg import run as run_module
from neuralreg.commands import inspect, register
from neuralreg.job import EXIT_CANCELLED, PREVIEW, RESULT
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


def test_a_run_whose_reader_is_gone_ends_without_blaming_the_disk(pair):
    arguments = ("register", "fixed.nii.gz", "moving.nrrd", "-o", "unread", "--progress", "json", *ENDLESS)
    with start(*arguments, cwd=pair.folder) as child:
        child.stdout.readline()
        child.stdout.close()
        said = child.stderr.read()
        assert child.wait(PATIENCE) == EXIT_CANCELLED and said == ""
    assert not (pair.folder / "unread").exists()


def test_a_signal_after_the_end_of_a_command_changes_nothing(tmp_path):
    """The second Ctrl-C of somebody impatient came while Python was tidying up, and ended in a traceback."""
    code = (
        "import atexit, signal\nfrom neuralreg import cli\ncli.main = lambda: 130\n"
        "atexit.register(lambda: [signal.raise_signal(n) for n in (signal.SIGINT, signal.SIGTERM)])\ncli.program()"
    )
    ended = python(code, cwd=tmp_path)
    assert ended.returncode == EXIT_CANCELLED and ended.stderr == ""


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


@pytest.mark.parametrize("name", ["torch", "SimpleITK", "numpy"])
def test_an_interruption_waits_until_what_is_compiled_is_imported(name, capsys, monkeypatch):
    """C++ does not pass on what is raised meanwhile: now and then the process ended with a dump of its stack (torch),
    or went on as if nothing had been (SimpleITK 2.5.0)."""
    module = ModuleType(name)
    module.__spec__ = SimpleNamespace(_initializing=True)
    survived = []

    def importing(options):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, module)
            signal.raise_signal(signal.SIGTERM)
            time.sleep(5 * cli.AGAIN)
            survived.append(True)
        for _ in range(int(PATIENCE / cli.AGAIN)):
            time.sleep(cli.AGAIN)
        raise AssertionError("the command went on")

    monkeypatch.setattr(inspect, "_methods", importing)
    assert cli.main(["methods"]) == EXIT_CANCELLED and survived == [True]
    assert "cancelled" in capsys.readouterr().err


def test_an_interruption_is_not_lost_with_an_object_that_dies(capsys, monkeypatch):
    """Python drops what is raised in `__del__`: the command went on, and heard no second signal."""

    class Dying:
        def __del__(self):
            signal.raise_signal(signal.SIGTERM)

    def working(options):
        Dying()
        end = time.monotonic() + PATIENCE / 30
        while time.monotonic() < end:
            pass
        done.append(options)

    done, hook = [], sys.unraisablehook
    monkeypatch.setattr(inspect, "_methods", working)
    assert cli.main(["methods"]) == EXIT_CANCELLED and capsys.readouterr().err == "neuralreg: cancelled.\n"
    assert not done and sys.unraisablehook is hook


@pytest.mark.parametrize("moment", ["before", "after"])
def test_an_interrupted_run_says_truly_what_is_there(job, tmp_path, moment, capsys, monkeypatch):
    """Also when the signal comes after the last file was put in its place."""

    def publish(partial, output):
        if moment == "before":
            signal.raise_signal(signal.SIGTERM)
        workspace.publish(partial, output)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(run_module, "publish", publish)
    job().save(tmp_path / "job.json")
    assert cli.main(["run", str(tmp_path / "job.json")]) == EXIT_CANCELLED
    said = capsys.readouterr().err
    if moment == "before":
        assert "nothing was written" in said and not (tmp_path / "out").exists()
    else:
        assert "complete" in said and str(tmp_path / "out") in said
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(RUN_FILES)


def test_an_earlier_result_is_not_taken_for_that_of_a_cancelled_run(job, tmp_path, capsys, monkeypatch):
    job().save(tmp_path / "job.json")
    assert cli.main(["run", str(tmp_path / "job.json")]) == 0
    os.utime(tmp_path / "out" / RESULT, (register.STARTED - 1,) * 2)
    monkeypatch.setattr(run_module, "publish", lambda *_: signal.raise_signal(signal.SIGTERM))
    assert cli.main(["run", str(tmp_path / "job.json"), "--overwrite"]) == EXIT_CANCELLED
    assert "nothing was written" in capsys.readouterr().err and (tmp_path / "out" / RESULT).exists()


def test_a_signal_while_the_preview_is_removed_leaves_none(tmp_path, monkeypatch):
    """It struck right after the last file was put in its place."""
    remove, struck = Path.unlink, []

    def unlink(path, **settings):
        if not struck:
            struck.append(path)
            raise KeyboardInterrupt
        remove(path, **settings)

    with pytest.raises(KeyboardInterrupt), workspace.workspace(tmp_path / "out"):
        (tmp_path / "out" / PREVIEW).touch()
        monkeypatch.setattr(Path, "unlink", unlink)
    assert struck and not (tmp_path / "out").exists()


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

"""`serve`: a child that waits for a job, and ends with whoever started it."""

import json
import os
import shutil
import sys

import pytest
from child import PATIENCE, Child, start, wait_for_iterations
from neuralreg.job import RESULT, Result
from neuralreg.workspace import RUN_FILES
from short_runs import LISTS, call


@pytest.fixture
def inbox(pair, tmp_path):
    """A folder to put a job into, and the function that does."""

    def put(output: str, **changes) -> None:
        job = {"fixed": "fixed.nii.gz", "moving": "moving.nrrd", "output": output, "affine": "none", "threads": 1}
        paths = {name: str(pair.folder / job[name]) for name in ("fixed", "moving", "output")}
        (tmp_path / "unfinished").write_text(json.dumps({**job, **paths, **changes}))
        (tmp_path / "unfinished").replace(tmp_path / "job.json")

    return tmp_path, put


def test_serve_waits_for_a_job_and_stops_and_keeps(pair, inbox):
    folder, put = inbox
    output = pair.folder / "served"
    with start("serve", "--inbox", folder, "--parent-pid", os.getpid(), cwd=pair.folder) as child:
        assert json.loads(child.stdout.readline())["stage"] == "ready"
        put("served", options={**LISTS, "iterations": [10000]})
        wait_for_iterations(child)
        (output / "stop").touch()
        child.stdout.read()
        assert child.wait(PATIENCE) == 0, child.stderr.read()
    assert sorted(p.name for p in output.iterdir()) == sorted(RUN_FILES)


def test_a_wish_to_stop_counts_from_the_moment_at_which_the_job_was_given(pair, inbox):
    """The process may still import torch then, and would go on for all its iterations."""
    folder, put = inbox
    output = pair.folder / "hasty"
    put("hasty", options={**LISTS, "iterations": [300]})
    output.mkdir()
    (output / "stop").touch()
    with start("serve", "--inbox", folder, "--parent-pid", os.getpid(), cwd=pair.folder) as child:
        child.stdout.read()
        assert child.wait(PATIENCE) == 0, child.stderr.read()
    assert Result.load(output / RESULT).stopped_early and not (output / "stop").exists()


@pytest.mark.parametrize("busy", [False, True], ids=["waiting", "running"])
@pytest.mark.parametrize("how", ["caller died", "folder gone"])
def test_serve_ends_with_its_caller(pair, inbox, how, busy):
    folder, put = inbox
    caller = Child([sys.executable, "-c", f"import time; time.sleep({PATIENCE})"])
    with caller, start("serve", "--inbox", folder, "--parent-pid", caller.pid, cwd=pair.folder) as child:
        assert json.loads(child.stdout.readline())["stage"] == "ready"
        if busy:
            put("orphan", options={**LISTS, "iterations": [10000]})
            wait_for_iterations(child)
        if how == "folder gone":
            shutil.rmtree(folder)
        caller.kill()
        caller.wait()
        assert child.wait(PATIENCE) == (130 if busy else 0)
    assert not (pair.folder / "orphan").exists()


def test_serve_without_a_folder_says_so(pair, capsys):
    assert call("serve", "--inbox", "none", at=pair.folder) == 2
    assert "make it first" in capsys.readouterr().err

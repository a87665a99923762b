"""The child process: its words arrive, and nothing of it stays, however it ends."""

import os
import re
import sys
import time
from pathlib import Path

import pytest
from fakechild import PLAYS
from neuralreg.job import JOB, STOP, RegistrationJob
from NeuralRegistrationLib.worker import Ending, Worker, explain

CHILD = Path(__file__).with_name("fakechild.py")


@pytest.fixture
def worker(scene):
    made = Worker([sys.executable, str(CHILD)])
    yield made
    made.kill()


@pytest.fixture
def job(tmp_path):
    from fakerun import GRIDS, add_volume
    from NeuralRegistrationLib.scene import export_volume

    volume = export_volume(add_volume("v", GRIDS["axial"]), tmp_path / "v.nrrd")

    def made(play):
        number = next(key for key, name in PLAYS.items() if name == play)
        RegistrationJob(volume, volume, str(tmp_path), options={"hidden": number}).save(tmp_path / JOB)
        return tmp_path / JOB

    return made


def events_until_end(worker, seconds=20):
    events, end = [], time.monotonic() + seconds
    while not (events and isinstance(events[-1], Ending)):
        assert time.monotonic() < end
        events += worker.poll()
        time.sleep(0.01)
    return events


def gone(process_id):
    """Whether a process has ended (a zombie has)."""
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return True
    stat = Path(f"/proc/{process_id}/stat")
    return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] == "Z"


def wait_until(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_progress_then_end(worker, job):
    worker.warm()
    wait_until(lambda: worker.poll() == [] and worker.ready)
    assert worker.device.startswith("cpu: ")
    worker.start(job("quick"))
    *progress, ending = events_until_end(worker)
    assert ending.code == 0 and not ending.message
    assert [p.stage for p in progress][-1] == "done" and {"affine", "deformable"} <= {p.stage for p in progress}
    assert not worker.alive and not worker.busy


@pytest.mark.parametrize(
    ("play", "words"),
    [("crash", "a bug"), ("killed", "memory"), ("sentence", "nothing in common"), ("full disk", "disk of .* is full")],
)
def test_every_end_is_one_sentence(worker, job, play, words):
    worker.start(job(play))
    ending = events_until_end(worker)[-1]
    assert ending.code != 0

    assert re.search(words, ending.message) and "\n" not in ending.message


def test_kill_ends_the_whole_tree_and_its_files(worker, job, tmp_path):
    worker.start(job("with a child"))
    folder = worker._folder
    wait_until(lambda: worker.poll() is not None and (tmp_path / "grandchild").exists())
    time.sleep(0.05)
    grandchild, child = int((tmp_path / "grandchild").read_text()), worker.process_id
    start = time.monotonic()
    worker.kill()
    wait_until(lambda: gone(child) and gone(grandchild), 1)
    assert time.monotonic() - start < 1
    assert not folder.exists() and worker.poll() == []


def test_a_warm_child_that_died_is_replaced(worker, job):
    worker.warm()
    wait_until(lambda: worker.poll() == [] and worker.ready)
    os.kill(worker.process_id, 9)
    wait_until(lambda: not worker.alive)
    worker.start(job("quick"))
    assert events_until_end(worker)[-1].code == 0


def test_stop_file_ends_early_with_a_result(worker, job, tmp_path):
    worker.start(job("endless"))
    wait_until(lambda: any(p.stage == "deformable" for p in worker.poll()))
    (tmp_path / STOP).touch()
    assert events_until_end(worker)[-1].code == 0
    assert '"stopped_early": true' in (tmp_path / "result.json").read_text()


def test_child_does_not_outlive_its_parent(worker, job):
    """When Slicer dies without a word, the end of standard input tells the child."""
    worker.start(job("endless"))
    wait_until(lambda: worker.poll() != [])
    worker._process.stdin.close()
    worker._process.wait(timeout=5)


def test_missing_torch_is_explained():
    assert "install it" in explain(1, "Traceback …\nModuleNotFoundError: No module named 'torch'\n")

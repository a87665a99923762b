"""The child process: its words arrive, and nothing of it stays, however it ends."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from clicks import PATIENCE
from fakechild import PLAYS, command
from neuralreg.job import JOB, STOP, RegistrationJob
from NeuralRegistrationLib.endings import explain
from NeuralRegistrationLib.worker import Ending, Worker, _kill_tree


@pytest.fixture
def worker(scene):
    made = Worker(command)
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


def events_until_end(worker):
    events, end = [], time.monotonic() + PATIENCE
    while not (events and isinstance(events[-1], Ending)):
        assert time.monotonic() < end
        events += worker.poll()
        time.sleep(0.01)
    return events


def gone(process_id):
    """Whether a process has ended (a zombie has)."""
    try:
        os.kill(process_id, 0)
        if not Path("/proc").exists():
            return False
        return Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (ProcessLookupError, FileNotFoundError):
        return True


def wait_until(condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_file_where_slicer_was_started_is_not_taken_for_one_of_pythons(worker, tmp_path, monkeypatch):
    (tmp_path / "argparse.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)
    worker.run([sys.executable, "-m", "neuralreg", "--version"])
    (ending,) = events_until_end(worker)
    assert ending.code == 0, ending.message


def test_progress_then_end(worker, job):
    worker.warm()
    wait_until(lambda: worker.poll() == [] and worker.ready)
    assert worker.device.startswith("cpu: ")
    worker.start(job("quick"))
    *progress, ending = events_until_end(worker)
    assert ending.code == 0 and not ending.message
    assert [p.stage for p in progress][-1] == "done" and {"affine", "deformable"} <= {p.stage for p in progress}
    assert not worker.alive and worker.poll() == []


def test_kill_ends_the_whole_tree_and_its_files(worker, job, tmp_path):
    worker.start(job("with a child"))
    folder = worker._folder
    wait_until(lambda: worker.poll() is not None and (tmp_path / "grandchild").exists())
    grandchild, child = int((tmp_path / "grandchild").read_text()), worker.process_id
    worker.kill()
    assert gone(child)
    wait_until(lambda: gone(grandchild))
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


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "running"])
def test_child_does_not_outlive_its_parent(worker, job, busy, monkeypatch):
    """When Slicer dies without a word, the child notices."""
    parent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    worker.command = lambda inbox: [*command(inbox)[:-1], str(parent.pid)]
    if busy:
        worker.start(job("endless"))
    else:
        worker.warm()
    wait_until(lambda: worker.poll() != [] or worker.ready)
    parent.kill()
    parent.wait()
    worker._process.wait(PATIENCE)


def test_a_child_that_the_kill_cannot_reach_ends_with_its_folder(worker, job, monkeypatch):
    """As an interpreter does whose launcher was killed before it on Windows."""
    worker.start(job("endless"))
    wait_until(lambda: worker.poll() != [])
    process = worker._process
    monkeypatch.setattr("NeuralRegistrationLib.worker._kill_tree", lambda process: None)
    worker.kill()
    process.wait(PATIENCE)


def test_a_child_that_hangs_when_it_is_killed_does_not_hang_the_window(monkeypatch):
    """One that waits for a driver or a network folder does not end before that answers."""

    class Hanging:
        pid = None

        def poll(self):
            return 0

        def wait(self, timeout=None):
            assert timeout is not None
            raise subprocess.TimeoutExpired("neuralreg", timeout)

    monkeypatch.setattr(os, "killpg", lambda group, number: None, raising=False)
    _kill_tree(Hanging())


def test_a_child_that_cannot_be_started_leaves_nothing(worker, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    worker.command = lambda inbox: [str(tmp_path / "missing")]
    with pytest.raises(OSError):
        worker.warm()
    assert not worker.alive and worker.poll() == [] and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("codes", "errors", "words"),
    [
        ((-9, 9, 137, -15, 143, 0xC0000017, 0xC000012D - 2**32), "", "memory ran out"),
        ((1, 3), "Traceback …\ntorch.OutOfMemoryError: CUDA out of memory.", "memory ran out"),
        ((-6, 134), "terminate called after throwing an instance of 'std::bad_alloc'", "memory ran out"),
        ((-11, 11, 139, -6, -4, -7, 0xC0000005, 0xC0000005 - 2**32, 0xC000001D), "", "crashed .*CPU only"),
        ((1,), "error: [/opt/Slicer/bin/python-real] exit abnormally - Report the problem.", "without a word: memory"),
        ((2,), "", "disk of the temporary folder is full"),
        ((1, 255), "", "without a word"),
        ((1,), "Traceback …\nValueError: a bug", "code 1.*ValueError: a bug"),
        ((2,), "neuralreg: The disk is full.", "^The disk is full.$"),
        ((130,), "neuralreg: cancelled", "was cancelled"),
        ((1,), "Traceback …\nModuleNotFoundError: No module named 'torch'\n", "install it with the button"),
        ((1,), "ImportError: DLL load failed while importing _C", "cannot be loaded"),
    ],
)
def test_every_family_of_exit_codes_is_one_sentence(codes, errors, words):
    for code in codes:
        said = explain(code, errors)
        assert re.search(words, said) and "\n" not in said, (code, said)

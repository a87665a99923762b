"""An earlier result is replaced by a whole new one, or stays: whatever ends the new run, and when."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
from neuralreg import workspace
from neuralreg.job import PREVIEW, RESULT, STOP, RegistrationError
from neuralreg.workspace import EARLIER, LOCK, PARTIAL, RUN_FILES, SIGNAL_FILES, publish

FILES = (*RUN_FILES, "report.html")  # of the earlier result


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture
def output(tmp_path) -> Path:
    """A folder with an earlier result, a report on it, and a file of the user's."""
    folder = tmp_path / "out"
    folder.mkdir()
    for name in FILES:
        (folder / name).write_text(json.dumps(["earlier", name]))
    (folder / "notes.txt").write_text("mine")
    return folder


def run(output: Path, *told: str) -> None:
    """A run that is told something meanwhile, by files."""
    with workspace.workspace(output, overwrite=True) as partial:
        for name in told:
            (output / name).touch()
        for name in RUN_FILES:
            (partial / name).write_text(json.dumps(["new", name]))
        publish(partial, output)


def whose(output: Path) -> str:
    """ "earlier" or "new": whose result the folder holds, whole and with nothing else but the user's own file."""
    found = {path.name: path.read_text() for path in output.iterdir()}
    assert found.pop("notes.txt") == "mine"
    whose = json.loads(found[RESULT])[0]
    assert found == {name: json.dumps([whose, name]) for name in (FILES if whose == "earlier" else RUN_FILES)}
    return whose


def struck(monkeypatch, step: int, error: type[BaseException], after: bool = False) -> None:
    """Let `error` come at one of the renames of `publish`, before it is done or after."""
    replace, steps = Path.replace, []

    def strike(path, target):
        steps.append(target)
        if len(steps) != step + 1:
            return replace(path, target)
        if after:
            replace(path, target)
        raise error

    monkeypatch.setattr(Path, "replace", strike)


RENAMES = len(FILES) + len(RUN_FILES)


def test_a_new_result_replaces_the_earlier_one(output):
    run(output, STOP, PREVIEW)
    assert whose(output) == "new"


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", range(RENAMES))
def test_interruption_at_any_rename(output, monkeypatch, step, after):
    struck(monkeypatch, step, KeyboardInterrupt, after)
    with pytest.raises(KeyboardInterrupt):
        run(output)
    assert whose(output) == ("new" if after and step == RENAMES - 1 else "earlier")


@pytest.mark.parametrize("step", range(RENAMES))
def test_the_next_run_mends_what_a_killed_one_left(output, monkeypatch, step):
    """Also when that run is refused; and its own result is put in the place of the earlier one."""
    with monkeypatch.context() as patch, pytest.raises(Killed):
        struck(patch, step, Killed)
        patch.setattr(workspace, "_settle", lambda output: None)
        patch.setattr(workspace, "_remove", lambda partial, lock: lock.close())
        run(output)
    assert (output / PARTIAL).is_dir()
    with pytest.raises(RegistrationError, match="not empty"), workspace.workspace(output):
        pytest.fail("the folder was given out")
    assert whose(output) == "earlier"
    run(output)
    assert whose(output) == "new"


def test_a_process_killed_after_the_last_rename_leaves_the_new_result(output):
    run(output)
    (output / EARLIER).mkdir()
    (output / EARLIER / RESULT).write_text("earlier")
    with pytest.raises(RegistrationError, match="not empty"), workspace.workspace(output):
        pytest.fail("the folder was given out")
    assert whose(output) == "new"


def test_interruption_while_the_earlier_result_is_thrown_away(output, monkeypatch):
    remove, struck = workspace.shutil.rmtree, []

    def interrupted(*arguments, **named):
        if not struck:
            struck.append(arguments)
            raise KeyboardInterrupt
        remove(*arguments, **named)

    monkeypatch.setattr(workspace.shutil, "rmtree", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(output)
    assert whose(output) == "new"


def test_a_first_run_that_is_interrupted_leaves_nothing(tmp_path, monkeypatch):
    struck(monkeypatch, 3, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "new" / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", SIGNAL_FILES)
def test_a_run_that_may_not_begin_takes_nothing_away(output, name):
    """Neither the `cancel` of the run that is at work there, nor a file of the user's that happens to be called so."""
    (output / name).write_text("of another")
    with pytest.raises(RegistrationError, match="not empty"), workspace.workspace(output):
        pass
    with workspace.workspace(output, overwrite=True):
        with pytest.raises(RegistrationError, match="Another run"), workspace.workspace(output, overwrite=True):
            pass
        assert (output / name).read_text() == "of another"
    assert not (output / name).exists()


def test_a_folder_in_the_place_of_a_file_is_not_thrown_away(output):
    (output / "warped.nii.gz").unlink()
    (output / "warped.nii.gz").mkdir()
    with pytest.raises(RegistrationError, match=r"holds a folder named warped\.nii\.gz"):
        run(output)
    assert (output / "warped.nii.gz").is_dir()


@pytest.mark.skipif(os.name == "nt", reason="Windows has other locks")
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP])
def test_a_drive_without_locks_is_written_to(output, monkeypatch, number):
    """As some network drives are mounted: that there are no locks does not mean that another run holds one."""
    import fcntl

    def without_locks(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", without_locks)
    run(output)
    assert whose(output) == "new"


@pytest.mark.skipif(os.name == "nt", reason="Windows removes no open file")
def test_the_lock_of_a_folder_that_is_gone_counts_for_nothing(output, monkeypatch):
    """The run that has it ends, and a third one begins, after this one has opened it and before it gets it."""
    usual = workspace._lock

    def late(file):
        if (output / PARTIAL / "others").exists():
            return usual(file)
        shutil.rmtree(output / PARTIAL)
        (output / PARTIAL / "others").mkdir(parents=True)
        (output / PARTIAL / LOCK).touch()
        return usual(file)

    monkeypatch.setattr(workspace, "_lock", late)
    with pytest.raises(RegistrationError, match="Another run is writing"):
        run(output)
    assert {path.name for path in (output / PARTIAL).iterdir()} == {"others", LOCK}, "it is that of the third"

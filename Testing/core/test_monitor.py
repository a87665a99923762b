"""What a run says while it goes on, and what it is told: cancel, stop and keep, previews, lines of progress."""

import contextlib
import json
import os
import sys
import time

import pytest
from neuralreg import cli, io
from neuralreg import run as run_module
from neuralreg.commands import inspect
from neuralreg.job import EXIT_USER_ERROR, Cancelled, Monitor, Progress, RegistrationError
from neuralreg.monitor import FileMonitor, bar, bar_line, json_lines
from neuralreg.overlap import OUTPUTS
from neuralreg.workspace import RUN_FILES
from stand_in import Endless, left


class Recorder(FileMonitor):
    def __init__(self, output, at=None, **settings):
        self.lines = []
        super().__init__(output, self.note, **settings)
        self.at = at or {}

    def note(self, progress):
        self.lines.append(progress)
        if progress.loss is not None and (name := self.at.get(round(progress.fraction, 2))):
            (self.output / name).touch()


def test_cancel_file_ends_a_run_without_a_trace(job, tmp_path):
    with pytest.raises(Cancelled):
        run_module.run(job(), Recorder(tmp_path / "out", {0.0: "cancel"}))
    assert left(tmp_path) == []


class CancelAt(Monitor):
    """Cancels at a line of progress about the writing."""

    def __init__(self, line: int):
        self.line, self.lines = line, 0

    def report(self, progress):
        self.lines += progress.stage == "write"

    def cancelled(self):
        return self.lines == self.line


@pytest.mark.parametrize("line", range(1, len(OUTPUTS) + 1))
def test_cancelling_once_a_file_is_written_leaves_nothing(job, tmp_path, line):
    with pytest.raises(Cancelled):
        run_module.run(job(), CancelAt(line))
    assert left(tmp_path) == []


def test_cancelling_while_a_file_is_written_leaves_nothing(job, tmp_path, monkeypatch):
    endless = Endless()
    monkeypatch.setattr(io, "write_image", endless)
    with pytest.raises(Cancelled):
        run_module.run(job(), CancelAt(2 * len(OUTPUTS)))
    assert endless.ended.is_set() and left(tmp_path) == []


def test_stop_file_keeps_what_was_reached(job, tmp_path):
    result = run_module.run(job(), Recorder(tmp_path / "out", {0.0: "stop"}))
    assert result.stopped_early
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(RUN_FILES)


def test_old_cancel_file_means_nothing(job, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "cancel").touch()
    os.utime(tmp_path / "out" / "cancel", (time.time() - 3600,) * 2)
    run_module.run(job(), Recorder(tmp_path / "out", since=time.time() - 60))
    assert not (tmp_path / "out" / "cancel").exists()


def test_previews_are_written_while_it_runs_and_gone_afterwards(job, tmp_path):
    recorder = Recorder(tmp_path / "out", previews=True)
    seen = []
    show = recorder.note
    recorder.show = lambda p: (show(p), seen.append((tmp_path / "out" / "preview.nii.gz").exists()))[0]
    run_module.run(job(), recorder)
    assert "preview.nii.gz" in [p.preview for p in recorder.lines]
    assert any(seen) and not (tmp_path / "out" / "preview.nii.gz").exists()


def test_progress_rises_from_read_to_done(job, tmp_path):
    recorder = Recorder(tmp_path / "out")
    run_module.run(job(), recorder)
    assert [recorder.lines[0].stage, recorder.lines[-1].stage] == ["read", "done"]
    assert recorder.lines[-1].fraction == 1.0


def test_lines_and_bar(capsys):
    json_lines()(Progress("affine", 0.5, loss=-0.8, seconds_left=12.0))
    assert json.loads(capsys.readouterr().out) == {
        "stage": "affine",
        "fraction": 0.5,
        "loss": -0.8,
        "seconds_left": 12.0,
    }
    line = bar_line(Progress("affine", 0.5, loss=-0.8, seconds_left=12.0))
    assert line == f"affine        [{'#' * 15}{'.' * 15}]   50%  loss -0.8000  12 s left"


@pytest.mark.skipif(os.name == "nt", reason="no pseudo-terminals on Windows")
@pytest.mark.parametrize(("kind", "columns"), [("xterm", 40), ("xterm", 200), ("dumb", 80)])
def test_the_bar_fits_its_terminal(monkeypatch, kind, columns):
    """A longer line would begin a new one each time; a dumb terminal shows the codes of redrawing as text."""
    import fcntl
    import pty
    import struct
    import termios

    monkeypatch.setenv("TERM", kind)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 25, columns, 0, 0))
    with os.fdopen(theirs, "w") as terminal:
        show = bar(terminal)
        for fraction in (0.25, 0.5):
            show(Progress("deformable", fraction, loss=-0.8, seconds_left=12.0))
    written = b""
    with contextlib.suppress(OSError):  # so Linux tells of the end; what was written may come in several parts
        while part := os.read(ours, 10_000):
            written += part
    os.close(ours)
    written = written.decode()
    if kind == "dumb":
        assert written.split() == ["deformable", "(25%)"]
        return
    lines = written.split("\r\033[K")[1:]
    assert len(lines) == 2 and "\n" not in written and max(map(len, lines)) < columns
    assert ("12 s left" in lines[1]) == (columns > 80)


def test_monitor_of_nobody_watches_nothing(job):
    assert run_module.run(job(), Monitor()).method == "DNVF"


def test_why_a_command_ended_stands_in_the_place_of_its_bar(capsys, monkeypatch):
    def failing(options):
        bar()(Progress("affine", 0.5))
        raise RegistrationError("It ends here.")

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(inspect, "_methods", failing)
    assert cli.main(["methods"]) == EXIT_USER_ERROR
    assert capsys.readouterr().err.endswith("]   50%\r\033[Kneuralreg: It ends here.\n")

"""How a run speaks to whoever started it: progress out, `cancel` and `stop` files in, a preview beside them."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from .files import NO_ROOM
from .job import CANCEL, PREVIEW, STOP, Monitor, Progress

Show = Callable[[Progress], None]

SHOW_EVERY = 0.05  # seconds between two lines of one stage
PREVIEW_EVERY = 0.5
BAR = 30  # characters


class FileMonitor(Monitor):
    """Watches for the files `cancel` and `stop` in the run's output folder and shows progress.

    Files older than `since` (seconds since 1970) were left by an earlier run and do not count. With `previews` the
    warped image so far is written to preview.nii.gz in the output folder and announced in the next line of progress.
    """

    def __init__(self, output: Path, show: Show, since: float = 0.0, previews: bool = False):
        self.output = Path(output)
        self.show = show
        self.since = since
        self.previews = previews
        self.started = time.monotonic()
        self.last = Progress("start", 0.0)
        self.shown_at = self.preview_at = 0.0

    def report(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.seconds_left is None and 0.02 < progress.fraction < 1:
            elapsed = now - self.started
            progress = replace(progress, seconds_left=round(elapsed * (1 / progress.fraction - 1), 1))
        # A line per iteration would be hundreds a second on a GPU; changes of stage and the last line are always shown.
        if (
            progress.stage != self.last.stage
            or progress.fraction >= 1
            or progress.message
            or now - self.shown_at >= SHOW_EVERY
        ):
            self.show(progress)
            self.shown_at = now
        self.last = progress

    def cancelled(self) -> bool:
        return self._asked(CANCEL)

    def stop_and_keep(self) -> bool:
        return self._asked(STOP)

    def wants_preview(self) -> bool:
        return self.previews and time.monotonic() - self.preview_at >= PREVIEW_EVERY

    def preview(self, warped: Any) -> None:
        if not self.wants_preview():
            return
        from .io import write_image

        with suppress(OSError):  # a preview that does not fit on the disk is no reason to end the run
            write_image(warped, self.output / PREVIEW)
            self.show(replace(self.last, message="", preview=PREVIEW))
        self.preview_at = time.monotonic()

    def _asked(self, name: str) -> bool:
        try:
            return (self.output / name).stat().st_mtime >= self.since
        except OSError:
            return False


def json_lines() -> Show:
    """One JSON object a line, flushed: what the panel reads."""

    def show(progress: Progress) -> None:
        try:
            print(progress.to_line(), flush=True)
        except OSError as error:
            if error.errno not in NO_ROOM:  # which is no reason to end a run; above all: whoever asked is gone
                raise

    return show


def bar(stream: TextIO | None = None) -> Show:
    """One line that is redrawn: stage, bar, loss, time left. Where nothing can be redrawn: one line for each stage."""
    out = stream or sys.stderr
    again, stage = line_again(out), ""

    def show(progress: Progress) -> None:
        nonlocal stage
        if not again:
            if progress.stage != stage:
                print(f"{progress.stage} ({progress.fraction:.0%})", file=out, flush=True)
            stage = progress.stage
            return
        end = "\n" if progress.fraction >= 1 else ""
        line = bar_line(progress)[: _columns(out) - 1]  # the rest would begin a new line each time
        print(again + line, end=end, file=out, flush=True)

    return show


def line_again(out: TextIO) -> str:
    """What begins the last line of a terminal anew, in the place of a bar; nothing where it would show as text."""
    return "\r\033[K" if out.isatty() and os.environ.get("TERM") != "dumb" else ""


def _columns(out: TextIO) -> int:
    with suppress(OSError, ValueError):
        return os.get_terminal_size(out.fileno()).columns or 80
    return 80


def bar_line(progress: Progress) -> str:
    """`affine  [#####.....]  50 %  loss -0.8123  12 s left`"""
    done = round(min(max(progress.fraction, 0.0), 1.0) * BAR)
    parts = [f"{progress.stage:<12.12}", f"[{'#' * done}{'.' * (BAR - done)}]", f"{progress.fraction:4.0%}"]
    if progress.loss is not None:
        parts.append(f"loss {progress.loss:.4f}")
    if progress.seconds_left is not None:
        parts.append(f"{_duration(progress.seconds_left)} left")
    return "  ".join(parts)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"

"""Register, progress, curve, preview, cancel, stop and keep: the page's side of one run."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuralreg.job import Progress, RegistrationError
from NeuralRegistrationLib import estimate, look
from NeuralRegistrationLib.logic import DONE, FAILED, Outcome
from NeuralRegistrationLib.progress import RunProgress
from NeuralRegistrationLib.request import Request
from NeuralRegistrationLib.results import reminder
from NeuralRegistrationLib.task import Task

from .page_request import SENT

if TYPE_CHECKING:
    from .page import Page

WIDTH, HEIGHT = 300, 54  # of the curve, in its own units


class RunPart:
    def __init__(self, page: Page):
        self.page, self.logic, self.state = page, page.logic, page.state
        self.progress, self.report = RunProgress(), Task()
        self.preview: look.Preview | None = None
        self.request: Request | None = None
        self.state.update({"running": False, "live_preview": True})
        self._show_progress()

    def warm(self) -> None:
        """Let the worker import torch while the user looks around."""
        if not self.logic.running:
            self.logic.warm(onReady=self.on_ready)

    def on_ready(self) -> None:
        with self.state:
            self.page.asking.on_input()

    def start(self, chosen: dict[str, Any]) -> None:
        """Begin a run with what stands in the browser. Raises RegistrationError when it cannot begin."""
        state = self.state
        with state:
            state.update({name: chosen[name] for name in SENT})
        request = self.request = self.page.asking.request()
        self.logic.start(request, self.on_progress, self.on_finished)
        self.preview = look.Preview(request.fixed, request.moving)
        self.progress = RunProgress()
        self.page.looking.reset()
        state.update({"running": True, "message": ""})
        self._show_progress()

    def cancel(self) -> None:
        self.logic.cancel()

    def stop(self) -> None:
        """Let the run end with what it has. Raises RegistrationError when it cannot be told."""
        self.logic.stopAndKeep()
        self.progress.stop()
        self._show_progress()

    def on_progress(self, progress: Progress) -> None:
        if progress.preview and self.state.live_preview:
            self.preview.show(self.logic.folders.current / "run" / progress.preview)
            self.page.render()
        if self.progress.hear(progress):
            self._show_progress()

    def _show_progress(self) -> None:
        shown = self.progress
        with self.state as state:
            state.update({"stopping": shown.stopping, "stage": shown.stage, "left": shown.left,
                          "percent": round(100 * shown.fraction, 1), "curve": self._curve()})  # fmt: skip

    def _curve(self) -> list[str]:
        """The `points` of one SVG polyline per stage."""
        return [" ".join(f"{x:.1f},{y:.1f}" for x, y in line) for line in self.progress.curve.lines(WIDTH, HEIGHT)]

    def on_finished(self, outcome: Outcome) -> None:
        self.preview.end()
        with self.state as state:
            state.running, state.curve = False, self._curve() if outcome.status == DONE else []
        if outcome.status == DONE:
            self.page.folders[outcome.run.table.GetID()] = self.logic.folders.hand_over(outcome.run)  # for downloads
            self._learn(outcome)
            self.page.looking.show(outcome.run)
        else:
            self.page.looking.on_layer()  # the earlier result again, which the panel still speaks of
        # Not in green: whether it is good the checks say.
        kind = "error" if outcome.status == FAILED else "info"
        self.page.say(outcome.message + reminder(outcome.status == DONE), kind)
        self.page.render()
        self.warm()

    def _learn(self, outcome: Outcome) -> None:
        if not outcome.stopped_early:
            estimate.learn(self.request, outcome.run.measurements)
            self.page.asking.on_input()

    async def write_report(self, folder: Path) -> None:
        """Raises RegistrationError when there is no report after that."""
        told = asyncio.get_running_loop().create_future()
        self.report.start(["report", str(folder)], told.set_result)
        problem = await told
        if problem:
            raise RegistrationError(problem)

    def close(self) -> None:
        self.report.close()
        if self.preview is not None:
            self.preview.end()

    def actions(self) -> dict[str, Any]:
        """What the buttons call."""
        asking = self.page.asking
        return {"register": self.page.told(self.start), "cancel": self.cancel, "stop": self.page.told(self.stop),
                "option": asking.change, "restore": asking.restore,
                "measure": self.page.told(self.page.proving.measure), "path": self.page.open_path}  # fmt: skip

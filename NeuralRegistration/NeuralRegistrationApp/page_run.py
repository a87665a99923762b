"""Register, progress, curve, preview, cancel, stop and keep: the page's side of one run."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuralreg.job import Progress, RegistrationError
from NeuralRegistrationLib import estimate, look
from NeuralRegistrationLib.curve import LossCurve
from NeuralRegistrationLib.logic import DONE, STOPPED, Outcome
from NeuralRegistrationLib.request import Request
from NeuralRegistrationLib.results import reminder
from NeuralRegistrationLib.stages import STAGES
from NeuralRegistrationLib.task import Task

from .page_request import SENT

if TYPE_CHECKING:
    from .page import Page

WIDTH, HEIGHT = 300, 60  # of the curve, in its own units
PUSH_EVERY = 0.2  # seconds between two updates of the page


class Curve(LossCurve):
    """The loss as lines for an SVG picture, each stage on a scale of its own."""

    def __init__(self):
        self.stages = []

    def clear(self) -> None:
        self.stages = []

    def lines(self) -> list[str]:
        """The `points` of one polyline per stage, side by side."""
        count, left, lines = sum(map(len, self.stages)), 0.0, []
        for values in self.stages:
            share, low = WIDTH * len(values) / count, min(values)
            span = (max(values) - low) or 1.0
            places = [
                (left + share * (i + 0.5) / len(values), HEIGHT - 3 - (value - low) / span * (HEIGHT - 6))
                for i, value in enumerate(values)
            ]
            lines.append(" ".join(f"{x:.1f},{y:.1f}" for x, y in places))
            left += share
        return lines


class RunPart:
    def __init__(self, page: Page):
        self.page, self.logic, self.state = page, page.logic, page.state
        self.curve, self.report = Curve(), Task()
        self.preview: look.Preview | None = None
        self.request: Request | None = None
        self._pushed_at = 0.0
        self.state.update({"running": False, "stopping": False, "stage": "", "percent": 0, "left": "", "curve": [],
                           "live_preview": True, "worker_device": ""})  # fmt: skip

    def warm(self) -> None:
        """Let the worker import torch while the user looks around."""
        if not self.logic.running:
            self.logic.warm(onReady=self.on_ready)

    def on_ready(self) -> None:
        with self.state as state:
            state.worker_device = self.logic.worker.device.partition(": ")[2]
            self.page.asking.on_input()

    def start(self, chosen: dict[str, Any]) -> None:
        """Begin a run with what stands in the browser. Raises RegistrationError when it cannot begin."""
        state = self.state
        with state:
            state.update({name: chosen[name] for name in SENT})
        request = self.request = self.page.asking.request()
        self.logic.start(request, self.on_progress, self.on_finished)
        self.preview = look.Preview(request.fixed, request.moving)
        self.curve.clear()
        self.page.looking.reset()
        state.update({"running": True, "stopping": False, "stage": "Starting", "percent": 0, "left": "", "curve": [],
                      "message": ""})  # fmt: skip

    def cancel(self) -> None:
        self.logic.cancel()

    def stop(self) -> None:
        """Let the run end with what it has. Raises RegistrationError when it cannot be told."""
        self.logic.stopAndKeep()
        with self.state as state:
            state.stopping, state.stage, state.left = True, "Finishing with the best so far", ""

    def on_progress(self, progress: Progress) -> None:
        if progress.loss is not None:
            self.curve.add(progress.stage, progress.loss)
        if progress.preview and self.state.live_preview:
            self.preview.show(self.logic.folders.current / "run" / progress.preview)
            self.page.render()
        now = time.monotonic()
        if progress.loss is not None and now - self._pushed_at < PUSH_EVERY:
            return
        self._pushed_at = now
        with self.state as state:
            state.percent, state.curve = round(100 * progress.fraction, 1), self.curve.lines()
            if not state.stopping or progress.stage != "deformable":
                state.stage = STAGES.get(progress.stage, progress.stage)
            if progress.seconds_left is not None and not state.stopping:  # that was the time of all iterations
                state.left = f"{estimate.in_words(progress.seconds_left)} left"

    def on_finished(self, outcome: Outcome) -> None:
        self.preview.end()
        with self.state as state:
            state.running, state.curve = False, self.curve.lines() if outcome.status == DONE else []
        if outcome.status == DONE:
            self.page.folders[outcome.run.table.GetID()] = self.logic.folders.hand_over(outcome.run)  # for downloads
            self._learn(outcome)
            self.page.looking.show(outcome.run)
        else:
            self.page.looking.on_layer()  # the earlier result again, which the panel still speaks of
        kind = {DONE: "success", STOPPED: "info"}.get(outcome.status, "error")
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

"""Finished runs: which one is shown, how it is laid over the fixed volume, and what its checks say."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import slicer
from neuralreg import qa
from NeuralRegistrationLib import look, trust
from NeuralRegistrationLib.results import Run, run_of, runs

if TYPE_CHECKING:
    from .page import Page

LAYERS = (
    {"title": "After", "value": "after", "tip": "The warped volume over the fixed one"},
    {"title": "Before", "value": "before", "tip": "The volumes as they were"},
    {"title": "Checkerboard", "value": "checkerboard", "tip": "Squares of fixed and warped in turn"},
    {"title": "Jacobian", "value": "jacobian",
     "tip": "Blue: smaller, white: unchanged, red: larger in the moving volume, yellow: folding"},
)  # fmt: skip


class LookPart:
    def __init__(self, page: Page):
        self.page, self.state = page, page.state
        self.state.update({"runs": [], "run": None, "layers": list(LAYERS), "layer": "after", "blend": 0.5,
                           "grid": False, "checks": [], "verdict": "", "light": "", "notes": ""})  # fmt: skip
        self.state.change("run")(self.on_run)
        self.state.change("layer", "grid")(self.on_layer)
        self.state.change("blend")(self.on_blend)

    def run(self) -> Run | None:
        """The chosen run."""
        table = slicer.mrmlScene.GetNodeByID(self.state.run) if self.state.run else None
        return run_of(table) if table is not None else None

    def show(self, run: Run) -> None:
        """Choose a run that has just come into the scene."""
        with self.state as state:
            state.runs = [{"title": one.name, "value": one.table.GetID()} for one in runs()]
            state.run, state.layer = run.table.GetID(), "after"
            self.page.refresh_volumes()
        self.page.render()

    def reset(self) -> None:
        """Show fixed and moving as they are; a run begins."""
        run = self.run()
        if run is not None:
            look.show_grid(run, False)
        with self.state as state:
            state.grid, state.layer = False, "after"
        look.overlay(*self.page.pair(), self.state.blend)
        self.page.asking.show_points(moving_too=True)
        self.page.render()

    def on_run(self, **_: Any) -> None:
        run = self.run()
        if run is None:
            return
        checks = trust.checks(run)
        self.state.checks = [asdict(row) for row in (*checks, *trust.figures(run))]
        self.state.verdict, self.state.light = trust.summary(run), qa.worst(checks)
        self.state.notes = " ".join(run.notes)
        for other in runs():
            if other.table is not run.table:
                look.show_grid(other, False)
        self.on_layer()

    def on_layer(self, **_: Any) -> None:
        """Lay the chosen picture over the fixed volume."""
        run = self.run()
        if run is None or self.state.running:
            return
        layer, blend = self.state.layer, self.state.blend
        if layer == "before":
            look.show_before(run, blend)
        elif layer == "checkerboard":
            look.overlay(look.checkerboard(run), None)
        elif layer == "jacobian":
            look.show_map(run, run.jacobian, blend)
        else:
            look.show_after(run, blend)
        look.show_grid(run, bool(self.state.grid))
        self.page.asking.show_points(moving_too=layer == "before")
        self.page.render()

    def on_blend(self, blend: float, **_: Any) -> None:
        look.blend(float(blend))
        self.page.render()

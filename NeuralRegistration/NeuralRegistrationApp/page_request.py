"""What the page asks for: masks, landmarks, method and its options; and why that cannot be run, before it is."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import slicer
from neuralreg.job import RegistrationError
from neuralreg.methods import describe
from NeuralRegistrationLib import dependencies, estimate, landmarks, options
from NeuralRegistrationLib.parameters import Contrast, Device, Linear, Preset
from NeuralRegistrationLib.request import Request, check

if TYPE_CHECKING:
    from .page import Page

SENT = ("fixed", "moving", "fixed_mask", "moving_mask", "fixed_points", "moving_points", "initial_transform",
        "centre", "contrast", "linear", "device", "seed", "method", "preset")  # fmt: skip
INPUTS = (*SENT, "kept_options")
POINT_COLOURS = ((0.35, 0.8, 1.0), (1.0, 0.65, 0.2))  # fixed and moving landmarks


class RequestPart:
    def __init__(self, page: Page):
        self.page, self.state = page, page.state
        self._methods = {entry["name"]: entry for entry in describe()}
        self.state.update({
            "methods": list(self._methods), "method": next(iter(self._methods)), "summary": "",
            "presets": _items(Preset), "preset": Preset.BALANCED.value,
            "contrasts": _items(Contrast), "contrast": Contrast.AUTO.value,
            "linears": _items(Linear), "linear": Linear.AFFINE.value,
            "devices": _items(Device), "device": Device.AUTO.value, "seed": "0",
            "fixed_mask": None, "moving_mask": None, "fixed_points": None, "moving_points": None,
            "initial_transform": None, "centre": False,
            "estimate": "", "computes": "", "computes_warning": False,
            "options": [], "drawn": 0, "kept_options": "{}", "changed_options": 0,
            "optional_open": False, "advanced_open": False,
            "problem": "", "landmark_note": "", "landmark_warning": False,
        })  # fmt: skip
        self.state.change("method", "preset")(self.on_method)
        self.state.change(*INPUTS)(self.on_input)
        self.state.change("fixed_points", "moving_points")(self.on_points)

    def request(self) -> Request:
        """What is asked for, not checked. Raises RegistrationError for a seed that is none, and a refused option."""
        state, seed = self.state, str(self.state.seed).strip()
        wrong = next((field["wrong"] for field in state.options if field["wrong"]), "")
        if wrong:  # what stands in the field is not what a run would take
            raise RegistrationError(wrong)
        if not seed.isdecimal():
            raise RegistrationError("The seed under Advanced is a whole number from 0 on.")
        nodes = self.page.chosen("fixed", "moving", "fixed_mask", "moving_mask", "initial_transform")
        return Request(
            *nodes, *self.page.chosen("fixed_points", "moving_points"), centre=bool(state.centre),
            method=state.method, preset=state.preset, similarity=state.contrast, affine=state.linear,
            device=state.device, seed=int(seed), options=self._chosen_options(),
        )  # fmt: skip

    def _chosen_options(self) -> dict[str, Any]:
        return options.chosen(self.state.kept_options, self.state.method)

    def on_input(self, **_: Any) -> None:
        """Say what stands in the way of a run, how long it will take, and what the landmarks will do."""
        state = self.state
        self._foresee()
        try:
            request = self.request()
            note = landmarks.remark(*request.landmarks(), request.method, request.preset, request.options)
            state.landmark_note, state.landmark_warning = note
            check(request)
        except RegistrationError as error:
            state.problem = str(error)
        else:
            state.problem = ""

    def _foresee(self) -> None:
        state, pair, worker = self.state, self.page.pair(), self.page.logic.worker
        state.estimate = ""
        if None not in pair:
            chosen = self._chosen_options()
            state.estimate = estimate.sentence(pair, state.method, state.preset, chosen, state.device, worker)
        if worker.device or worker.trouble:
            line = dependencies.device_line(worker.device, worker.trouble, cpu_chosen=state.device == "cpu")
            state.computes, state.computes_warning = line

    def show_points(self, moving_too: bool) -> None:
        """Show the chosen landmarks, those of each side in a colour of its own; other lists are hidden."""
        shown = dict(zip(self.page.chosen("fixed_points", "moving_points"), POINT_COLOURS, strict=True))
        if not moving_too:  # where the moving volume lies warped, its own landmarks would mislead
            shown.pop(self.page.chosen("moving_points")[0], None)
        for markups in slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode"):
            markups.CreateDefaultDisplayNodes()
            markups.GetDisplayNode().SetVisibility(markups in shown)
            markups.GetDisplayNode().SetSelectedColor(*shown.get(markups, POINT_COLOURS[0]))

    def on_points(self, **_: Any) -> None:
        self.show_points(moving_too=self.state.run is None or self.state.layer == "before")
        self.page.render()

    def on_method(self, **_: Any) -> None:
        self.state.summary = self._methods[self.state.method]["summary"]
        self.draw()

    def draw(self) -> None:
        """Draw the options anew: the values of the preset, and over them what the user has changed."""
        state = self.state
        drawn = options.fields(state.method, state.preset, state.kept_options)
        state.options = [{**asdict(field), "wrong": ""} for field in drawn]
        state.drawn += 1  # another key for each field, so that text which was refused goes away
        state.changed_options = len(self._chosen_options())

    def change(self, name: str, value: bool | str) -> None:
        """Take a new value of an option over, and those that were refused until now where it makes them suit; what the
        method refuses is said at its field."""
        state = self.state
        values = {**{field["name"]: field["value"] for field in state.options if field["wrong"]}, name: value}
        kept, wrong = options.changed(state.kept_options, state.method, state.preset, values)
        with state:
            state.kept_options = kept
            state.changed_options = len(self._chosen_options())
            state.options = [self._shown(field, values, wrong) for field in state.options]
            self.on_input()

    @staticmethod
    def _shown(field: dict[str, Any], values: dict[str, bool | str], wrong: dict[str, str]) -> dict[str, Any]:
        name = field["name"]
        return {**field, "value": values.get(name, field["value"]), "wrong": wrong.get(name, "")}

    def restore(self) -> None:
        """The values of the preset again."""
        with self.state as state:
            state.kept_options = options.forgotten(state.kept_options, state.method)
            self.draw()
            self.on_input()


def _items(kind: type) -> list[dict[str, str]]:
    return [{"title": one.label(), "value": one.value} for one in kind]

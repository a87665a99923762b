"""Inputs and method: what overlaps, which method, how long it will take, which device, and the method's own options."""

from __future__ import annotations

import json

import qt
from neuralreg.job import RegistrationError
from neuralreg.methods import METHODS, describe, make_method
from slicer.i18n import tr as _

from . import dependencies, estimate
from .scene_export import volumes_overlap
from .section import Section, told
from .theme import paint_text


class MethodSection(Section):
    def __init__(self, panel):
        super().__init__(panel)
        self.methods = {entry["name"]: entry for entry in describe()}
        self.editors: dict[str, object] = {}
        self._drawn = None  # (method, preset) whose options are in the form
        self.ui.methodComboBox.addItems(list(self.methods))
        self.ui.methodComboBox.connect("currentIndexChanged(int)", self.onMethod)
        self.ui.defaultsButton.connect("clicked()", self.onDefaults)
        self.ui.installButton.connect("clicked()", self.onInstall)
        self.form = qt.QFormLayout(self.ui.optionsContainer)
        self.form.setContentsMargins(0, 0, 0, 0)

    def onMethod(self, index=0) -> None:
        if self.parameters is not None:
            self.parameters.method = self.ui.methodComboBox.currentText

    def refresh(self) -> None:
        node = self.parameters
        if node.method not in self.methods:  # of a scene that knew another method
            node.method = next(iter(METHODS))
        self.ui.methodComboBox.setCurrentText(node.method)
        self.ui.methodLabel.text = self.methods[node.method]["summary"]
        self._refresh_overlap(node)
        self._refresh_estimate(node)
        self.refresh_device()
        if self._drawn != (node.method, node.preset.value):
            self.draw_options()

    def _refresh_overlap(self, node) -> None:
        apart = False
        if node.fixedVolume and node.movingVolume:
            try:
                apart = not volumes_overlap(node.fixedVolume, node.movingVolume)
            except RegistrationError as error:
                self.ui.overlapLabel.text = str(error)
                apart = True
            else:
                self.ui.overlapLabel.text = _(
                    "The volumes do not overlap in space: centre them, or choose an initial transform below."
                )
        self.ui.overlapLabel.visible = apart
        self.ui.centreCheckBox.visible = apart or node.centre
        paint_text(self.ui.overlapLabel, "warning")

    def _refresh_estimate(self, node) -> None:
        if not node.fixedVolume or node.fixedVolume.GetImageData() is None:
            self.ui.estimateLabel.text = _("The time is estimated once there is a fixed volume.")
            return
        megavoxels = node.fixedVolume.GetImageData().GetNumberOfPoints() / 1e6
        seconds, learnt = estimate.estimate(
            node.method,
            node.preset.value,
            self.device(),
            megavoxels,
            dependencies.cores(),
            self.logic.worker.calibration,
        )
        known = _("About {time}, going by runs on this computer.")
        guessed = _("About {time}: an estimate until the first run on this computer.")
        text = known if learnt else guessed
        self.ui.estimateLabel.text = text.format(time=estimate.in_words(seconds))

    def device(self) -> str:
        """ "cuda" or "cpu", as far as it is known."""
        chosen = self.parameters.device.value
        return "cpu" if chosen == "cpu" else (self.logic.worker.device.partition(": ")[0] or "cpu")

    def refresh_device(self) -> None:
        text, warn = dependencies.device_line(self.logic.worker.device)
        self.ui.deviceLabel.text = text
        paint_text(self.ui.deviceLabel, "warning" if warn else "")
        self.ui.installButton.visible = bool(dependencies.torch_problem())

    @told
    def onInstall(self) -> None:
        if dependencies.install_torch(self.panel.ask):
            self.panel.say(_("PyTorch is installed."), "good")
        self.panel.refresh()

    def draw_options(self) -> None:
        """Draw the method's fields; a value that the user changed is kept until the preset or method changes."""
        node = self.parameters
        self._drawn = (node.method, node.preset.value)
        while self.form.rowCount():
            self.form.removeRow(0)
        self.editors = {}
        entry = self.methods[node.method]
        values = {**entry["presets"].get(node.preset.value, {}), **self.options_of(node)}
        for option in entry["options"]:
            editor = self._editor(option, values.get(option["name"], option["default"]))
            editor.toolTip = option["help"] or ""
            editor.name = f"option_{option['name']}"
            self.form.addRow(option["name"].replace("_", " ").capitalize() + ":", editor)
            self.editors[option["name"]] = editor

    def _editor(self, option, value):
        if option["type"] == "bool":
            editor = qt.QCheckBox()
            editor.checked = value
            editor.connect("toggled(bool)", lambda on: self.change(option, on))
        elif option["type"] == "choice":
            editor = qt.QComboBox()
            editor.addItems([str(choice) for choice in option["choices"]])
            editor.setCurrentText(str(value))
            editor.connect("currentIndexChanged(int)", lambda index: self.change(option, option["choices"][index]))
        else:
            editor = qt.QLineEdit()
            editor.text = as_text(value)
            editor.connect("editingFinished()", lambda: self.on_text(option, editor))
        return editor

    def on_text(self, option, editor) -> None:
        try:
            self.change(option, from_text(editor.text, option))
            editor.setStyleSheet("")
        except RegistrationError as error:
            paint_text(editor, "error")
            self.panel.say(str(error), "error")

    def change(self, option, value) -> None:
        """Take a new value of an option over. Raises RegistrationError when the method does not accept it."""
        node = self.parameters
        stored = json.loads(node.options)
        changed = {**stored.get(node.method, {}), option["name"]: value}
        make_method(node.method, node.preset.value, changed)
        node.options = json.dumps({**stored, node.method: changed})

    def onDefaults(self) -> None:
        node = self.parameters
        stored = json.loads(node.options)
        stored.pop(node.method, None)
        node.options = json.dumps(stored)
        self.draw_options()

    @staticmethod
    def options_of(node) -> dict:
        """The options of the chosen method that differ from its preset."""
        return json.loads(node.options).get(node.method, {})


def as_text(value) -> str:
    return (
        ", ".join(as_text(v) for v in value)
        if isinstance(value, (tuple, list))
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )


def from_text(text: str, option: dict):
    """A value typed by the user, of the option's type. Raises RegistrationError when it is none."""
    try:
        if option["type"] == "tuple":
            return [_number(part.strip()) for part in text.split(",") if part.strip()]
        return {"int": int, "float": float, "str": str}[option["type"]](text)
    except ValueError as error:
        raise RegistrationError(
            _('"{text}" is no value for "{name}"; {help}.').format(text=text, name=option["name"], help=option["help"])
        ) from error


def _number(text: str):
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text

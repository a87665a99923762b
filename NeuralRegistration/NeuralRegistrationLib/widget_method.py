"""Method: which one, how long it will take, on which device, and its own options."""

from __future__ import annotations

import qt
from neuralreg.methods import METHODS, describe
from slicer.i18n import tr as _

from . import dependencies, estimate, options
from .section import Section, told
from .theme import paint_text


class MethodSection(Section):
    def __init__(self, panel):
        super().__init__(panel)
        self.methods = {entry["name"]: entry for entry in describe()}
        self.editors: dict[str, object] = {}
        self.refused: dict[str, str] = {}  # option → what the method says of the text in its field
        self._drawn = None  # (method, preset, changed options) that the form shows
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
        self._refresh_estimate(node)
        self.refresh_device()
        if self._drawn != (node.method, node.preset.value, node.options):
            self.draw_options()

    def leave(self) -> None:
        for editor in self.editors.values():
            editor.clearFocus()  # ends the typing while there is a parameter node to take the value

    def _refresh_estimate(self, node) -> None:
        chosen = options.chosen(node.options, node.method)
        self.ui.estimateLabel.text = estimate.sentence(
            (node.fixedVolume, node.movingVolume), node.method, node.preset.value, chosen, node.device.value,
            self.logic.worker,
        )  # fmt: skip

    def refresh_device(self) -> None:
        worker, problem = self.logic.worker, dependencies.torch_problem()
        cpu_chosen = self.parameters.device.value == "cpu"
        text, warn = dependencies.device_line(worker.device, problem or worker.trouble, cpu_chosen)
        self.ui.deviceLabel.text = text
        paint_text(self.ui.deviceLabel, "warning" if warn else "")
        self.ui.installButton.visible = bool(problem or worker.trouble)

    @told
    def onInstall(self) -> None:
        try:
            if dependencies.install_torch(self.panel.ask, self.panel.say):
                self.logic.worker.trouble = ""  # the next one may have a better start
                self.panel.say(_("PyTorch is installed."), "good")
        finally:
            self.panel.refresh()

    def draw_options(self) -> None:
        """Draw the method's fields: the values of the preset, and over them what the user has changed."""
        node = self.parameters
        self._drawn = (node.method, node.preset.value, node.options)
        for editor in self.editors.values():  # one that has the keyboard takes its end for that of the typing
            editor.blockSignals(True)
        while self.form.rowCount():
            self.form.removeRow(0)
        self.editors, self.refused = {}, {}
        for option in options.fields(node.method, node.preset.value, node.options):
            editor = self._editor(option)
            editor.toolTip = option.help
            editor.name = f"option_{option.name}"
            label = qt.QLabel(option.label + ":")
            label.toolTip = option.help
            self.form.addRow(label, editor)
            self.editors[option.name] = editor

    def _editor(self, option):
        if option.kind == "bool":
            editor = qt.QCheckBox()
            editor.checked = option.value
            editor.connect("toggled(bool)", lambda on: self.change(option.name, on))
        elif option.kind == "choice":
            editor = qt.QComboBox()
            editor.addItems(option.choices)
            editor.setCurrentText(option.value)
            editor.connect("currentIndexChanged(int)", lambda index: self.change(option.name, option.choices[index]))
        else:
            editor = qt.QLineEdit()
            editor.text = option.value
            editor.connect("editingFinished()", lambda: self.change(option.name, editor.text))
        return editor

    def change(self, name: str, value: bool | str) -> None:
        """Take a new value of an option over, with those that were refused so far if it makes them suit."""
        node = self.parameters
        values = {**{refused: self.editors[refused].text for refused in self.refused}, name: value}
        stored, self.refused = options.changed(node.options, node.method, node.preset.value, values)
        for changed in values:
            paint_text(self.editors[changed], "error" if changed in self.refused else "")
        self._drawn = (node.method, node.preset.value, stored)  # the form shows it: it must not be drawn under a click
        node.options = stored
        self.panel.refresh()

    def onDefaults(self) -> None:
        node = self.parameters
        node.options = options.forgotten(node.options, node.method)
        self.draw_options()  # also where what is shown was refused and never stored
        self.panel.refresh()

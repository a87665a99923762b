"""The panel in a Slicer whose Python is too old: one sentence. Nothing here may need a newer Python either."""

import platform

import qt
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic, ScriptedLoadableModuleWidget


def sentence():
    """What to do about it."""
    return _(
        "Neural Registration needs Slicer 5.12 or newer; this one is too old, with Python {version}. Please "
        "install a newer Slicer."
    ).format(version=platform.python_version())


class NeuralRegistrationWidget(ScriptedLoadableModuleWidget):
    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        label = qt.QLabel(sentence())
        label.wordWrap = True
        self.layout.addWidget(label)
        self.layout.addStretch(1)


class NeuralRegistrationLogic(ScriptedLoadableModuleLogic):
    def register(self, *arguments, **settings):
        """Raises RuntimeError: nothing can be registered here."""
        raise RuntimeError(sentence())


def registerSampleData():
    """There is nothing to do with sample data here."""

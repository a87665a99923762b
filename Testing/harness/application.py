"""`slicer.app`: what scripted modules read from it; any other name raises AttributeError, on purpose."""

from __future__ import annotations

import os
import tempfile

import slicer

from .files import CoreIOManager
from .layout import LayoutManager


class Module:
    """A row of `slicer.modules`: enough of qSlicerAbstractCoreModule for `logic()`, `path` and `name`."""

    def __init__(self, name, logic=None, path="", widget=None):
        self.name, self.title, self.path = name, name, path
        self._logic, self._widget = logic, widget

    def logic(self):
        return self._logic

    def widgetRepresentation(self):
        return self._widget


class ModuleManager:
    def module(self, name):
        return getattr(slicer.modules, name.lower(), None)

    def connect(self, *_arguments):
        return True

    def disconnect(self, *_arguments):
        return True

    def factoryManager(self):
        return self


class Application:
    """qSlicerApplication without its main window; messages are logged, as with `Slicer --testing`."""

    applicationName = "Slicer"
    majorVersion, minorVersion, revision = 5, 12, "34262"
    slicerHome = ""

    def __init__(self, logic, qt_application):
        self.temporaryPath = tempfile.mkdtemp(prefix="slicer-harness-")
        self._logic, self._qt = logic, qt_application
        self._io, self._modules = CoreIOManager(), ModuleManager()
        self._layout = LayoutManager(logic)
        self._slots: dict[str, list] = {}

    def applicationLogic(self):
        return self._logic

    def mrmlScene(self):
        return slicer.mrmlScene

    def coreIOManager(self):
        return self._io

    ioManager = coreIOManager

    def moduleManager(self):
        return self._modules

    def layoutManager(self):
        return self._layout

    def testingEnabled(self):
        return True

    def processEvents(self, *_flags):
        self._qt.processEvents()

    def topLevelWidgets(self):
        return self._qt.topLevelWidgets()

    def palette(self):
        return self._qt.palette()

    def translate(self, _context, text):
        return text

    def connect(self, signal, slot):
        """Signals of the application (`startupCompleted()`, `aboutToQuit()`); tests send them with `emit`."""
        self._slots.setdefault(signal.split("(")[0], []).append(slot)
        return True

    def disconnect(self, signal, slot):
        self._slots[signal.split("(")[0]].remove(slot)
        return True

    def emit(self, name):
        """Only in the harness: call what is connected to a signal of the application."""
        for slot in list(self._slots.get(name, [])):
            slot()

    def startupEnvironment(self):
        return dict(os.environ)

    def setOverrideCursor(self, _cursor):
        """The pointer has no shape off screen."""

    def restoreOverrideCursor(self):
        """The pointer has no shape off screen."""

    def pauseRender(self):
        """Views draw on demand here."""

    def resumeRender(self):
        """Views draw on demand here."""

    def settings(self):
        import qt

        return qt.QSettings()

    userSettings = settings

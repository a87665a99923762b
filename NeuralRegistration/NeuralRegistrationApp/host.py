"""Slicer and Qt as far as NeuralRegistrationLib needs them: timers on asyncio.

`boot` must run before NeuralRegistrationLib is imported. Anything that is not here raises AttributeError, on purpose.
"""

from __future__ import annotations

import asyncio
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import slicer
import slicer.util
from trame_slicer.core import SlicerApp
from vtkmodules.vtkCommonCore import vtkObject, vtkOutputWindow


class QTimer:
    """A repeating timer on the running asyncio loop."""

    def __init__(self):
        self._seconds = 0.0
        self._slot: Callable[[], None] | None = None
        self._next: asyncio.TimerHandle | None = None

    def setInterval(self, milliseconds: int) -> None:
        self._seconds = milliseconds / 1000

    def connect(self, signal: str, slot: Callable[[], None]) -> None:
        if signal != "timeout()":
            raise ValueError(f"a timer has no signal {signal}")
        self._slot = slot

    def disconnect(self, signal: str, slot: Callable[[], None]) -> None:
        self._slot = None

    def start(self) -> None:
        self.stop()
        self._next = asyncio.get_running_loop().call_later(self._seconds, self._tick)

    def stop(self) -> None:
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _tick(self) -> None:
        self.start()  # first, as the slot may stop it
        self._slot()


class QSettings:
    """What is remembered as long as the page lives."""

    _values: ClassVar[dict[str, str]] = {}

    def value(self, key: str) -> str | None:
        return self._values.get(key)

    def setValue(self, key: str, value: str) -> None:
        self._values[key] = value


class Layouts:
    """The layout manager: fits the slice views to what they show; the layout itself never changes."""

    layout = None

    def __init__(self, views):
        self._views = views

    def setLayout(self, _layout) -> None:
        """The page has its four views, always."""

    def resetSliceViews(self) -> None:
        for view in self._views.get_slice_views():
            view.fit_view_to_content()


class Application:
    """`slicer.app`."""

    def __init__(self, views, folder: Path):
        self.temporaryPath = str(folder)
        self._layouts = Layouts(views)

    def layoutManager(self) -> Layouts:
        return self._layouts

    def connect(self, signal: str, _slot: Callable[[], None]) -> None:
        """Nobody sends aboutToQuit() here: whoever owns a logic closes it, and so does atexit."""
        if signal != "aboutToQuit()":
            raise ValueError(f"the application has no signal {signal}")

    disconnect = connect


class Logic:
    """ScriptedLoadableModuleLogic; settings live in the page, so that there is no parameter node."""

    def __init__(self, parent=None):
        super().__init__()
        self.parent = parent


def boot(folder: Path) -> SlicerApp:
    """Make `slicer.mrmlScene`, `slicer.app` and the modules that slicer-core lacks; files go to `folder`."""
    app = SlicerApp()
    vtkObject.GlobalWarningDisplayOff()  # notes for developers; what goes wrong the page says
    vtkOutputWindow.GetInstance().SetDisplayModeToNever()
    slicer.mrmlScene = app.scene
    slicer.app = Application(app.view_manager, folder)
    _provide("qt", QTimer=QTimer, QSettings=QSettings)
    _provide("slicer.i18n", tr=lambda text: text)
    _provide("slicer.ScriptedLoadableModule", ScriptedLoadableModuleLogic=Logic)
    _provide("slicer.parameterNodeWrapper", parameterNodeWrapper=lambda cls: cls, Minimum=lambda value: value)
    return app


def _provide(name: str, **contents) -> None:
    module = types.ModuleType(name)
    vars(module).update(contents)
    sys.modules[name] = module

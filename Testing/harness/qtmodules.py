"""The modules `qt` and `ctk`, and the loader of .ui files, as Slicer has them."""

from __future__ import annotations

import re
import sys
import types
import xml.etree.ElementTree as ElementTree

from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets

from . import pythonqt
from .pythonqt import is_wrapped_qobject, wrap

#: class name -> stand-in; filled by `stand_in` in the files widgets_*.py
stand_ins: dict[str, type] = {}


def stand_in(cls: type) -> type:
    """Class decorator: this class plays the C++ class of the same name."""
    cls._is_cxx = True
    cls._keeps_state = True
    stand_ins[cls.__name__] = cls
    return cls


class UiLoader(QtUiTools.QUiLoader):
    """QUiLoader that makes wrapped widgets and stand-ins, and the .ui file's connections between them."""

    def load(self, device, parent=None):
        """Raises RuntimeError when the file names a class without stand-in (C++ would swallow it)."""
        root = ElementTree.fromstring(bytes(device.readAll().data()))
        connections = self._take_connections(root)
        buffer = QtCore.QBuffer()
        buffer.setData(ElementTree.tostring(root))
        buffer.open(QtCore.QIODevice.ReadOnly)
        self._unknown, self._errors = [], []
        pythonqt.loading_ui = True
        try:
            widget = super().load(buffer, parent)
        finally:
            pythonqt.loading_ui = False
        if self._errors:
            raise self._errors[0]
        if self._unknown:
            raise RuntimeError(f"no stand-in for widget classes {sorted(set(self._unknown))}")
        self._connect(widget, connections)
        return widget

    @staticmethod
    def _take_connections(root) -> list[tuple[str, str, str, str]]:
        found = []
        for group in root.findall("connections"):
            for one in group.findall("connection"):
                found.append(tuple(one.findtext(key) for key in ("sender", "signal", "receiver", "slot")))
            root.remove(group)
        return found

    @staticmethod
    def _connect(widget, connections) -> None:
        objects = {
            o.objectName if isinstance(o, pythonqt.PythonQtObject) else o.objectName(): o
            for o in [widget, *widget.findChildren(QtCore.QObject)]
        }
        for sender, signal, receiver, slot in connections:
            objects[sender].connect(signal, getattr(objects[receiver], re.match(r"\w+", slot).group(0)))

    def createWidget(self, className, parent=None, name=""):
        try:
            return self._create(className, parent, name)
        except Exception as error:  # Shiboken drops exceptions of virtual methods; load() raises the first one
            self._errors.append(error)
            return None

    def _create(self, className, parent, name):
        is_line = className == "Line"  # Designer's name for a QFrame drawn as a line
        className = "QFrame" if is_line else className
        if className in stand_ins:
            widget = stand_ins[className](parent)
        elif hasattr(QtWidgets, className):
            widget = wrap(getattr(QtWidgets, className))(parent)
        else:
            self._unknown.append(className)
            return None
        if is_line:
            widget.setFrameShape(QtWidgets.QFrame.HLine)
        widget.setObjectName(name)
        return widget

    def createLayout(self, className, parent=None, name=""):
        layout = wrap(getattr(QtWidgets, className))()
        layout.setObjectName(name)
        if isinstance(parent, QtWidgets.QWidget) and parent.layout() is None:
            parent.setLayout(layout)
        return layout

    def createAction(self, parent=None, name=""):
        action = wrap(QtGui.QAction)(parent)
        action.setObjectName(name)
        return action


class _Qt(types.ModuleType):
    """Everything of QtCore, QtGui and QtWidgets under one name, as PythonQt has it; there is no QTest in Slicer."""

    def __getattr__(self, name):
        if name == "QUiLoader":
            return UiLoader
        for module in (QtWidgets, QtGui, QtCore):
            if hasattr(module, name):
                value = getattr(module, name)
                value = wrap(value) if is_wrapped_qobject(value) else value
                setattr(self, name, value)
                return value
        raise AttributeError(f"module 'qt' has no attribute '{name}'")


class NoStandIn:
    """A class that code may name (in an isinstance check) but not create, because the harness has no stand-in."""

    def __init__(self, *_arguments):
        raise RuntimeError(f"the harness has no stand-in for {type(self).__name__}")


class _Ctk(types.ModuleType):
    def __getattr__(self, name):
        if name in stand_ins:
            return stand_ins[name]
        if not name.startswith("ctk"):
            raise AttributeError(f"module 'ctk' has no attribute '{name}'")
        placeholder = type(name, (NoStandIn,), {})
        setattr(self, name, placeholder)
        return placeholder


def install() -> None:
    """Make `import qt` and `import ctk` work."""
    sys.modules.setdefault("qt", _Qt("qt"))
    sys.modules.setdefault("ctk", _Ctk("ctk"))

"""The rules by which PythonQt shows Qt objects to Python, enforced over PySide6.

| | here and in Slicer | plain PySide6 |
|---|---|---|
| read a property | `spin.value`; `spin.value()` raises | `spin.value()` |
| write a property | `spin.value = 3` | silently makes a Python attribute |
| signal | `b.connect("clicked(bool)", f)` or `b.clicked.connect(f)` | the second only |
| object name | `w.name` | `w.objectName()` |
| misspelt attribute, new attribute | AttributeError | accepted |
| keyword arguments | TypeError | accepted |
| a list from Qt | is a tuple | is a list |
"""

from __future__ import annotations

import re
import types

from PySide6 import QtCore, QtWidgets

_wrapped: dict[type, type] = {}
_property_names: dict[str, frozenset[str]] = {}
_being_read: set[tuple[int, str]] = set()

#: True while a .ui file is read: PySide's loader sets the children as attributes of the root, Slicer's does not.
loading_ui = False


def properties_of(obj: QtCore.QObject) -> frozenset[str]:
    """Names of the Q_PROPERTYs of an object's class; `QTimer.singleShot` stays the static function, as in PythonQt."""
    meta = obj.metaObject()
    key = meta.className()
    if key not in _property_names:
        names = {meta.property(i).name() for i in range(meta.propertyCount())}
        _property_names[key] = frozenset(names - ({"singleShot"} if isinstance(obj, QtCore.QTimer) else set()))
    return _property_names[key]


def _receiver(target: tuple) -> object:
    """The callable in `connect(signal, callable)` or `connect(signal, object, "slot(args)")`."""
    return target[0] if len(target) == 1 else getattr(target[0], re.match(r"\w+", target[1]).group(0))


class PythonQtObject:
    """Mixin placed before a Qt class; see the table of the module."""

    #: stand-ins written in Python keep their own state in attributes that begin with "_"; plain Qt classes have none
    _keeps_state = False

    def __getattribute__(self, name):
        if name.startswith("__") or name in ("metaObject", "property", "setProperty"):
            return super().__getattribute__(name)
        if name == "name":
            name = "objectName"
        if name in ("connect", "disconnect"):  # Shiboken would answer with its own
            return types.MethodType(PythonQtObject.__dict__[name], self)
        if name in properties_of(self):
            return self._read_property(name)
        return super().__getattribute__(name)

    def _read_property(self, name):
        key = (id(self), name)
        if key in _being_read:  # a virtual getter (QProgressBar.text): Shiboken asks for a Python override
            return super().__getattribute__(name)
        _being_read.add(key)
        try:
            value = self.property(name)
        finally:
            _being_read.discard(key)
        return tuple(value) if isinstance(value, list) else value

    def __setattr__(self, name, value):
        if name == "name":
            name = "objectName"
        if name in properties_of(self):
            if not self.setProperty(name, list(value) if isinstance(value, (tuple, set)) else value):
                raise TypeError(f"property {type(self).__name__}.{name} refused {value!r}")
        elif loading_ui and isinstance(value, QtCore.QObject) and not name.startswith("_"):
            return
        elif self._accepts_new_attribute(name):
            super().__setattr__(name, value)
        elif name in self._dynamic_properties():
            self.setProperty(name, value)
        else:
            raise AttributeError(
                f"Attribute '{name}' does not exist on {type(self).__name__} "
                "and creation of new attributes on C++ objects is not allowed"
            )

    def _accepts_new_attribute(self, name: str) -> bool:
        is_python_subclass = "_is_cxx" not in type(self).__dict__
        return is_python_subclass or (name.startswith("_") and type(self)._keeps_state)

    def __getattr__(self, name):
        """Only reached when the normal look-up failed: dynamic properties (`SlicerParameterName`)."""
        if not name.startswith("__") and name in self._dynamic_properties():
            return self.property(name)
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def _dynamic_properties(self) -> list[str]:
        return [bytes(name.data()).decode() for name in self.dynamicPropertyNames()]

    def _signal(self, signature: str):
        """The bound signal of `"name(types)"`; the overload must exist, MRML pointer types are not checked."""
        name = re.match(r"\s*(\w+)", signature).group(1)
        bound = getattr(self, name)
        if "(" not in signature or "vtk" in signature:
            return bound
        wanted = bytes(QtCore.QMetaObject.normalizedSignature(signature).data()).decode()
        meta = self.metaObject()
        methods = [meta.method(i) for i in range(meta.methodCount())]
        known = [bytes(m.methodSignature().data()).decode() for m in methods if bytes(m.name().data()).decode() == name]
        if wanted not in known:
            raise ValueError(f"{type(self).__name__} has no signal {wanted}; it has {known}")
        try:
            return bound[wanted[len(name) + 1 : -1]]
        except (KeyError, IndexError, TypeError):
            return bound

    def connect(self, signal, *target):
        self._signal(signal).connect(_receiver(target))
        return True

    def disconnect(self, signal=None, *target):
        if signal is None:
            return super().disconnect()
        return self._signal(signal).disconnect(_receiver(target))

    def className(self) -> str:
        return self.metaObject().className()

    def delete(self):
        self.deleteLater()


def wrap(cls: type) -> type:
    """The class that Slicer would show in place of a PySide6 class (one and the same each time)."""
    if cls not in _wrapped:
        members = {"_is_cxx": True, "__module__": "qt", "__init__": _constructor(cls)}
        _wrapped[cls] = type(cls.__name__, (PythonQtObject, cls), members)
    return _wrapped[cls]


def _constructor(cls: type):
    def __init__(self, *arguments, **keywords):
        if keywords:
            raise TypeError(f"{cls.__name__} does not support keyword arguments: {', '.join(keywords)}")
        cls.__init__(self, *arguments)

    return __init__


def is_wrapped_qobject(cls: object) -> bool:
    """Whether a name of the qt module is a class whose instances must follow the rules."""
    applications = (QtCore.QCoreApplication, QtWidgets.QApplication)
    return isinstance(cls, type) and issubclass(cls, QtCore.QObject) and not issubclass(cls, applications)

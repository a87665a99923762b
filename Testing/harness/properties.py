"""Short ways to give a stand-in the Q_PROPERTYs of the class it plays."""

from __future__ import annotations

from collections.abc import Callable

from PySide6 import QtCore

_count = 0


def stored(kind: type | str, default: object, after: str | None = None) -> QtCore.Property:
    """A property that keeps its value in the object; `after` names the method to call once it was written."""
    global _count
    _count += 1
    key = f"_stored{_count}"

    def read(self):
        return self.__dict__.get(key, default)

    def write(self, value):
        self.__dict__[key] = value
        if after is not None:
            getattr(self, after)()

    return QtCore.Property(kind, read, write)


def forwarded(kind: type | str, read: Callable, write: Callable) -> QtCore.Property:
    """A property that lives in an inner widget."""
    return QtCore.Property(kind, read, write)

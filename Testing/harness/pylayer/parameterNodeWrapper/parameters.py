"""One parameter of a wrapped node: its type, its default, and how it is stored."""

import enum
import pathlib
import types
import typing

import vtk

from .annotations import Default

STORED_AS_TEXT = (bool, int, float, str, pathlib.Path, enum.Enum)


def split_annotations(hint):
    """(types, annotations) of a type hint; a union must be of node classes and None, as Slicer demands."""
    annotations = []
    if typing.get_origin(hint) is typing.Annotated:
        hint, *annotations = typing.get_args(hint)
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return (hint,), annotations
    parts = typing.get_args(hint)
    if type(None) not in parts:
        raise TypeError(f"{hint}: Slicer cannot store None in a union that does not name it")
    return tuple(one for one in parts if one is not type(None)), annotations


class Parameter:
    def __init__(self, name, hint, default):
        self.name = name
        self.kinds, self.annotations = split_annotations(hint)
        self.kind = self.kinds[0]
        self.is_node = isinstance(self.kind, type) and issubclass(self.kind, vtk.vtkObject)
        if not self.is_node and not issubclass(self.kind, STORED_AS_TEXT):
            raise TypeError(f"{name}: {self.kind} is not known to the harness")
        given = [a.value for a in self.annotations if isinstance(a, Default)]
        self.default = given[0] if given else default
        if self.default is None and not self.is_node:
            self.default = next(iter(self.kind)) if issubclass(self.kind, enum.Enum) else self.kind()

    def read(self, node):
        if self.is_node:
            return node.GetNodeReference(self.name)
        text = node.GetParameter(self.name)
        if self.kind is bool:
            return text == "True"
        return self.kind[text] if issubclass(self.kind, enum.Enum) else self.kind(text)

    def write(self, node, value):
        """Raises TypeError for a value of another type, ValueError for one outside the bounds."""
        if self.is_node:
            if value is not None and not any(value.IsA(kind.__name__) for kind in self.kinds):
                raise TypeError(f"{self.name}: {value.GetClassName()} is none of {self.kinds}")
            node.SetParameter(self.name, "")
            node.SetNodeReferenceID(self.name, value.GetID() if value is not None else None)
            return
        if not isinstance(value, self.kind) and not (self.kind is float and isinstance(value, int)):
            raise TypeError(f"{self.name}: expected {self.kind.__name__}, got {value!r}")
        for annotation in self.annotations:
            if hasattr(annotation, "check"):
                annotation.check(value)
        node.SetParameter(self.name, value.name if isinstance(value, enum.Enum) else str(value))

    def is_stored(self, node):
        return self.is_node or node.HasParameter(self.name)

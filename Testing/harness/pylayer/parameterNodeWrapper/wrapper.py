"""The class decorator: typed properties over a parameter node, bound to widgets by `SlicerParameterName`."""

import typing

import vtk

from .connectors import connect
from .parameters import Parameter

FORWARDED = ("StartModify", "EndModify", "AddObserver", "RemoveObserver", "Modified")


class _Base:
    """What every wrapped class gets; `allParameters` is filled by the decorator."""

    allParameters: dict[str, Parameter] = {}

    def __init__(self, parameterNode):
        self.parameterNode, self._bindings, self._next_tag, self._updating = parameterNode, {}, 0, False
        for parameter in self.allParameters.values():
            if not parameter.is_stored(parameterNode):
                parameter.write(parameterNode, parameter.default)

    def getValue(self, name):
        return getattr(self, name)

    def setValue(self, name, value):
        setattr(self, name, value)

    def connectGui(self, gui):
        """Bind every widget of the namespace that has a SlicerParameterName; returns a tag for `disconnectGui`."""
        bindings = []
        for widget in list(vars(gui).values()):
            name = widget.property("SlicerParameterName") if hasattr(widget, "property") else None
            if name:
                bindings.append(self._bind(name, widget))
        observer = self.parameterNode.AddObserver(vtk.vtkCommand.ModifiedEvent, self._update_gui)
        self._next_tag += 1
        self._bindings[self._next_tag] = (bindings, observer)
        return self._next_tag

    def _bind(self, name, widget):
        signal, read, write = connect(widget, self.allParameters[name])
        write(getattr(self, name))

        def on_changed(*_arguments):
            if not self._updating:
                setattr(self, name, read())

        signal.connect(on_changed)
        return name, signal, on_changed, write

    def _update_gui(self, *_arguments):
        if self._updating:
            return
        self._updating = True
        try:
            for bindings, _observer in self._bindings.values():
                for name, _signal, _slot, write in bindings:
                    write(getattr(self, name))
        finally:
            self._updating = False

    def disconnectGui(self, tag):
        if tag not in self._bindings:
            return
        bindings, observer = self._bindings.pop(tag)
        self.parameterNode.RemoveObserver(observer)
        for _name, signal, slot, _write in bindings:
            signal.disconnect(slot)


def _property(parameter):
    return property(
        lambda self: parameter.read(self.parameterNode), lambda self, value: parameter.write(self.parameterNode, value)
    )


def _forward(method):
    return lambda self, *arguments: getattr(self.parameterNode, method)(*arguments)


def _wrap(cls):
    parameters = {}
    for name, hint in typing.get_type_hints(cls, include_extras=True).items():
        parameters[name] = Parameter(name, hint, getattr(cls, name, None))
        setattr(cls, name, _property(parameters[name]))
    members = {name: value for name, value in vars(_Base).items() if not name.startswith("__") or name == "__init__"}
    for name, value in {**members, "allParameters": parameters}.items():
        setattr(cls, name, value)
    for method in FORWARDED:
        setattr(cls, method, _forward(method))
    return cls


def parameterNodeWrapper(cls=None):
    return _wrap if cls is None else _wrap(cls)

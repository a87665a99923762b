"""Which widget shows which type of parameter: (signal, read, write), as Slicer's guiConnectors pair them."""

import enum
import pathlib

import ctk
import qt
import slicer

from .annotations import Choice, Decimals, SingleStep


def connect(widget, parameter):
    """The (signal, read, write) of a widget for a parameter. Raises RuntimeError where Slicer has no connector."""
    for known in (_node, _flag, _number, _text, _choice, _path):
        found = known(widget, type(widget), parameter)
        if found is not None:
            return found
    raise RuntimeError(f"no connector from {parameter.kind} to {type(widget)}")


def _node(widget, cls, parameter):
    if not parameter.is_node or cls is not slicer.qMRMLNodeComboBox:
        return None
    widget.nodeTypes = [kind.__name__ for kind in parameter.kinds]
    return widget.currentNodeChanged, widget.currentNode, widget.setCurrentNode


def _flag(widget, cls, parameter):
    if parameter.kind is not bool:
        return None
    if cls in (qt.QCheckBox, ctk.ctkCheckBox):
        return widget.stateChanged, lambda: widget.checked, widget.setChecked
    return (widget.toggled, lambda: widget.checked, widget.setChecked) if cls is qt.QPushButton else None


def _number(widget, cls, parameter):
    integer = parameter.kind is int and cls in (qt.QSpinBox, qt.QSlider)
    real = parameter.kind is float and cls in (qt.QDoubleSpinBox, ctk.ctkDoubleSpinBox, ctk.ctkSliderWidget)
    if not (integer or real):
        return None
    for annotation in parameter.annotations:
        if hasattr(annotation, "minimum"):
            widget.setMinimum(annotation.minimum)
        if hasattr(annotation, "maximum"):
            widget.setMaximum(annotation.maximum)
        if isinstance(annotation, Decimals):
            widget.decimals = annotation.value
        if isinstance(annotation, SingleStep):
            widget.singleStep = annotation.value
    return widget.valueChanged, lambda: widget.value, widget.setValue


def _text(widget, cls, parameter):
    if parameter.kind is not str or cls is not qt.QLineEdit:
        return None
    return widget.textChanged, lambda: widget.text, widget.setText


def _choice(widget, cls, parameter):
    if cls not in (qt.QComboBox, ctk.ctkComboBox):
        return None
    if issubclass(parameter.kind, enum.Enum):
        label = getattr(parameter.kind, "label", lambda member: member.name)
        members = list(parameter.kind)
        widget.clear()
        widget.addItems([label(member) for member in members])
        return (
            widget.currentIndexChanged,
            lambda: members[widget.currentIndex],
            lambda member: widget.setCurrentIndex(members.index(member)),
        )
    for annotation in parameter.annotations:
        if isinstance(annotation, Choice):
            widget.clear()
            widget.addItems(annotation.choices)
    return widget.currentIndexChanged, lambda: widget.currentText, widget.setCurrentText


def _path(widget, cls, parameter):
    if not issubclass(parameter.kind, pathlib.Path) or cls is not ctk.ctkPathLineEdit:
        return None
    return (
        widget.currentPathChanged,
        lambda: parameter.kind(widget.currentPath),
        lambda path: widget.setCurrentPath(str(path)),
    )

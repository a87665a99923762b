"""Stand-ins for qMRMLWidget and the node selectors: real Qt widgets over the real scene.

Only what the C++ headers make public (properties, slots, Q_INVOKABLEs) has a public name here.
"""

from __future__ import annotations

import weakref

import shiboken6
import slicer
import vtk
from PySide6 import QtCore, QtWidgets

from .properties import forwarded, stored
from .pythonqt import PythonQtObject
from .qtmodules import NoStandIn, stand_in, stand_ins


def _while_alive(widget: QtWidgets.QWidget, method: str):
    """A VTK observer that calls `widget.method()` as long as the C++ widget exists; with the node where it is told."""
    reference = weakref.ref(widget)

    def observer(_caller, _event, *node):
        alive = reference()
        if alive is None or not shiboken6.isValid(alive):
            return
        try:
            getattr(alive, method)(*node)
        except RuntimeError:  # Python may collect the window around the widget in the middle of it
            if shiboken6.isValid(alive):
                raise

    return observer


@stand_in
class qMRMLWidget(PythonQtObject, QtWidgets.QWidget):
    mrmlSceneChanged = QtCore.Signal(object)
    isEntered = stored(bool, True)  # of qSlicerAbstractModuleWidget: the module is the one shown

    def mrmlScene(self):
        return self.__dict__.get("_scene")

    def setMRMLScene(self, scene):
        self._scene = scene
        self.mrmlSceneChanged.emit(scene)


@stand_in
class qMRMLNodeComboBox(PythonQtObject, QtWidgets.QWidget):
    currentNodeChanged = QtCore.Signal(object)
    currentNodeIDChanged = QtCore.Signal(str)
    nodeAddedByUser = QtCore.Signal(object)
    nodeActivated = QtCore.Signal(object)

    nodeTypes = stored("QStringList", [], "_refresh")
    noneEnabled = stored(bool, False, "_refresh")
    addEnabled = stored(bool, True, "_refresh")
    removeEnabled = stored(bool, True)
    renameEnabled = stored(bool, False)
    editEnabled = stored(bool, False)
    showHidden = stored(bool, False, "_refresh")
    showChildNodeTypes = stored(bool, True, "_refresh")
    selectNodeUponCreation = stored(bool, True)
    noneDisplay = stored(str, "None", "_refresh")
    baseName = stored(str, "")

    def __init__(self, parent=None):
        super().__init__(parent)
        self._scene, self._observed, self._attributes, self._id, self._shown = None, [], [], None, None
        self._combo = QtWidgets.QComboBox(self)
        self._combo.setSizePolicy(QtWidgets.QSizePolicy.Expanding, QtWidgets.QSizePolicy.Fixed)
        self._combo.setMinimumContentsLength(8)
        self._combo.setSizeAdjustPolicy(QtWidgets.QComboBox.AdjustToMinimumContentsLengthWithIcon)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._combo)
        self._combo.activated.connect(self._on_activated)

    def mrmlScene(self):
        return self._scene

    def setMRMLScene(self, scene):
        for observed, tag in self._observed:
            observed.RemoveObserver(tag)
        self._scene, self._observed = scene, []
        if scene is not None:
            events = (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndCloseEvent, scene.EndImportEvent)
            self._observed = [(scene, scene.AddObserver(event, _while_alive(self, "_refresh"))) for event in events]
            leaving = vtk.calldata_type(vtk.VTK_OBJECT)(_while_alive(self, "_on_leaving"))
            self._observed.append((scene, scene.AddObserver(scene.NodeAboutToBeRemovedEvent, leaving, -10.0)))
        self._refresh()

    def addAttribute(self, nodeType, name, value=None):
        self._attributes.append((nodeType, name, value))
        self._refresh()

    def nodeCount(self):
        return len(self._nodes())

    def nodeFromIndex(self, index):
        nodes = self._nodes()
        return nodes[index] if 0 <= index < len(nodes) else None

    def addNode(self, nodeType=None):
        node = self._scene.AddNewNodeByClass(nodeType or self.nodeTypes[0], self.baseName or "")
        if self.selectNodeUponCreation:
            self.setCurrentNode(node)
        self.nodeAddedByUser.emit(node)
        return node

    def currentNode(self):
        return self._scene.GetNodeByID(self._id) if self._scene and self._id else None

    def setCurrentNode(self, node):
        self.setCurrentNodeID(node.GetID() if node is not None else "")

    def setCurrentNodeID(self, node_id):
        if (node_id or None) != self._id:
            self._select(node_id or None)
        self._refresh()

    currentNodeID = forwarded(str, lambda self: self.__dict__.get("_id") or "", setCurrentNodeID)

    def _on_leaving(self, node):
        """Where the chosen row goes, Qt chooses the one that moves into its place, not "none"."""
        nodes = self._nodes()
        if self._scene.IsClosing() or node not in nodes or node is not self.currentNode():
            return
        rest = [one for one in nodes if one is not node]
        if rest:
            self._select(rest[min(nodes.index(node), len(rest) - 1)].GetID())

    def _nodes(self) -> list:
        if self._scene is None:
            return []
        kinds, hidden, children = self.nodeTypes, self.showHidden, self.showChildNodeTypes
        every = [self._scene.GetNthNode(i) for i in range(self._scene.GetNumberOfNodes())]
        of_kind = [
            node
            for node in every
            if (any(node.IsA(kind) for kind in kinds) if children else node.GetClassName() in kinds)
        ]
        return [node for node in of_kind if (hidden or not node.GetHideFromEditors()) and self._offers(node)]

    def _offers(self, node) -> bool:
        return all(self._has_attribute(node, *wanted) for wanted in self._attributes)

    @staticmethod
    def _has_attribute(node, node_type, name, value) -> bool:
        if not node.IsA(node_type):
            return True
        found = node.GetAttribute(name)
        return found is not None and (value is None or found == str(value))

    def _refresh(self):
        if "_combo" not in self.__dict__:  # properties are written before __init__ has ended
            return
        combo, nodes = self._combo, self._nodes()
        combo.blockSignals(True)
        combo.clear()
        if self.noneEnabled:
            combo.addItem(self.noneDisplay, "")
        for node in nodes:
            combo.addItem(node.GetName(), node.GetID())
        if self.addEnabled:
            for name in self.nodeTypes:
                combo.addItem(f"Create new {name.removeprefix('vtkMRML').removesuffix('Node')}", "new:" + name)
        known = [node.GetID() for node in nodes]
        wanted = self._id if self._id in known else (None if self.noneEnabled or not known else known[0])
        combo.setCurrentIndex(combo.findData(wanted) if wanted else (0 if self.noneEnabled else -1))
        combo.blockSignals(False)
        if wanted != self._id:
            self._select(wanted)

    def _select(self, node_id):
        """Tell of another node only where the text is another: Slicer on Qt 6 hears of nothing else."""
        self._id, before, node = node_id, self._shown, self._scene.GetNodeByID(node_id) if node_id else None
        self._shown = node.GetName() if node is not None else self.noneDisplay
        if self._shown != before:
            self.currentNodeChanged.emit(node)
            self.currentNodeIDChanged.emit(node_id or "")

    def _on_activated(self, index):
        data = self._combo.itemData(index)
        if isinstance(data, str) and data.startswith("new:"):
            self.addNode(data.removeprefix("new:"))
        else:
            if (data or None) != self._id:
                self._select(data or None)
            self.nodeActivated.emit(self.currentNode())


@stand_in
class qMRMLCheckableNodeComboBox(qMRMLNodeComboBox):
    """Nodes with a check box each; shown as one line of text, since tests check by `setCheckState`."""

    checkedNodesChanged = QtCore.Signal()

    def __init__(self, parent=None):
        super().__init__(parent)
        self._checked = []

    def checkedNodes(self):
        return tuple(node for node in self._nodes() if node.GetID() in self._checked)

    def uncheckedNodes(self):
        return tuple(node for node in self._nodes() if node.GetID() not in self._checked)

    def allChecked(self):
        return not self.uncheckedNodes()

    def noneChecked(self):
        return not self.checkedNodes()

    def checkState(self, node):
        return QtCore.Qt.Checked if node is not None and node.GetID() in self._checked else QtCore.Qt.Unchecked

    def setCheckState(self, node, state):
        others = [node_id for node_id in self._checked if node_id != node.GetID()]
        self._checked = others + ([node.GetID()] if state == QtCore.Qt.Checked else [])
        self._show_checked()
        self.checkedNodesChanged.emit()

    def check(self, node):
        self.setCheckState(node, QtCore.Qt.Checked)

    def uncheck(self, node):
        self.setCheckState(node, QtCore.Qt.Unchecked)

    def _refresh(self):
        super()._refresh()
        if "_checked" in self.__dict__:
            self._show_checked()

    def _show_checked(self):
        self._combo.setPlaceholderText(", ".join(node.GetName() for node in self.checkedNodes()) or self.noneDisplay)
        self._combo.setCurrentIndex(-1)


def install_in_slicer() -> None:
    """Make the qMRML stand-ins members of `slicer`; other qMRML classes may be named but not created."""

    def missing(name):
        if not name.startswith(("qMRML", "qSlicer")):
            raise AttributeError(f"module 'slicer' has no attribute '{name}'")
        placeholder = type(name, (NoStandIn,), {})
        setattr(slicer, name, placeholder)
        return placeholder

    for name, cls in stand_ins.items():
        if name.startswith("qMRML"):
            setattr(slicer, name, cls)
    slicer.__getattr__ = missing

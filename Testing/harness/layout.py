"""The slice views and the layout node that Slicer's layout manager keeps, without windows."""

from __future__ import annotations

import slicer
import vtk

ORIENTATIONS = {"Red": "Axial", "Yellow": "Sagittal", "Green": "Coronal"}


class SliceWidget:
    """qMRMLSliceWidget as far as scripts ask it for its nodes and logic."""

    def __init__(self, logic):
        self._logic = logic

    def sliceLogic(self):
        return self._logic

    def mrmlSliceNode(self):
        return self._logic.GetSliceNode()

    def mrmlSliceCompositeNode(self):
        return self._logic.GetSliceCompositeNode()


class LayoutManager:
    """Three slice views over real slice logics; their nodes are singletons and outlive a closed scene, as in Slicer."""

    def __init__(self, application_logic):
        scene = application_logic.GetMRMLScene()
        self._logics = {}
        self._collection = vtk.vtkCollection()
        for name, orientation in ORIENTATIONS.items():
            logic = slicer.vtkMRMLSliceLogic()
            logic.SetMRMLScene(scene)
            logic.SetMRMLApplicationLogic(application_logic)
            node = logic.AddSliceNode(name)
            node.SetOrientation(orientation)
            self._logics[name] = logic
            self._collection.AddItem(logic)
        application_logic.SetSliceLogics(self._collection)
        self._layout_node = slicer.vtkMRMLLayoutNode()
        self._layout_node.SetSingletonTag("vtkMRMLLayoutNode")
        scene.AddNode(self._layout_node)

    def layoutLogic(self):
        return self

    def GetLayoutNode(self):
        return self._layout_node

    @property
    def layout(self):
        return self._layout_node.GetViewArrangement()

    def setLayout(self, layout):
        self._layout_node.SetViewArrangement(layout)

    def sliceViewNames(self):
        return list(self._logics)

    def mrmlSliceLogics(self):
        return self._collection

    def sliceWidget(self, name):
        return SliceWidget(self._logics[name])

    def resetSliceViews(self):
        for logic in self._logics.values():
            logic.FitSliceToBackground()

    def resetThreeDViews(self):
        """There is no 3D view here."""

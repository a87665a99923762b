"""Ways to look at a registration: overlay, checkerboard, side by side, grid, maps; by the nodes of the slice views."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

from .lattice import local_geometry, on_lattice_of
from .results import Run, folder_of, put_into_folder
from .scene_load import read_voxels

SQUARES = 8  # of the checkerboard along the longest side of the volume
GRID_LINES = 20  # of the deformation grid along the longest side
MAP_OPACITY = 0.5
MAP_POINTS = 1e6  # of the map of distances, spread over the volume: some 0.4 s, and enough for what is smooth
DISPLACEMENT_COLOURS = "vtkMRMLColorTableNodeIron"
BEFORE = "NeuralRegistration.BeforeSideBySide"  # attribute of a view: layout, links and slice as the user had them


def slice_views() -> list:
    """The composite nodes of all slice views."""
    return list(slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"))


def overlay(background, foreground, opacity: float = 0.5) -> None:
    """Lay one volume over another in all slice views; these stay where they are, unless nothing could be seen there."""
    for view in slice_views():
        view.SetBackgroundVolumeID(background.GetID() if background is not None else None)
        view.SetForegroundVolumeID(foreground.GetID() if foreground is not None else None)
        view.SetForegroundOpacity(opacity)
    bring_into_sight(background)


def bring_into_sight(volume) -> None:
    """Fit the slice views where not one of them shows a volume: the other volume of a pair may lie far away."""
    views = slice_views()  # none without Slicer's window
    if volume is not None and views and not any(_sees(view, volume) for view in views):
        slicer.util.resetSliceViews()


def _sees(view, volume) -> bool:
    """Whether a volume reaches into what a slice view shows."""
    node = slicer.mrmlScene.GetNodeByID(f"vtkMRMLSliceNode{view.GetLayoutName()}")
    if node is None:
        return False
    pixel_from_world, bounds = vtk.vtkMatrix4x4(), np.zeros(6)
    vtk.vtkMatrix4x4.Invert(node.GetXYToRAS(), pixel_from_world)
    volume.GetSliceBounds(bounds, pixel_from_world)
    low, high = bounds.reshape(3, 2).T
    return bool(np.all(high >= 0) and np.all(low <= np.array(node.GetDimensions()) * (1, 1, 0)))


def blend(opacity: float) -> None:
    """0 shows the background only, 1 the foreground."""
    for view in slice_views():
        view.SetForegroundOpacity(opacity)


def show_after(run: Run, opacity: float = 0.5) -> None:
    overlay(run.fixed, run.warped or run.moving, opacity)


def show_before(run: Run, opacity: float = 0.5) -> None:
    """Fixed and moving as they were before the registration."""
    overlay(run.fixed, run.moving, opacity)


def show_side_by_side(run: Run) -> None:
    """Fixed on the left, warped on the right, the same slice in both, moving together."""
    _remember_views()
    layouts = slicer.app.layoutManager()
    if layouts is not None:
        layouts.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutSideBySideView)
    volumes = {"Red": run.fixed, "Yellow": run.warped}
    red, yellow = (slicer.mrmlScene.GetNodeByID(f"vtkMRMLSliceNode{name}") for name in volumes)
    if red is not None and yellow is not None:
        yellow.GetSliceToRAS().DeepCopy(red.GetSliceToRAS())
        yellow.UpdateMatrices()
    for view in slice_views():
        view.SetLinkedControl(True)
        view.SetHotLinkedControl(True)
        if view.GetLayoutName() in volumes:
            volume = volumes[view.GetLayoutName()]
            view.SetBackgroundVolumeID(volume.GetID() if volume is not None else None)
            view.SetForegroundVolumeID(None)
    slicer.util.resetSliceViews()


def _remember_views() -> None:
    """Note on the views how they are now, unless that is noted already."""
    layouts = slicer.app.layoutManager()
    for view in slice_views():
        node = slicer.mrmlScene.GetNodeByID(f"vtkMRMLSliceNode{view.GetLayoutName()}")
        state = {
            "layout": layouts.layout if layouts is not None else None,
            "linked": view.GetLinkedControl(),
            "hot": view.GetHotLinkedControl(),
            "slice": slicer.util.arrayFromVTKMatrix(node.GetSliceToRAS()).tolist() if node is not None else None,
        }
        if view.GetAttribute(BEFORE) is None:
            view.SetAttribute(BEFORE, json.dumps(state))


def leave_side_by_side() -> None:
    """Layout, links and slices as they were before; nothing where side by side was not chosen."""
    layouts = slicer.app.layoutManager()
    for view in slice_views():
        if view.GetAttribute(BEFORE) is None:
            continue
        state = json.loads(view.GetAttribute(BEFORE))
        view.SetAttribute(BEFORE, None)
        view.SetHotLinkedControl(state["hot"])
        view.SetLinkedControl(state["linked"])
        node = slicer.mrmlScene.GetNodeByID(f"vtkMRMLSliceNode{view.GetLayoutName()}")
        if node is not None and state["slice"] is not None and view.GetLayoutName() == "Yellow":
            node.GetSliceToRAS().DeepCopy(slicer.util.vtkMatrixFromArray(np.array(state["slice"])))
            node.UpdateMatrices()
        if layouts is not None and layouts.layout == slicer.vtkMRMLLayoutNode.SlicerLayoutSideBySideView:
            layouts.setLayout(state["layout"])


def show_grid(run: Run, visible: bool) -> None:
    """The transform as a bent grid in the slice views."""
    if run.transform is None or (not visible and run.transform.GetDisplayNode() is None):
        return
    run.transform.CreateDefaultDisplayNodes()
    display = run.transform.GetDisplayNode()
    if run.fixed is not None:
        bounds = np.zeros(6)
        run.fixed.GetRASBounds(bounds)
        spacing = float(np.ptp(bounds.reshape(3, 2), axis=1).max()) / GRID_LINES
        display.SetGridSpacingMm(spacing)
        display.SetGridResolutionMm(spacing / 4)
        display.SetGridLineDiameterMm(spacing / 20)
        display.SetGridScalePercent(100)
    display.SetVisualizationMode(display.VIS_MODE_GRID)
    display.SetVisibility2D(visible)
    display.SetVisibility3D(False)
    display.SetVisibility(visible)


def show_map(run: Run, volume, opacity: float = MAP_OPACITY) -> None:
    """A Jacobian or displacement map over the fixed volume; the warped volume where there is none."""
    overlay(run.fixed, volume or run.warped or run.moving, opacity)


def holds_image(volume) -> bool:
    """Whether there is a volume with voxels; a scene may have been saved without the file of one."""
    return volume is not None and volume.GetImageData() is not None


def checkerboard(run: Run):
    """Squares of fixed and warped in turn, a volume made when it is first asked for; None without both images."""
    if not (holds_image(run.fixed) and holds_image(run.warped)):
        return None
    known = derived(run, "checkerboard")
    if known is not None:
        return known
    fixed, warped = _as_shown(run.fixed, run.warped), _as_shown(run.warped, run.warped)
    side = max(1, max(fixed.shape) // SQUARES)
    index = np.add.outer(
        np.add.outer(np.arange(fixed.shape[0]) // side, np.arange(fixed.shape[1]) // side),
        np.arange(fixed.shape[2]) // side,
    )
    board = np.where(index % 2 == 0, fixed, warped).astype(np.uint8)
    node = slicer.util.addVolumeFromArray(board, local_geometry(run.warped), f"{run.name} checkerboard")
    return _keep(run, node, "checkerboard")


def displacement_map(run: Run):
    """How far points of the fixed grid move, in mm, as a volume made when it is first asked for."""
    if run.transform is None or not holds_image(run.warped):
        return None
    known = derived(run, "displacement")
    if known is not None:
        return known
    # Slicer measures the way from moving to fixed; points of the fixed grid go the other way, which needs no inversion.
    forward = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode")
    forward.SetAndObserveTransformToParent(run.transform.GetTransformFromParent())
    node = slicer.modules.transforms.logic().CreateDisplacementVolumeFromTransform(forward, _thinned(run.warped), True)
    slicer.mrmlScene.RemoveNode(forward)
    node.SetName(f"{run.name} displacement")
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetAndObserveColorNodeID(DISPLACEMENT_COLOURS)
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(0, max(node.GetImageData().GetScalarRange()[1], 1e-3))
    return _keep(run, node, "displacement")


def _thinned(volume):
    """A node in no scene with the lattice of a volume; of a large one as evenly spaced a part as has MAP_POINTS."""
    size, spacing = np.array(volume.GetImageData().GetDimensions()), np.array(volume.GetSpacing())
    step = np.maximum(np.round(np.cbrt(np.prod(size * spacing) / MAP_POINTS) / spacing), 1)
    lattice, thinned = vtk.vtkImageData(), slicer.vtkMRMLScalarVolumeNode()
    lattice.SetDimensions(*np.ceil(size / step).astype(int).tolist())
    index_from_thinned = np.diag([*step, 1.0])
    index_from_thinned[:3, 3] = (step - 1) / 2  # the middle of the voxels for which one stands
    thinned.SetAndObserveImageData(lattice)
    thinned.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(local_geometry(volume) @ index_from_thinned))
    return thinned


def maps(run: Run) -> list:
    """The volumes that were made to look at a run, so far."""
    return [node for node in (derived(run, role) for role in ("checkerboard", "displacement")) if node is not None]


def derived(run: Run, role: str):
    """The volume that was made to look at a run, "checkerboard" or "displacement"; None before and when deleted."""
    return run.table.GetNodeReference(f"NeuralRegistration.{role}")


def _keep(run: Run, node, role: str):
    run.table.SetNodeReferenceID(f"NeuralRegistration.{role}", node.GetID())
    put_into_folder(node, folder_of(run))
    return node


def _as_shown(volume, reference) -> np.ndarray:
    """Grey values 0 … 255 on the lattice of another volume, as the display's window maps them in the views."""
    image = on_lattice_of(volume, reference)
    array = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1]).astype(np.float32)
    volume.CreateDefaultDisplayNodes()
    display = volume.GetDisplayNode()
    if display.IsA("vtkMRMLScalarVolumeDisplayNode"):
        low, high = display.GetWindowLevelMin(), display.GetWindowLevelMax()
    else:  # a label map has no window
        low, high = array.min(), array.max()
    return np.clip((array - low) / max(high - low, 1e-6), 0, 1) * 255


class Preview:
    """The volume while it is being warped, over the fixed one; takes itself away again."""

    def __init__(self, fixed, moving):
        self.fixed, self.moving = fixed, moving
        self.node = None
        self._before: list[tuple] = []

    def show(self, path: Path) -> None:
        """Take over the volume that the worker has just rewritten. One that is gone is skipped: the next comes soon."""
        taken = path.with_name(f"taken-{path.name}")
        try:  # a run that ends removes it, and Slicer shows each failed reading as an error
            path.replace(taken)
        except OSError:
            return
        if self.node is None:
            self._begin()
        if read_voxels(self.node, taken):
            self.node.SetName("Registration preview")
        with suppress(OSError):
            taken.unlink()

    def _begin(self) -> None:
        self.node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Registration preview")
        self.node.SetHideFromEditors(True)
        self.node.SetSaveWithScene(False)
        self.node.CreateDefaultDisplayNodes()
        display, shown = self.node.GetDisplayNode(), self.moving.GetDisplayNode()
        display.SetSaveWithScene(False)
        if shown is not None and shown.IsA("vtkMRMLScalarVolumeDisplayNode"):
            display.CopyContent(shown)
        display.AutoWindowLevelOff()
        display.SetWindowLevelMinMax(0, 1)  # whatever the moving volume's window: the worker's grey values are 0 … 1
        display.ApplyThresholdOff()
        self._before = [
            (view.GetID(), view.GetBackgroundVolumeID(), view.GetForegroundVolumeID(), view.GetForegroundOpacity())
            for view in slice_views()
        ]
        overlay(self.fixed, self.node, 0.5)

    def end(self) -> None:
        """Put the views back as they were before the run, but for what the user has changed in them since."""
        if self.node is None:
            return
        for view_id, background, foreground, opacity in self._before:
            view = slicer.mrmlScene.GetNodeByID(view_id)
            if view is None:
                continue
            if view.GetBackgroundVolumeID() == self.fixed.GetID():
                view.SetBackgroundVolumeID(background)
            if view.GetForegroundVolumeID() == self.node.GetID():
                view.SetForegroundVolumeID(foreground)
                view.SetForegroundOpacity(opacity)
        for volume_id in filter(None, {view.GetBackgroundVolumeID() for view in slice_views()}):
            bring_into_sight(slicer.mrmlScene.GetNodeByID(volume_id))
        if self.node.GetScene() is not None:
            for node in (self.node.GetDisplayNode(), self.node):
                slicer.mrmlScene.RemoveNode(node)
        self.node = None

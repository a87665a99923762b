"""What the views show when their size changes: as much of the volumes as before, at the user's own zoom and place.

By itself Slicer keeps the height of what is shown, so that a narrower view loses the sides of the volume.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from vtkmodules.vtkCommonCore import vtkCommand

FIRST = 1.0  # priority: before trame-slicer's own observer, which then finds nothing to change


def follow_size(app: Any) -> None:
    """Let all views of a `SlicerApp` keep what they show, whatever happens to the window of the browser."""
    for view in app.view_manager.get_slice_views():
        keep = partial(_keep_slice, view, app.app_logic.GetSliceLogic(view.get_view_node()))
        view.interactor().AddObserver(vtkCommand.WindowResizeEvent, keep, FIRST)
    for view in app.view_manager.get_threed_views():
        view.interactor().AddObserver(vtkCommand.WindowResizeEvent, _KeepCamera(view), FIRST)


def _keep_slice(view: Any, logic: Any, *_: Any) -> None:
    """Zoom by as much as a view that is fitted to the volume would; the centre stays where it is."""
    node, width, height = view.get_view_node(), *view.render_window().GetSize()
    old_width, old_height, depth = node.GetDimensions()
    shown = [0.0, 0.0, 0.0]  # extent of the volume in the plane of the view, in mm
    logic.GetBackgroundSliceDimensions(shown, [0.0, 0.0, 0.0])
    if min(width, height, old_width, old_height, *shown[:2]) <= 0:
        return
    fitted, old_fitted = (max(shown[0] / w, shown[1] / h) for w, h in ((width, height), (old_width, old_height)))
    pixel = node.GetFieldOfView()[1] / old_height * fitted / old_fitted  # mm
    modified = node.StartModify()
    node.SetDimensions(width, height, depth)
    node.SetFieldOfView(pixel * width, pixel * height, node.GetFieldOfView()[2])
    node.EndModify(modified)


class _KeepCamera:
    """Steps back from the scene when a 3D view gets narrower than it is high, and forth again."""

    def __init__(self, view: Any):
        self._view = view
        self._width = self._relative_width()

    def _relative_width(self) -> float:
        """Of what the view shows, the camera keeping the height: 1 where that is what limits it."""
        width, height = self._view.render_window().GetSize()
        return min(1.0, max(width, 1) / max(height, 1))

    def __call__(self, *_: Any) -> None:
        before, self._width = self._width, self._relative_width()
        if self._width != before:
            self._view.renderer().GetActiveCamera().Dolly(self._width / before)
            self._view.renderer().ResetCameraClippingRange()

"""Pictures without a screen: the panel as Qt draws it, slice views as Slicer's own compositing draws them."""

from __future__ import annotations

from pathlib import Path

import slicer
import vtk
from PySide6 import QtGui, QtWidgets

PANEL_WIDTH = 400

_windows: dict[str, tuple] = {}


def use_dark_style(application: QtWidgets.QApplication) -> None:
    """The colours of Slicer's dark style."""
    palette = QtGui.QPalette()
    roles = QtGui.QPalette
    for role, colour in {
        roles.Window: "#323232", roles.WindowText: "#ffffff", roles.Base: "#1e1e1e", roles.AlternateBase: "#2c2c2c",
        roles.Text: "#ffffff", roles.Button: "#3c3c3c", roles.ButtonText: "#ffffff", roles.Highlight: "#2a82da",
        roles.HighlightedText: "#000000", roles.ToolTipBase: "#323232", roles.ToolTipText: "#ffffff",
        roles.PlaceholderText: "#9a9a9a",
    }.items():  # fmt: skip
        palette.setColor(role, QtGui.QColor(colour))
    for role in (roles.Text, roles.ButtonText, roles.WindowText):
        palette.setColor(roles.Disabled, role, QtGui.QColor("#808080"))
    application.setPalette(palette)


def save_panel(widget: QtWidgets.QWidget, path: Path, width: int = PANEL_WIDTH) -> None:
    """Draw a widget at a width, as high as it wants to be."""
    widget.setFixedWidth(width)
    widget.show()
    for _ in range(3):  # layouts with wrapped text settle in steps
        slicer.app.processEvents()
        widget.resize(width, widget.heightForWidth(width) if widget.hasHeightForWidth() else widget.sizeHint.height())
    slicer.app.processEvents()
    QtWidgets.QWidget.grab(widget).save(str(path))


def save_slice(name: str, path: Path, size: tuple[int, int] = (480, 480), fit: bool = True) -> None:
    """Draw a slice view ("Red", "Yellow", "Green"): layers, blend and the transform's grid, as in Slicer's window.

    Needs EGL (Mesa will do): set VTK_DEFAULT_OPENGL_WINDOW=vtkEGLRenderWindow before VTK is imported.
    """
    widget = slicer.app.layoutManager().sliceWidget(name)
    logic, node = widget.sliceLogic(), widget.mrmlSliceNode()
    node.SetDimensions(*size, 1)
    logic.ResizeSliceNode(*size)
    if fit:
        logic.FitSliceToAll(*size)
        logic.SnapSliceOffsetToIJK()
    window = _window(name, logic, node)
    window.SetSize(*size)
    node.Modified()  # the displayable managers look at the scene when their view changes
    window.Render()
    _write_window(window, path)


def _window(name: str, logic, node):
    """The off-screen window of a slice view; like Slicer's it lives to the end, as its managers observe the scene.

    Raises RuntimeError where nothing can be drawn.
    """
    if name in _windows:
        return _windows[name][0]
    renderer = vtk.vtkRenderer()
    renderer.AddViewProp(_layers(logic))
    window = vtk.vtkRenderWindow()
    window.OffScreenRenderingOn()
    window.AddRenderer(renderer)
    if not window.SupportsOpenGL():
        raise RuntimeError("OpenGL is missing; install libegl1 and libgl1-mesa-dri")
    interactor = vtk.vtkRenderWindowInteractor()  # displayable managers ask for one
    window.SetInteractor(interactor)
    _windows[name] = (window, renderer, interactor, _displayable_managers(renderer, node))
    return window


def _layers(logic):
    """The blended layers of a slice logic as one picture."""
    mapper = vtk.vtkImageMapper()
    mapper.SetInputConnection(logic.GetImageDataConnection())
    mapper.SetColorWindow(255)
    mapper.SetColorLevel(127.5)
    actor = vtk.vtkActor2D()
    actor.SetMapper(mapper)
    actor.GetProperty().SetDisplayLocationToBackground()
    return actor


def _displayable_managers(renderer, node):
    factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
    factory.SetMRMLApplicationLogic(slicer.app.applicationLogic())
    for manager in ("vtkMRMLTransformsDisplayableManager2D", "vtkMRMLModelSliceDisplayableManager"):
        if not factory.IsDisplayableManagerRegistered(manager):
            factory.RegisterDisplayableManager(manager)
    group = factory.InstantiateDisplayableManagers(renderer)
    group.SetMRMLDisplayableNode(node)
    return group


def _write_window(window, path: Path) -> None:
    grab = vtk.vtkWindowToImageFilter()
    grab.SetInput(window)
    grab.ReadFrontBufferOff()
    writer = vtk.vtkPNGWriter()
    writer.SetInputConnection(grab.GetOutputPort())
    writer.SetFileName(str(path))
    writer.Write()

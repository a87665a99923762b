"""Start the harness (`boot`) and load scripted modules as Slicer's module factory does (`load_module`)."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
import tempfile
import types
from pathlib import Path

import slicer

MODULE_LOGICS = {
    "volumes": "vtkSlicerVolumesLogic",
    "segmentations": "vtkSlicerSegmentationsModuleLogic",
    "markups": "vtkSlicerMarkupsLogic",
    "models": "vtkSlicerModelsLogic",
    "tables": "vtkSlicerTablesLogic",
    "plots": "vtkSlicerPlotsLogic",
    "transforms": "vtkSlicerTransformLogic",
    "volumerendering": "vtkSlicerVolumeRenderingLogic",
    "subjecthierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "sequences": "vtkSlicerSequencesLogic",
    "texts": "vtkSlicerTextsLogic",
    "cropvolume": "vtkSlicerCropVolumeLogic",
    "units": "vtkSlicerUnitsLogic",
}

_kept_alive: list = []


def boot(python_layer: str | None = None):
    """Make `slicer.mrmlScene`, `slicer.app`, `slicer.modules`, `qt` and `ctk`; returns `slicer.app`.

    `python_layer` is the folder `Base/Python/slicer` of Slicer's sources; without it the fallback `pylayer` is used.
    """
    if getattr(slicer, "mrmlScene", None) is not None:
        return slicer.app
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    from .qtmodules import install

    install()
    qt_application = _start_qt()
    from . import widgets_ctk, widgets_mrml  # noqa: F401  (they register their stand-ins)
    from .application import Application

    widgets_mrml.install_in_slicer()
    scene, logic = _make_scene()
    slicer.mrmlScene = scene
    slicer.modules = sys.modules.setdefault("slicer.modules", types.ModuleType("slicer.modules"))
    slicer.app = Application(logic, qt_application)
    _make_module_logics(scene, logic)
    slicer.__path__.append(python_layer or str(Path(__file__).with_name("pylayer")))
    return slicer.app


def _make_constants_immortal() -> None:
    """Before Python 3.12, PySide6 6.12 gives away a reference to None or True with every call that returns it, until
    Python aborts. Since 3.12 these are immortal by themselves; here they get more references than tests can lose.
    """
    if sys.version_info < (3, 12):
        for constant in (None, True, False, *range(-5, 257)):
            ctypes.c_ssize_t.from_address(id(constant)).value += 1 << 40


def _start_qt():
    _make_constants_immortal()
    from PySide6 import QtCore, QtWidgets

    application = QtWidgets.QApplication.instance() or QtWidgets.QApplication([])
    QtCore.QCoreApplication.setOrganizationName("harness")
    QtCore.QCoreApplication.setApplicationName("harness")
    settings = tempfile.mkdtemp(prefix="harness-settings-")
    QtCore.QSettings.setDefaultFormat(QtCore.QSettings.IniFormat)
    QtCore.QSettings.setPath(QtCore.QSettings.IniFormat, QtCore.QSettings.UserScope, settings)
    return application


def _make_scene():
    scene = slicer.vtkMRMLScene()
    logic = slicer.vtkSlicerApplicationLogic()
    logic.SetMRMLScene(scene)
    colours = logic.GetColorLogic()
    colours.SetMRMLScene(scene)
    colours.AddDefaultColorNodes()  # without them the Volumes logic complains
    logic.SetModuleLogic("Colors", colours)
    remote = slicer.vtkMRMLRemoteIOLogic()  # reading .mrb needs both
    data = slicer.vtkDataIOManagerLogic()
    for one in (remote, data):
        one.SetMRMLScene(scene)
        one.SetMRMLApplicationLogic(logic)
    remote.GetCacheManager().SetRemoteCacheDirectory(tempfile.mkdtemp(prefix="harness-cache-"))
    data.SetAndObserveDataIOManager(remote.GetDataIOManager())
    remote.AddDataIOToScene()
    # What the logic of Slicer's subject-hierarchy plugins does: an imported hierarchy comes as a second node.
    resolve = slicer.vtkMRMLSubjectHierarchyNode.ResolveSubjectHierarchy
    scene.AddObserver(scene.EndImportEvent, lambda *_: resolve(scene), 1.0)
    _kept_alive.extend((scene, logic, remote, data))
    return scene, logic


def _make_module_logics(scene, application_logic) -> None:
    from .application import Module

    for name, class_name in MODULE_LOGICS.items():
        logic = getattr(slicer, class_name)()
        logic.SetMRMLScene(scene)
        logic.SetMRMLApplicationLogic(application_logic)
        application_logic.SetModuleLogic(name.capitalize(), logic)
        setattr(slicer.modules, name, Module(name, logic))


def load_module(path: str | Path):
    """Load a scripted module file and show its widget; returns (Python module, module object, widget object)."""
    from .application import Module

    path = Path(path)
    name = path.stem
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    python_module = importlib.util.module_from_spec(spec)
    sys.modules[name] = python_module
    spec.loader.exec_module(python_module)
    description = types.SimpleNamespace(path=str(path), name=name, icon=None)
    instance = getattr(python_module, name)(description)
    setattr(slicer.modules, name + "Instance", instance)
    holder = _holder(name)
    setattr(slicer.modules, name.lower(), Module(name, None, str(path), holder))
    widget = holder.reload()
    widget.enter()
    return python_module, instance, widget


def _holder(name: str):
    """What qSlicerScriptedLoadableModuleWidget is to a module: the parent of its panel, which can make it anew."""
    import qt

    class Holder(slicer.qMRMLWidget):
        def reload(self):
            """Make the panel from the module's Python file as it is loaded now; Slicer does not `enter` it again."""
            widget = getattr(sys.modules[name], name + "Widget")(self)
            setattr(slicer.modules, name + "Widget", widget)
            widget.setup()
            return widget

    holder = Holder()
    holder.setLayout(qt.QVBoxLayout())
    holder.setMRMLScene(slicer.mrmlScene)
    return holder

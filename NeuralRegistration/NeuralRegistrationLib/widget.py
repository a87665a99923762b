"""The panel: binds the .ui to the parameter node, owns every dialog and every message."""

from __future__ import annotations

import sys

import ctk  # noqa: F401  (registers the ctk widgets that the .ui names)
import qt
import slicer
import vtk
from neuralreg.job import RegistrationError
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleWidget
from slicer.util import VTKObservationMixin

from . import options
from .logic import NeuralRegistrationLogic
from .parameters import OUTPUTS
from .request import Request, check
from .results import Run
from .scene_load import CREATE, SKIP, Outputs, interpolate_all_like_itk
from .theme import paint_text
from .widget_apply import ApplySection
from .widget_batch import BatchSection
from .widget_inputs import InputsSection
from .widget_look import LookSection
from .widget_method import MethodSection
from .widget_models import ModelsSection
from .widget_run import RunSection
from .widget_trust import TrustSection

KEEP_BYTES = 2 << 30  # files of earlier results, so that they can be measured and compared: some ten brains at 1 mm

SECTIONS = (
    MethodSection,
    InputsSection,
    RunSection,
    LookSection,
    TrustSection,
    ApplySection,
    BatchSection,
    ModelsSection,
)


class NeuralRegistrationWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The life of the panel; what happens inside it is in the sections (widget_*.py)."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self.parameters = None
        self.sections = []
        self.selectors = []
        self._guiTag = None
        self._shown = True
        self._refreshing = False
        self._later = qt.QTimer()
        self._later.setSingleShot(True)
        self._later.connect("timeout()", self.refresh)
        self.say = self.showMessage  # every message goes through here
        self.ask = slicer.util.confirmYesNoDisplay  # every question goes through here

    def setup(self) -> None:
        ScriptedLoadableModuleWidget.setup(self)
        try:
            self._build()
        except Exception as error:  # whatever it is: an empty panel would say nothing
            self._closeParts()
            label = qt.QLabel(_("The panel of Neural Registration could not be built: {reason}").format(reason=error))
            label.wordWrap = True
            self.layout.addWidget(label)
            raise

    def _build(self) -> None:
        panel = slicer.util.loadUI(self.resourcePath("UI/NeuralRegistration.ui"))
        self.layout.addWidget(panel)
        self.ui = slicer.util.childWidgetVariables(panel)
        panel.setMRMLScene(slicer.mrmlScene)
        self.selectors = [w for w in vars(self.ui).values() if type(w) is slicer.qMRMLNodeComboBox]
        for selector in self.selectors:
            selector.connect("nodeActivated(vtkMRMLNode*)", lambda node, selector=selector: self.onChosen(selector))
        self.logic = NeuralRegistrationLogic()
        self.logic.folders.keepBytes = KEEP_BYTES
        for section in SECTIONS:
            self.sections.append(section(self))
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(scene, scene.StartImportEvent, self.onSceneStartImport)
        self.addObserver(scene, scene.EndImportEvent, self.onSceneEndImport)
        self.addObserver(scene, scene.NodeAboutToBeRemovedEvent, self.onNodeAboutToBeRemoved)
        self.addObserver(scene, scene.NodeRemovedEvent, self.onSceneChanged)
        interpolate_all_like_itk()  # the scene may have been opened before the panel
        self.initializeParameterNode()

    def cleanup(self) -> None:
        """The panel is destroyed (Slicer ends, or the module is reloaded): nothing may stay behind."""
        if self._later is not None:
            self._later.stop()
            self._later.disconnect("timeout()", self.refresh)
            self._later = None
        self._closeParts()

    def _closeParts(self) -> None:
        """Close what was built; after that `logic` is None and nothing happens in the panel any more."""
        self.setParameterNode(None)
        self.removeObservers()
        sections, self.sections = self.sections, []
        for section in sections:
            if hasattr(section, "close"):
                section.close()
        if self.logic is not None:
            self.logic.close()
        self.logic = None

    def enter(self) -> None:
        self._shown = True
        self.initializeParameterNode()

    def exit(self) -> None:
        """Another module is shown: a run goes on, but an idle worker gives its memory back."""
        self._shown = False
        for section in self.sections:
            section.leave()
        if self.logic is not None and not self.logic.running:
            self.logic.worker.kill()
        self.setParameterNode(None)

    def onSceneStartClose(self, caller, event) -> None:
        self.setParameterNode(None)
        if self.logic is not None:
            self.logic.folders.drop()

    def onSceneEndClose(self, caller, event) -> None:
        """`enter` is not called again when the scene is closed while the panel is shown."""
        if self._shown:
            self.initializeParameterNode()

    def onSceneStartImport(self, caller, event) -> None:
        """The settings of the scene that comes overwrite the present ones; it may be of another version."""
        self.setParameterNode(None)

    def onSceneEndImport(self, caller, event) -> None:
        interpolate_all_like_itk()
        if self._shown:
            self.initializeParameterNode()
            self._later.start()  # for what comes behind the parameters

    def onSceneChanged(self, caller, event) -> None:
        if self._shown and not slicer.mrmlScene.IsBatchProcessing() and not slicer.mrmlScene.IsClosing():
            if self.parameters is None:
                self.initializeParameterNode()
            self._later.start()  # once for many nodes

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def onNodeAboutToBeRemoved(self, caller, event, node) -> None:
        """Empty the selectors of a node that goes; they hear of it later, and would choose its neighbour."""
        for selector in self.selectors:
            if selector.currentNode() is node:
                selector.setCurrentNode(None)

    def onChosen(self, selector) -> None:
        """Take what the user has clicked on: on Qt 6 the binding hears nothing of a node of the same name."""
        name = selector.property("SlicerParameterName")
        if name and self.parameters is not None:
            setattr(self.parameters, name, selector.currentNode())

    def onReload(self) -> None:
        """Reload the whole package, not only the module's file (developer mode)."""
        for name in [n for n in sys.modules if n.split(".")[0] in ("NeuralRegistrationLib", "neuralreg")]:
            del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)

    def initializeParameterNode(self) -> None:
        if self.logic is not None:  # None when the panel could not be built
            self.setParameterNode(self.logic.getParameterNode())

    def setParameterNode(self, node) -> None:
        if self.parameters is not None:
            self.parameters.disconnectGui(self._guiTag)
            self.removeObserver(self.parameters.parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParametersChanged)
        self.parameters = node
        if node is not None:
            self._guiTag = node.connectGui(self.ui)
            self.addObserver(node.parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParametersChanged)
            self.refresh()

    def onParametersChanged(self, caller=None, event=None) -> None:
        self.refresh()

    def refresh(self) -> None:
        """Bring every section up to date."""
        if self.parameters is None or self._refreshing:
            return
        self._refreshing = True  # a section that writes a parameter must not start this again
        try:
            for section in self.sections:
                section.refresh()
        finally:
            self._refreshing = False

    def request(self) -> Request:
        """What the panel asks for. Raises RegistrationError when that cannot be run."""
        if self.parameters is None:
            raise RegistrationError(_("The scene is being closed; try again."))
        request = self.requestFor(self.parameters.movingVolume)
        check(request)
        return request

    def requestFor(self, moving) -> Request:
        """The settings of the panel for a moving volume, not checked. Raises RegistrationError for a refused option."""
        node = self.parameters
        refused = next(iter(self.section(MethodSection).refused.values()), "")
        if refused:  # what stands in the field is not what a run would take
            raise RegistrationError(refused)
        return Request(
            node.fixedVolume, moving, node.fixedMask, node.movingMask, node.initialTransform,
            node.fixedLandmarks, node.movingLandmarks,
            centre=node.centre, method=node.method, preset=node.preset.value, similarity=node.contrast.value,
            affine=node.linear.value, device=node.device.value, seed=node.seed,
            options=options.chosen(node.options, node.method), outputs=outputs_of(node),
        )  # fmt: skip

    def section(self, kind: type):
        """The part of the panel that is of a class."""
        return next(section for section in self.sections if isinstance(section, kind))

    def runSection(self) -> RunSection:
        return self.section(RunSection)

    def problem(self) -> str:
        """Why Apply cannot be clicked, or nothing."""
        try:
            self.request()
        except RegistrationError as error:
            return str(error)
        return ""

    def run(self) -> Run | None:
        """The run chosen in the panel."""
        return self.section(LookSection).chosen()

    def showMessage(self, text: str, kind: str = "info") -> None:
        """Show a sentence in the panel, and in Slicer's status bar while another module is shown; kind: info, good,
        warning or error."""
        self.ui.statusLabel.text = text
        self.ui.statusLabel.toolTip = text
        self.ui.statusLabel.visible = bool(text)
        paint_text(self.ui.statusLabel, kind)
        if not self._shown:
            told = _("Neural Registration: {message}").format(message=text) if text else ""
            slicer.util.showStatusMessage(told)


def outputs_of(node) -> Outputs:
    """The wanted outputs of a parameter node."""
    chosen = {}
    for name in OUTPUTS:
        wanted, existing = getattr(node, f"want{name}"), getattr(node, f"output{name}")
        chosen[name.lower()] = (existing or CREATE) if wanted else SKIP
    return Outputs(**chosen)

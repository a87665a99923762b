"""The page's state and actions: what is loaded, what is said; runs and views have files of their own.

The state lives in the server (trame sends it to every browser that comes), so that a reload changes nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import slicer
from neuralreg.job import REPORT, TRANSFORM, WARPED, RegistrationError
from NeuralRegistrationLib import look, results
from NeuralRegistrationLib.logic import NeuralRegistrationLogic
from NeuralRegistrationLib.scene import volumes_overlap

from .page_evidence import EvidencePart
from .page_look import LookPart
from .page_request import RequestPart
from .page_run import RunPart
from .volumes import Reader, is_run

SCENE = "scene.mrb"
#: kind of node → where a new one is put before the first run, and after it
OPTIONAL = {
    "vtkMRMLLabelMapVolumeNode": (),
    "vtkMRMLMarkupsNode": ("fixed_points", "moving_points"),
    "vtkMRMLTransformNode": ("initial_transform",),
}
EVIDENCE = {
    "vtkMRMLLabelMapVolumeNode": ("fixed_structures", "moving_structures"),
    "vtkMRMLMarkupsNode": ("fixed_evidence", "moving_evidence"),
}
VIEW_FROM = (35, 25)  # degrees beside and above the front, so that the 3D view shows all three slices


class Page:
    """One scene, one registration at a time, shown to whoever has the address.

    `views` are trame-slicer's; `paths` says whether files of this computer may be named in the page.
    """

    def __init__(self, state: Any, views: Any, folder: Path, paths: bool = True):
        self.state, self.folder = state, folder
        self._views, self._paths = views, paths
        self.logic = NeuralRegistrationLogic()
        self.reader = Reader(folder)
        self.folders: dict[str, Path] = {}  # run directories by the ID of the run's table
        state.update({"trame__title": "Neural Registration", "volumes": [], "label_maps": [], "points": [],
                      "transforms": [], "fixed": None, "moving": None, "uploading": "", "reading": "", "apart": False,
                      "message": "", "message_kind": "info", "paths": paths, "path": ""})  # fmt: skip
        state.client_only("uploading")  # a window that is closed meanwhile would leave it standing for all others
        self.asking = RequestPart(self)
        self.running = RunPart(self)
        self.looking = LookPart(self)
        self.proving = EvidencePart(self)
        state.change("fixed", "moving")(self.on_pair)

    def say(self, text: str, kind: str = "info") -> None:
        """Show one sentence; kind: info, success, warning or error. Private paths are no business of the reader."""
        with self.state as state:
            state.message, state.message_kind = text.replace(f"{self.folder}/", ""), kind

    def told(self, action: Callable[..., None]) -> Callable[..., None]:
        """An action of a button whose RegistrationError becomes the page's message."""

        @functools.wraps(action)
        def guarded(*arguments: Any) -> None:
            try:
                action(*arguments)
            except RegistrationError as error:
                self.say(str(error), "error")

        return guarded

    def render(self) -> None:
        """Draw all views anew, as nodes that changed do not always say so."""
        for view in self._views.get_views():
            view.schedule_render()

    def fit(self) -> None:
        """Show whole volumes, and the three slices in the 3D view."""
        for view in self._views.get_slice_views():
            view.fit_view_to_content()
            view.set_visible_in_3d(True)
        for view in self._views.get_threed_views():
            view.reset_view()
            camera = view.renderer().GetActiveCamera()
            camera.Azimuth(VIEW_FROM[0])
            camera.Elevation(VIEW_FROM[1])
            view.renderer().ResetCameraClippingRange()
        self.render()

    async def open(self, sources: list[Path], hidden: Path | None = None) -> None:
        """Load volumes and folders of finished runs; a failure is said in the page. `hidden`: not to be named."""
        if not sources:
            return
        with self.state as state:
            state.reading, state.message = "Reading " + ", ".join(source.name for source in sources), ""
        try:
            runs = [source for source in sources if is_run(source)]
            files = [source for source in sources if source not in runs]
            nodes = await self.reader.nodes(files) if files else []
            loaded = [await self.reader.run(run) for run in runs]
        except (RegistrationError, OSError) as error:
            self.say(str(error).replace(f"{hidden}/", ""), "error")
            return
        finally:
            with self.state as state:
                state.reading = ""
        self._choose(nodes)
        for run, folder in loaded:
            self.folders[run.table.GetID()] = folder
            self.choose_pair(run.fixed, run.moving)
            self.looking.show(run)

    async def open_path(self, typed: str) -> None:
        """Load what was typed into the page: a file or folder of this computer."""
        typed = typed.strip().strip("\"'")  # as some file managers copy it
        if not typed or not self._paths or self.state.reading or self.state.running:
            return
        path = _found(typed)
        if path is None:
            self.say(f"There is no file or folder {typed}; check the path.", "error")
            return
        with self.state as state:
            state.path = ""
        await self.open([path])

    def _choose(self, nodes: list) -> None:
        """Put what is new where nothing was chosen yet; which label map is which mask, the user knows.

        Label maps and points that come after a run are evidence for it.
        """
        with self.state as state:
            self.refresh_volumes()
            for node in nodes:
                given = next((kind for kind in OPTIONAL if node.IsA(kind)), None)
                if given is None:
                    self._put(node, "fixed", "moving")
                elif state.run and EVIDENCE.get(given):
                    state.evidence_open = True
                    self._put(node, *EVIDENCE[given])
                else:
                    state.optional_open = True
                    self._put(node, *OPTIONAL[given])

    def _put(self, node: Any, *roles: str) -> None:
        free = next((role for role in roles if self.state[role] is None), None)
        if free:
            self.state[free] = node.GetID()

    def choose_pair(self, fixed: Any, moving: Any) -> None:
        with self.state as state:
            self.refresh_volumes()
            state.fixed, state.moving = fixed.GetID(), moving.GetID()
            state.flush()  # the views show the pair now, not after what comes next

    def refresh_volumes(self) -> None:
        """What can be chosen: volumes that no run has made, points, and every transform."""
        made = {node.GetID() for run in results.runs() for node in (*run.outputs(), *look.maps(run))}
        nodes = [
            node
            for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
            if node.GetID() not in made and not node.GetHideFromEditors()
        ]
        self.state.volumes = _items(nodes)
        self.state.label_maps = _items(node for node in nodes if node.IsA("vtkMRMLLabelMapVolumeNode"))
        self.state.points = _items(slicer.util.getNodesByClass("vtkMRMLMarkupsFiducialNode"))
        transforms = slicer.util.getNodesByClass("vtkMRMLTransformNode")
        self.state.transforms = _items(node for node in transforms if not node.GetHideFromEditors())

    def chosen(self, *roles: str) -> tuple:
        """The chosen nodes; None where there is none."""
        return tuple(slicer.mrmlScene.GetNodeByID(self.state[role]) if self.state[role] else None for role in roles)

    def pair(self) -> tuple[Any, Any]:
        """The chosen fixed and moving volume; None where there is none."""
        return self.chosen("fixed", "moving")

    def on_pair(self, **_: Any) -> None:
        fixed, moving = self.pair()
        self.state.apart = False
        if fixed is None:
            return
        look.overlay(fixed, moving, self.state.blend if moving is not None else 0.0)
        self.asking.show_points(moving_too=True)
        self.fit()
        if moving is not None:
            self.state.apart = not volumes_overlap(fixed, moving)
            self.running.warm()

    async def file(self, what: str) -> Path:
        """A file to download: transform, warped or report of the chosen run, or the scene. Raises RegistrationError."""
        if what == "scene":
            return self._save_scene()
        folder = self.folders.get(self.state.run)
        names = {"transform": TRANSFORM, "warped": WARPED, "report": REPORT}
        if folder is None or what not in names:
            raise RegistrationError("There is no such file yet; register a pair first.")
        path = folder / names[what]
        if what == "report" and not path.exists():
            await self.running.write_report(folder)
        return path

    def _save_scene(self) -> Path:
        path = self.folder / SCENE
        path.unlink(missing_ok=True)
        slicer.mrmlScene.SetURL(str(path))
        slicer.mrmlScene.SetRootDirectory(str(self.folder))
        if not slicer.mrmlScene.WriteToMRB(str(path)):
            raise RegistrationError("The scene could not be written; check the free space of the temporary folder.")
        return path

    def close(self) -> None:
        """End every process."""
        self.reader.close()
        self.proving.close()
        self.running.close()
        self.logic.close()


def _found(typed: str) -> Path | None:
    """The file or folder of that name, if there is one that may be seen."""
    try:
        path = Path(typed).expanduser().absolute()
        return path if path.exists() else None
    except (OSError, RuntimeError, ValueError):  # a folder that is closed, a user ~who is not known, no name at all
        return None


def _items(nodes: Iterable) -> list[dict[str, str]]:
    """Nodes as a list to choose from shows them."""
    return [{"title": node.GetName(), "value": node.GetID()} for node in nodes]

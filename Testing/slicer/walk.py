"""Random walks over the panel with real registrations: whatever is clicked, chosen, moved, deleted, saved and opened.

    WALKS=10 STEPS=300 pytest -rP Testing/slicer/walk.py

Not one of the tests by its name: it takes minutes, and what runs beside the clicks makes no two walks the same. After
every step the panel is compared with its parameters and the scene; a slot that raises, a message that shows the insides
of the program, and an error in Slicer's log end a walk, and its last steps are printed.
"""

from __future__ import annotations

import json
import logging
import os
import random
import re
from pathlib import Path

import pytest
import slicer
import vtk
from clicks import idle
from fakerun import GRIDS, add_volume
from NeuralRegistrationLib import look
from NeuralRegistrationLib.results import hierarchy, runs
from NeuralRegistrationLib.widget_trust import TrustSection

WALKS, STEPS = int(os.environ.get("WALKS", "3")), int(os.environ.get("STEPS", "200"))
INSIDES = re.compile(r"Traceback|Error:|NoneType|vtkMRML|has no attribute|/NeuralRegistration-")
# As VTK, ITK and Python write them; not of the subject hierarchy, whose items nobody removes with their nodes here, as
# Slicer's window does.
ERRORS = re.compile(r".*(?:ERR\||ERROR|Traceback)(?!.*vtkMRMLSubjectHierarchyNode).*")
SAYING = ("statusLabel", "hintLabel", "verdictLabel", "runNotesLabel", "noteLabel", "overlapLabel", "landmarksLabel",
          "estimateLabel", "applyHintLabel", "stageLabel", "timeLabel")  # fmt: skip
LOOKS = ("beforeButton", "flickerButton", "checkerButton", "sideButton", "gridButton", "jacobianButton",
         "displacementButton", "resetButton")  # fmt: skip
KINDS = ("ScalarVolume", "LinearTransform", "Transform", "GridTransform", "MarkupsFiducial", "MarkupsLine",
         "MarkupsROI", "Model", "Segmentation", "LabelMapVolume", "VectorVolume", "Sequence", "Table")  # fmt: skip
NAMES = ("scan", "Ärzte", "{name}", "%s <b>bold</b>", "x" * 90)
FEW = {"fast": [3, 2], "balanced": [3, 2, 1], "best": [2, 2, 2, 2]}  # iterations
TYPED = ("", "1", "-3", "abc", "2 1", "0.5", "nan", "1e9", "4, 2, 1")


def nodes(kind: str) -> list:
    return [n for n in slicer.util.getNodesByClass(f"vtkMRML{kind}Node") if not n.GetHideFromEditors()]


class Walk:
    """Each method is a kind of step; it returns what it did."""

    OFTEN = {"select": 8, "click": 10, "register": 10, "settings": 8, "pause": 8, "parent": 4, "delete": 3, "pair": 3}
    STEPS = ("select", "pair", "click", "register", "settings", "pause", "image", "empty", "points", "parent", "linear",
             "harden", "rename", "delete", "folder", "check", "typing", "leave", "save", "reopen")  # fmt: skip

    def __init__(self, panel, seed: int, place: Path):
        self.panel, self.ui, self.place = panel, panel.ui, place
        self.random, self.done, self.saved = random.Random(seed), [], []
        for section in self._widgets("ctkCollapsibleButton"):
            section.collapsed = False
        panel.section(TrustSection).chooseFile = lambda title, name, kinds: str(place / name)
        panel.ask = lambda *question, **more: False

    def step(self) -> None:
        name = self.random.choices(self.STEPS, [self.OFTEN.get(name, 2) for name in self.STEPS])[0]
        self.done.append(name)
        self.done[-1] = name, getattr(self, name)()
        idle(self.random.choice((0, 0.01, 0.1)))

    def _one(self, candidates):
        return self.random.choice(list(candidates)) if candidates else None

    def _widgets(self, *kinds: str) -> list:
        found = [w for w in vars(self.ui).values() if type(w).__name__ in kinds]
        return [w for w in found if w.enabled and not w.isHidden()]

    def image(self):
        shift = [self.random.uniform(-4, 4) for _axis in range(3)]
        grid = GRIDS[self._one(GRIDS)]
        return add_volume(self._one(NAMES), grid, shift, label=self.random.random() < 0.25).GetName()

    def empty(self):
        kind = self._one(KINDS)
        slicer.mrmlScene.AddNewNodeByClass(f"vtkMRML{kind}Node", f"empty {kind}")
        return kind

    def points(self):
        markups = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "points")
        for index in range(self.random.randrange(1, 6)):
            place = [self.random.uniform(-12, 12) for _axis in range(3)]
            markups.AddControlPoint(vtk.vtkVector3d(*place), f"P-{index}")
        if self.random.random() < 0.3:
            markups.UnsetNthControlPointPosition(0)

    def linear(self):
        transform, matrix = self._one(nodes("LinearTransform")), vtk.vtkMatrix4x4()
        if transform is not None:
            for axis in range(3):
                matrix.SetElement(axis, 3, self.random.uniform(-6, 6))
            matrix.SetElement(0, 0, self._one((1, 1, 1, 2, 0, -1)))
            transform.SetMatrixTransformToParent(matrix)

    def parent(self):
        child = self._one([n for n in nodes("Transformable") if not n.IsA("vtkMRMLTransformNode")])
        transform = self._one([None, *nodes("Transform")])
        if child is not None:
            child.SetAndObserveTransformNodeID(transform.GetID() if transform is not None else None)
            return child.GetName(), transform and transform.GetName()

    def harden(self):
        moved = [n for n in nodes("Transformable") if n.GetParentTransformNode() and not n.IsA("vtkMRMLTransformNode")]
        if moved:
            self._one(moved).HardenTransform()

    def rename(self):
        node = self._one(nodes("Storable"))
        if node is not None:
            node.SetName(self._one(NAMES))

    def delete(self):
        node = self._one(nodes("Storable"))
        if node is not None:
            slicer.mrmlScene.RemoveNode(node)
            return node.GetName(), node.GetClassName()

    def folder(self):
        """Make one with two nodes in it, or delete one with all that it holds."""
        tree, found = hierarchy(), vtk.vtkIdList()
        tree.GetItemChildren(tree.GetSceneItemID(), found, True)
        items = [found.GetId(index) for index in range(found.GetNumberOfIds())]
        made = self._one([item for item in items if tree.GetItemLevel(item) == "Folder"])
        if made is not None and self.random.random() < 0.3:
            tree.RemoveItem(made, True, True)
            return "removed"
        made = tree.CreateFolderItem(tree.GetSceneItemID(), self._one(NAMES))
        for node in (self._one(nodes("Transformable")) for _ in range(2)):
            if node is not None:
                tree.SetItemParent(tree.GetItemByDataNode(node), made)

    def select(self):
        selector = self._one(self.panel.selectors)
        node = self._one([None, *(selector.nodeFromIndex(index) for index in range(selector.nodeCount()))])
        self._choose(selector, node)
        return selector.name, node and node.GetName()

    def _choose(self, selector, node) -> None:
        selector.setCurrentNode(node)
        self.panel.onChosen(selector)  # as a click

    def pair(self):
        """Two images, and nothing else, so that a registration can begin."""
        images = [n for n in nodes("ScalarVolume") if n.GetImageData() is not None]
        if len(images) > 1 and not self.panel.logic.running:
            for selector in self.panel.selectors:
                self._choose(selector, None)
            fixed, moving = self.random.sample(images, 2)
            self._choose(self.ui.fixedSelector, fixed)
            self._choose(self.ui.movingSelector, moving)

    def register(self):
        if self.panel.logic.running or not self.panel.parameters:
            return None
        if self.panel.problem():
            self.pair()
        self.panel.parameters.options = json.dumps({"DNVF": {"iterations": FEW[self.panel.parameters.preset.value]}})
        self.ui.applyButton.click()
        return "started" if self.panel.logic.running else self.ui.hintLabel.text

    def click(self):
        looks = [getattr(self.ui, name) for name in LOOKS if getattr(self.ui, name).enabled]
        button = self._one(looks if looks and self.random.random() < 0.5 else self._widgets("QPushButton"))
        if button is not None and button.name != "installButton":
            button.click()
            return button.name

    def settings(self):
        widget = self._one(self._widgets("QCheckBox", "QComboBox", "ctkSliderWidget"))
        if widget is None:
            return None
        if type(widget).__name__ == "QCheckBox":
            widget.click()
        elif type(widget).__name__ == "QComboBox":
            widget.setCurrentIndex(self.random.randrange(max(widget.count, 1)))
        else:
            widget.value = self.random.random()
        return widget.name

    def check(self):
        box = self._one((self.ui.applySelector, self.ui.batchSelector))
        for index in range(box.nodeCount()):
            box.setCheckState(box.nodeFromIndex(index), self._one((0, 0, 2)))

    def typing(self):
        section = next(section for section in self.panel.sections if hasattr(section, "editors"))
        name = self._one([n for n, editor in section.editors.items() if type(editor).__name__ == "QLineEdit"])
        if name is not None and not self.panel.logic.running:
            text = self._one(TYPED)
            section.editors[name].text = text
            section.change(name, text)
            return name, text

    def pause(self):
        idle(self.random.random())

    def leave(self):
        """Another module is shown for a while, and things happen there."""
        self.panel.exit()
        idle(0.1)
        self._one((self.image, self.delete, self.rename))()
        self.panel.enter()

    def save(self):
        path = self.place / f"{len(self.saved)}.mrb"
        if slicer.util.saveScene(str(path)):
            self.saved.append(path)

    def reopen(self):
        """Open a saved scene in place of this one or beside it, or close this one."""
        way = self._one(("close", "replace", "beside")) if self.saved else "close"
        if way != "beside":
            slicer.mrmlScene.Clear(0)
        if way != "close":
            slicer.util.loadScene(str(self._one(self.saved)), {"clear": way == "replace"})
        return way


def check(panel) -> None:
    """What holds after every step."""
    ui, parameters = panel.ui, panel.parameters
    for selector in panel.selectors:
        name = selector.property("SlicerParameterName")
        if name:
            chosen = getattr(parameters, name)
            assert selector.currentNode() is chosen, name
            assert chosen is None or chosen.GetScene() is slicer.mrmlScene, f"{name} is gone"
    assert ui.applyButton.isHidden() == panel.logic.running == (not ui.cancelButton.isHidden())
    if not panel.logic.running:
        panel.refresh()  # nobody tells the panel of a new parent or name
        assert ui.hintLabel.text == panel.problem() and ui.applyButton.enabled == (not panel.problem())
    run = panel.run()
    for name in SAYING:
        assert not INSIDES.search(getattr(ui, name).text), (name, getattr(ui, name).text)
    assert ui.runComboBox.count == len(runs())
    assert ui.gridButton.enabled == (run is not None and run.transform is not None)
    assert ui.moveButton.enabled == (run is not None)
    assert sum(getattr(ui, name).checked for name in ("beforeButton", "jacobianButton", "displacementButton")) < 2
    for view in look.slice_views():
        for shown in (view.GetBackgroundVolumeID(), view.GetForegroundVolumeID(), view.GetLabelVolumeID()):
            assert shown is None or slicer.mrmlScene.GetNodeByID(shown) is not None, f"{shown} is shown and gone"


@pytest.mark.parametrize("seed", range(WALKS))
def test_walk(module, seed, tmp_path, slot_errors, caplog, capfd, wait):
    caplog.set_level(logging.WARNING)
    walk = Walk(module, seed, tmp_path)
    try:
        for _ in range(STEPS):
            walk.step()
            idle(0.02)  # in which the panel hears of what has changed
            check(module)
            logged = [record.getMessage() for record in caplog.records] + ERRORS.findall("".join(capfd.readouterr()))
            assert not slot_errors and not logged, (slot_errors, logged)
        module.ui.cancelButton.click()
        wait(lambda: not module.logic.running)
        print(f"{walk.done.count(('register', 'started'))} registrations begun")
    except BaseException:
        with capfd.disabled():
            print("", f"seed {seed}, step {len(walk.done)}:", *walk.done[-25:], sep="\n    ")
        raise

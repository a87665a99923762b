"""Apply to more: whatever belongs to one of the volumes, moved in the right direction in one click."""

from __future__ import annotations

import slicer
from neuralreg.job import RegistrationError
from slicer.i18n import tr as _

from . import apply
from .results import hierarchy
from .section import Section, told

DIRECTIONS = (apply.TO_FIXED, apply.TO_MOVING)
TREE = slicer.vtkMRMLSubjectHierarchyNode
EVENTS = (
    TREE.SubjectHierarchyItemAddedEvent,
    TREE.SubjectHierarchyItemReparentedEvent,
    TREE.SubjectHierarchyItemRemovedEvent,
)


class ApplySection(Section):
    def __init__(self, panel):
        super().__init__(panel)
        self.ui.directionComboBox.addItems(
            [_("From moving space to the fixed volume"), _("From fixed space to the moving volume")]
        )
        self.ui.moveButton.connect("clicked()", self.onMove)
        self._folders: list[tuple[int, str]] = []
        self._tree = None

    def refresh(self) -> None:
        self._watch(hierarchy())
        self._folders = apply.folders()
        names = [_("No folder"), *[name for _item, name in self._folders]]
        box = self.ui.folderComboBox
        if [box.itemText(i) for i in range(box.count)] != names:
            box.clear()
            box.addItems(names)
        run = self.panel.run()
        self.ui.applyHintLabel.text = (
            _('Moves what belongs to one of the volumes along, by "{name}".').format(name=run.name)
            if run is not None
            else _("There is no registration yet; register first.")
        )
        self.ui.moveButton.enabled = run is not None

    def _watch(self, tree) -> None:
        """Hear of folders that are made, filled and removed. A closed scene has another tree afterwards."""
        if tree is self._tree:
            return
        for event in EVENTS:
            if self._tree is not None:
                self.panel.removeObserver(self._tree, event, self.panel.onSceneChanged)
            if tree is not None:
                self.panel.addObserver(tree, event, self.panel.onSceneChanged)
        self._tree = tree

    @told
    def onMove(self) -> None:
        run, direction = self.panel.run(), DIRECTIONS[self.ui.directionComboBox.currentIndex]
        if run is None:
            raise RegistrationError(_("There is no registration to apply; register first."))
        nodes = list(self.ui.applySelector.checkedNodes())
        index = self.ui.folderComboBox.currentIndex - 1
        if index >= 0:
            found = apply.to_move(self._folders[index][0], run, direction)
            nodes += [node for node in found if node not in nodes]
        apply.move(nodes, run, direction, self.ui.hardenCheckBox.checked)
        self.panel.say(_("{count} moved.").format(count=len(nodes)), "good")

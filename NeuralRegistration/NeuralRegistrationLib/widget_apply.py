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
        self._list_folders()
        run = self.panel.run()
        self.ui.applyHintLabel.text = (
            _('Moves what belongs to one of the volumes along, by "{name}".').format(name=run.name)
            if run is not None
            else _("There is no registration yet; register first.")
        )
        self.ui.moveButton.enabled = run is not None

    def _list_folders(self) -> None:
        """Fill the box; the chosen folder stays chosen as long as it is there."""
        box, before = self.ui.folderComboBox, self._chosen_folder()
        self._folders = apply.folders()
        names = [_("No folder"), *[name for _item, name in self._folders]]
        if [box.itemText(i) for i in range(box.count)] != names:
            box.clear()
            box.addItems(names)
        items = [item for item, _name in self._folders]
        box.setCurrentIndex(items.index(before) + 1 if before in items else 0)

    def _chosen_folder(self) -> int | None:
        """The item in the subject hierarchy, None for no folder."""
        index = self.ui.folderComboBox.currentIndex - 1
        return self._folders[index][0] if 0 <= index < len(self._folders) else None

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
        there = next((node for node in nodes if apply.is_there(node, run, direction)), None)
        if there is not None:
            raise RegistrationError(
                _('"{name}" lies there already and would be moved away; uncheck it.').format(name=there.GetName())
            )
        folder = self._chosen_folder()
        if folder is not None:
            found = apply.to_move(folder, run, direction)
            nodes += [node for node in found if node not in nodes]
        drawn = next((node for node in nodes if apply.drawn_there(node, run, direction)), None)
        apply.move(nodes, run, direction, self.ui.hardenCheckBox.checked)
        doubts = ""
        if drawn is not None:
            text = _(' "{name}" was drawn on the volume to which it was moved: was the other direction meant?')
            doubts += text.format(name=drawn.GetName())
        bent = next((node for node in nodes if apply.cannot_be_edited(node)), None)
        if bent is not None:
            text = _(
                ' Harden "{name}" before you edit it: under a deformation Segment Editor draws beside the pointer.'
            )
            doubts += text.format(name=bent.GetName())
        self.panel.say(_("{count} moved.").format(count=len(nodes)) + doubts, "warning" if doubts else "good")
        self.panel.refresh()

"""Apply to more: whatever belongs to one of the volumes, moved in the right direction in one click."""

from __future__ import annotations

from neuralreg.job import RegistrationError
from slicer.i18n import tr as _

from . import apply
from .section import Section, told

DIRECTIONS = (apply.TO_FIXED, apply.TO_MOVING)


class ApplySection(Section):
    def __init__(self, panel):
        super().__init__(panel)
        self.ui.directionComboBox.addItems(
            [_("From moving space to the fixed volume"), _("From fixed space to the moving volume")]
        )
        self.ui.moveButton.connect("clicked()", self.onMove)
        self._folders: list[tuple[int, str]] = []

    def refresh(self) -> None:
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

    @told
    def onMove(self) -> None:
        nodes = list(self.ui.applySelector.checkedNodes())
        index = self.ui.folderComboBox.currentIndex - 1
        if index >= 0:
            nodes += [node for node in apply.nodes_in(self._folders[index][0]) if node not in nodes]
        run = self.panel.run()
        if run is None:
            raise RegistrationError(_("There is no registration to apply; register first."))
        harden = self.ui.hardenCheckBox.checked
        apply.move(nodes, run, DIRECTIONS[self.ui.directionComboBox.currentIndex], harden)
        self.panel.say(_("{count} moved.").format(count=len(nodes)), "good")

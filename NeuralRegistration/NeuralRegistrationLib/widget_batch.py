"""Many pairs: a list of moving volumes, or a sequence, to one fixed volume."""

from __future__ import annotations

import qt
from neuralreg.job import RegistrationError
from slicer.i18n import tr as _

from . import batch
from .section import Section, fit_height, prepare_table, told
from .widget_look import LookSection

COLUMNS = (_("Moving volume"), _("Result"))


class BatchSection(Section):
    def __init__(self, panel):
        super().__init__(panel)
        self.batch: batch.Batch | None = None
        self._showsFirst = False  # there was nothing to look at when the batch began
        prepare_table(self.ui.batchTable, COLUMNS, stretched=0)
        self.ui.batchSection.connect("contentsCollapsed(bool)", self.onOpened)
        self.ui.batchButton.connect("clicked()", self.onStart)

    def refresh(self) -> None:
        self.ui.batchButton.enabled = not self.logic.running and (self.batch is None or not self.batch.running)

    def onOpened(self, collapsed=False) -> None:
        """A section that opens shows all that is in it: the table only once there is a batch."""
        self.ui.batchTable.visible = not collapsed and self.batch is not None

    @told
    def onStart(self) -> None:
        fixed = self.parameters.fixedVolume
        if fixed is None:
            raise RegistrationError(_("Choose the fixed volume above first."))
        chosen = [node for node in self.ui.batchSelector.checkedNodes() if node is not fixed]
        items = batch.items_of(chosen, self.ui.sequenceSelector.currentNode())
        runner = self.panel.runSection()
        request = self.panel.requestFor(items[0].node)
        self.batch = batch.Batch(
            items, request, lambda r, done: runner.start(r, _both(runner.finish, done)), self.onChanged
        )
        self._showsFirst = self.panel.run() is None
        self.show()
        self.onOpened()
        self.batch.next()

    def onChanged(self) -> None:
        self.show()
        if self._showsFirst and any(item.outcome is not None and item.outcome.run for item in self.batch.items):
            self._showsFirst, self.panel.section(LookSection).showsNewest = False, True
            self.panel.refresh()
        if not self.batch.running:
            if self.batch.request.fixed.GetScene() is not None:
                batch.summary_table(self.batch.items, self.batch.request.fixed)
            self.panel.say(self.batch.summary(), "good" if self.batch.complete else "warning")
            self.batch.release()
            self.panel.refresh()

    def show(self) -> None:
        self.ui.batchTable.setRowCount(len(self.batch.items))
        untried = _("waiting") if self.batch.running else _("not started")
        for index, item in enumerate(self.batch.items):
            row = item.row()
            for column in range(len(COLUMNS)):
                cell = qt.QTableWidgetItem(row[column] or untried)
                cell.setToolTip(row[2])
                self.ui.batchTable.setItem(index, column, cell)
        fit_height(self.ui.batchTable)

    def close(self) -> None:
        if self.batch is not None:
            self.batch.running = False


def _both(first, second):
    def call(outcome):
        first(outcome)
        second(outcome)

    return call

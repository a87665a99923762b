"""Models: which weights are installed, what they are for, and adding one from a file."""

from __future__ import annotations

from pathlib import Path

import qt
from neuralreg.job import RegistrationError
from slicer.i18n import tr as _

from . import models
from .section import Section, fit_height, prepare_table, told

COLUMNS = (_("Model"), _("For"))


class ModelsSection(Section):
    def __init__(self, panel):
        super().__init__(panel)
        prepare_table(self.ui.modelsTable, COLUMNS, stretched=1)
        self.ui.modelsTable.horizontalHeader().setSectionResizeMode(0, qt.QHeaderView.ResizeToContents)
        self.ui.addModelButton.connect("clicked()", self.onAdd)
        self.ui.modelsSection.connect("contentsCollapsed(bool)", self.show)
        self.show()

    def show(self, collapsed=False) -> None:
        installed = models.installed()
        self.ui.modelsLabel.text = (
            _("DNVF needs no trained weights.")
            if not installed
            else _(
                "Trained weights for VoxelMorph, FNOReg and Cas-DNVF; the fitting ones are taken unless Model under "
                "Advanced names others. Your own are in {folder}."
            ).format(folder=models.user_folder())
        )
        self.ui.modelsTable.visible = bool(installed)
        self.ui.modelsTable.setRowCount(len(installed))
        for index, model in enumerate(installed):
            for column, text in enumerate((model.name, model.purpose)):
                item = qt.QTableWidgetItem(text)
                item.setToolTip(model.purpose)
                self.ui.modelsTable.setItem(index, column, item)
        fit_height(self.ui.modelsTable)

    @told
    def onAdd(self) -> None:
        path = self.ui.modelPath.currentPath
        if not path:
            raise RegistrationError(_("Choose the file of a model first."))
        added = models.add(Path(path))
        self.panel.say(_("Added {name}; it is checked when it is first used.").format(name=added.name), "good")
        self.show()

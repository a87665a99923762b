"""Trust: the checks of a run as a table with lights, further evidence, and the ways out (CSV, HTML report)."""

from __future__ import annotations

import shutil
from pathlib import Path

import qt
from neuralreg import qa
from neuralreg.job import REPORT, RegistrationError
from slicer.i18n import tr as _

from . import evidence, theme, trust
from .moved import FIXED, MOVING, moved_by_hand
from .section import Section, fit_height, prepare_table, told
from .task import Task

NEEDS = {"evaluateButton": (FIXED,), "reportButton": (FIXED, MOVING)}  # the volumes beside a run's own files
GONE = _("The registration is no longer in the scene.")
COLUMNS = (_("Check"), _("Value"))


class TrustSection(Section):
    def __init__(self, panel):
        super().__init__(panel)
        self.task = Task()
        self.chooseFile = choose_file  # replaced in tests
        table = self.ui.trustTable
        prepare_table(table, COLUMNS, stretched=0)
        table.setSelectionMode(qt.QAbstractItemView.NoSelection)
        table.setWordWrap(True)
        table.horizontalHeader().setSectionResizeMode(1, qt.QHeaderView.ResizeToContents)
        self.ui.noteLabel.text = qa.NOTE
        self._tips = {name: getattr(self.ui, name).toolTip for name in ("evaluateButton", "reportButton")}
        self.ui.trustSection.connect("contentsCollapsed(bool)", self.onOpened)
        self.ui.evaluateButton.connect("clicked()", self.onEvaluate)
        self.ui.csvButton.connect("clicked()", self.onCsv)
        self.ui.reportButton.connect("clicked()", self.onReport)

    def refresh(self) -> None:
        run = self.panel.run()
        rows = trust.checks(run) if run is not None else []
        self.ui.verdictLabel.text = trust.summary(run) if run is not None else _("No result yet.")
        theme.paint_text(self.ui.verdictLabel, _KIND[qa.worst(rows)] if rows else "")
        self.ui.runNotesLabel.text = "\n".join(run.notes) if run is not None else ""
        self.ui.runNotesLabel.visible = bool(self.ui.runNotesLabel.text)
        theme.paint_text(self.ui.runNotesLabel, "warning")
        self.ui.trustTable.setRowCount(0)
        self.ui.trustTable.visible = run is not None
        for check in [*rows, *trust.figures(run)] if run is not None else []:
            self._add_row(check)
        fit_height(self.ui.trustTable)
        self.ui.csvButton.enabled = run is not None
        for name, tip in self._tips.items():
            button = getattr(self.ui, name)
            problem = self.logic.folders.problem(run, NEEDS[name]) if run is not None else _("There is no result yet.")
            button.enabled = not problem and not self.task.running
            button.toolTip = problem or tip

    def onOpened(self, collapsed=False) -> None:
        """Rows find their height only once the table has its width."""
        if not collapsed and self.parameters is not None:
            self.refresh()

    def _add_row(self, check: qa.Check) -> None:
        """A row with its light, or without one for a figure that has no rule."""
        table = self.ui.trustTable
        row = table.rowCount
        table.setRowCount(row + 1)
        text = check.value.replace(" (", "\n(").replace("; ", "\n")  # a wide column would cut the names down
        name, value = qt.QTableWidgetItem(check.name), qt.QTableWidgetItem(text)
        if check.light:
            name.setIcon(theme.light_icon(table, check.light))
        for column, item in enumerate((name, value)):
            item.setToolTip(check.rule)
            table.setItem(row, column, item)

    def _files(self, button: str) -> Path:
        """The directory of the chosen run, with what a button needs. Raises RegistrationError when it is gone."""
        run = self.panel.run()
        if run is None:
            raise RegistrationError(_("There is no result yet; register first."))
        return self.logic.folders.whole(run, NEEDS[button])

    @told
    def onEvaluate(self) -> None:
        run, ui = self.panel.run(), self.ui
        folder = self._files("evaluateButton")
        structures = ui.fixedStructuresSelector.currentNode(), ui.movingStructuresSelector.currentNode()
        points = ui.fixedLandmarksSelector.currentNode(), ui.movingLandmarksSelector.currentNode()
        arguments, names = evidence.command(run, folder, structures, points)
        asked = trust.segment_names(*structures)
        self.task.start(arguments, lambda problem: self.onEvaluated(run, folder, names, asked, problem))
        self.panel.say(_("Measuring…"))
        self.refresh()

    def onEvaluated(self, run, folder: Path, names: list[str], asked: list[str], problem: str) -> None:
        if problem:
            self.panel.say(_of_files(run, folder, problem), "error")
        elif run.table.GetScene() is None:
            self.panel.say(GONE, "warning")
        else:
            try:
                evidence.take_over(run, folder, names)
            except RegistrationError as error:
                self.panel.say(str(error), "error")
            else:
                doubts = f"{trust.left_out(run, asked)} {_elsewhere(run)}".strip()
                said = _("Measured; every figure is in the table of the run.")
                self.panel.say(f"{said} {doubts}".rstrip(), "warning" if doubts else "good")
        self.panel.refresh()

    @told
    def onCsv(self) -> None:
        run = self.panel.run()  # now: another may be finished and shown before the user has named a file
        path = self.chooseFile(_("Save the table"), "registration.csv", "CSV (*.csv)")
        if path:
            trust.write_csv(run, Path(path))
            self.panel.say(_("Saved as {path}.").format(path=path), "good")

    @told
    def onReport(self) -> None:
        run, folder = self.panel.run(), self._files("reportButton")
        path = self.chooseFile(_("Save the report"), REPORT, "HTML (*.html)")
        if not path:
            return
        command = ["report", str(folder), "--restore"]
        self.task.start(command, lambda problem: self.onReported(run, folder, Path(path), problem))
        self.panel.say(_("Writing the report…"))
        self.refresh()

    def onReported(self, run, folder: Path, path: Path, problem: str) -> None:
        try:
            if problem:
                problem = _of_files(run, folder, problem)
            else:
                shutil.copyfile(folder / REPORT, path)
        except OSError as error:
            problem = _("{path} cannot be written ({reason}); choose another place.").format(
                path=path, reason=error.strerror
            )
        self.panel.say(problem or _("Saved as {path}.").format(path=path), "error" if problem else "good")
        self.panel.refresh()

    def close(self) -> None:
        self.task.close()


def _elsewhere(run) -> str:
    """What to say where somebody has moved a volume: what was drawn on it may have gone along."""
    names = [getattr(run, side).GetName() for side in (FIXED, MOVING) if moved_by_hand(run, side)]
    return " ".join(
        _('"{name}" was moved since it was registered: the figures hold for what still lies where it lay then.').format(
            name=name
        )
        for name in names
    )


def _of_files(run, folder: Path, problem: str) -> str:
    """The sentence of a command that failed; another one where its files were taken away, with the scene or by the
    next registration."""
    if run.table.GetScene() is None:
        return GONE
    if folder.exists():
        return problem
    return _("That was not finished: a new registration has taken the place of the files. Try again when it is done.")


_KIND = {qa.GREEN: "good", qa.AMBER: "warning", qa.RED: "error"}


def choose_file(title: str, name: str, kinds: str) -> str:
    """Ask where to save; empty when the user changed their mind."""
    answer = qt.QFileDialog.getSaveFileName(None, title, name, kinds)
    return answer[0] if isinstance(answer, tuple) else answer  # PythonQt gives the name alone

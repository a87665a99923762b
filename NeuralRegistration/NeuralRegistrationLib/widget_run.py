"""Apply, progress, cancel, stop and keep, and the live preview."""

from __future__ import annotations

import qt
from neuralreg.job import Progress, RegistrationError
from slicer.i18n import tr as _

from . import estimate, look, theme
from .dependencies import torch_problem
from .logic import DONE, FAILED, Outcome
from .parameters import OUTPUTS
from .progress import LossCurve, RunProgress
from .results import reminder
from .section import Section, told
from .widget_look import LookSection

MARGIN = 4  # px around the curve


class ResizeWatch(qt.QWidget):
    """Calls `changed` when another widget gets a new size. Never shown: PythonQt wants a widget to filter events."""

    def __init__(self, watched, changed):
        qt.QWidget.__init__(self)
        self._watched, self._changed = watched, changed
        watched.installEventFilter(self)

    def eventFilter(self, watched, event):
        if event.type() == qt.QEvent.Resize and self._changed is not None:
            self._changed()
        return False

    def stop(self) -> None:
        """Look no longer."""
        self._watched.removeEventFilter(self)
        self._changed = None


class RunSection(Section):
    def __init__(self, panel):
        super().__init__(panel)
        self.progress = RunProgress()
        self._resized = ResizeWatch(self.ui.lossLabel, self.draw_curve)
        self.preview = None
        self.request = None
        self.ui.applyButton.connect("clicked()", self.onApply)
        self.ui.cancelButton.connect("clicked()", self.onCancel)
        self.ui.stopButton.connect("clicked()", self.onStop)
        self.ui.previewCheckBox.connect("toggled(bool)", self.onPreview)
        self.ui.progressWidget.visible = False
        self.ui.statusLabel.visible = False
        self._show_running(False)

    def refresh(self) -> None:
        if self.logic.running:
            return
        for name in OUTPUTS:
            getattr(self.ui, f"output{name}Selector").enabled = getattr(self.parameters, f"want{name}")
        problem = self.panel.problem()
        self.ui.applyButton.enabled = not problem
        self.ui.applyButton.toolTip = problem or _("Register the moving volume to the fixed one.")
        self.ui.hintLabel.text = problem
        self.ui.hintLabel.visible = bool(problem)
        if not problem and not torch_problem() and not self.logic.worker.trouble:
            self.logic.warm(onReady=self.panel.refresh)

    @told
    def onApply(self) -> None:
        self.start(self.panel.request(), self.onFinished)

    def start(self, request, finished) -> None:
        """Begin a run and show it. Raises RegistrationError when it cannot begin."""
        if problem := torch_problem():
            raise RegistrationError(problem)
        self.panel.say("")
        self.logic.start(request, self.onProgress, finished)
        self.request = request
        self.preview = look.Preview(request.fixed, request.moving)
        self.progress = RunProgress()
        self.ui.lossLabel.clear()
        self._show_progress()
        self._show_running(True)
        self.panel.refresh()

    def onCancel(self) -> None:
        self.logic.cancel()

    @told
    def onStop(self) -> None:
        self.logic.stopAndKeep()
        self.progress.stop()
        self.ui.stopButton.enabled = False
        self._show_progress()

    def onPreview(self, on) -> None:
        """Without preview the views are the user's again at once."""
        if not on and self.preview is not None:
            self.preview.end()

    def onProgress(self, progress: Progress) -> None:
        if self.progress.hear(progress):
            self._show_progress()
        if progress.preview and self.parameters is not None and self.parameters.livePreview:
            self.preview.show(self.logic.folders.current / "run" / progress.preview)

    def _show_progress(self) -> None:
        self.ui.progressBar.value = round(1000 * self.progress.fraction)
        self.ui.stageLabel.text, self.ui.timeLabel.text = self.progress.stage, self.progress.left
        self.draw_curve()

    def draw_curve(self) -> None:
        if self.progress.curve.stages:
            draw(self.progress.curve, self.ui.lossLabel, _("loss, lower is better"))

    def onFinished(self, outcome: Outcome) -> None:
        self.panel.section(LookSection).showsNewest = outcome.status == DONE
        self.finish(outcome)
        if outcome.status == DONE:
            self.ui.lookSection.collapsed = False
            self.ui.trustSection.collapsed = False

    def finish(self, outcome: Outcome) -> None:
        """Put the panel back to rest and say how the run ended."""
        self.preview.end()
        if outcome.status == DONE:
            if not outcome.stopped_early:
                estimate.learn(self.request, outcome.run.measurements)
            self.draw_curve()
        self.preview = self.request = None  # they hold volumes, which a closed scene shall take along
        self._show_running(False, keep_curve=outcome.status == DONE)
        message = outcome.message + reminder(outcome.status == DONE)
        self.panel.say(message, "error" if outcome.status == FAILED else "info")  # good or not the checks say
        self.panel.refresh()

    def _show_running(self, running: bool, keep_curve: bool = False) -> None:
        self.ui.applyButton.visible = not running
        self.ui.hintLabel.visible = not running and bool(self.ui.hintLabel.text)
        self.ui.stopButton.visible = self.ui.cancelButton.visible = running
        self.ui.stopButton.enabled = running
        self.ui.progressWidget.visible = running or keep_curve
        for widget in (self.ui.stageLabel, self.ui.timeLabel, self.ui.progressBar, self.ui.previewCheckBox):
            widget.visible = running
        for section in (self.ui.inputsSection, self.ui.methodSection, self.ui.outputsSection):
            section.enabled = not running

    def close(self) -> None:
        self._resized.stop()
        if self.preview is not None:
            self.preview.end()


def draw(curve: LossCurve, label, caption: str) -> None:
    """Paint a curve into a label."""
    width, height = max(label.width, 50), max(label.height, 40)
    picture = qt.QPixmap(width, height)
    picture.fill(qt.QColor(0, 0, 0, 0))
    painter = qt.QPainter(picture)
    painter.setRenderHint(qt.QPainter.Antialiasing)
    painter.setPen(qt.QPen(qt.QColor(theme.colour(label, "axis"))))
    painter.drawLine(MARGIN, height - MARGIN, width - MARGIN, height - MARGIN)
    painter.drawText(0, 0, width - MARGIN, height, qt.Qt.AlignRight | qt.Qt.AlignTop, caption)
    pen = qt.QPen(qt.QColor(theme.colour(label, "curve")))
    pen.setWidthF(1.6)
    painter.setPen(pen)
    painter.translate(MARGIN, 2 * MARGIN)
    for points in curve.lines(width - 2 * MARGIN, height - 4 * MARGIN):
        path = qt.QPainterPath()
        path.moveTo(*points[0])
        for point in points[1:]:
            path.lineTo(*point)
        painter.drawPath(path)
    painter.end()
    label.setPixmap(picture)

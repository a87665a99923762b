"""Look: one click for each way to see a result."""

from __future__ import annotations

import qt
from slicer.i18n import tr as _

from . import look
from .moved import FIXED, MOVING, moved_by_hand, mover, parents_at_start
from .results import Run, in_scene, run_of, runs
from .section import Section

FLICKER_MS = 400
TOGGLES = ("beforeButton", "flickerButton", "gridButton", "jacobianButton", "displacementButton")
#: what each of these buttons lays over the fixed volume, instead of the warped one
LAYERS = {"beforeButton": _("moving"), "jacobianButton": _("Jacobian"), "displacementButton": _("distance")}


class LookSection(Section):
    def __init__(self, panel):
        super().__init__(panel)
        self._flicker = qt.QTimer()
        self._flicker.setInterval(FLICKER_MS)
        self._flicker.connect("timeout()", self.onFlicker)
        self._alone = False  # a picture is shown that has nothing to fade to
        self._tables: list = []  # of the runs in the box, in its order
        self.showsNewest = False  # at the next refresh, which waits until the panel is shown
        ui = self.ui
        self._before_tip = ui.beforeButton.toolTip
        ui.runComboBox.connect("currentIndexChanged(int)", self.onRun)
        ui.blendSlider.connect("valueChanged(double)", self.onBlend)
        ui.beforeButton.connect("toggled(bool)", self.onBefore)
        ui.flickerButton.connect("toggled(bool)", self.onFlickerToggled)
        ui.checkerButton.connect("clicked()", self.onChecker)
        ui.sideButton.connect("clicked()", self.onSide)
        ui.gridButton.connect("toggled(bool)", self.onGrid)
        ui.jacobianButton.connect("toggled(bool)", self.onJacobian)
        ui.displacementButton.connect("toggled(bool)", self.onDisplacement)
        ui.resetButton.connect("clicked()", self.onReset)

    def refresh(self) -> None:
        self._fill_box()
        box = self.ui.runComboBox
        run = self.panel.run()
        box.toolTip = run.name if run is not None else _("Which registration to look at, judge, and apply.")
        for name in (*TOGGLES, "checkerButton", "sideButton", "resetButton", "blendSlider"):
            getattr(self.ui, name).enabled = run is not None
        if run is None:
            self.ui.flickerButton.checked = False  # nobody could stop it any more
        else:
            self._drop_deleted(run)
            self._name_slider()
            self._refresh_before(run)
            self.ui.jacobianButton.enabled = look.holds_image(run.jacobian)
            self.ui.gridButton.enabled = run.transform is not None
            both = look.holds_image(run.warped) and look.holds_image(run.fixed)
            self.ui.checkerButton.enabled = self.ui.sideButton.enabled = both
            self.ui.displacementButton.enabled = both and run.transform is not None
            self.ui.blendSlider.enabled = self.ui.flickerButton.enabled = not self._alone

    def leave(self) -> None:
        self.ui.flickerButton.checked = False  # nobody could stop it any more

    def _drop_deleted(self, run: Run) -> None:
        """The warped volume again where what a button shows was deleted; the button could not be clicked any more."""
        shown = {
            "beforeButton": run.moving,
            "jacobianButton": run.jacobian,
            "displacementButton": look.derived(run, "displacement"),
            "gridButton": run.transform,
        }
        for name, node in shown.items():
            button = getattr(self.ui, name)
            button.checked = button.checked and node is not None

    def _refresh_before(self, run: Run) -> None:
        """No picture of before where a volume lies elsewhere now: it would look as if nothing had changed, or worse."""
        button, moved = self.ui.beforeButton, _moved_since(run)
        button.enabled = run.moving is not None and not moved
        button.toolTip = moved or self._before_tip

    def chosen(self) -> Run | None:
        """The run chosen in the box, whatever others have come into the scene or gone since it was filled."""
        index = self.ui.runComboBox.currentIndex
        table = in_scene(self._tables[index]) if 0 <= index < len(self._tables) else None
        return run_of(table) if table is not None else None

    def _fill_box(self) -> None:
        """List the runs of the scene; the chosen one stays chosen as long as it is there."""
        box, known, before = self.ui.runComboBox, runs(), self.chosen()
        tables, names = [run.table for run in known], [run.name for run in known]
        newest, self.showsNewest = self.showsNewest and bool(tables), False
        lost = before is None and bool(self._tables)  # what was shown was of a run that is gone
        if newest or tables != self._tables or [box.itemText(i) for i in range(box.count)] != names:
            box.blockSignals(True)
            box.clear()
            box.addItems(names)
            kept = before is not None and not newest
            box.setCurrentIndex(tables.index(before.table) if kept else min(0, len(tables) - 1))
            box.blockSignals(False)
            self._tables = tables
        if newest or lost:
            self.onReset()

    def _name_slider(self) -> None:
        """Say what the slider fades to, which the buttons decide."""
        run = self.panel.run()
        plain = _("moving") if run is not None and run.warped is None else _("warped")
        over = next((name for button, name in LAYERS.items() if getattr(self.ui, button).checked), plain)
        self.ui.blendLabel.text = _("Fixed – {over}:").format(over=over)

    def onRun(self, index=0) -> None:
        """Another result is chosen: the views show it, and nothing of the one before."""
        self.panel.refresh()
        if self.panel.run() is not None:
            self.onReset()

    def onBlend(self, value) -> None:
        look.blend(value)

    def onBefore(self, on) -> None:
        run = self.panel.run()
        if run is None:
            return
        if on and _moved_since(run):  # nobody tells the panel when a volume is moved
            self.panel.say(_moved_since(run), "warning")
            self.ui.beforeButton.checked = False
            self.panel.refresh()
            return
        self._only("beforeButton" if on else None)
        (look.show_before if on else look.show_after)(run, self.ui.blendSlider.value)

    def onFlickerToggled(self, on) -> None:
        if on:
            self._flicker.start()
        else:
            self._flicker.stop()
            look.blend(self.ui.blendSlider.value)

    def onFlicker(self) -> None:
        views = look.slice_views()
        look.blend(0.0 if views and views[0].GetForegroundOpacity() > 0.5 else 1.0)

    def onChecker(self) -> None:
        board = look.checkerboard(self.panel.run())
        self._only(None, alone=True)
        look.leave_side_by_side()
        look.overlay(board, None)

    def onSide(self) -> None:
        self._only(None, alone=True)
        look.show_side_by_side(self.panel.run())

    def onGrid(self, on) -> None:
        run = self.panel.run()
        if run is not None:
            look.show_grid(run, on)

    def onJacobian(self, on) -> None:
        run = self.panel.run()
        self._show_map("jacobianButton", run.jacobian if run is not None else None, on)

    def onDisplacement(self, on) -> None:
        run = self.panel.run()
        self._show_map("displacementButton", look.displacement_map(run) if on and run is not None else None, on)

    def _show_map(self, button: str, volume, on) -> None:
        run = self.panel.run()
        if run is None:
            return
        self._only(button if on else None)
        if on:
            self.ui.blendSlider.value = look.MAP_OPACITY  # at 0 the click would seem to do nothing
            look.show_map(run, volume)
        else:
            look.show_after(run, self.ui.blendSlider.value)

    def onReset(self) -> None:
        self._only(None)
        self.ui.flickerButton.checked = False
        self.ui.gridButton.checked = False
        for run in runs():  # the grid may be that of another result
            look.show_grid(run, False)
        look.leave_side_by_side()
        if self.panel.run() is not None:
            look.show_after(self.panel.run(), self.ui.blendSlider.value)

    def _only(self, name: str | None, alone: bool = False) -> None:
        """Of the buttons that choose what is laid over the fixed volume, at most one is down; `alone`: nothing is."""
        self._alone = alone
        if alone:
            self.ui.flickerButton.checked = False
        self.ui.blendSlider.enabled = self.ui.flickerButton.enabled = not alone
        for other in LAYERS:
            button = getattr(self.ui, other)
            if other != name and button.checked:
                button.blockSignals(True)
                button.checked = False
                button.blockSignals(False)
        self._name_slider()

    def close(self) -> None:
        self._flicker.stop()
        self._flicker.disconnect("timeout()", self.onFlicker)


def _moved_since(run: Run) -> str:
    """What to say where a volume of a run does not lie any more where it was registered; empty where both do."""
    known = parents_at_start(run, MOVING)
    moved_by = mover(run.moving, run.moving, known) if run.moving is not None else None
    if moved_by is not None:
        return _('"{name}" was moved by "{run}" since; move it back to see it as it was.').format(
            name=run.moving.GetName(), run=moved_by.name
        )
    for side in (FIXED, MOVING):
        if moved_by_hand(run, side):
            return _('"{name}" was moved since it was registered; move it back to see it as it was.').format(
                name=getattr(run, side).GetName()
            )
    return ""

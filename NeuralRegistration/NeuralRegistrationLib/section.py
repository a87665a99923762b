"""What the sections of the panel share."""

from __future__ import annotations

import functools

import qt
from neuralreg.job import RegistrationError


class Section:
    """A part of the panel: connects its widgets in the constructor, shows the state of things in `refresh`."""

    def __init__(self, panel):
        self.panel, self.ui, self.logic = panel, panel.ui, panel.logic

    @property
    def parameters(self):
        """The parameter node, or None while the scene is being closed."""
        return self.panel.parameters

    def refresh(self) -> None:
        """Bring the widgets up to date."""

    def leave(self) -> None:
        """Another module is about to be shown; the parameter node is still there."""


MOST_ROWS = 8  # of a table; more are scrolled
HEADER_PADDING = 8  # px around the text of a header


def prepare_table(table, columns: tuple[str, ...], stretched: int) -> None:
    """A table to read, with titles over its columns; one of them takes the width that is left."""
    table.setColumnCount(len(columns))
    table.setHorizontalHeaderLabels(list(columns))
    table.verticalHeader().setVisible(False)
    table.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
    table.horizontalHeader().setSectionResizeMode(stretched, qt.QHeaderView.Stretch)


def fit_height(table) -> None:
    """Make a table as high as its rows, so that no empty box stands under them."""
    table.resizeRowsToContents()
    rows = sum(table.rowHeight(row) for row in range(min(table.rowCount, MOST_ROWS)))
    table.setFixedHeight(table.fontMetrics().height() + HEADER_PADDING + rows + 2 * table.frameWidth)


def told(handler):
    """A handler of a click whose RegistrationError becomes the panel's message."""

    @functools.wraps(handler)
    def guarded(self):
        try:
            handler(self)
        except RegistrationError as error:
            self.panel.say(str(error), "error")

    del guarded.__wrapped__  # Qt looks at the number of arguments of what it calls
    return guarded

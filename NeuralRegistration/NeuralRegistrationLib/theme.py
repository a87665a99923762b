"""Colours that can be read on Slicer's light and dark styles."""

from __future__ import annotations

import qt

LIGHT = {"info": "#1f5f9c", "good": "#1b7a33", "warning": "#9a5b00", "error": "#b3261e", "curve": "#1f6fb5",
         "axis": "#8a8a8a", "green": "#2e9e4f", "amber": "#d98200", "red": "#cc2f26"}  # fmt: skip
DARK = {"info": "#8ec5ff", "good": "#7ddc96", "warning": "#ffbf66", "error": "#ff9a92", "curve": "#6fb7ff",
        "axis": "#8a8a8a", "green": "#4cc26f", "amber": "#f2a33a", "red": "#f06a60"}  # fmt: skip


def colour(widget, name: str) -> str:
    """The colour of a meaning ("info", "good", "warning", "error", "curve", …) as #rrggbb."""
    dark = widget.palette.color(qt.QPalette.Window).lightness() < 128
    return (DARK if dark else LIGHT)[name]


def paint_text(label, kind: str) -> None:
    """Show a label's text in the colour of its meaning; "" for the usual one."""
    label.setStyleSheet(f"color: {colour(label, kind)};" if kind else "")


def light_icon(widget, name: str):
    """A round traffic light as an icon."""
    picture = qt.QPixmap(16, 16)
    picture.fill(qt.QColor(0, 0, 0, 0))
    painter = qt.QPainter(picture)
    painter.setRenderHint(qt.QPainter.Antialiasing)
    painter.setBrush(qt.QBrush(qt.QColor(colour(widget, name))))
    painter.setPen(qt.QPen(qt.QColor(0, 0, 0, 0)))
    painter.drawEllipse(2, 2, 12, 12)
    painter.end()
    return qt.QIcon(picture)

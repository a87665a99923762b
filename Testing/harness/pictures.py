"""Pictures without a screen: the panel as Qt draws it, slice views as Slicer's own compositing draws them."""

from __future__ import annotations

from pathlib import Path

import slicer
from PySide6 import QtGui, QtWidgets

PANEL_WIDTH = 400


def use_dark_style(application: QtWidgets.QApplication) -> None:
    """The colours of Slicer's dark style."""
    palette = QtGui.QPalette()
    roles = QtGui.QPalette
    for role, colour in {
        roles.Window: "#323232", roles.WindowText: "#ffffff", roles.Base: "#1e1e1e", roles.AlternateBase: "#2c2c2c",
        roles.Text: "#ffffff", roles.Button: "#3c3c3c", roles.ButtonText: "#ffffff", roles.Highlight: "#2a82da",
        roles.HighlightedText: "#000000", roles.ToolTipBase: "#323232", roles.ToolTipText: "#ffffff",
        roles.PlaceholderText: "#9a9a9a",
    }.items():  # fmt: skip
        palette.setColor(role, QtGui.QColor(colour))
    for role in (roles.Text, roles.ButtonText, roles.WindowText):
        palette.setColor(roles.Disabled, role, QtGui.QColor("#808080"))
    application.setPalette(palette)


def save_panel(widget: QtWidgets.QWidget, path: Path, width: int = PANEL_WIDTH) -> None:
    """Draw a widget at a width, as high as it wants to be."""
    widget.setFixedWidth(width)
    widget.show()
    for _ in range(3):  # layouts with wrapped text settle in steps
        slicer.app.processEvents()
        widget.resize(width, widget.heightForWidth(width) if widget.hasHeightForWidth() else widget.sizeHint.height())
    slicer.app.processEvents()
    QtWidgets.QWidget.grab(widget).save(str(path))

"""Stand-ins for the ctk widgets of the panel: Qt widgets with the properties, slots and signals of the originals."""

from __future__ import annotations

from PySide6 import QtCore, QtWidgets

from .properties import forwarded, stored
from .pythonqt import PythonQtObject
from .qtmodules import stand_in

TITLE_HEIGHT = 24  # px of the line on which a ctkCollapsibleButton is clicked
SLIDER_STEPS = 10_000
QT_LARGEST = 16777215  # px, of QWIDGETSIZE_MAX


@stand_in
class ctkCollapsibleButton(PythonQtObject, QtWidgets.QWidget):
    """A title to click above contents that show or hide."""

    contentsCollapsed = QtCore.Signal(bool)
    toggled = QtCore.Signal(bool)
    clicked = QtCore.Signal(bool)
    flat = stored(bool, False)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._text, self._collapsed = "", False
        self.setContentsMargins(2, TITLE_HEIGHT + 2, 2, 2)
        self._title = QtWidgets.QToolButton(self)
        self._title.setToolButtonStyle(QtCore.Qt.ToolButtonTextBesideIcon)
        self._title.setAutoRaise(True)
        self._title.clicked.connect(self.click)
        self._set_collapsed(False)

    def click(self):
        self._set_collapsed(not self._collapsed)
        self.clicked.emit(not self._collapsed)

    def resizeEvent(self, event):
        self._title.setGeometry(0, 0, event.size().width(), TITLE_HEIGHT)

    def childEvent(self, event):
        child = event.child()
        if event.added() and isinstance(child, QtWidgets.QWidget):
            child.installEventFilter(self)
            if self.__dict__.get("_collapsed"):
                self._force(child, False)

    def eventFilter(self, child, event):
        """Remember what was hidden on purpose, as ctk does: opening the section must not show it."""
        shown, hidden = QtCore.QEvent.ShowToParent, QtCore.QEvent.HideToParent
        if child is self.__dict__.get("_title"):
            return False
        if not self.__dict__.get("_forcing") and event.type() in (shown, hidden):
            child.setProperty("visibilityToParent", event.type() == shown)
            if self._collapsed and event.type() == shown:
                self._force(child, False)
        return False

    def _force(self, child, visible):
        self._forcing = True
        child.setVisible(visible)
        self._forcing = False

    def _set_text(self, text):
        self._text = text
        self._title.setText(text)

    def _set_collapsed(self, collapsed):
        self._collapsed = bool(collapsed)
        self._title.setArrowType(QtCore.Qt.RightArrow if collapsed else QtCore.Qt.DownArrow)
        for child in self.findChildren(QtWidgets.QWidget, options=QtCore.Qt.FindDirectChildrenOnly):
            if child is not self._title:
                self._force(child, not collapsed and child.property("visibilityToParent") is not False)
        self.setMaximumHeight(TITLE_HEIGHT if collapsed else QT_LARGEST)
        self.contentsCollapsed.emit(self._collapsed)
        self.toggled.emit(not self._collapsed)

    text = forwarded(str, lambda self: self.__dict__.get("_text", ""), _set_text)
    collapsed = forwarded(bool, lambda self: self.__dict__.get("_collapsed", False), _set_collapsed)
    checked = forwarded(bool, lambda self: not self._collapsed, lambda self, value: self._set_collapsed(not value))


@stand_in
class ctkSliderWidget(PythonQtObject, QtWidgets.QWidget):
    """A slider and a spin box with one value."""

    valueChanged = QtCore.Signal(float)
    pageStep = stored(float, 1.0)
    tracking = stored(bool, True)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._slider = QtWidgets.QSlider(QtCore.Qt.Horizontal, self)
        self._spin = QtWidgets.QDoubleSpinBox(self)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._slider)
        layout.addWidget(self._spin)
        self._slider.setRange(0, SLIDER_STEPS)
        self._spin.setRange(0, 99)
        self._slider.sliderMoved.connect(self._on_moved)
        self._spin.valueChanged.connect(self._on_value)

    def _span(self):
        return self._spin.maximum() - self._spin.minimum()

    def _on_moved(self, position):
        self._spin.setValue(self._spin.minimum() + position / SLIDER_STEPS * self._span())

    def _place_slider(self):
        part = (self._spin.value() - self._spin.minimum()) / self._span() if self._span() else 0
        self._slider.blockSignals(True)
        self._slider.setValue(round(part * SLIDER_STEPS))
        self._slider.blockSignals(False)

    def _on_value(self, value):
        self._place_slider()
        self.valueChanged.emit(value)

    def setValue(self, value):
        self._spin.setValue(value)

    def setMinimum(self, value):
        self._spin.setMinimum(value)
        self._place_slider()

    def setMaximum(self, value):
        self._spin.setMaximum(value)
        self._place_slider()

    def setRange(self, minimum, maximum):
        self._spin.setRange(minimum, maximum)
        self._place_slider()

    value = forwarded(float, lambda self: self._spin.value(), setValue)
    minimum = forwarded(float, lambda self: self._spin.minimum(), setMinimum)
    maximum = forwarded(float, lambda self: self._spin.maximum(), setMaximum)
    singleStep = forwarded(float, lambda self: self._spin.singleStep(), lambda self, v: self._spin.setSingleStep(v))
    decimals = forwarded(int, lambda self: self._spin.decimals(), lambda self, v: self._spin.setDecimals(v))
    suffix = forwarded(str, lambda self: self._spin.suffix(), lambda self, v: self._spin.setSuffix(v))


@stand_in
class ctkDoubleSpinBox(PythonQtObject, QtWidgets.QDoubleSpinBox):
    pass


@stand_in
class ctkCheckBox(PythonQtObject, QtWidgets.QCheckBox):
    pass


@stand_in
class ctkComboBox(PythonQtObject, QtWidgets.QComboBox):
    pass


@stand_in
class ctkPathLineEdit(PythonQtObject, QtWidgets.QWidget):
    """A path typed or chosen."""

    currentPathChanged = QtCore.Signal(str)
    validInputChanged = QtCore.Signal(bool)
    nameFilters = stored("QStringList", [])
    filters = stored(int, 0)
    settingKey = stored(str, "")
    showHistoryButton = stored(bool, True)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._line = QtWidgets.QLineEdit(self)
        self._browse = QtWidgets.QToolButton(self)
        self._browse.setText("…")
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._line)
        layout.addWidget(self._browse)
        self._line.textChanged.connect(self.currentPathChanged)

    def setCurrentPath(self, path):
        self._line.setText(path)

    currentPath = forwarded(str, lambda self: self._line.text(), setCurrentPath)

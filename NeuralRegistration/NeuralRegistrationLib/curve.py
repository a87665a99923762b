"""The loss of an optimisation as a small picture, one curve per stage."""

from __future__ import annotations

import qt

MARGIN = 4


class LossCurve:
    """Collects values and draws them into a QLabel."""

    def __init__(self, label):
        self.label = label
        self.stages: list[list[float]] = []

    def clear(self) -> None:
        self.stages = []
        self.label.clear()

    def add(self, stage: str, loss: float) -> None:
        """Append a value; a jump to another scale begins a new curve, as each resolution has its own loss."""
        if not self.stages or self._jumps(loss):
            self.stages.append([])
        self.stages[-1].append(loss)

    def _jumps(self, loss: float) -> bool:
        current = self.stages[-1]
        span = max(current) - min(current)
        return len(current) > 3 and loss - current[-1] > max(0.5 * span, 0.01)  # within a stage it hardly ever rises

    def draw(self, line_colour: str, axis_colour: str, caption: str) -> None:
        """Paint all curves, each on the scale of its own values, side by side."""
        width, height = max(self.label.width, 50), max(self.label.height, 40)
        picture = qt.QPixmap(width, height)
        picture.fill(qt.QColor(0, 0, 0, 0))
        painter = qt.QPainter(picture)
        painter.setRenderHint(qt.QPainter.Antialiasing)
        painter.setPen(qt.QPen(qt.QColor(axis_colour)))
        painter.drawLine(MARGIN, height - MARGIN, width - MARGIN, height - MARGIN)
        alignment = qt.Qt.AlignRight | qt.Qt.AlignTop
        painter.drawText(0, 0, width - MARGIN, height, alignment, caption)
        count = sum(len(values) for values in self.stages)
        left = float(MARGIN)
        for values in self.stages:
            share = (width - 2 * MARGIN) * len(values) / max(count, 1)
            self._draw_one(painter, values, left, share, height, line_colour)
            left += share
        painter.end()
        self.label.setPixmap(picture)

    @staticmethod
    def _draw_one(painter, values, left, width, height, line_colour) -> None:
        low, span = min(values), (max(values) - min(values)) or 1.0
        pen = qt.QPen(qt.QColor(line_colour))
        pen.setWidthF(1.6)
        painter.setPen(pen)
        path = qt.QPainterPath()
        for index, value in enumerate(values):
            x = left + width * (index + 0.5) / len(values)
            y = height - 2 * MARGIN - (value - low) / span * (height - 4 * MARGIN)
            path.moveTo(x, y) if index == 0 else path.lineTo(x, y)
        painter.drawPath(path)

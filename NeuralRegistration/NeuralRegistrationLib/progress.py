"""What a run shows while it goes on, in the panel and in the page: stage, time left, and the curve of its loss."""

from __future__ import annotations

import time

from neuralreg.job import Progress
from slicer.i18n import tr as _

from . import estimate

DRAW_EVERY = 0.2  # seconds: iterations come faster than anyone can look
STAGES = {
    "read": _("Reading the volumes"),
    "affine": _("Linear alignment"),
    "prepare": _("Preparing the working grid"),
    "deformable": _("Deformable registration"),
    "outputs": _("Resampling the results"),
    "metrics": _("Measuring"),
    "write": _("Writing the results"),
    "done": _("Loading the results"),
}


class RunProgress:
    """Of one run: the words for its stage and for the time that is left, how much is done (0 to 1), and its curve."""

    def __init__(self):
        self.stage, self.left, self.fraction, self.stopping = _("Starting"), "", 0.0, False
        self.curve = LossCurve()
        self._drawn_at = 0.0

    def hear(self, progress: Progress) -> bool:
        """Take over what the worker tells; returns whether it is time to draw it."""
        self.fraction = progress.fraction
        if not self.stopping or progress.stage != "deformable":
            self.stage = STAGES.get(progress.stage, progress.stage)
        if progress.seconds_left is not None and not self.stopping:  # that would be the time of all iterations
            self.left = _("{time} left").format(time=estimate.in_words(progress.seconds_left))
        now = time.monotonic()
        if progress.loss is not None:
            self.curve.add(progress.loss)
            if now - self._drawn_at < DRAW_EVERY:
                return False
        self._drawn_at = now
        return True

    def stop(self) -> None:
        """It was told to end with what it has."""
        self.stopping, self.stage, self.left = True, _("Finishing with the best so far"), ""


class LossCurve:
    """The values of the loss, each stage on a scale of its own."""

    def __init__(self):
        self.stages: list[list[float]] = []

    def add(self, loss: float) -> None:
        """Append a value; a jump to another scale begins a new curve, as each resolution has its own loss."""
        if not self.stages or self._jumps(loss):
            self.stages.append([])
        self.stages[-1].append(loss)

    def _jumps(self, loss: float) -> bool:
        current = self.stages[-1]
        span = max(current) - min(current)
        return len(current) > 3 and loss - current[-1] > max(0.5 * span, 0.01)  # within a stage it hardly ever rises

    def lines(self, width: float, height: float) -> list[list[tuple[float, float]]]:
        """The curves as points x, y (down) in a box of that size, side by side, each as high as the box."""
        count, left, lines = sum(map(len, self.stages)), 0.0, []
        for values in self.stages:
            share, low = width * len(values) / count, min(values)
            span = (max(values) - low) or 1.0
            lines.append(
                [
                    (left + share * (index + 0.5) / len(values), height - (value - low) / span * height)
                    for index, value in enumerate(values)
                ]
            )
            left += share
        return lines

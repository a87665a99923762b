"""What the sections of the panel share."""

from __future__ import annotations

import functools

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

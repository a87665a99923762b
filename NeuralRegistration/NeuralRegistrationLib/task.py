"""Another command of the command line beside the registration (`evaluate`, `report`), without blocking the window."""

from __future__ import annotations

from collections.abc import Callable

import qt
from neuralreg.job import RegistrationError
from slicer.i18n import tr as _

from .worker import Ending, Worker, python_executable

POLL_MS = 100


class Task:
    """Runs one command at a time and says how it ended."""

    def __init__(self):
        self.worker = Worker()
        self._finished: Callable[[str], None] | None = None
        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_MS)
        self._timer.connect("timeout()", self.poll)

    @property
    def running(self) -> bool:
        return self._finished is not None

    def start(self, arguments: list[str], finished: Callable[[str], None]) -> None:
        """Run `neuralreg ARGUMENTS`; `finished` gets the sentence of a failure, or an empty text."""
        if self.running:
            raise RegistrationError(_("The last command is still at work; wait a moment."))
        try:
            self.worker.run([python_executable(), "-m", "neuralreg", *arguments])
        except OSError as error:
            raise RegistrationError(_("The command cannot be started ({reason}).").format(reason=error)) from error
        self._finished = finished
        self._timer.start()

    def poll(self) -> None:
        for event in self.worker.poll():
            if isinstance(event, Ending):
                self._timer.stop()
                tell, self._finished = self._finished, None
                tell(event.message)

    def close(self) -> None:
        """End the command; the task is not used again."""
        if self._timer is None:
            return
        self._timer.stop()
        self._timer.disconnect("timeout()", self.poll)
        self._timer = None
        self._finished = None
        self.worker.kill()

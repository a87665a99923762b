"""Further evidence for the run that is shown: structures and landmarks, measured and added to its checks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuralreg.job import REPORT, RegistrationError
from NeuralRegistrationLib import evidence, trust
from NeuralRegistrationLib.results import Run
from NeuralRegistrationLib.task import Task

if TYPE_CHECKING:
    from .page import Page

STRUCTURES = ("fixed_structures", "moving_structures")
POINTS = ("fixed_evidence", "moving_evidence")


class EvidencePart:
    def __init__(self, page: Page):
        self.page, self.state, self.task = page, page.state, Task()
        self.state.update({**dict.fromkeys((*STRUCTURES, *POINTS)), "evidence_open": False, "measuring": False})

    def measure(self, chosen: dict[str, Any]) -> None:
        """Measure with what stands in the browser. Raises RegistrationError when there is nothing to measure with."""
        with self.state as state:
            state.update({name: chosen[name] for name in (*STRUCTURES, *POINTS)})
        run = self.page.looking.run()
        folder = self.page.folders.get(self.state.run)
        if run is None or folder is None:
            raise RegistrationError("There is no result to measure; register a pair first.")
        structures = self.page.chosen(*STRUCTURES)
        arguments, names = evidence.command(run, folder, structures, self.page.chosen(*POINTS))
        asked = trust.segment_names(*structures)
        self.task.start(arguments, lambda problem: self._measured(run, folder, names, asked, problem))
        with self.state as state:
            state.measuring, state.message = True, ""

    def _measured(self, run: Run, folder: Path, names: list[str], asked: list[str], problem: str) -> None:
        with self.state as state:
            state.measuring = False
            if run.table.GetScene() is None:
                return  # the run was taken out of the scene meanwhile
            try:
                if problem:
                    raise RegistrationError(problem)
                evidence.take_over(run, folder, names)
            except RegistrationError as error:
                self.page.say(str(error), "error")
                return
            (folder / REPORT).unlink(missing_ok=True)  # what is there does not know of it
            self.page.looking.on_run()
        left_out = trust.left_out(run, asked)
        said = f"Measured: the quality check below holds the new figures. {left_out}".rstrip()
        self.page.say(said, "warning" if left_out else "success")

    def close(self) -> None:
        self.task.close()

"""Many moving volumes to one fixed, one after the other; one failure does not end the batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import qt
import slicer
import vtk
from neuralreg.job import RegistrationError

from .logic import DONE, FAILED, STOPPED, Outcome
from .moved import time_point
from .request import Request
from .results import fill_table

COLUMNS = ("Moving volume", "Result", "Message", "Seconds", "Folds %", "Similarity before", "Similarity after")
FIGURES = ("seconds total", "folds_percent", "mutual_information_before", "mutual_information_after")


@dataclass
class Item:
    """One volume of the batch and how it went; `outcome` is None while it waits."""

    name: str
    node: Any
    outcome: Outcome | None = None

    def row(self) -> list[str]:
        if self.outcome is None:
            return [self.name, "", "", *[""] * len(FIGURES)]
        figures = self.outcome.run.measurements if self.outcome.run is not None else {}
        shown = [f"{figures[key]:.4g}" if key in figures else "" for key in FIGURES]
        return [self.name, self.outcome.status, self.outcome.message, *shown]


def items_of(volumes: list, sequence=None) -> list[Item]:
    """The chosen volumes, then those of a sequence. Raises RegistrationError when there are none."""
    items = [Item(volume.GetName(), volume) for volume in volumes]
    if sequence is not None:
        _check_place(sequence)
        for index in range(sequence.GetNumberOfDataNodes()):
            node = sequence.GetNthDataNode(index)
            if node is not None and node.IsA("vtkMRMLScalarVolumeNode"):
                items.append(Item(f"{sequence.GetName()} [{sequence.GetNthIndexValue(index)}]", node))
    if not items:
        raise RegistrationError("Check the moving volumes, or choose a sequence of volumes.")
    return items


def _check_place(sequence) -> None:
    """Raise RegistrationError where a sequence is shown elsewhere than its volumes are: these know no transforms."""
    browsers = vtk.vtkCollection()
    slicer.modules.sequences.logic().GetBrowserNodesForSequenceNode(sequence, browsers)
    for index in range(browsers.GetNumberOfItems()):
        shown = browsers.GetItemAsObject(index).GetProxyNode(sequence)
        parent = shown.GetParentTransformNode() if shown is not None else None
        if parent is not None:
            raise RegistrationError(
                f'"{shown.GetName()}" lies under the transform "{parent.GetName()}", which the volumes of a sequence '
                "do not know; take it out of that transform, and choose that one as the initial transform instead."
            )


class Batch:
    """Starts the items one after the other with `start(request, finished)`; tells `changed` after each."""

    def __init__(self, items: list[Item], request: Request, start: Callable, changed: Callable[[], None]):
        self.items, self.request = items, request
        self.start_one, self.changed = start, changed
        self.running = True
        self._time_point = time_point(request.fixed)

    def next(self) -> None:
        """Begin the next item that has not been tried; at the end write the summary."""
        if not self.running:
            return
        item = next((one for one in self.items if one.outcome is None), None)
        if item is None:
            self.running = False
            self.changed()
            return
        name = f"{item.name} to {self.request.fixed.GetName()} ({self.request.method})"
        request = self.request.of_another(item.node, name)
        try:
            if item.node.GetScene() is None:
                raise RegistrationError(f'"{item.name}" was deleted before its turn.')
            if time_point(request.fixed) != self._time_point:
                raise RegistrationError(
                    f'"{request.fixed.GetName()}" shows another time point than for the first volume; go back to that '
                    "one, and register this one again."
                )
            self.start_one(request, lambda outcome: self.finished(item, outcome))
        except RegistrationError as error:
            self.finished(item, Outcome(FAILED, str(error)))

    def finished(self, item: Item, outcome: Outcome) -> None:
        item.outcome = outcome
        if outcome.status == STOPPED:  # cancelling one cancels the rest
            self.running = False
        self.changed()
        if self.running:
            qt.QTimer.singleShot(0, self.next)  # from the event loop, so that a long batch does not pile up calls

    def release(self) -> None:
        """Let go of all nodes: a closed scene shall not stay in memory for the sake of what is written in a table."""
        self.request = None
        for item in self.items:
            item.node = None
            if item.outcome is not None:
                item.outcome = replace(item.outcome, run=None)

    def _names(self, status: str) -> list[str]:
        """The items that ended so."""
        return [item.name for item in self.items if item.outcome is not None and item.outcome.status == status]

    @property
    def complete(self) -> bool:
        """Whether every item was registered."""
        return len(self._names(DONE)) == len(self.items)

    def summary(self) -> str:
        failed = self._names(FAILED)
        rest = f"; failed: {', '.join(failed)}" if failed else ""
        rest += "; cancelled" if self._names(STOPPED) else ""
        return f"{len(self._names(DONE))} of {len(self.items)} registered{rest}."


def summary_table(items: list[Item], fixed):
    """A table node with one row per volume."""
    table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", f"Registrations to {fixed.GetName()}")
    fill_table(table, COLUMNS, [item.row() for item in items])
    return table

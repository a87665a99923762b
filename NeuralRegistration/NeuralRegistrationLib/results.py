"""Finished runs in the scene: one table node per run refers to all that the run made, and survives saving."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import slicer
import vtk
from neuralreg.job import Result
from slicer.i18n import tr as _

RUN, MEASUREMENTS, NOTES = (f"NeuralRegistration.{name}" for name in ("Run", "Measurements", "Notes"))
MADE = ("transform", "inverse", "warped", "jacobian")
ROLES = ("fixed", "moving", *MADE)


@dataclass(frozen=True)
class Run:
    """A registration in the scene; nodes are None where they were not wanted or have been deleted."""

    name: str
    table: Any
    measurements: dict[str, Any]
    fixed: Any = None
    moving: Any = None
    transform: Any = None
    inverse: Any = None
    warped: Any = None
    jacobian: Any = None
    notes: tuple[str, ...] = ()  # what the run said at its end, beside its figures

    def outputs(self) -> list:
        """The nodes that the run made."""
        every = (self.transform, self.inverse, self.warped, self.jacobian, self.table)
        return [node for node in every if node is not None]


def runs() -> list[Run]:
    """All runs in the scene, the latest first."""
    tables = slicer.util.getNodesByClass("vtkMRMLTableNode")
    return [run_of(table) for table in reversed(list(tables)) if table.GetAttribute(RUN)]


def reminder(done: bool) -> str:
    """What to add to the message of a run that gave nothing, where an earlier result is still shown below it."""
    return _(" What is shown below is an earlier result.") if not done and runs() else ""


def unused(name: str) -> str:
    """The name for a new run: with a number behind it when a run in the scene is called that already."""
    known = {run.name for run in runs()}
    return next(one for one in (name, *(f"{name} {count}" for count in range(2, len(known) + 3))) if one not in known)


def run_of(table) -> Run:
    """The run to which a table belongs."""
    nodes = {role: table.GetNodeReference(f"NeuralRegistration.{role}") for role in ROLES}
    notes = tuple(json.loads(table.GetAttribute(NOTES) or "[]"))
    return Run(table.GetAttribute(RUN), table, json.loads(table.GetAttribute(MEASUREMENTS)), **nodes, notes=notes)


def add_table(name: str, result: Result, **nodes):
    """A table node with the figures of a result that refers to the nodes of the run, given by role."""
    table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode")
    table.SetName(slicer.mrmlScene.GenerateUniqueName(f"{name} metrics"))
    table.SetAttribute(RUN, name)
    for role, node in nodes.items():
        if in_scene(node) is not None:
            table.SetNodeReferenceID(f"NeuralRegistration.{role}", node.GetID())
    seconds = {f"seconds {stage}": value for stage, value in result.timings.items()}
    write_measurements(table, {"method": result.method, "device": result.device, **result.metrics, **seconds})
    return table


def in_scene(node):
    """The node, unless it is None or not in the scene: items of a sequence have IDs that are those of others here."""
    return node if node is not None and node.GetScene() is slicer.mrmlScene else None


def forget(node) -> None:
    """Take a node, whose content is about to be replaced, from the runs that made the content."""
    for run in runs():
        for role in MADE:
            if getattr(run, role) is node:
                run.table.SetNodeReferenceID(f"NeuralRegistration.{role}", None)


def write_measurements(table, measurements: dict[str, Any]) -> None:
    """Put figures into the table node of a run: as rows to read, and as they are for `run_of`."""
    table.SetAttribute(MEASUREMENTS, json.dumps(measurements))
    rows = flattened(measurements)
    fill_table(table, ("Quantity", "Value"), [(name, as_text(value)) for name, value in rows])


def write_notes(table, notes: list[str]) -> None:
    """Keep with a run what it said at its end: the message of the panel gives way to the next one."""
    table.SetAttribute(NOTES, json.dumps(notes))


def fill_table(table, titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Replace the contents of a table node by rows of texts; the user can read and copy but not edit them."""
    table.SetLocked(False)
    table.RemoveAllColumns()
    table.SetUseColumnTitleAsColumnHeader(True)
    for index, title in enumerate(titles):
        column = table.AddColumn()
        column.SetName(title)
        column.SetNumberOfValues(len(rows))
        for line, row in enumerate(rows):
            column.SetValue(line, row[index])
    table.SetLocked(True)


def flattened(values: dict, prefix: str = "") -> list[tuple[str, object]]:
    """`{"a": {"b": 1}}` → [("a b", 1)], lists of figures left out of a table."""
    rows = []
    for key, value in values.items():
        title = f"{prefix} {key}".strip().replace("_", " ")
        if isinstance(value, dict):
            rows += flattened(value, title)
        elif not isinstance(value, (list, tuple)):
            rows.append((title, value))
    return rows


def as_text(value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def hierarchy():
    return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)


def items(tree, folder: int | None = None) -> list[int]:
    """Every item of the subject hierarchy, or of a folder and the folders within."""
    ids = vtk.vtkIdList()
    tree.GetItemChildren(tree.GetSceneItemID() if folder is None else folder, ids, True)
    return [ids.GetId(i) for i in range(ids.GetNumberOfIds())]


def add_folder(run: Run) -> int:
    """A new subject-hierarchy folder, named after the run, with its nodes; returns the item."""
    tree = hierarchy()
    folder = tree.CreateFolderItem(tree.GetSceneItemID(), run.name)
    for node in run.outputs():
        put_into_folder(node, folder)
    return folder


def put_into_folder(node, folder: int) -> None:
    tree = hierarchy()
    item = tree.GetItemByDataNode(node)
    if item:
        tree.SetItemParent(item, folder)
    else:  # without Slicer's window nobody has made an item for the node
        tree.CreateItem(folder, node)


def folder_of(run: Run) -> int:
    """The folder in which the run's table lies, or the top of the hierarchy."""
    tree = hierarchy()
    item = tree.GetItemByDataNode(run.table)
    return tree.GetItemParent(item) if item else tree.GetSceneItemID()

"""A process of its own that opens a scene as Slicer does and says what is in it: `open_scene.py SCENE FOLDER`.

On the standard output, as JSON: names by role, what refers to what, the colours of the Jacobian map, the table, the
folders of the subject hierarchy. In FOLDER: the volumes and the transform as files, for SimpleITK to judge.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import slicer
from trame_slicer.core import SlicerApp
from vtkmodules.vtkCommonCore import vtkIdList

ROLES = ("fixed", "moving", "transform", "inverse", "warped", "jacobian")
FILES = {"fixed": "nrrd", "moving": "nrrd", "warped": "nrrd", "jacobian": "nrrd", "transform": "h5"}
SHOWN = (-1.0, 0.5, 1.0, 2.0)  # Jacobians whose colours are told


def main(scene_file: str, folder: str) -> None:
    scene = SlicerApp().scene
    files = slicer.vtkMRMLRemoteIOLogic()
    files.SetMRMLScene(scene)
    files.GetCacheManager().SetRemoteCacheDirectory(folder)  # where a scene file is unpacked
    files.AddDataIOToScene()
    if not scene.ReadFromMRB(scene_file):
        raise SystemExit("the scene cannot be read")
    (table,) = [t for t in nodes(scene, "vtkMRMLTableNode") if t.GetAttribute("NeuralRegistration.Run")]
    run = {role: table.GetNodeReference(f"NeuralRegistration.{role}") for role in ROLES}
    for role, ending in FILES.items():
        write(run[role], Path(folder) / f"{role}.{ending}")
    transform = run["transform"]
    references = transform.GetFixedNodeReferenceRole(), transform.GetMovingNodeReferenceRole()
    told = {
        "run": table.GetAttribute("NeuralRegistration.Run"),
        "names": {role: node.GetName() for role, node in run.items()},
        "references": [transform.GetNodeReference(role).GetName() for role in references],
        "colours": colours(run["jacobian"].GetDisplayNode()),
        "table": {table.GetCellText(row, 0): table.GetCellText(row, 1) for row in range(table.GetNumberOfRows())},
        "folders": folders(scene),
    }
    print(json.dumps(told))


def nodes(scene, kind: str) -> list:
    found = scene.GetNodesByClass(kind)
    return [found.GetItemAsObject(index) for index in range(found.GetNumberOfItems())]


def write(node, path: Path) -> None:
    storage = node.CreateDefaultStorageNode()
    storage.SetFileName(str(path))
    if not storage.WriteData(node):
        raise SystemExit(f"{path.name} cannot be written")


def colours(display) -> list:
    """The name of the colour node, and what it gives for Jacobians through the window of the display."""
    node = display.GetColorNode()
    low, high = display.GetWindowLevelMin(), display.GetWindowLevelMax()
    table = node.GetLookupTable()
    shown = []
    for value in SHOWN:
        place = (value - low) / (high - low)
        index = min(max(int(place * table.GetNumberOfTableValues()), 0), table.GetNumberOfTableValues() - 1)
        shown.append(table.GetTableValue(index)[:3])
    return [node.GetName(), shown]


def folders(scene) -> dict[str, list[str]]:
    """The names of what lies in each folder of the subject hierarchy."""
    tree, every = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene), vtkIdList()
    tree.GetItemChildren(tree.GetSceneItemID(), every, True)
    items = [every.GetId(index) for index in range(every.GetNumberOfIds())]
    inside = {tree.GetItemName(item): [] for item in items if tree.GetItemDataNode(item) is None}
    for item in items:
        parent = tree.GetItemName(tree.GetItemParent(item))
        if parent in inside:
            inside[parent].append(tree.GetItemName(item))
    return inside


if __name__ == "__main__":
    main(*sys.argv[1:])

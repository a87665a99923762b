"""Take whatever belongs to one of the volumes along: volumes, segmentations, models, markups, whole folders."""

from __future__ import annotations

import slicer
import vtk
from neuralreg.job import RegistrationError

from .look import maps
from .request import lies_under
from .results import Run, hierarchy

TO_FIXED, TO_MOVING = "to fixed", "to moving"
COPY = "NeuralRegistration.OwnParents"  # marks the transform that stands for those under which a moved node lay


def move(nodes: list, run: Run, direction: str = TO_FIXED, harden: bool = False) -> None:
    """Move nodes that lie in moving space to fixed space, or back with TO_MOVING.

    A node keeps its own parent transforms: the registration comes on top of them. Raises RegistrationError when there
    is nothing to move or the transform is missing.
    """
    if not nodes:
        raise RegistrationError("Choose at least one node, or a folder that holds some.")
    transform = transform_for(run, direction)
    for node in nodes:
        top = _on_top(node, transform)
        node.SetAndObserveTransformNodeID(top.GetID())
        if harden:
            node.HardenTransform()
            if top.GetAttribute(COPY):
                slicer.mrmlScene.RemoveNode(top)


def transform_for(run: Run, direction: str):
    """The transform node under which things of moving (or fixed) space are shown in the other one."""
    if run.transform is None:
        raise RegistrationError(f'The transform of "{run.name}" is no longer in the scene; register again.')
    if direction == TO_FIXED:
        return run.transform
    if run.inverse is not None:
        return run.inverse
    inverse = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", f"{run.transform.GetName()} inverse")
    inverse.SetAndObserveTransformFromParent(run.transform.GetTransformToParent())
    run.table.SetNodeReferenceID("NeuralRegistration.inverse", inverse.GetID())
    return inverse


def _on_top(node, transform):
    """The node to observe, so that `transform` acts after the transforms under which the node lies already.

    These may be shared with other nodes that must stay where they are, so they are not moved but copied as one.
    """
    parent = node.GetParentTransformNode()
    if parent is None:
        return transform
    if lies_under(node, transform):
        return parent  # it was moved before
    to_world = vtk.vtkGeneralTransform()
    parent.GetTransformToWorld(to_world)
    own = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", f"{node.GetName()} before {transform.GetName()}")
    own.SetAttribute(COPY, "1")
    own.SetAndObserveTransformToParent(to_world)
    own.SetAndObserveTransformNodeID(transform.GetID())
    return own


def folders() -> list[tuple[int, str]]:
    """(item, name) of the folders of the subject hierarchy that hold something that can be moved."""
    tree = hierarchy()
    ids = vtk.vtkIdList()
    tree.GetItemChildren(tree.GetSceneItemID(), ids, True)
    every = [ids.GetId(i) for i in range(ids.GetNumberOfIds())]
    return [(item, tree.GetItemName(item)) for item in every if tree.GetItemDataNode(item) is None and nodes_in(item)]


def to_move(folder: int, run: Run, direction: str) -> list:
    """The nodes in a folder, without those of the run that lie in the space where the others shall go."""
    return [node for node in nodes_in(folder) if not is_there(node, run, direction)]


def is_there(node, run: Run, direction: str) -> bool:
    """Whether a node of the run lies from the start in the space where others shall go."""
    there = [run.fixed, run.warped, run.jacobian, *maps(run)] if direction == TO_FIXED else [run.moving]
    return any(node is one for one in there)


def nodes_in(folder: int) -> list:
    """The transformable nodes in a folder and the folders within."""
    tree = hierarchy()
    ids = vtk.vtkIdList()
    tree.GetItemChildren(folder, ids, True)
    nodes = [tree.GetItemDataNode(ids.GetId(i)) for i in range(ids.GetNumberOfIds())]
    return [
        n
        for n in nodes
        if n is not None
        and n.IsA("vtkMRMLTransformableNode")
        and not n.IsA("vtkMRMLTransformNode")
        and not n.GetHideFromEditors()
    ]

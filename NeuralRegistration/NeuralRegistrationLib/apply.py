"""Take whatever belongs to one of the volumes along: volumes, segmentations, models, markups, whole folders."""

from __future__ import annotations

import slicer
import vtk
from neuralreg.job import RegistrationError

from .look import maps
from .moved import FIXED, MOVING, above, away_from, lies_under, parents_at_start, time_point
from .results import Run, hierarchy, items

TO_FIXED, TO_MOVING = "to fixed", "to moving"
COPY = "NeuralRegistration.OwnParents"  # marks the transform that stands for those under which a moved node lay


def move(nodes: list, run: Run, direction: str = TO_FIXED, harden: bool = False) -> None:
    """Move nodes that lie in moving space to fixed space, or back with TO_MOVING.

    A node keeps its own parent transforms: the registration comes on top of them. It takes the place of another one of
    the same volume that has moved the node before, and what it has moved itself goes back to where it was. Raises
    RegistrationError when there is nothing to move or the transform is missing.
    """
    if not nodes:
        raise RegistrationError("Choose at least one node, or a folder that holds some.")
    if harden:
        _check_frames(nodes)
    transform = transform_for(run, direction)
    volume, side = (run.moving, MOVING) if direction == TO_FIXED else (run.fixed, FIXED)
    replaced = dict.fromkeys(away_from(volume, parents_at_start(run, side)), transform)
    replaced[_way_back(run, direction)] = None
    for node in nodes:
        before, top = node.GetParentTransformNode(), _on_top(node, transform, replaced)
        node.SetAndObserveTransformNodeID(top.GetID() if top is not None else None)
        if harden:
            node.HardenTransform()
        _remove_unused([before, top])


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


def _check_frames(nodes: list) -> None:
    """Raise RegistrationError for a volume of a sequence: hardening would change the time point that is shown only."""
    for node in nodes:
        if time_point(node) is not None:
            raise RegistrationError(
                f'"{node.GetName()}" is a sequence, of which only the time point shown would be hardened; uncheck '
                "Harden, and all of them are moved."
            )


def _way_back(run: Run, direction: str):
    """The transform node that undoes a move, if there is one."""
    return run.inverse if direction == TO_FIXED else run.transform


def _on_top(node, transform, replaced: dict):
    """The node to observe (None for none), so that `transform` acts after the transforms under which the node lies.

    In `replaced`, {what earlier moves have put it under: what comes instead}, those transforms end. They may be shared
    with other nodes that must stay where they are, so they are not moved but copied as one.
    """
    parents = above(node)
    if transform in parents:
        return parents[0]  # it was moved before
    end = next((one for one in parents if one in replaced), None)
    top = transform if end is None else replaced[end]
    if not parents or parents[0] is end:
        return top
    own_parents = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(parents[0], end, own_parents)
    own = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", f"{node.GetName()} before {transform.GetName()}")
    own.SetAttribute(COPY, "1")
    own.SetAndObserveTransformToParent(own_parents)
    own.SetAndObserveTransformNodeID(top.GetID() if top is not None else None)
    return own


def _remove_unused(parents: list) -> None:
    """Take the copies among some transforms away under which nothing lies any more."""
    for parent in parents:
        if parent is not None and parent.GetScene() is not None and parent.GetAttribute(COPY):
            every = slicer.util.getNodesByClass("vtkMRMLTransformableNode")
            if not any(node.GetParentTransformNode() is parent for node in every):
                slicer.mrmlScene.RemoveNode(parent)


def folders() -> list[tuple[int, str]]:
    """(item, name) of the folders of the subject hierarchy that hold something that can be moved."""
    tree = hierarchy()
    return [(item, tree.GetItemName(item)) for item in items(tree) if _is_folder(tree, item) and nodes_in(item)]


def _is_folder(tree, item: int) -> bool:
    """Whether an item is a folder, a patient or a study: one that was hidden or coloured has a display node as data."""
    data = tree.GetItemDataNode(item)
    return data is None or data.IsA("vtkMRMLFolderDisplayNode")


def to_move(folder: int, run: Run, direction: str) -> list:
    """The nodes in a folder, without those that lie in the space where the others shall go."""
    every = nodes_in(folder)
    return [node for node in every if not is_there(node, run, direction) and not drawn_there(node, run, direction)]


def is_there(node, run: Run, direction: str) -> bool:
    """Whether a node of the run lies from the start in the space where others shall go, and was not moved since."""
    there = [run.fixed, run.warped, run.jacobian, *maps(run)] if direction == TO_FIXED else [run.moving]
    return any(node is one for one in there) and not lies_under(node, _way_back(run, direction))


def drawn_there(node, run: Run, direction: str) -> bool:
    """Whether a segmentation was drawn on the volume to which others shall go, and was not moved since; as far as
    Slicer knows, which does not notice when it is hardened elsewhere."""
    if not node.IsA("vtkMRMLSegmentationNode"):
        return False
    volume = node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole())
    return volume is not None and is_there(volume, run, direction) and not lies_under(node, _way_back(run, direction))


def cannot_be_edited(node) -> bool:
    """Whether a node is a segmentation under a deformation: Slicer's effects take that for no transform at all."""
    parent = node.GetParentTransformNode()
    return node.IsA("vtkMRMLSegmentationNode") and parent is not None and not parent.IsTransformToWorldLinear()


def nodes_in(folder: int) -> list:
    """The transformable nodes in a folder and the folders within."""
    tree = hierarchy()
    nodes = [tree.GetItemDataNode(item) for item in items(tree, folder)]
    return [
        n
        for n in nodes
        if n is not None
        and n.IsA("vtkMRMLTransformableNode")
        and not n.IsA("vtkMRMLTransformNode")
        and not n.GetHideFromEditors()
    ]

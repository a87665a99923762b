"""What was moved since, by "Apply to more" or by hand: it must not be taken for what lies where it was registered."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import slicer
from neuralreg.job import RegistrationError
from slicer.i18n import tr as _

from .lattice import corners
from .results import Run, in_scene, runs

FIXED, MOVING = "fixed", "moving"
PLACES = "NeuralRegistration.Places"
SAME_PLACE = 0.1  # of the smallest voxel side: saving rounds, and Slicer bends a volume a little otherwise than ITK


@dataclass(frozen=True)
class Place:
    """Where a volume lies: the transforms above it, the nearest first, and its corners in world space, RAS mm; and the
    time point that it shows."""

    parents: tuple = ()
    corners: list[list[float]] | None = None
    time_point: int | None = None


def place(volume) -> Place:
    """Where a volume lies now; not known where there is none, or an item of a sequence, which is in no scene."""
    if in_scene(volume) is None or volume.GetImageData() is None:
        return Place()
    around = corners(volume, volume.GetParentTransformNode()).round(4).tolist()
    return Place(tuple(above(volume)), around, time_point(volume))


def time_point(node) -> int | None:
    """Which item of a sequence a node shows; None for one that shows none."""
    browsers = slicer.util.getNodesByClass("vtkMRMLSequenceBrowserNode")
    return next((one.GetSelectedItemNumber() for one in browsers if one.GetSequenceNode(node) is not None), None)


def above(node) -> list:
    """The transforms that act on a node, the nearest first."""
    found, parent = [], node.GetParentTransformNode()
    while parent is not None:
        found.append(parent)
        parent = parent.GetParentTransformNode()
    return found


def lies_under(node, transform) -> bool:
    """Whether a transform acts on a node, directly or from further up."""
    return any(one is transform for one in above(node))


def parents_at_start(run: Run, side: str) -> list:
    """The transforms under which the fixed or the moving volume of a run lay when it was registered."""
    role = _role(side)
    return [run.table.GetNthNodeReference(role, i) for i in range(run.table.GetNumberOfNodeReferences(role))]


def note_places(table, places: dict[str, Place]) -> None:
    """Note on the table of a new run where its volumes lay when it was registered, by side."""
    table.SetAttribute(PLACES, json.dumps({side: one.corners for side, one in places.items()}))
    for side, one in places.items():
        for transform in one.parents:
            if in_scene(transform) is not None:
                table.AddNodeReferenceID(_role(side), transform.GetID())


def as_registered(run: Run, side: str) -> bool:
    """Whether a volume of a run is as it was, when only the transforms count under which it lay then: what a result
    has moved since counts as unmoved, what was cropped, resampled or bent for good does not."""
    parents = parents_at_start(run, side)
    return _same_place(run, side, parents[0] if parents else None)


def moved_by_hand(run: Run, side: str) -> bool:
    """Whether a volume of a run lies elsewhere than when it was registered, and no result has brought it there."""
    volume = getattr(run, side)
    if volume is None or mover(volume, volume, parents_at_start(run, side)) is not None:
        return False
    return not _same_place(run, side, volume.GetParentTransformNode())


def changed_meanwhile(run: Run, places: dict[str, Place]) -> list[str]:
    """What to say of the volumes of a run that has just ended, where they are not as they were when it began."""
    said = []
    for side, before in places.items():
        volume = getattr(run, side)
        if moved_by_hand(run, side):
            text = _('"{name}" was moved while it was registered; the result belongs to where it lay at the start.')
            said.append(text.format(name=volume.GetName()))
        if volume is not None and time_point(volume) != before.time_point:
            text = _('"{name}" shows another time point now; the result belongs to the one shown at the start.')
            said.append(text.format(name=volume.GetName()))
    return said


def _same_place(run: Run, side: str, parent) -> bool:
    """Whether a volume of a run, put under a transform, lies where it was registered, as far as that was noted."""
    volume, noted = getattr(run, side), json.loads(run.table.GetAttribute(PLACES) or "{}").get(side)
    if volume.GetImageData() is None or volume.GetImageData().GetNumberOfPoints() == 0:
        return False
    allowed = SAME_PLACE * min(volume.GetSpacing())
    return noted is None or bool(np.abs(corners(volume, parent) - noted).max() <= allowed)


def _role(side: str) -> str:
    return f"NeuralRegistration.{side}Parents"


def away_from(volume, known: list) -> dict:
    """{transform: its run} of all results that move what belongs to a volume away from it, but for `known` ones."""
    found = {}
    for run in runs():
        for transform, origin in ((run.transform, run.moving), (run.inverse, run.fixed)):
            if transform is not None and origin is not None and origin is volume and transform not in known:
                found[transform] = run
    return found


def mover(node, volume, known: list) -> Run | None:
    """The run whose transform has taken a node away from the volume to which it belongs."""
    movers = away_from(volume, known)
    return next((movers[transform] for transform in above(node) if transform in movers), None)


def check_unmoved(node, volume, known: list) -> None:
    """Raise RegistrationError where an earlier result has moved a node away from the volume to which it belongs."""
    if node is None or volume is None:
        return
    run = mover(node, volume, known)
    if run is not None:
        raise RegistrationError(
            _('"{name}" was moved by "{run}" and lies no longer on "{volume}"; move it back first (Apply to more, with '
              "that result and in the other direction).").format(
                name=node.GetName(), run=run.name, volume=volume.GetName()
            )
        )  # fmt: skip

"""What earlier results have moved ("Apply to more"): it must not be taken for what lies where it was registered."""

from __future__ import annotations

from neuralreg.job import RegistrationError
from slicer.i18n import tr as _

from .results import Run, runs

FIXED, MOVING = "fixed", "moving"


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


def note_parents(table, **volumes) -> None:
    """Note on the table of a new run under which transforms its volumes lie, given by side; None has none."""
    for side, volume in volumes.items():
        for transform in above(volume) if volume is not None else []:
            table.AddNodeReferenceID(_role(side), transform.GetID())


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

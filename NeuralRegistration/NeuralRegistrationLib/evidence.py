"""Further evidence for a finished run: structures and landmarks of both volumes, measured by `neuralreg evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from neuralreg.job import EVALUATION, RegistrationError, read_json
from slicer.i18n import tr as _

from . import landmarks, moved, run_files, trust
from .results import Run, runs, write_measurements


def command(run: Run, folder: Path, structures: tuple, points: tuple) -> tuple[list[str], list[str]]:
    """Write what was chosen beside the run directory `folder`: (arguments of the command line, names of structures).

    structures and points: nodes of the fixed and of the moving volume, None where nothing is chosen. Raises
    RegistrationError where that is no pair, or nothing at all.
    """
    arguments, names = ["evaluate", str(folder), "--evidence-only"], []
    if (structures, points) == ((None, None), (None, None)):
        raise RegistrationError(_("Choose two segmentations or two point lists to evaluate with."))
    if any((pair[0] is None) != (pair[1] is None) for pair in (structures, points)):
        raise RegistrationError(_("Structures and landmarks are compared in pairs; choose those of both volumes."))
    for fixed, moving in (structures, points):
        moved.check_unmoved(fixed, run.fixed, moved.parents_at_start(run, moved.FIXED))
        moved.check_unmoved(moving, run.moving, moved.parents_at_start(run, moved.MOVING))
        for node, way in ((fixed, "transform"), (moving, "inverse")):
            brought = [getattr(one, way) for one in runs() if (one.fixed, one.moving) == (run.fixed, run.moving)]
            if node is not None and any(one in moved.above(node) for one in brought):
                raise RegistrationError(
                    _('"{name}" was brought here by a registration of this pair and agrees with it whatever that is '
                      "worth; choose what was drawn on the volume itself.").format(name=node.GetName())
                )  # fmt: skip
    if None not in structures:
        files, names = trust.write_structures(*structures, run, folder.parent)
        for first, second in files:
            arguments += ["--fixed-labels", first, "--moving-labels", second]
    if None not in points:
        arguments += ["--landmarks", landmarks.write_table(*points, folder.parent / "landmarks.csv")]
    return arguments, names


def take_over(run: Run, folder: Path, names: list[str]) -> None:
    """Add to the run's table what was measured. Raises RegistrationError when another run has begun since."""
    if not (folder / EVALUATION).exists():
        raise RegistrationError(_("The files of this registration are gone; register again."))
    added = measurements(read_json(folder / EVALUATION, "evaluation"), names)
    write_measurements(run.table, {**run.measurements, **added})
    run_files.keep(run.table, folder)


def measurements(evaluation: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """What an evaluation adds to the measurements of a run."""
    labels = evaluation.get("labels", {}).get("per_label", {})
    dice = {_named(label, names): figures["dice"] for label, figures in labels.items()}
    distances = evaluation.get("landmarks", {}).get("per_landmark_mm", [])
    tre = {str(index + 1): distance for index, distance in enumerate(distances)}
    return {**evaluation["measurements"], **({"dice": dice} if dice else {}), **({"tre_mm": tre} if tre else {})}


def _named(label: str, names: list[str]) -> str:
    """The segment's name for label 1, 2, …, or the label itself."""
    index = int(label) - 1
    return names[index] if index < len(names) else label

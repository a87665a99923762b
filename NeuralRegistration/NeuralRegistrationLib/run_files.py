"""The files of a run outlive its folder: small ones are kept with its table, and so saved with the scene; the others
are made again from the nodes when they are needed (evidence, report).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from neuralreg.job import EVALUATION, JOB, RESULT, TRANSFORM, RegistrationError, read_json
from slicer.i18n import tr as _

from .lattice import corners
from .moved import FIXED, MOVING, SAME_PLACE, as_registered, parents_at_start
from .results import Run
from .scene_export import export_volume_under, write_transform

FILES, MAPPED = "NeuralRegistration.Files", "NeuralRegistration.Mapped"
VOLUMES = {side: f"../inputs/{side}.nrrd" for side in (FIXED, MOVING)}  # from the directory of the run
POINTS = ("fixed_landmarks", "moving_landmarks")
SHOWN = ("fixed_mask", "moving_mask", "initial_transform")  # of these the report shows the names only


def keep(table, run_dir: Path) -> None:
    """Keep the small files of a run directory with the table of the run; nothing where one of them is not there."""
    if not (run_dir / JOB).exists():
        return
    job = read_json(run_dir / JOB, "job")
    points = {name: run_dir / job[name] for name in POINTS if job.get(name)}
    if not all(path.is_file() for path in points.values()):
        return
    places = {name: f"../inputs/{name}{''.join(path.suffixes)}" for name, path in points.items()}
    kept: dict[str, Any] = {
        JOB: {**_portable(job), **places},
        RESULT: read_json(run_dir / RESULT, "result"),
        "points": {places[name]: path.read_text("utf-8-sig", "replace") for name, path in points.items()},
    }
    if (run_dir / EVALUATION).exists():
        kept[EVALUATION] = {"measurements": read_json(run_dir / EVALUATION, "evaluation")["measurements"]}
    table.SetAttribute(FILES, json.dumps(kept))


def _portable(job: dict[str, Any]) -> dict[str, Any]:
    """A job without the places of its files on this computer."""
    names = {side: Path(job[side]).name for side in VOLUMES} | job.get("names", {})
    shown = {name: Path(job[name]).name for name in SHOWN if job.get(name)}
    return {**job, **VOLUMES, **shown, "output": ".", "names": names}


def note_transform(run: Run) -> None:
    """Note with the table of a new run where its transform takes some points: it may be inverted or bent later."""
    if run.transform is not None and run.fixed is not None and run.fixed.GetImageData() is not None:
        probes = corners(run.fixed, None)
        probes = [*probes, *((probes + probes.mean(axis=0)) / 2)]  # halfway to the middle, too, where it bends
        taken = [[list(map(float, probe)), _taken(run, probe)] for probe in probes]
        run.table.SetAttribute(MAPPED, json.dumps(taken))


def _taken(run: Run, point) -> list[float]:
    """Where the transform of a run takes a point of the fixed volume, RAS mm; whatever lies above the node."""
    return list(run.transform.GetTransformFromParent().TransformPoint(point))


def _same_transform(run: Run) -> bool:
    noted = np.array(json.loads(run.table.GetAttribute(MAPPED) or "[]"))  # (n, 2, 3)
    allowed = SAME_PLACE * min(run.fixed.GetSpacing()) if run.fixed is not None else np.inf
    return all(np.abs(_taken(run, probe) - place).max() <= allowed for probe, place in noted)


def has(run_dir: Path | None, sides: tuple[str, ...]) -> bool:
    """Whether a run directory is there, with the volumes of some sides."""
    if run_dir is None or not (run_dir / JOB).exists():
        return False
    job = read_json(run_dir / JOB, "job")
    return all((run_dir / job[side]).exists() for side in sides)


def problem(run: Run, sides: tuple[str, ...]) -> str:
    """Why the files of a run cannot be made again, with the volumes of some sides; empty where they can."""
    if not run.table.GetAttribute(FILES):
        return _("Its files are gone and the scene does not say how it was made; register again.")
    if run.transform is None:
        return _("Its files are gone and its transform is no longer in the scene; register again.")
    for side in sides:
        volume = getattr(run, side)
        if volume is None:
            return _("Its files are gone and its {side} volume is no longer in the scene; register again.").format(
                side=side
            )
        if not as_registered(run, side):
            return _(
                'Its files are gone and "{name}" was moved or changed since; put it back as it was, or register again.'
            ).format(name=volume.GetName())
    if not _same_transform(run):
        return _('Its files are gone and "{name}" was changed since; put it back as it was, or register again.').format(
            name=run.transform.GetName()
        )
    return ""


def restore(run: Run, folder: Path, sides: tuple[str, ...]) -> None:
    """Make the run directory `folder`/run again, with the volumes of some sides beside it.

    Raises RegistrationError when that cannot be done, OSError when the disk is full.
    """
    if reason := problem(run, sides):
        raise RegistrationError(reason)
    run_dir, kept = folder / "run", json.loads(run.table.GetAttribute(FILES))
    for made in (run_dir, folder / "inputs"):
        made.mkdir(parents=True)
    kept[RESULT]["inputs"] = {}  # the checksums of files that are gone
    for name, text in kept.pop("points").items():
        (run_dir / name).write_text(text, encoding="utf-8")
    for name, values in kept.items():
        (run_dir / name).write_text(json.dumps(values), encoding="utf-8")
    for side in sides:
        parents = parents_at_start(run, side)
        export_volume_under(parents[0] if parents else None, getattr(run, side), run_dir / VOLUMES[side])
    write_transform(run.transform, run.transform.GetTransformFromParent(), run_dir / TRANSFORM, run.fixed)

"""Measure a finished run: overlap of labels, landmarks, folds, consistency, similarity; as numbers and as a table."""

from __future__ import annotations

import csv
import dataclasses
import errno
import math
import textwrap
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from . import io, metrics, qa
from .files import changed, checksum, reading, replacing
from .image import Grid, Image, bounding_box, resample
from .job import (
    EVALUATION,
    INVERSE,
    JACOBIAN,
    JOB,
    RESULT,
    TRANSFORM,
    WARPED,
    RegistrationError,
    RegistrationJob,
    Result,
    write_json,
)
from .points import read_pairs
from .portable import stored
from .tables import read_rows
from .transform import Affine, Transform
from .workspace import unreplaced

LABEL_COLUMNS = 4
MEANS = {"dice": "dice_mean", "dice_before": "dice_before_mean", "hd95_mm": "hd95_mean_mm"}  # of figures of each label
LINE = 100  # characters of a line on the terminal
BOX_POINTS = 9  # per axis, at which the box around the moving labels is followed through the transform
BOX_MARGIN = 4  # voxels, for what bulges between them
SAME_MM = 1e-3  # two landmark pairs nearer than that are the same pair


def evaluate_run(
    run_dir: str | Path,
    fixed_labels: str | Path | Sequence[str | Path] | None = None,
    moving_labels: str | Path | Sequence[str | Path] | None = None,
    landmarks: str | Path | None = None,
    evidence_only: bool = False,
) -> dict[str, Any]:
    """Everything that can be measured with the files given; also written to `evaluation.json` in the run directory, or
    said to be missing there, where the user may not write.

    evidence_only: the figures of the images are those that the run has measured itself; of its files the transform
    and the fixed volume suffice then.

    fixed_labels, moving_labels: a label map of each, or several with different numbers, so that structures may overlap.
    landmarks: a CSV file with the columns fixed_x, fixed_y, fixed_z, moving_x, moving_y, moving_z in LPS mm.
    Raises RegistrationError where a file is missing or does not fit.
    """
    run_dir = Path(run_dir)
    pairs, check = _pairs(fixed_labels, moving_labels), unreplaced(run_dir)
    job, result = RegistrationJob.load(run_dir / JOB), Result.load(run_dir / RESULT)
    transform = io.read_transform(run_dir / TRANSFORM)
    fixed = io.read_image(run_dir / job.fixed)  # a job in its run directory counts relative paths from there
    values = {name: value for name, value in result.metrics.items() if isinstance(value, int | float)}
    if not evidence_only:
        if note := changed(job, result.inputs, run_dir):
            warnings.warn(note, stacklevel=2)
        values |= _image_measurements(run_dir, job, fixed, transform, io.read_transform(run_dir / INVERSE))
    evaluation = {"run": str(run_dir), "method": result.method, "preset": job.preset, "measurements": values}
    if pairs:
        labels = _labels_of(pairs, transform, _inverse(run_dir, transform), fixed.grid)
        values.update(labels.pop("means"))
        evaluation["labels"] = labels
        evaluation["label_files"] = [[stored(str(name), str(run_dir)) for name in pair] for pair in pairs]
        evaluation["label_checksums"] = [[checksum(str(name)) for name in pair] for pair in pairs]
    if landmarks is not None:
        errors = landmark_errors(landmarks, transform)
        values.update(errors.pop("means"))
        values["landmarks_guiding"] = _guiding(landmarks, job, run_dir)
        evaluation["landmarks"] = errors
    evaluation["qa"] = [dataclasses.asdict(c) for c in qa.read(values, float(fixed.grid.spacing.max()))]
    evaluation["qa_note"] = qa.NOTE
    _store(evaluation, run_dir, check)
    return evaluation


def _inverse(run_dir: Path, transform: Transform) -> Transform:
    """The run's own inverse, or where it is not there one that is near enough to find boxes with."""
    return io.read_transform(run_dir / INVERSE) if (run_dir / INVERSE).exists() else transform.inverse()


def _store(evaluation: dict[str, Any], run_dir: Path, check: Callable[[], None]) -> None:
    try:
        with replacing(run_dir / EVALUATION) as partial:
            write_json(evaluation, partial)
            check()
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        warnings.warn(f"You may not write to {run_dir}, so a report will not show these figures.", stacklevel=3)


def _image_measurements(
    run_dir: Path, job: RegistrationJob, fixed: Image, transform: Transform, inverse: Transform
) -> dict[str, float]:
    warped, jacobian = _read_map(run_dir / WARPED), _read_map(run_dir / JACOBIAN)
    if not (warped.grid.same_as(fixed.grid, 1e-2) and jacobian.grid.same_as(fixed.grid, 1e-2)):
        raise RegistrationError(
            f"The files in {run_dir} do not lie on the grid of {job.fixed}; the fixed volume has changed."
        )
    mask = io.read_mask(run_dir / job.fixed_mask, fixed.grid) if job.fixed_mask else None
    moving = io.read_image(run_dir / job.moving)
    return metrics.summary(fixed, moving, warped, Image(jacobian.data, fixed.grid), transform, inverse, mask)


def _read_map(path: Path) -> Image:
    """A file of the run, which may well be constant (the Jacobian of a shift): `read_image` refuses that for a scan."""
    if not path.is_file():
        raise RegistrationError(f"The run lacks {path}; run the registration again.")
    return io.read_map(path)


def _pairs(fixed: Any, moving: Any) -> list[tuple[Path, Path]]:
    """The files that belong together. Raises RegistrationError where one lacks its partner."""
    files = [[] if one is None else [one] if isinstance(one, (str, Path)) else list(one) for one in (fixed, moving)]
    if len(files[0]) != len(files[1]):
        raise RegistrationError("Labels are compared in pairs; give both the fixed and the moving label map.")
    return [(Path(first), Path(second)) for first, second in zip(*files, strict=True)]


def _labels_of(pairs: list[tuple[Path, Path]], transform: Transform, inverse: Transform, grid: Grid) -> dict[str, Any]:
    """`label_measurements` of all pairs of label maps together, and their means."""
    table, alone = {}, set()
    for fixed_file, moving_file in pairs:
        fixed, moving = io.read_labels(fixed_file), io.read_labels(moving_file)
        more = label_measurements(_with_room(fixed, moving, inverse, grid), moving, transform)
        if table.keys() & more.keys():
            raise RegistrationError(f"{fixed_file} has numbers of another label map; give each structure its own.")
        table |= more
        alone |= _present(fixed) ^ _present(moving)
    found = with_means(dict(sorted(table.items(), key=lambda row: int(row[0]))))
    return found | {"in_one_map_only": sorted(alone - {int(label) for label in table})}


def _with_room(labels: Image, moving: Image, inverse: Transform, grid: Grid) -> Image:
    """The fixed labels with 0 around them as far as the moving ones reach, warped or not, within the fixed grid.

    Many a file holds no more than the box around its structures; what is warped beyond it must count, too.
    """
    box = moving.grid.cropped(*bounding_box(moving.data[0] != 0))
    reach = box.with_shape((BOX_POINTS,) * 3).points()
    ends = [labels.grid.indices(t(reach)).flatten(1) for t in (Affine.identity(), inverse)]
    frame = labels.grid.indices(grid.with_shape((2, 2, 2)).points()).flatten(1)
    frame = frame.round(decimals=2)  # what files round off is no part of a voxel
    size = torch.tensor(labels.grid.size)
    low, high = torch.cat(ends, dim=1).aminmax(dim=1)
    low = torch.maximum(low - BOX_MARGIN, frame.amin(dim=1)).floor().long().clamp(max=0)
    high = torch.minimum(high + 1 + BOX_MARGIN, frame.amax(dim=1) + 1).ceil().long().maximum(size)
    before, after = (-low).tolist(), (high - size).tolist()
    padding = [count for pair in zip(before, after, strict=True) for count in pair]  # x first, as torch has it
    return Image(torch.nn.functional.pad(labels.data, padding), labels.grid.cropped(low, high))


def label_measurements(fixed: Image, moving: Image, transform: Transform) -> dict[str, dict[str, float | None]]:
    """Dice before and after and HD95, on the grid of the fixed labels, for the labels that both maps have."""
    before, after = (resample(moving, t, fixed.grid, "nearest").data[0] for t in (Affine.identity(), transform))
    common = sorted(_present(fixed) & _present(moving))
    dice, dice_before = metrics.dice(fixed.data[0], after, common), metrics.dice(fixed.data[0], before, common)
    distances = metrics.hd95(fixed.data[0], after, fixed.grid.spacing, common)
    return {
        str(label): {"dice": dice[label], "dice_before": dice_before[label], "hd95_mm": distances.get(label)}
        for label in common
    }


def with_means(table: dict[str, dict[str, float | None]]) -> dict[str, Any]:
    """`label_measurements` and their means. Raises RegistrationError where there are none."""
    if not table:
        raise RegistrationError("The two label maps have no label in common; give maps with the same numbering.")
    columns = {mean: [row[name] for row in table.values() if row[name] is not None] for name, mean in MEANS.items()}
    means = {mean: fmean(values) for mean, values in columns.items() if values}
    return {"per_label": table, "means": {**means, "labels": len(table)}}


def _present(labels: Image) -> set[int]:
    return {int(v) for v in torch.unique(labels.data).tolist()} - {0}


def landmark_errors(path: str | Path, transform: Transform) -> dict[str, Any]:
    """Errors in mm of the landmark pairs in a CSV file, each and their means. Raises RegistrationError."""
    fixed, moving = read_landmarks(path)
    errors, before = metrics.tre(transform, fixed, moving), metrics.tre(Affine.identity(), fixed, moving)
    means = {
        "tre_mean_mm": float(errors.mean()),
        "tre_sd_mm": float(errors.std(correction=0)),
        "tre_max_mm": float(errors.max()),
        "tre_before_mean_mm": float(before.mean()),
        "landmarks": len(errors),
    }
    return {"per_landmark_mm": errors.tolist(), "means": means}


def _guiding(path: str | Path, job: RegistrationJob, run_dir: Path) -> int:
    """How many of the landmark pairs in a file are among those that guided the run: they are no evidence."""
    if job.fixed_landmarks is None:
        return 0
    used = torch.cat(read_pairs(run_dir / job.fixed_landmarks, run_dir / job.moving_landmarks))  # (6, m)
    measured = torch.cat(read_landmarks(path))  # (6, n)
    return int((torch.cdist(measured.T, used.T).amin(dim=1) < SAME_MM).sum())


@reading()
def read_landmarks(path: str | Path) -> tuple[Tensor, Tensor]:
    """Fixed and moving points (3, n) float64 in LPS mm from a CSV file.

    The columns are fixed_x … moving_z, in capitals or not, between commas, semicolons or tabs; any other two prefixes
    count as fixed and moving in the order of the columns. Lines that begin with # are comments.
    Raises RegistrationError when the file cannot be read as such.
    """
    path = Path(path)
    if not path.is_file():
        raise RegistrationError(f"There is no landmark file {path}; check the path.")
    try:
        heading, rows = read_rows(path)
        prefixes = _prefixes([name.lower() for name in heading])
        if len(prefixes) != 2:
            raise ValueError("it needs the columns fixed_x,fixed_y,fixed_z,moving_x,moving_y,moving_z")
        wanted = [f"{prefix}_{axis}" for prefix in prefixes for axis in "xyz"]
        columns = {name.lower(): name for name in heading}
        filled = [(line, row) for line, row in rows if any(row.values())]
        points = [[_coordinate(row[columns[name]], line) for name in wanted] for line, row in filled]
        if not points:
            raise ValueError("it holds no landmarks")
    except (ValueError, OSError, csv.Error) as error:
        raise RegistrationError(f"The landmark file {path} cannot be used: {error}; correct it.") from error
    both = torch.tensor(points, dtype=torch.float64).T
    return both[:3], both[3:]


def _coordinate(text: str | None, line: int) -> float:
    try:
        if math.isfinite(value := float(text or "")):
            return value
    except ValueError:
        pass
    raise ValueError(f'in line {line}, "{text or ""}" is no coordinate in mm, such as 12.5')


def _prefixes(names: Sequence[str]) -> list[str]:
    found = [name[:-2] for name in names if name.endswith("_x") and {f"{name[:-2]}_y", f"{name[:-2]}_z"} <= set(names)]
    if {"fixed", "moving"} <= set(found):
        return ["fixed", "moving"]
    return found[::-1] if found[:1] == ["moving"] or found[1:] == ["fixed"] else found


def format_table(evaluation: dict[str, Any]) -> str:
    """The evaluation as text for a terminal: the traffic lights with their rules, the measurements, Dice per label."""
    lines = [f"{evaluation['method']} ({evaluation['preset']}) · {evaluation['run']}", ""]
    width = max((len(c["name"]) for c in evaluation["qa"]), default=0)
    for check in evaluation["qa"]:
        lines.append(f"{check['light'].upper():6} {check['name']:{width}}  {check['value']}")
        lines += textwrap.wrap(check["rule"], LINE, initial_indent=" " * 7, subsequent_indent=" " * 7)
    lines += ["", *textwrap.wrap(evaluation["qa_note"], LINE), ""]
    values = evaluation["measurements"]
    width = max(len(name) for name in values)
    lines += [f"{name:{width}}  {value:.5g}" for name, value in values.items()]
    if "labels" in evaluation:
        lines += ["", *_label_lines(evaluation["labels"]["per_label"])]
        alone = ", ".join(map(str, evaluation["labels"]["in_one_map_only"]))
        lines += textwrap.wrap(f"Not compared, since only one of the two maps has them: {alone}", LINE) if alone else []
    return "\n".join(lines)


def _label_lines(table: dict[str, dict[str, float | None]]) -> list[str]:
    cells = []
    for label, row in table.items():
        distance = "    –" if row["hd95_mm"] is None else f"{row['hd95_mm']:5.1f}"
        cells.append(f"{label:>6} {row['dice']:.3f} {distance}")
    heading = "   ".join(["label  Dice  HD95"] * min(LABEL_COLUMNS, len(cells)))
    rows = ["   ".join(cells[i : i + LABEL_COLUMNS]) for i in range(0, len(cells), LABEL_COLUMNS)]
    return [heading, *rows]

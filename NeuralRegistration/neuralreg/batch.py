"""A table of pairs, a folder of runs: what there is to do, what is done already, and the table of what came out."""

from __future__ import annotations

import csv
import dataclasses
import os
import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .files import changed, checksum, replacing
from .job import EVALUATION, JOB, RESULT, RegistrationError, RegistrationJob, Result, read_json
from .portable import load_job, portable, with_paths
from .tables import read_table
from .workers import Task

SUMMARY = "summary.csv"
WAITING = f".{JOB}"  # beside a result that waits to be replaced: until then its own job file describes it
IRRELEVANT = ("threads", "device")  # what may differ between a finished run and the one that is asked for
INPUTS = ("fixed", "moving", "fixed_mask", "moving_mask")
MEASURES = {  # column of the summary → entry of evaluation.json, else of result.json
    "dice": "dice_mean",
    "dice_before": "dice_before_mean",
    "hd95_mm": "hd95_mean_mm",
    "folds_percent": "folds_percent",
    "ndv_percent": "non_diffeomorphic_volume_percent",
    "sdlogj": "sdlogj",
    "inverse_mm": "inverse_consistency_mean_mm",
}
COLUMNS = ("name", "status", *MEASURES, "seconds", "memory_mb", "device", "error")
DONE, FAILED, OPEN = "done", "failed", "open"


@dataclass(frozen=True)
class Pair:
    """One row of the table; paths count from the current folder."""

    name: str
    fixed: str
    moving: str
    fixed_mask: str | None = None
    moving_mask: str | None = None
    fixed_labels: str | None = None
    moving_labels: str | None = None


def read_pairs(path: Path) -> list[Pair]:
    """The pairs of a CSV file; relative paths count from its folder. Raises RegistrationError with the line."""
    columns = [field.name for field in dataclasses.fields(Pair)]
    pairs = [_pair(row, Path(path), line) for line, row in read_table(path, "table of pairs", columns)]
    if not pairs:
        raise RegistrationError(f"{path} holds no pairs; give columns fixed and moving, and a line for each pair.")
    seen: set[str] = set()
    for pair in pairs:
        if pair.name.lower() in seen:  # some file systems take a and A for the same
            raise RegistrationError(
                f'{path} holds two pairs named "{pair.name}"; give each a name of its own, in a column "name".'
            )
        seen.add(pair.name.lower())
    return pairs


def _pair(given: dict[str, str], path: Path, line: int) -> Pair:
    if not (given.get("fixed") and given.get("moving")):
        raise RegistrationError(f"Line {line} of {path} lacks fixed or moving; fill both in.")
    name = given.pop("name", "") or f"{_stem(given['moving'])}-to-{_stem(given['fixed'])}"
    if re.search(r'[/\\:*?"<>|\x00-\x1f]', name) or name.startswith("."):
        raise RegistrationError(f'Line {line} of {path}: "{name}" cannot be the name of a folder; choose another name.')
    if bool(given.get("fixed_labels")) != bool(given.get("moving_labels")):
        raise RegistrationError(f"Line {line} of {path} has labels of one image only; give both or none.")
    return Pair(name, **{column: str(path.parent / value) for column, value in given.items()})


def _stem(name: str) -> str:
    return Path(name).name.split(".")[0] or "volume"


def jobs_of(pairs: Iterable[Pair], output: Path, settings: Mapping[str, Any]) -> dict[str, RegistrationJob]:
    """name → job: a pair's files with the settings of all pairs. Raises RegistrationError for a wrong setting."""
    jobs = {}
    for pair in pairs:
        files = {name: getattr(pair, name) for name in INPUTS}
        jobs[pair.name] = RegistrationJob(output=str(Path(output, pair.name)), **files, **settings)
    return jobs


def tasks_of(pairs: Iterable[Pair], jobs: Mapping[str, RegistrationJob], overwrite: bool = False) -> list[Task]:
    """What is still to do, with its job.json in its folder. Raises RegistrationError when another result is there."""
    tasks = []
    for pair in pairs:
        job, commands = jobs[pair.name], []
        folder = Path(job.output)
        done = not overwrite and _is_done(job)
        if not done or changed(job, read_json(folder / RESULT, "result").get("inputs", {})):
            replace = ["--overwrite"] if overwrite or (folder / RESULT).is_file() else []
            commands.append(("run", _argument(_save(job)), "--progress", "json", *replace))
        if pair.fixed_labels and (commands or not _has_labels(folder, pair)):
            labels = ("--fixed-labels", _argument(pair.fixed_labels), "--moving-labels", _argument(pair.moving_labels))
            commands.append(("evaluate", _argument(folder), *labels))
        if commands:
            tasks.append(Task(pair.name, tuple(commands)))
    return tasks


def _is_done(job: RegistrationJob) -> bool:
    folder = Path(job.output)
    if not (folder / RESULT).is_file():
        return False
    there, wanted = (dataclasses.asdict(with_paths(j, _place)) for j in (load_job(folder), job))
    for name in set(wanted) - set(IRRELEVANT) - {"output", "options"}:
        if there[name] != wanted[name]:
            raise RegistrationError(
                f'{folder} holds a result with {name} "{there[name]}", not "{wanted[name]}"; choose another output'
                " folder, or add --overwrite to do all pairs again."
            )
    if {k: _listed(v) for k, v in there["options"].items()} != {k: _listed(v) for k, v in wanted["options"].items()}:
        raise RegistrationError(f"{folder} holds a result with other options; choose another folder or --overwrite.")
    return bool(_read(folder / RESULT))


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value  # as JSON gives it back


def _save(job: RegistrationJob) -> Path:
    """Write the job into its folder -> where."""
    folder = Path(job.output)
    path = folder / (WAITING if (folder / RESULT).is_file() else JOB)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            portable(job).save(partial)
        return path
    except OSError as error:
        raise RegistrationError(f"{folder} cannot be written to ({error.strerror}); choose another output.") from error


def _has_labels(folder: Path, pair: Pair) -> bool:
    """Whether these very label maps have been compared, as they are now; what is gone has not changed."""
    found = _read(folder / EVALUATION)
    if len(found.get("label_files", ())) != 1 or len(found.get("label_checksums", ())) != 1:
        return False
    compared = zip(found["label_files"][0], found["label_checksums"][0], strict=True)
    labels = [(name, checksum(name)) for name in (pair.fixed_labels, pair.moving_labels)]
    return all(
        now == then if now else _place(name) == _place(str(folder / known))
        for (name, now), (known, then) in zip(labels, compared, strict=True)
    )


def _place(path: str) -> str:
    """The same for all names of a file."""
    try:
        return os.path.realpath(path)
    except ValueError:  # no file can have that name
        return path


def _argument(path: str | Path) -> str:
    """A path that no command takes for an option, even where its name begins with a dash."""
    return os.path.join(os.curdir, path)  # noqa: PTH118 (pathlib drops the dot)


def _read(path: Path) -> dict[str, Any]:
    """What a file of a run holds; nothing where it is not there, or damaged since: then it is made again."""
    try:
        return read_json(path, path.stem)
    except RegistrationError:
        return {}


def tidy(jobs: Iterable[RegistrationJob]) -> None:
    """Remove what `tasks_of` has left beside results."""
    for job in jobs:
        (Path(job.output) / WAITING).unlink(missing_ok=True)


def summary(
    jobs: Mapping[str, RegistrationJob], errors: Mapping[str, str], unfinished: Container[str] = ()
) -> list[dict[str, str]]:
    """A row for each pair: its numbers where it is done, the reason where it failed, `open` where it is yet to come.

    What an earlier batch has left of pairs that failed or are unfinished is no result of this one.
    """
    return [_row(name, Path(job.output), errors.get(name, ""), name in unfinished) for name, job in jobs.items()]


def _row(name: str, folder: Path, error: str, unfinished: bool) -> dict[str, str]:
    row = {**dict.fromkeys(COLUMNS, ""), "name": name, "error": error, "status": FAILED if error else OPEN}
    if error or unfinished or not (folder / RESULT).is_file():
        return row
    result = Result.load(folder / RESULT)
    values = result.metrics | _read(folder / EVALUATION).get("measurements", {})
    row |= {column: f"{values[entry]:.5g}" for column, entry in MEASURES.items() if values.get(entry) is not None}
    row |= {"seconds": f"{result.timings['total']:.1f}", "memory_mb": f"{result.peak_memory_mb:.0f}"}
    return row | {"device": result.device, "status": DONE}


def write_summary(rows: list[dict[str, str]], output: Path) -> None:
    """Write `summary.csv` into the folder of a batch; it is whole or absent. Raises OSError."""
    with replacing(Path(output) / SUMMARY) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def format_summary(rows: list[dict[str, str]]) -> str:
    """The table for a terminal: the columns that hold something, the failures in full below it."""
    columns = [c for c in COLUMNS if c != "error" and any(row[c] for row in rows)]
    widths = {c: max(len(c), *(len(row[c]) for row in rows)) for c in columns}
    lines = ["  ".join(c.ljust(widths[c]) for c in columns).rstrip()]
    lines += ["  ".join(row[c].ljust(widths[c]) for c in columns).rstrip() for row in rows]
    return "\n".join([*lines, *(f"{row['name']}: {row['error']}" for row in rows if row["error"])])

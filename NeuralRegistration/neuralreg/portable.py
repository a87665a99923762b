"""Jobs as they are stored: paths that were given as relative ones count from the folder of the job's file, so that this
folder and its data can be moved together. In memory they count from the current folder."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .job import JOB, PATHS, RegistrationJob


def load_job(path: str | Path) -> RegistrationJob:
    """The job in a file, or in the folder of a run. Raises RegistrationError as `RegistrationJob.load` does."""
    path = Path(path)
    file = path / JOB if path.is_dir() else path
    job = RegistrationJob.load(file)
    return with_paths(job, lambda there: there if Path(there).is_absolute() else str(file.parent / there))


def portable(job: RegistrationJob) -> RegistrationJob:
    """The job as it is stored in its output."""
    return with_paths(job, lambda given: stored(given, job.output))


def with_paths(job: RegistrationJob, change: Callable[[str], str]) -> RegistrationJob:
    """The job with all its paths changed, that of a model of one's own included."""
    paths = {name: change(getattr(job, name)) for name in PATHS if getattr(job, name) is not None}
    return dataclasses.replace(job, **paths, options=with_model(job.options, change))


def with_model(options: dict[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """The options, with the path of a model changed; the name of one (no folder, no ending) stays what it is."""
    model = options.get("model")
    if not isinstance(model, str) or not (Path(model).suffix or Path(model).name != model):
        return options
    return {**options, "model": change(os.path.expanduser(model))}  # noqa: PTH111 (raises where nobody knows the home)


def stored(given: str, output: str) -> str:
    """A path as it is stored in a folder: one that was given as a relative one counts from there."""
    if Path(given).is_absolute():
        return given
    try:
        plain = os.path.relpath(given, output)
        # By way of `..` out of an output folder that is a link, the system arrives beside what the link names. Else
        # links stay as they were named: what they lead to may be elsewhere once the folder and its data have moved.
        if os.path.realpath(Path(output, plain).parent) == os.path.realpath(Path(given).parent):
            return plain
        return os.path.relpath(Path(given).parent.resolve() / Path(given).name, Path(output).resolve())
    except ValueError:  # on another drive of a Windows computer
        return str(Path(given).absolute())

"""One job from files to files: read, register, write everything into a private folder, rename it in."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from . import io, pipeline
from .files import NO_ROOM, checksum, split_number, too_long
from .job import (
    JOB,
    PATHS,
    RESULT,
    Cancelled,
    Monitor,
    Part,
    Progress,
    RegistrationError,
    RegistrationJob,
    Result,
)
from .overlap import OUTPUTS, Writer, read_both
from .points import read_pairs
from .portable import portable
from .usage import enough_memory, peak_memory_mb, versions
from .workspace import DERIVED_FILES, RUN_FILES, publish, workspace

INPUTS = tuple(name for name in PATHS if name != "output")
FILES = {**OUTPUTS, "job": JOB}


def run(job: RegistrationJob, monitor: Monitor | None = None, *, overwrite: bool = False) -> Result:
    """Do the job. The output gets transform.h5, inverse.h5, warped.nii.gz, jacobian.nii.gz, result.json and job.json.

    Relative paths are relative to the current folder. The output is complete or untouched. Raises RegistrationError
    with one sentence that says what to do, or Cancelled.
    """
    monitor = monitor or Monitor()
    output = Path(job.output)
    _check_inputs(job, output)
    started, warnings = time.perf_counter(), []
    with _sentences(output), workspace(output, overwrite) as partial:
        monitor.report(Progress("read", 0.0))
        checksums = {name: checksum(path) for name in INPUTS if (path := getattr(job, name)) is not None}
        inputs = _read(job, warnings.append)
        timings = {"read": time.perf_counter() - started}
        monitor.check()
        with Writer(partial) as writer:
            registration = _register(job, inputs, monitor, writer.write)
            timings |= registration.timings
            write_started = time.perf_counter()
            writer.wait(Part(monitor, "write", 0.97, 1.0).step)
        timings["write"] = time.perf_counter() - write_started
        timings["total"] = time.perf_counter() - started
        result = _result(job, registration, timings, warnings, checksums)
        portable(job).save(partial / JOB)
        result.save(partial / RESULT)
        monitor.check()
        publish(partial, output)
    monitor.report(Progress("done", 1.0))
    return result


def _check_inputs(job: RegistrationJob, output: Path) -> None:
    """Raise RegistrationError for an input that is one of the files which the result would replace."""
    folder = Path(os.path.realpath(output))  # unlike Path.resolve, which raises for a link to itself
    replaced = {folder / name for name in (*RUN_FILES, *DERIVED_FILES)}
    for name in INPUTS:
        given = getattr(job, name)
        if given and "\0" not in given and Path(os.path.realpath(split_number(given)[0])) in replaced:
            raise RegistrationError(
                f"{given} is an input, which the result would replace; choose another output folder."
            )


def _read(job: RegistrationJob, warn: Callable[[str], object]) -> dict:
    (fixed, fixed_mask), (moving, moving_mask) = read_both(
        (job.fixed, job.fixed_mask), (job.moving, job.moving_mask), warn
    )
    return {
        "fixed": fixed,
        "moving": moving,
        "fixed_mask": fixed_mask,
        "moving_mask": moving_mask,
        "initial_transform": io.read_transform(job.initial_transform) if job.initial_transform else None,
        "landmarks": read_pairs(job.fixed_landmarks, job.moving_landmarks) if job.fixed_landmarks else None,
    }


def _register(job: RegistrationJob, inputs: dict, monitor: Monitor, ready: pipeline.Ready) -> pipeline.Registration:
    settings = {
        name: getattr(job, name) for name in ("preset", "similarity", "affine", "device", "seed", "threads", "options")
    }
    return pipeline.register(method=job.method, monitor=monitor, ready=ready, **inputs, **settings)


def _result(
    job: RegistrationJob,
    registration: pipeline.Registration,
    timings: dict,
    warnings: list[str],
    inputs: dict[str, str],
) -> Result:
    on_gpu = registration.device.startswith("cuda")
    return Result(
        files=dict(FILES),
        metrics=registration.metrics,
        timings={stage: round(seconds, 4) for stage, seconds in timings.items()},
        peak_memory_mb=round(peak_memory_mb(), 1),
        peak_gpu_memory_mb=round(torch.cuda.max_memory_allocated() / 1e6, 1) if on_gpu else None,
        device=registration.device,
        device_reason=registration.device_reason,
        method=job.method,
        options=registration.options,
        similarity=registration.similarity,
        similarity_reason=registration.similarity_reason,
        seed=job.seed,
        versions=versions(),
        warnings=[*warnings, *registration.warnings],
        loss=registration.loss,
        stopped_early=registration.stopped_early,
        inputs=inputs,
    )


@contextmanager
def _sentences(output: Path) -> Iterator[None]:
    """Failures of the computer as sentences: a full disk, memory that does not suffice."""
    try:
        with enough_memory():
            yield
    except (Cancelled, RegistrationError, BrokenPipeError):  # the last: nobody reads our progress any more
        raise
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise RegistrationError(too_long(error)) from error
        if error.errno in NO_ROOM:
            raise RegistrationError(
                f"The disk of {output} is full; free some space or choose another output folder (nothing was written)."
            ) from error
        raise RegistrationError(
            f"The result cannot be written to {output} ({error}); choose another output folder."
        ) from error

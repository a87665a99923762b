"""`register`, `run` and `serve`: three ways to give the same job."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from ..inbox import Inbox
from ..job import PATHS, Cancelled, Progress, RegistrationError, RegistrationJob, Result
from ..monitor import FileMonitor
from ..workspace import check_output, written_since
from .shared import PROGRESS, add_command, add_settings, say, settings_of, shower, writing

STARTED = time.time()  # a `cancel` file older than this process was not meant for it


def add_register(commands: Any) -> None:
    parser = add_command(
        commands,
        "register",
        _register,
        "register MOVING to FIXED and write the result to a folder",
        "Volumes: whatever ITK reads (NIfTI, NRRD, MHA, a DICOM folder), and FreeSurfer's .mgz; of a file or folder "
        "with several volumes one is picked by its number, scan.nii.gz@0. The folder then holds transform.h5 (ITK, "
        "fixed to moving), inverse.h5, warped.nii.gz on the grid of FIXED, jacobian.nii.gz, result.json and job.json. "
        "While it runs, a file named `cancel` in the folder ends it; one named `stop` ends the optimisation and keeps "
        "what it has.",
        "  neuralreg register fixed.nii.gz moving.nii.gz -o result\n"
        "  neuralreg register ct.nrrd mr.nrrd -o result --similarity nmi\n"
        "  neuralreg register a.mha b.mha -o result --fixed-mask lung.mha --option smoothness=1\n",
    )
    parser.add_argument("fixed", metavar="FIXED", help="the volume whose space is kept")
    parser.add_argument("moving", metavar="MOVING", help="the volume that is brought to FIXED")
    parser.add_argument(
        "-o", "--output", required=True, metavar="DIR", help="folder for the result; it must be empty or new"
    )
    add_settings(parser)
    parser.add_argument(
        "--initial-transform", metavar="F", help="transform to start from, fixed to moving (.h5, .tfm, .mat, field)"
    )
    parser.add_argument("--fixed-mask", metavar="F", help="where FIXED counts; elsewhere the field is only kept smooth")
    parser.add_argument("--moving-mask", metavar="F", help="where MOVING counts")
    parser.add_argument(
        "--fixed-landmarks", metavar="F", help="points (.csv, .fcsv, .mrk.json) that pull the field to their partners"
    )
    parser.add_argument(
        "--moving-landmarks", metavar="F", help="their partners in MOVING: the same labels, or the same order"
    )
    _add_run_options(parser)


def add_run(commands: Any) -> None:
    parser = add_command(
        commands,
        "run",
        _run,
        "do the registration described in a job file",
        "Every result holds its job.json. Relative paths in it are relative to the file.",
        "  neuralreg run result/job.json --overwrite\n",
    )
    parser.add_argument("job", metavar="JOB", help="job.json, or the folder of a run")
    _add_run_options(parser)


def add_serve(commands: Any) -> None:
    parser = add_command(
        commands,
        "serve",
        _serve,
        "import everything, then wait for one job file in a folder and run it",
        'For programs that hide the seconds of the start-up: {"stage": "ready", …} says that a job may come. Write it '
        "under another name and rename it to job.json; relative paths in it are relative to the folder. Taking the "
        "folder away ends the command, also in the middle of a run.",
        "  neuralreg serve --inbox waiting --overwrite &\n"
        "  cp result/job.json waiting/job.partial && mv waiting/job.partial waiting/job.json\n",
    )
    parser.add_argument("--inbox", required=True, metavar="DIR", help="a folder in which job.json will appear")
    parser.add_argument(
        "--parent-pid", type=int, metavar="N", help="process id of the calling program, so as not to outlive it"
    )
    _add_run_options(parser, progress="json")


def _add_run_options(parser: argparse.ArgumentParser, progress: str | None = None) -> None:
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the files of an earlier run in the output folder"
    )
    parser.add_argument(
        "--progress",
        choices=PROGRESS,
        default=progress,
        help=f"JSON lines on standard output, a bar, or nothing (default: {progress or 'a bar on a terminal'})",
    )


def _register(options: argparse.Namespace) -> None:
    with writing():  # before torch is imported: this answer needs no waiting
        check_output(Path(options.output), options.overwrite)
    job = RegistrationJob(**{name: getattr(options, name) for name in PATHS}, **settings_of(options))
    _execute(job, options, STARTED)


def _run(options: argparse.Namespace) -> None:
    from ..portable import load_job

    _execute(load_job(Path(options.job)), options, STARTED)


def _serve(options: argparse.Namespace) -> None:
    inbox = Inbox(Path(options.inbox), options.parent_pid)
    if not inbox.folder.is_dir():
        raise RegistrationError(f"The inbox {inbox.folder} is no folder; make it first.")
    inbox.end_when_abandoned()  # also while torch is being imported
    from ..calibration import calibrate
    from ..devices import choose_device
    from ..portable import load_job

    _warm_up()
    show = shower(options.progress)
    device = ": ".join(choose_device("auto"))  # the panel shows it before Apply, and estimates the time
    show(Progress("ready", 0.0, message=device, calibration=round(calibrate(), 5)))
    job = inbox.wait()
    if job is not None:  # else nobody wants a registration any more
        # Since it was put there: whoever asked this process to stop while it was still starting wants it, too.
        _execute(load_job(job), options, job.stat().st_mtime, inbox)


def _warm_up() -> None:
    """What a first registration would wait for: the modules of every method."""
    from ..methods import METHODS, method_class

    for name in METHODS:
        method_class(name)


def _execute(job: RegistrationJob, options: argparse.Namespace, since: float, inbox: Inbox | None = None) -> None:
    from ..run import run

    monitor = _Monitor(Path(job.output), shower(options.progress), since, previews=options.progress == "json")
    monitor.inbox = inbox
    try:
        result = run(job, monitor, overwrite=options.overwrite)
        if options.progress != "json":
            say(_summary(job, result))
    except (Cancelled, KeyboardInterrupt) as error:
        raise Cancelled(_what_is_left(Path(job.output), since)) from error


def _what_is_left(output: Path, since: float) -> str:
    """What a run that was cancelled has left: the signal may have come when everything was in its place already."""
    if written_since(output, since):
        return f"cancelled at the very end; the result in {output} is complete."
    return "cancelled, nothing was written."


class _Monitor(FileMonitor):
    """A FileMonitor that also takes an abandoned inbox for a cancellation."""

    inbox: Inbox | None = None

    def cancelled(self) -> bool:
        return (self.inbox is not None and self.inbox.abandoned()) or super().cancelled()


def _summary(job: RegistrationJob, result: Result) -> str:
    lines = [f"note: {warning}" for warning in result.warnings]
    seconds = result.timings["total"]
    lines.append(
        f"{job.method} on {result.device} ({result.device_reason}): {seconds:.1f} s, {result.peak_memory_mb:.0f} MB"
    )
    if result.similarity:
        lines.append(f"Compared by {result.similarity}. {result.similarity_reason}")
    lines.append(f"The result is in {job.output}")
    return "\n".join(lines)

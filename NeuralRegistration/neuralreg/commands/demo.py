"""`demo`: a registration from nothing to a report and the page that shows it, to see that everything works."""

from __future__ import annotations

import argparse
import webbrowser
from pathlib import Path
from typing import Any

from ..job import JOB, PRESETS, RESULT, RegistrationError, RegistrationJob, choose
from ..monitor import FileMonitor, bar
from ..workspace import claimed
from .app import open_page
from .shared import add_command, has_display


def add_demo(commands: Any) -> None:
    parser = add_command(
        commands,
        "demo",
        _demo,
        "register a sample pair, write its report and show it in the browser",
        "The pair: Slicer's MRBrainTumor1 and 2 where they can be downloaded, else a brain-like phantom with a known "
        "deformation. It ends in the page of `neuralreg app` and prints its address last; with --no-browser, or where "
        "there is no page, it ends with the path of the report.",
        "  neuralreg demo\n  neuralreg demo -o try --no-browser --offline\n",
    )
    parser.add_argument("-o", "--output", default="demo", metavar="DIR", help="folder for everything (default: demo)")
    parser.add_argument("--preset", default="balanced", metavar="|".join(PRESETS), help="default: balanced")
    parser.add_argument("--offline", action="store_true", help="use the phantom, download nothing")
    parser.add_argument("--no-browser", action="store_true", help="end with the report; no page, no browser")


def _demo(options: argparse.Namespace) -> None:
    from ..evaluate import evaluate_run, format_table
    from ..report import write_report
    from ..run import run
    from ..samples import sample_pair

    folder, preset = Path(options.output).absolute(), choose("preset", options.preset, PRESETS)
    with claimed(folder):
        sample = sample_pair(folder, offline=options.offline)
        print(sample.note, flush=True)
        job = RegistrationJob(str(sample.fixed), str(sample.moving), str(folder / "result"), preset=preset)
        _check_result(Path(job.output), sample.fixed)
        result = run(job, FileMonitor(Path(job.output), bar()), overwrite=True)
        for warning in result.warnings:
            print(f"note: {warning}")
        evaluation = evaluate_run(Path(job.output), sample.fixed_labels, sample.moving_labels, sample.landmarks)
        print(format_table(evaluation))
        report = write_report(Path(job.output))
    print(f"\nRegistered in {result.timings['total']:.0f} s on {result.device}. The report:\n{report}", flush=True)
    if not options.no_browser:
        _show(Path(job.output), report)


def _check_result(folder: Path, fixed: Path) -> None:
    """Raise RegistrationError where a result would be replaced that is not that of an earlier demo."""
    from ..portable import load_job

    if (folder / RESULT).exists() and Path(load_job(folder / JOB).fixed).resolve() != fixed.resolve():
        raise RegistrationError(f"{folder} holds a result of your own and would be replaced; choose another folder.")


def _show(run: Path, report: Path) -> None:
    """The page with the result until it is interrupted; where there is no page, the report."""
    try:
        open_page((run,), browser=has_display())
    except RegistrationError as error:
        print(f"There is no page to look at it: {error}\nThe report has the same pictures and numbers:\n{report}")
        if has_display():
            webbrowser.open(report.as_uri())

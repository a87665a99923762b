"""`evaluate`, `report` and `methods`: what came out, and what there is."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from .shared import add_command


def add_evaluate(commands: Any) -> None:
    parser = add_command(
        commands,
        "evaluate",
        _evaluate,
        "measure a finished run",
        "Similarity before and after, folds, non-diffeomorphic volume, SDlogJ, inverse consistency; with label maps "
        "Dice and HD95 of each label, with landmarks their distance (TRE).",
        "  neuralreg evaluate result\n"
        "  neuralreg evaluate result --fixed-labels f_seg.nii.gz --moving-labels m_seg.nii.gz --json numbers.json\n"
        "  neuralreg evaluate result --landmarks pairs.csv\n",
    )
    parser.add_argument("run", metavar="RUN_DIR", help="output folder of a registration")
    parser.add_argument("--fixed-labels", metavar="F", help="label map on the fixed image")
    parser.add_argument("--moving-labels", metavar="F", help="label map on the moving image")
    parser.add_argument(
        "--landmarks", metavar="F.csv", help="pairs of points: x, y, z on fixed, then on moving, LPS mm"
    )
    parser.add_argument(
        "--json", metavar="F", help="write the numbers to this file too (- for standard output instead of the table)"
    )


def _evaluate(options: argparse.Namespace) -> None:
    from ..evaluate import evaluate_run, format_table

    numbers = evaluate_run(Path(options.run), options.fixed_labels, options.moving_labels, options.landmarks)
    text = json.dumps(numbers, indent=2)
    if options.json == "-":
        print(text)
        return
    if options.json:
        Path(options.json).write_text(text + "\n", encoding="utf-8")
    print(format_table(numbers))


def add_report(commands: Any) -> None:
    parser = add_command(
        commands,
        "report",
        _report,
        "write report.html, one page with pictures and numbers, into the folder of a run",
        examples="  neuralreg report result\n",
    )
    parser.add_argument("run", metavar="RUN_DIR", help="output folder of a registration")


def _report(options: argparse.Namespace) -> None:
    from ..report import write_report

    print(write_report(Path(options.run)))

"""`evaluate`, `report` and `methods`: what came out, and what there is."""

from __future__ import annotations

import argparse
import contextlib
import json
from pathlib import Path
from typing import Any

from ..files import replacing
from ..job import JOB, PATHS, RegistrationError, RegistrationJob, write_json
from ..workspace import RUN_FILES
from .shared import add_command, output_file, say, writing


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
    again = "; again for more with other numbers, where structures overlap"
    parser.add_argument("--fixed-labels", metavar="F", action="append", help="label map on the fixed image" + again)
    parser.add_argument("--moving-labels", metavar="F", action="append", help="label map on the moving image, likewise")
    parser.add_argument(
        "--landmarks", metavar="F.csv", help="pairs of points: x, y, z on fixed, then on moving, LPS mm"
    )
    parser.add_argument(
        "--evidence-only",
        action="store_true",
        help="measure labels and landmarks only; the rest as the run measured it, of which the transform suffices then",
    )
    parser.add_argument(
        "--json", metavar="F", help="write the numbers to this file too (- for standard output instead of the table)"
    )


def _evaluate(options: argparse.Namespace) -> None:
    from ..evaluate import evaluate_run, format_table

    given = *(options.fixed_labels or ()), *(options.moving_labels or ()), options.landmarks, *_files_of(options.run)
    own = output_file(options.json, *given) if options.json not in (None, "-") else None
    with writing():
        numbers = evaluate_run(
            Path(options.run), options.fixed_labels, options.moving_labels, options.landmarks, options.evidence_only
        )
        if own is not None:
            with replacing(own) as partial:
                write_json(numbers, partial)
    print(json.dumps(numbers, indent=2) if options.json == "-" else format_table(numbers))


def _files_of(run: str) -> list[str]:
    """The files of a run and those that it was made of, none of which may be replaced by what is written about it."""
    folder = Path(run)
    with contextlib.suppress(RegistrationError):  # said by whoever needs the job
        job = RegistrationJob.load(folder / JOB)
        inputs = [getattr(job, name) for name in PATHS if name != "output" and getattr(job, name)]
        return [str(folder / name) for name in (*RUN_FILES, *inputs)]
    return [str(folder / name) for name in RUN_FILES]


def add_report(commands: Any) -> None:
    parser = add_command(
        commands,
        "report",
        _report,
        "write report.html, one page with pictures and numbers, into the folder of a run",
        examples="  neuralreg report result\n  neuralreg report /archive/result -o report.html\n",
    )
    parser.add_argument("run", metavar="RUN_DIR", help="output folder of a registration")
    parser.add_argument(
        "--restore",
        action="store_true",
        help="first make the warped volume and the Jacobian again from the transform where they are gone",
    )
    parser.add_argument("-o", "--output", metavar="F.html", help="another place than RUN_DIR/report.html")


def _report(options: argparse.Namespace) -> None:
    from ..report import write_report

    output = None if options.output is None else output_file(options.output, *_files_of(options.run))
    with writing():
        if options.restore:
            from ..restore import restore

            restore(Path(options.run))
        report = write_report(Path(options.run), output)
    say(str(report))


def add_methods(commands: Any) -> None:
    parser = add_command(
        commands,
        "methods",
        _methods,
        "list the methods with their options and defaults, and the device that was found",
        "The options are given to `register` as --option KEY=VALUE; lists are written with commas.",
        "  neuralreg methods\n"
        "  neuralreg methods --json\n"
        "  neuralreg register fixed.nii.gz moving.nii.gz -o result --method DNVF --option smoothness=1\n",
    )
    parser.add_argument("--json", action="store_true", help="the same as JSON")


def _methods(options: argparse.Namespace) -> None:
    from ..devices import choose_device
    from ..methods import describe

    methods = describe()
    device, why = choose_device("auto")
    if options.json:
        print(json.dumps({"methods": methods, "device": device, "device_reason": why}, indent=2))
        return
    for method in methods:
        print(f"{method['name']}: {method['summary']}")
        for option in method["options"]:
            print(f"  {option['name']:<18} {_as_typed(option['default']):<14} {option.get('help', '')}")
        for preset, values in method["presets"].items() if method["options"] else ():
            changed = "  ".join(f"{name}={_as_typed(value)}" for name, value in values.items())
            print(f"  preset {preset:<11} {changed or 'the defaults above'}")
        print()
    print(f"Device: {device} ({why})")


def _as_typed(value: Any) -> str:
    """A value as one would write it after --option KEY=."""
    if isinstance(value, tuple | list):
        return ",".join(_as_typed(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)

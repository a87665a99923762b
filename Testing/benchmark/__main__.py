"""`python -m benchmark run …` and `python -m benchmark report …`, from the folder Testing."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "NeuralRegistration"


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    options.function(options)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmark", description="Accuracy and speed on real pairs.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="measure methods on pairs; what the CSV file holds already is not repeated")
    run.set_defaults(function=_run)
    run.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with brain_labelled/, lung_ct/")
    run.add_argument("--methods", default="ours", help="comma-separated: ours, METHOD:PRESET[:option=value;…], a peer")
    run.add_argument("--datasets", default="brain_labelled,lung_ct", help="comma-separated (default: all)")
    run.add_argument("--pairs", type=int, metavar="N", help="at most N pairs of each data set, spread over it")
    run.add_argument(
        "--pair", action="append", metavar="NAME", help="only this pair, such as 1000-1001; may be repeated"
    )
    run.add_argument("--threads", type=int, default=2, help="for every method (default: 2)")
    run.add_argument("--out", type=Path, default=Path("results.csv"), help="CSV file (default: results.csv)")
    run.add_argument("--keep", type=Path, metavar="DIR", help="keep the folders of the runs there")
    report = commands.add_parser("report", help="print the table of a CSV file as Markdown")
    report.set_defaults(function=_report)
    report.add_argument("csv", type=Path, nargs="?", default=Path("results.csv"))
    report.add_argument("--reference", metavar="METHOD", default="ants", help="what the others are held against")
    report.add_argument("--plot", type=Path, metavar="F.png", help="also draw accuracy against CPU time")
    return parser


def _run(options: argparse.Namespace) -> None:
    from . import table
    from .measure import measured
    from .methods import commands
    from .pairs import pairs_of

    methods = commands(options.methods)
    pairs = pairs_of(options.data.resolve(), options.datasets.split(","), options.pairs)
    pairs = [pair for pair in pairs if not options.pair or pair.name in options.pair]
    done = table.done(table.read(options.out))
    for pair in pairs:
        for name, command in methods.items():
            if (pair.dataset, pair.name, name) in done:
                continue
            folder = (options.keep or Path(tempfile.mkdtemp(prefix="benchmark-"))) / pair.dataset / pair.name / name
            row = measured(pair, name, command, folder, options.threads)
            table.append(options.out, row)
            shown = ", ".join(
                f"{k} {row[k]}" for k in ("dice", "tre_mm", "wall_s", "memory_mb", "error") if row[k] != ""
            )
            print(f"{pair.dataset} {pair.name} {name}: {shown}", flush=True)
            if not options.keep:
                shutil.rmtree(folder.parents[2], ignore_errors=True)


def _report(options: argparse.Namespace) -> None:
    from . import table

    rows = table.read(options.csv)
    if not rows:
        raise SystemExit(f"{options.csv} holds no results; make some with `python -m benchmark run`.")
    print(table.markdown(rows, options.reference), end="")
    if options.plot:
        from .plot import plot

        plot(rows, options.plot)


if __name__ == "__main__":
    sys.path.insert(0, str(SOURCE))  # a checkout works without installing it
    sys.exit(main())

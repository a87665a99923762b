"""Errors of runs at every landmark, side by side: is one point wrong for all, or for one method only?

    python -m benchmark.landmarks --data DIR --keep DIR [NAME …]   (from the folder Testing)

--keep is the folder that `python -m benchmark run --datasets lung_ct --keep DIR` filled; NAME a method (default: all
that are there). Errors are in mm; the last rows are means over all landmarks, and over all but the worst of a method.
Below, how far apart two methods place the landmarks: where they agree better with each other than with the file, the
file is coarser than they are.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "NeuralRegistration"))

from neuralreg import evaluate, io
from neuralreg.job import TRANSFORM

from .pairs import lung_ct


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with lung_ct/")
    parser.add_argument("--keep", type=Path, required=True, metavar="DIR", help="folder of kept runs")
    parser.add_argument("names", nargs="*", metavar="NAME", help="methods (default: all that are there)")
    options = parser.parse_args(arguments)
    (pair,) = lung_ct(options.data / "lung_ct")
    runs = options.keep / pair.dataset / pair.name
    names = options.names or sorted(path.parent.name for path in runs.glob(f"*/{TRANSFORM}"))
    if not names:
        raise SystemExit(f"{runs} holds no finished run; make some with `python -m benchmark run --keep`.")
    fixed, moving = evaluate.read_landmarks(pair.landmarks)
    places = {name: io.read_transform(runs / name / TRANSFORM)(fixed) for name in names}
    columns = [(place - moving).norm(dim=0).tolist() for place in places.values()]
    print("| landmark | " + " | ".join(names) + " |\n|" + "---|" * (len(names) + 1))
    for number, row in enumerate(zip(*columns, strict=True)):
        print(f"| {number} | " + " | ".join(f"{error:.2f}" for error in row) + " |")
    means = [sum(column) / len(column) for column in columns]
    others = [(sum(column) - max(column)) / (len(column) - 1) for column in columns]
    for label, values in (("mean", means), ("mean without the worst", others)):
        print(f"| {label} | " + " | ".join(f"{value:.3f}" for value in values) + " |")
    for one, other in itertools.combinations(names, 2):
        apart = (places[one] - places[other]).norm(dim=0)
        print(f"\n{one} and {other}: {apart.mean():.3f} mm apart on average, {apart.max():.3f} mm at most")


if __name__ == "__main__":
    main()

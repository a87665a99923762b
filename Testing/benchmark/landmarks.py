"""Errors of runs at every landmark, side by side: is one point wrong for all, or for one method only?

    python -m benchmark.landmarks --data DIR --keep DIR [--dataset NAME] [--points FIXED.txt MOVING.txt] [METHOD …]

From the folder Testing. --keep is the folder that `python -m benchmark run --datasets lung_ct --keep DIR` filled,
METHOD one that is there (default: all). --points takes other landmarks of the same scans, as elastix writes points.
ITKElastix publishes 51 in examples/data, CT_3D_lung_fixed_point_set_corrected.txt and (…)moving(…): those of the data
set are every other one of them.

Errors are in mm; the last rows are means over all landmarks, over every other one from the first and from the second,
and over all but the worst of a method. Below, how far apart two methods place the landmarks, and by how much the errors
of the one are larger, with the standard error of that: where methods agree better with each other than with the file,
the file is coarser than they are.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "NeuralRegistration"))

from neuralreg import evaluate, io
from neuralreg.job import TRANSFORM

from .pairs import pairs_of


def read_points(path: Path) -> torch.Tensor:  # (3, n) float64 LPS mm
    """A file of elastix: the word `point`, the number of points, a line for each."""
    return torch.from_numpy(np.loadtxt(path, skiprows=2, ndmin=2).T.copy())


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with lung_ct/")
    parser.add_argument("--keep", type=Path, required=True, metavar="DIR", help="folder of kept runs")
    parser.add_argument("--dataset", default="lung_ct", help="default: lung_ct")
    parser.add_argument("--points", type=Path, nargs=2, metavar=("FIXED.txt", "MOVING.txt"), help="other landmarks")
    parser.add_argument("names", nargs="*", metavar="METHOD", help="default: all that are there")
    options = parser.parse_args(arguments)
    (pair,) = pairs_of(options.data, [options.dataset])
    runs = options.keep / pair.dataset / pair.name
    names = options.names or sorted(path.parent.name for path in runs.glob(f"*/{TRANSFORM}"))
    if not names:
        raise SystemExit(f"{runs} holds no finished run; make some with `python -m benchmark run --keep`.")
    fixed, moving = map(read_points, options.points) if options.points else evaluate.read_landmarks(pair.landmarks)
    places = {name: io.read_transform(runs / name / TRANSFORM)(fixed) for name in names}
    errors = {name: (place - moving).norm(dim=0) for name, place in places.items()}
    _print_table(errors)
    for one, other in itertools.combinations(names, 2):
        apart, more = (places[one] - places[other]).norm(dim=0), _trusted(errors[one] - errors[other], errors[one])
        print(
            f"\n{one} and {other}: {apart.mean():.3f} mm apart on average, {apart.max():.3f} mm at most; but for the"
            f" worst landmark, errors of {one} are larger by {more.mean():.3f} ± {more.std() / len(more) ** 0.5:.3f} mm"
        )


def _print_table(errors: dict[str, torch.Tensor]) -> None:
    print("| landmark | " + " | ".join(errors) + " |\n|" + "---|" * (len(errors) + 1))
    for number, row in enumerate(zip(*(column.tolist() for column in errors.values()), strict=True)):
        print(f"| {number} | " + " | ".join(f"{error:.2f}" for error in row) + " |")
    means = {
        "mean": lambda column: column,
        "mean of numbers 0, 2, 4 …": lambda column: column[::2],
        "mean of numbers 1, 3, 5 …": lambda column: column[1::2],
        "mean without the worst": lambda column: _trusted(column, column),
    }
    for label, chosen in means.items():
        print(f"| {label} | " + " | ".join(f"{chosen(column).mean():.3f}" for column in errors.values()) + " |")


def _trusted(values: torch.Tensor, errors: torch.Tensor) -> torch.Tensor:
    """The values at all landmarks but the one with the largest error."""
    return values[torch.arange(len(values)) != errors.argmax()]


if __name__ == "__main__":
    main()

"""Small crops: 20 random pairs of hippocampi, Dice of both halves before, after the affine stage and after DNVF.

    python -m benchmark.hippocampus --data DIR [--pairs 20] [--option key=value …]   (from the folder Testing)

DIR holds hippocampus/. Default settings throughout; what "auto" chose is in the last column.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "NeuralRegistration"))

import numpy as np
import torch
from neuralreg import io, pipeline
from neuralreg.commands.shared import parse_options
from neuralreg.image import Image, resample
from neuralreg.methods import method_class
from neuralreg.metrics import dice
from neuralreg.transform import Transform

from .pairs import random_pairs

HALVES = (1, 2)  # anterior, posterior


def overlap(fixed_labels: Image, moving_labels: Image, transform: Transform) -> float:
    """Mean Dice of the two halves; labels are warped once."""
    warped = resample(moving_labels, transform, fixed_labels.grid, "nearest")
    return float(np.mean(list(dice(fixed_labels.data[0], warped.data[0], HALVES).values())))


def measured(folder: Path, fixed: str, moving: str, **settings) -> tuple[float, float, float, float, str]:
    """Dice after the affine stage and after the whole, folded voxels, CPU seconds, similarity."""
    images = [io.read_image(folder / f"{name}_T1w.nii.gz") for name in (fixed, moving)]
    labels = [io.read_labels(folder / f"{name}_labels.nii.gz") for name in (fixed, moving)]
    start = time.process_time()
    found = pipeline.register(*images, **settings)
    seconds = time.process_time() - start
    folds = found.metrics["folds_in_view"] + found.metrics["non_diffeomorphic_volume_voxels"]
    linear = found.transform.transforms[0]
    return overlap(*labels, linear), overlap(*labels, found.transform), folds, seconds, found.similarity


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with hippocampus/")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=3, help="of the choice of pairs")
    parser.add_argument("--preset", default="balanced")
    parser.add_argument("--similarity", default="auto")
    parser.add_argument("--option", action="append", default=[], metavar="KEY=VALUE", help="an option of DNVF")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    given = parse_options(options.option, method_class("DNVF"))
    settings = {"preset": options.preset, "similarity": options.similarity, "options": given, "threads": 1}
    print("| pair | affine | DNVF | folded voxels | CPU s | similarity |\n|---|---|---|---|---|---|")
    folder, rows = options.data / "hippocampus", []
    for pair in random_pairs(folder, options.pairs, options.seed):
        row = measured(folder, *pair, **settings)
        rows.append(row[:4])
        numbers = f"{row[0]:.3f} | {row[1]:.3f} | {row[2]:g} | {row[3]:.1f} | {row[4]}"
        print(f"| {pair[0]} ← {pair[1]} | {numbers} |", flush=True)
    means = np.mean(rows, axis=0)
    print(f"| **mean of {len(rows)}** | {means[0]:.3f} | {means[1]:.3f} | {means[2]:g} | {means[3]:.1f} | |")
    print(f"gain {means[1] - means[0]:.4f}, smallest {min(r[1] - r[0] for r in rows):.3f}")


if __name__ == "__main__":
    main()

"""What each ingredient of DNVF buys: one row per variation, on up to two brain pairs, deformable stage on one thread.

    python -m benchmark.sweep --data DIR          (from the folder Testing)

The affine stage runs once per pair; what is timed is the CPU time of the method alone.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "NeuralRegistration"))

import torch
from neuralreg import io, metrics, pipeline
from neuralreg.affine import register_affine
from neuralreg.diffeomorphism import with_inverse
from neuralreg.image import Image, resample
from neuralreg.job import Monitor
from neuralreg.methods import make_method
from neuralreg.preprocess import Pair
from neuralreg.transform import Affine, DisplacementField, jacobian_determinant

PAIRS = (("1000", "1001"), ("1002", "1006"))
TWO = {"image_factors": [4, 2], "iterations": [60, 40], "windows": [5, 5], "strides": [1, 1]}
PLAIN = {"image_factors": [4], "velocity_factors": [6], "iterations": [60], "windows": [5], "strides": [1]}
ROWS: dict[str, dict] = {
    "balanced": {},
    "moving on fixed only": {"directions": ["forward"]},
    "directions in turns, all stages": {"directions": ["alternate"]},
    "both directions, all stages": {"directions": ["both"]},
    "first velocity lattice 4": {"velocity_factors": [4, 3, 1]},
    "first velocity lattice 8": {"velocity_factors": [8, 3, 1]},
    "last velocity lattice 1.5": {"velocity_factors": [6, 3, 1.5]},
    "last velocity lattice 1.2, windows 5, 5, 4": {"velocity_factors": [6, 3, 1.2], "windows": [5, 5, 4]},
    "two stages, images at 4 and 2, velocity at 4 and 3": {**TWO, "velocity_factors": [4, 3]},
    "two stages, images at 4 and 2, velocity at 4 and 2": {**TWO, "velocity_factors": [4, 2]},
    "coefficients every voxel": {"knots": 1.0},
    "coefficients every two voxels": {"knots": 2.0},
    "volume 0.3": {"volume": 0.3},
    "volume 0.15": {"volume": 0.15},
    "volume 0": {"volume": 0.0},
    "windows 5, 5, 4": {"windows": [5, 5, 4]},
    "windows 7, 5, 5": {"windows": [7, 5, 5]},
    "iterations 60, 40, 24": {"iterations": [60, 40, 24]},
    "iterations 40, 25, 16": {"iterations": [40, 25, 16]},
    "iterations 40, 25, 10": {"iterations": [40, 25, 10]},
    "2 squarings": {"squarings": 2},
    "one coarse stage, encoded": PLAIN,
    "one coarse stage, SIREN 5×512, rate 1e-4": {**PLAIN, "networks": ["siren"], "siren_rate": 1e-4},
    "one coarse stage, SIREN 5×512, rate 3e-4": {**PLAIN, "networks": ["siren"], "siren_rate": 3e-4},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with brain_labelled/")
    parser.add_argument("--pairs", type=int, default=len(PAIRS), metavar="N", help="only the first N pairs")
    parser.add_argument("--rows", nargs="*", default=list(ROWS), metavar="ROW", help="only these rows")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pairs = [_prepared(options.data / "brain_labelled", *names) for names in PAIRS[: options.pairs]]
    print("| variation | Dice | SDlogJ | CPU s |\n|---|---|---|---|")
    for row in options.rows:
        values = torch.tensor([_measured(ROWS[row], *pair) for pair in pairs], dtype=torch.float64).mean(0)
        print(f"| {row} | {values[0]:.4f} | {values[1]:.3f} | {values[2]:.0f} |", flush=True)


def _prepared(folder: Path, fixed_name: str, moving_name: str) -> tuple[Pair, Affine, Image, Image]:
    fixed, moving = (io.read_image(folder / f"{name}_T1w_brain.nii.gz") for name in (fixed_name, moving_name))
    affine = register_affine(fixed, moving).moving_from_aligned
    pair = pipeline.make_pair(fixed, moving, affine, pipeline.working_grid(fixed, pipeline.MAX_VOXELS))
    return pair, affine, *(io.read_labels(folder / f"{name}_labels.nii.gz") for name in (fixed_name, moving_name))


def _measured(options: dict, pair: Pair, affine: Affine, fixed_labels: Image, moving_labels: Image) -> list[float]:
    """Mean Dice, SDlogJ within the labels, CPU seconds."""
    torch.manual_seed(0)
    start = time.process_time()
    fit = make_method("DNVF", "balanced", options)(pair, "lncc", "cpu", Monitor())
    seconds = time.process_time() - start
    forward, _ = with_inverse(fit.chain.forward, fit.chain.inverse, pair.grid.shape)
    transform = affine @ DisplacementField.from_voxels(forward, pair.grid.with_shape(tuple(forward.shape[2:])))
    grid = fixed_labels.grid
    warped = resample(moving_labels, transform, grid, "nearest").data[0]
    common = set(fixed_labels.data.unique().int().tolist()) & set(moving_labels.data.unique().int().tolist()) - {0}
    dice = metrics.dice(fixed_labels.data[0], warped, sorted(common))
    jacobian = jacobian_determinant(transform, grid).data[0]
    return [sum(dice.values()) / len(dice), metrics.sdlogj(jacobian, fixed_labels.data[0] > 0), seconds]


if __name__ == "__main__":
    main()

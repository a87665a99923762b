"""What one image lacks: tissue that a surgeon took, tissue that a tumour hides, half of the head.

    python Testing/reliability/missing.py [--seeds 2] [--option key=value …]

A brain phantom whose deformation is known. First a ball is painted into one image; printed is the mean error in mm of
points around it (within 10 mm), in it, and elsewhere in the brain: without a lesion, and with it without and with a
mask that leaves the ball out. Then one image ends in the middle of the head; printed is the error within 10 mm of the
cut, from there to 20 mm, and beyond. DNVF, two short stages.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "NeuralRegistration"))

import numpy as np
import torch
from neuralreg import pipeline
from neuralreg.commands.shared import parse_options
from neuralreg.image import Grid, Image
from neuralreg.methods import method_class
from neuralreg.phantom import Phantom, make_phantom

RADIUS_MM, SHELL_MM = 15.0, 10.0
SHORT = {
    "image_factors": [2.0, 1.0],
    "velocity_factors": [2.0, 2.0],
    "iterations": [30, 25],
    "windows": [5, 5],
    "strides": [1, 1],
}
CENTRE = (26.0, -12.0, 22.0)  # in the white matter of one side, LPS mm
LESIONS = {"cavity": 0.0, "tumour": 1800.0}  # tissues lie between 130 and 980


def distance(points: torch.Tensor) -> torch.Tensor:
    """Of points (3, …) from the middle of the ball, mm."""
    return (points - torch.tensor(CENTRE, dtype=points.dtype).view(3, *[1] * (points.ndim - 1))).norm(dim=0)


def painted(image: Image, value: float) -> tuple[Image, Image]:
    """The image with the ball in it, and the mask that leaves it out."""
    ball = distance(image.grid.points()) < RADIUS_MM
    lesion = Image(torch.where(ball, torch.tensor(value), image.data), image.grid)
    return lesion, Image((~ball).float()[None], image.grid)


def lesion_errors(phantom: Phantom, where: str, lesion: str | None, masked: bool, options: dict) -> list[float]:
    """Mean error in the shell, in the ball and elsewhere, mm; the ball lies in the image called `where`."""
    images, masks = {"fixed": phantom.fixed, "moving": phantom.moving}, {}
    if lesion:
        images[where], mask = painted(images[where], LESIONS[lesion])
        masks = {f"{where}_mask": mask} if masked else {}
    far, error = placed_errors(phantom, where, distance, images, options, masks)
    return means(error, (far >= RADIUS_MM) & (far < RADIUS_MM + SHELL_MM), far < RADIUS_MM, far >= RADIUS_MM + SHELL_MM)


def cut_errors(phantom: Phantom, where: str, options: dict) -> list[float]:
    """Mean error within SHELL_MM above the cut, within the next SHELL_MM, and beyond; `where` has the upper half."""
    images = {"fixed": phantom.fixed, "moving": phantom.moving}
    grid = images[where].grid
    middle = grid.shape[0] // 2
    images[where] = Image(images[where].data[:, middle:], grid.cropped((0, 0, middle), grid.size))
    edge = float(images[where].grid.points(0, 1)[2].min())
    far, error = placed_errors(phantom, where, lambda points: points[2] - edge, images, options, {})
    return means(
        error, (far >= 0) & (far < SHELL_MM), (far >= SHELL_MM) & (far < 2 * SHELL_MM), far >= 2 * SHELL_MM
    )  # fmt: skip


def placed_errors(phantom, where, place, images, options, masks) -> tuple[torch.Tensor, torch.Tensor]:
    """`place` of every brain voxel in the image `where`, and its error in mm after a registration of `images`."""
    found = pipeline.register(images["fixed"], images["moving"], affine="none", threads=1, options=options, **masks)
    fixed = phantom.fixed.grid.points()[:, phantom.fixed_labels.data[0] > 0]
    truth = phantom.moving_from_fixed(fixed)
    return place(fixed if where == "fixed" else truth), (found.transform(fixed) - truth).norm(dim=0)


def means(error: torch.Tensor, *parts: torch.Tensor) -> list[float]:
    return [float(error[part].mean()) for part in parts]


def print_row(names: list[str], rows: list[list[float]]) -> None:
    print("| " + " | ".join([*names, *(f"{value:.2f}" for value in np.mean(rows, axis=0))]) + " |", flush=True)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2, help="phantoms with other deformations")
    parser.add_argument("--option", action="append", default=[], metavar="KEY=VALUE", help="an option of DNVF")
    given = parser.parse_args(arguments)
    options = SHORT | parse_options(given.option, method_class("DNVF"))
    grid = Grid.from_parts((54, 66, 50), (-68, -86, -64), (2.6, 2.65, 2.6))
    phantoms = [make_phantom(grid, amplitude_mm=12.0, seed=seed) for seed in range(given.seeds)]
    print("| ball | in | mask | around it | in it | elsewhere |\n|---|---|---|---|---|---|")
    for where in ("fixed", "moving"):
        for lesion, masked in [(None, False), *((lesion, masked) for lesion in LESIONS for masked in (False, True))]:
            rows = [lesion_errors(phantom, where, lesion, masked, options) for phantom in phantoms]
            print_row([lesion or "none", where, "yes" if masked else "no"], rows)
    print(f"\n| upper half | to {SHELL_MM:g} mm | to {2 * SHELL_MM:g} mm | beyond |\n|---|---|---|---|")
    for where in ("fixed", "moving"):
        print_row([where], [cut_errors(phantom, where, options) for phantom in phantoms])


if __name__ == "__main__":
    main()

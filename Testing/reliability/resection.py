"""Lost tissue: does a mask around a cavity or a tumour help the tissue beside it?

    python Testing/reliability/resection.py [--seeds 4] [--option key=value …]

A ball is painted into one image of a brain phantom whose deformation is known. Printed: the mean error in mm of points
in the shell around the ball, inside it, and elsewhere in the brain; without a lesion, and with it without and with a
mask that leaves the ball out.
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


def errors(phantom: Phantom, where: str, lesion: str | None, masked: bool, options: dict) -> list[float]:
    """Mean error in the shell, in the ball and elsewhere, mm; the ball lies in the image called `where`."""
    images = {"fixed": phantom.fixed, "moving": phantom.moving}
    masks = {}
    if lesion:
        images[where], mask = painted(images[where], LESIONS[lesion])
        masks = {f"{where}_mask": mask} if masked else {}
    found = pipeline.register(images["fixed"], images["moving"], affine="none", threads=1, options=options, **masks)
    brain = phantom.fixed_labels.data[0] > 0
    fixed = phantom.fixed.grid.points()[:, brain]
    truth = phantom.moving_from_fixed(fixed)
    far = distance(fixed if where == "fixed" else truth)
    error = (found.transform(fixed) - truth).norm(dim=0)
    parts = ((far >= RADIUS_MM) & (far < RADIUS_MM + SHELL_MM), far < RADIUS_MM, far >= RADIUS_MM + SHELL_MM)
    return [float(error[part].mean()) for part in parts]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4, help="phantoms with other deformations")
    parser.add_argument("--masked", action="store_true", help="the rows with a mask only")
    parser.add_argument("--option", action="append", default=[], metavar="KEY=VALUE", help="an option of DNVF")
    given = parser.parse_args(arguments)
    options = parse_options(given.option, method_class("DNVF"))
    grid = Grid.from_parts((54, 66, 50), (-68, -86, -64), (2.6, 2.65, 2.6))
    phantoms = [make_phantom(grid, amplitude_mm=12.0, seed=seed) for seed in range(given.seeds)]
    print("| ball | in | mask | around it | in it | elsewhere |\n|---|---|---|---|---|---|")
    for where in ("fixed", "moving"):
        cases = [(None, False), *((lesion, masked) for lesion in LESIONS for masked in (False, True))]
        cases = [case for case in cases if case[1] or not given.masked]
        for lesion, masked in cases:
            mean = np.mean([errors(phantom, where, lesion, masked, options) for phantom in phantoms], axis=0)
            numbers = " | ".join(f"{value:.2f}" for value in mean)
            print(f"| {lesion or 'none'} | {where} | {'yes' if masked else 'no'} | {numbers} |", flush=True)


if __name__ == "__main__":
    main()

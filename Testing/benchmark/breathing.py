"""A breath with a known answer: one lung of a chest CT slides along its wall; how far off is the registration?

    python -m benchmark.breathing --data DIR [--methods DNVF:balanced,greedy,elastix]   (from the folder Testing)

DIR holds lung_ct/. The follow-up CT is the moving image. In the fixed image its lung has moved downwards, the further
the lower (--descent mm at the base, nothing at the apex), bent besides by a smooth random map of at most 5 mm; ribs and
spine stay, so the field jumps at the wall. Both get noise of their own. Every method runs as a command of its own, from
files to files. Printed: mean error in mm in the lung, before and after, and in the layer of 5 mm below its surface,
without and with the lung masks.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "NeuralRegistration"))

import numpy as np
import SimpleITK as sitk
import torch
from neuralreg import io
from neuralreg.image import Image, resample
from neuralreg.job import TRANSFORM
from neuralreg.phantom import SmoothDeformation, smooth_deformation
from neuralreg.transform import Transform
from torch import Tensor

from .measure import measured
from .methods import commands
from .pairs import Pair

BEND_MM, LAYER_MM = 5.0, 5.0
NOISE_HU, MUSCLE_HU = 20.0, 40.0


@dataclass(frozen=True, eq=False)
class Breath(Transform):
    """x ↦ bend(x) + descent · s(x) · (0, −0.2, 1), s rising smoothly from 0 at the height `apex` to 1 at `base`, mm."""

    bend: SmoothDeformation
    descent: float
    apex: float
    base: float

    def __call__(self, points: Tensor) -> Tensor:
        along = ((points[2] - self.apex) / (self.base - self.apex)).clamp(0, 1)
        way = self.descent * along * along * (3 - 2 * along)
        return self.bend(points) + torch.stack((torch.zeros_like(way), -0.2 * way, way))


def breath_pair(moving: Image, lung: Image, descent: float, seed: int) -> tuple[Image, Image, Image, Breath]:
    """Fixed image, its lung mask, the moving image with its noise, and moving_from_fixed, which holds in the lung."""
    random = torch.Generator().manual_seed(seed)
    heights = lung.grid.points()[2][lung.data[0] > 0]
    centre = lung.grid.points()[:, lung.data[0] > 0].mean(1).numpy()
    bend = smooth_deformation(centre, 1.0, BEND_MM, seed)
    breath = Breath(bend, descent, float(heights.max()), float(heights.min()))
    inside = resample(lung, breath, lung.grid, "nearest").data > 0
    around = torch.where(lung.data > 0, torch.tensor(MUSCLE_HU), moving.data.float())  # where the lung has left
    data = torch.where(inside, resample(moving, breath, moving.grid).data, around)
    images = [Image(d + NOISE_HU * torch.randn(d.shape, generator=random), moving.grid) for d in (data, moving.data)]
    return images[0], Image(inside.float(), lung.grid), images[1], breath


def layer(mask: Image) -> Tensor:
    """Where the mask is within LAYER_MM of its surface."""
    picture = sitk.GetImageFromArray((mask.data[0] > 0).numpy().astype("uint8"))
    picture.SetSpacing(mask.grid.spacing.tolist())
    depth = sitk.SignedMaurerDistanceMap(picture, insideIsPositive=True, squaredDistance=False, useImageSpacing=True)
    depth = torch.from_numpy(sitk.GetArrayFromImage(depth))
    return (depth > 0) & (depth < LAYER_MM)


def write_pair(folder: Path, parts: tuple[Image, Image, Image, Image]) -> Pair:
    """The breath as files: fixed image, its lung mask, moving image and its lung mask; whole Hounsfield units."""
    paths = [folder / f"{name}.mha" for name in ("fixed", "fixed_mask", "moving", "moving_mask")]
    for path, image, kind in zip(paths, parts, ("int16", "uint8") * 2, strict=True):
        io.write_image(Image(image.data.round(), image.grid), path, np.dtype(kind))
    fixed, fixed_mask, moving, moving_mask = paths
    return Pair("lung_ct_breath", folder.name, fixed, moving, fixed_mask=fixed_mask, moving_mask=moving_mask)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with lung_ct/")
    parser.add_argument("--methods", default="DNVF:balanced", help="as for `benchmark run`, peers included")
    parser.add_argument("--seeds", type=int, default=1, help="breaths with other bends")
    parser.add_argument("--descent", type=float, default=20.0, metavar="MM", help="of the lung's base")
    parser.add_argument("--masks", choices=("without", "with", "both"), default="both")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    methods = commands(given.methods)
    moving = io.read_image(given.data / "lung_ct" / "followup_ct.mha")
    lung = io.read_mask(given.data / "lung_ct" / "followup_mask.mha", moving.grid)
    print("| breath | masks | method | before | lung | below its surface | voxels with J ≤ 0, % | CPU s |")
    print("|---" * 8 + "|")
    for seed in range(given.seeds):
        fixed, inside, noisy, truth = breath_pair(moving, lung, given.descent, seed)
        with tempfile.TemporaryDirectory(prefix="breath-") as folder:
            pair = write_pair(Path(folder), (fixed, inside, noisy, lung))
            bare = replace(pair, fixed_mask=None, moving_mask=None)
            for masked, name in itertools.product((False, True), methods):
                if given.masks == "both" or masked == (given.masks == "with"):
                    run = Path(folder) / f"{name}-{masked}"
                    row = measured(pair if masked else bare, name, methods[name], run, given.threads)
                    numbers = row["error"] or _numbers(row, run, inside, truth)
                    print(f"| {seed} | {'yes' if masked else 'no'} | {name} | {numbers} |", flush=True)


def _numbers(row: dict[str, object], run: Path, inside: Image, truth: Breath) -> str:
    """Errors in mm before, in the lung and below its surface; folded voxels in the body or mask; CPU seconds."""
    points = inside.grid.points()[:, inside.data[0] > 0]
    near = layer(inside)[inside.data[0] > 0]
    goal, found = truth(points), io.read_transform(run / TRANSFORM)(points)
    error, before = ((p - goal).norm(dim=0) for p in (found, points))
    means = f"{before.mean():.2f} | {error.mean():.2f} | {error[near].mean():.2f}"
    return f"{means} | {row['folds_percent']:.2g} | {row['cpu_s']:.0f}"


if __name__ == "__main__":
    sys.exit(main())

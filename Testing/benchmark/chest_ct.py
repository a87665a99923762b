"""Chests of different people as CT would show them, made of chests in MR: labelled CTs of two people are not at hand.

    python -m benchmark.chest_ct --data DIR   (from the folder Testing)

DIR holds lungs_mr/, which reliability/public.py downloads. The same chests in Hounsfield units, with voxels of 2 mm and
noise, and their labels are written to DIR/chests_ct/ for `benchmark run --datasets chests_ct`. Shapes and lungs are
real; what a CT has besides is missing: bones are not bright, vessels are few, edges are as soft as 3.9 mm make them.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "NeuralRegistration"))

import numpy as np
import SimpleITK as sitk
import torch
from neuralreg import io
from neuralreg.image import Image, resample
from neuralreg.transform import Affine

from .pairs import pairs_of

AIR, BRIGHTEST = -1000.0, 150.0  # the body's median lies at 0
SPACING_MM, NOISE_HU = 2.0, 15.0


def chest_ct(mr: Image, seed: int) -> Image:
    """Hounsfield units on a lattice of SPACING_MM with the corners of `mr`, a chest in MR."""
    low = mr.data.quantile(0.005)
    picture = sitk.GetImageFromArray(mr.data[0].numpy())
    threshold = sitk.OtsuThresholdImageFilter()
    threshold.Execute(picture)
    share = (mr.data - low).clamp_min(0.0) / (mr.data[mr.data > threshold.GetThreshold()].median() - low)
    values = torch.where(share < 1.0, AIR * (1.0 - share), BRIGHTEST * (share - 1.0).tanh())
    fine = _finer(Image(values, mr.grid), "bilinear")
    noise = torch.randn(fine.data.shape, generator=torch.Generator().manual_seed(seed))
    return Image(fine.data + NOISE_HU * noise, fine.grid)


def _finer(image: Image, mode: str) -> Image:
    lengths = zip(image.grid.shape, image.grid.spacing[::-1], strict=True)
    shape = tuple(round((n - 1) * spacing / SPACING_MM) + 1 for n, spacing in lengths)
    return resample(image, Affine.identity(), image.grid.with_shape(shape), mode)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with lungs_mr/")
    data = parser.parse_args(arguments).data
    chests = {pair.fixed: pair.fixed_labels for pair in pairs_of(data, ["lungs_mr"])}
    (data / "chests_ct").mkdir(exist_ok=True)
    for seed, (path, labels) in enumerate(chests.items()):
        ct = chest_ct(io.read_image(path), seed)
        io.write_image(Image(ct.data.round(), ct.grid), data / "chests_ct" / path.name, np.dtype("int16"))
        io.write_image(_finer(io.read_labels(labels), "nearest"), data / "chests_ct" / labels.name, np.dtype("uint8"))


if __name__ == "__main__":
    sys.exit(main())

"""What `--similarity auto` decides, and by which figures, on every pair at hand and on what scanners do to images.

    python Testing/reliability/contrasts.py --data DATA [--only T2]

DATA holds brain_labelled/, brain_training/, multimodal/, hippocampus/ and lung_ct/; brains are read at 2 mm. Printed
for each pair: the correlation of intensities after the affine stage, the share of a variance that a function explains
(η²), the share of that which is a rising line, normalised mutual information, the decision, and what was expected.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "NeuralRegistration"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from benchmark.multimodal import with_ct
from benchmark.pairs import random_pairs
from clinic import upper_half
from neuralreg import io, pipeline
from neuralreg.affine import register_affine
from neuralreg.image import Image
from neuralreg.preprocess import make_pair, shrunk, working_grid
from neuralreg.transform import Affine
from torch import Tensor

PEOPLE = ("1000", "1001", "1002", "1006", "1007", "1008")
OTHERS = ("01", "09", "30")  # of brain_training, another scanner
PATIENT = ("T1", "T2", "FLAIR")


@dataclass(frozen=True, eq=False)
class Case:
    """Two images, where the affine stage brings them (found if None), and what `auto` should choose."""

    name: str
    wanted: str
    fixed: Image
    moving: Image
    masks: tuple[Image | None, Image | None] = (None, None)
    aligned: Affine | None = None

    def placed(self) -> Case:
        masks = dict(zip(("fixed_mask", "moving_mask"), self.masks, strict=True))
        return replace(self, aligned=register_affine(self.fixed, self.moving, **masks).moving_from_aligned)


def brain(path: Path) -> Image:
    return shrunk(io.read_image(path), np.array([2, 2, 2]))


def with_data(image: Image, data: Tensor) -> Image:
    return Image(data, image.grid)


def bright(image: Image) -> float:
    return float(torch.quantile(image.data[image.data > 0][:: max(1, image.data.numel() // 500_000)], 0.99))


def gamma(power: float) -> Callable[[Image], Image]:
    return lambda image: with_data(image, bright(image) * (image.data / bright(image)).clamp(0, 1.2) ** power)


def biased(strength: float) -> Callable[[Image], Image]:
    """Brighter and darker in waves of half a head: by exp(±strength)."""

    def change(image: Image) -> Image:
        points = image.grid.points()
        low, high = points.flatten(1).amin(1), points.flatten(1).amax(1)
        waves = sum(torch.sin(5 * (points[k] - points[k].mean()) / (high - low)[k] + k) for k in range(3))
        return with_data(image, (image.data * torch.exp(strength * waves / 1.7)).float())

    return change


def enhanced(radius: float, gain: float) -> Callable[[Image], Image]:
    """A ball in one hemisphere takes up contrast medium."""

    def change(image: Image) -> Image:
        points = image.grid.points()
        middle = points[:, image.data[0] > 0].mean(1) + torch.tensor([25.0, -10.0, 20.0])
        near = (points - middle.view(3, 1, 1, 1)).norm(dim=0) < radius
        return with_data(image, torch.where(near, gain * image.data, image.data))

    return change


def noisy(strength: float) -> Callable[[Image], Image]:
    def change(image: Image) -> Image:
        noise = strength * bright(image) * torch.randn(image.data.shape, generator=torch.Generator().manual_seed(0))
        return with_data(image, torch.where(image.data > 0, (image.data + noise).clamp(min=1.0), image.data))

    return change


def inverted(image: Image) -> Image:
    return with_data(image, torch.where(image.data > 0, (1.05 * bright(image) - image.data).clamp(min=1.0), image.data))


def vessels(image: Image) -> Image:
    """Soft tissue 150 HU brighter, as after contrast medium."""
    soft = (image.data > 20) & (image.data < 300)
    return with_data(image, torch.where(soft, image.data + 150.0, image.data))


CHANGES: dict[str, Callable[[Image], Image]] = {
    "gamma 0.5": gamma(0.5), "gamma 2": gamma(2.0), "bias field of e^±0.4": biased(0.4),
    "bias field of e^±0.7": biased(0.7), "enhanced, 3 cm": enhanced(15.0, 1.8), "enhanced, 6 cm": enhanced(30.0, 1.6),
    "noise of 10 %": noisy(0.1), "noise of 20 %": noisy(0.2), "upper half": upper_half,
}  # fmt: skip


def brains(data: Path) -> Iterator[Case]:
    people = {name: brain(data / "brain_labelled" / f"{name}_T1w_brain.nii.gz") for name in PEOPLE}
    for a, b in list(itertools.permutations(PEOPLE, 2))[::3]:
        yield Case(f"T1 {a} – T1 {b}", "lncc", people[a], people[b])
    first = Case("T1 1000 – T1 1001", "lncc", people["1000"], people["1001"]).placed()
    for name, change in CHANGES.items():
        yield replace(first, name=f"{first.name}, {name}", moving=change(first.moving))
        yield replace(first, name=f"T1 1000, {name} – T1 1001", fixed=change(first.fixed))
    yield replace(first, name=f"{first.name}, inverted", wanted="nmi", moving=inverted(first.moving))
    patient = {name: brain(data / "multimodal" / f"patient07_{name}.nii.gz") for name in PATIENT}
    for a, b in itertools.permutations(PATIENT, 2):
        yield Case(f"{a} – {b}, one patient", "nmi", patient[a], patient[b], aligned=Affine.identity())
    others = {f"T1 sub-{n}": brain(data / "brain_training" / f"sub-{n}_T1w_brain.nii.gz") for n in OTHERS}
    others |= {f"T1 {name}": people[name] for name in ("1000", "1006")}
    for (name, other), contrast in itertools.product(others.items(), PATIENT):
        wanted = "lncc" if contrast == "T1" else "nmi"
        yield Case(f"{contrast} of the patient – {name}", wanted, patient[contrast], other)
    for contrast, (name, change) in itertools.product(PATIENT[1:], CHANGES.items()):
        moving = change(patient[contrast])
        yield Case(f"T1 – {contrast}, {name}", "nmi", patient["T1"], moving, aligned=Affine.identity())


def others(data: Path) -> Iterator[Case]:
    for a, b in random_pairs(data / "hippocampus", 20):
        images = (io.read_image(data / "hippocampus" / f"{name}_T1w.nii.gz") for name in (a, b))
        yield Case(f"hippocampus {a[-3:]} – {b[-3:]}", "lncc", *images)
    times = ("baseline", "followup")
    fixed, moving = (io.read_image(data / "lung_ct" / f"{time}_ct.mha") for time in times)
    masks = tuple(io.read_mask(data / "lung_ct" / f"{time}_mask.mha", fixed.grid) for time in times)
    lung = Case("lung CT", "lncc", fixed, moving).placed()
    yield lung
    yield replace(lung, name="lung CT, soft tissue enhanced", moving=vessels(moving))
    yield Case("lung CT, with masks", "lncc", fixed, moving, masks)
    yield Case("T1 – CT (painted)", "nmi", *with_ct(data / "brain_labelled", 0))


def row(case: Case) -> str:
    case = case if case.aligned else case.placed()
    grid = working_grid(case.fixed, pipeline.MAX_VOXELS, case.masks[0])
    pair = make_pair(case.fixed, case.moving, case.aligned, grid, *case.masks)
    found, (chosen, _) = pipeline._relation(pair), pipeline._similarity("auto", pair, [])
    figures = f"{found.correlation:.2f} | {found.explained:.2f} | {found.linearity:.0%} | {found.information:.3f}"
    return f"{case.name} | {figures} | {chosen} | {'' if chosen == case.wanted else case.wanted + ' expected'}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DATA", help="the folder of the real images")
    parser.add_argument("--only", action="append", default=[], help="pairs whose name holds this word")
    options = parser.parse_args(arguments)
    print("| pair | r | η² | linear | NMI | chosen | |\n|---|---|---|---|---|---|---|")
    for case in itertools.chain(brains(options.data), others(options.data)):
        if not options.only or any(word in case.name for word in options.only):
            print(f"| {row(case)} |", flush=True)


if __name__ == "__main__":
    main()

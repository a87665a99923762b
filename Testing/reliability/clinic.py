"""Real pairs as clinics have them: half a head, thick slices, a few slices, a skull, a resection, an abdomen.

    python Testing/reliability/clinic.py --data DATA [--preset fast] [--factor 2] [--only half]

Nothing masked. DATA holds brain_labelled/ and synthetic_labels/. Printed for each pair: what it
started from, after the affine stage and in the end (mean Dice of the labels where both images show something; for the
abdomen, whose deformation is known, the mean error in mm), and the smallest and largest Jacobian determinant of the
deformable part on the fixed grid.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "NeuralRegistration"))

import numpy as np
import torch
from neuralreg import io, metrics, pipeline
from neuralreg.image import Grid, Image, resample
from neuralreg.phantom import rotation, smooth_deformation
from neuralreg.preprocess import shrunk
from neuralreg.transform import Affine, Transform

NAMES = ("1000", "1001")  # fixed and moving brain
HEADS = ("01", "02")
AIR, FAT, LIVER, SPLEEN, KIDNEY, BONE, LUNG = -1000.0, -80.0, 60.0, 50.0, 35.0, 500.0, -800.0
ORGANS = (  # middle, semi-axes (mm; left, back, up), Hounsfield units; one painted over another
    ((0, 0, 0), (170, 120, 220), FAT), ((0, -5, 0), (150, 98, 210), 45.0), ((-75, -10, 70), (62, 68, 60), LIVER),
    ((85, 25, 80), (35, 32, 50), SPLEEN), ((-62, 50, -5), (25, 22, 50), KIDNEY), ((62, 50, 5), (25, 22, 50), KIDNEY),
    ((0, 62, 0), (20, 22, 210), BONE), ((0, 20, 0), (11, 11, 200), 150.0), ((40, -45, -60), (45, 30, 40), FAT),
    ((-35, -45, -90), (40, 28, 45), 10.0), ((70, 0, 190), (55, 60, 60), LUNG), ((-70, 0, 190), (55, 60, 60), LUNG),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Case:
    """Two volumes, and either label maps on them or the true transform."""

    name: str
    fixed: Image
    moving: Image
    fixed_labels: Image | None = None
    moving_labels: Image | None = None
    truth: Transform | None = None


def brains(data: Path, factor: int) -> Case:
    """Two whole brains at 1 mm, or as many times coarser."""
    folder = data / "brain_labelled"
    images = [io.read_image(folder / f"{name}_T1w_brain.nii.gz") for name in NAMES]
    labels = [io.read_labels(folder / f"{name}_labels.nii.gz") for name in NAMES]
    blocks = np.array([factor] * 3)
    return Case("whole", *(shrunk(i, blocks) for i in images), *(every_nth(m, factor) for m in labels))


def changed(case: Case, name: str, which: str, change: Callable[[Image], Image]) -> Case:
    """The case with one image and its labels changed."""
    labels = f"{which}_labels"
    return replace(case, name=name, **{w: change(getattr(case, w)) for w in (which, labels)})


def upper_half(image: Image) -> Image:
    middle = image.grid.shape[0] // 2
    return Image(image.data[:, middle:], image.grid.cropped((0, 0, middle), image.grid.size))


def displaced(image: Image) -> Image:
    """The same voxels 5 cm away and turned by 15 degrees, as in another scanner."""
    matrix, center = np.eye(4), image.grid.center
    matrix[:3, :3] = rotation([0.4, 1.0, -0.3], 15.0)
    matrix[:3, 3] = center + np.array([30.0, -30.0, 26.5]) - matrix[:3, :3] @ center
    return Image(image.data, Grid(image.grid.shape, matrix @ image.grid.world_from_index))


def slices(step_mm: float, thickness_mm: float) -> Callable[[Image], Image]:
    """A slice every `step_mm`, so thick: the mean of intensities, the middle one of labels."""

    def cut(image: Image) -> Image:
        step, thickness = (round(mm / image.grid.spacing[2]) for mm in (step_mm, thickness_mm))
        count = (image.grid.shape[0] - thickness) // step + 1
        pieces = torch.stack([image.data[:, k * step : k * step + thickness] for k in range(count)], dim=1)
        data = pieces.mean(dim=2) if image.data.is_floating_point() else pieces[:, :, thickness // 2]
        matrix = image.grid.world_from_index.copy()
        matrix[:3, 3] += matrix[:3, 2] * (thickness - 1) / 2
        matrix[:3, 2] *= step
        return Image(data, Grid(tuple(data.shape[1:]), matrix))

    return cut


def resected(case: Case, which: str) -> Case:
    """A ball of 15 mm radius in one hemisphere has no tissue."""
    image = getattr(case, which)
    points = image.grid.points()
    content = points[:, image.data[0] > 0].mean(dim=1) + torch.tensor([28.0, 0.0, 15.0])
    hole = (points - content.view(3, 1, 1, 1)).norm(dim=0) < 15.0
    lost = Image(torch.where(hole, torch.tensor(0.0), image.data), image.grid)
    return replace(case, name=f"resection in the {which} image", **{which: lost})


def heads(data: Path) -> Case:
    """A head with skin and skull at 2 mm, painted by its labels, and another one that was stripped of them."""
    maps = [io.read_labels(data / "synthetic_labels" / f"label_map_{name}.nii.gz") for name in HEADS]
    maps = [every_nth(m, 2) for m in maps]
    maps[1] = Image(torch.where(maps[1].data < 500, maps[1].data, 0), maps[1].grid)
    fixed, moving = (Image(painted(m.data, seed), m.grid) for seed, m in enumerate(maps))
    brain = Image(torch.where(maps[0].data < 500, maps[0].data, 0), maps[0].grid)
    return Case("with and without skull", fixed, moving, brain, maps[1])


def every_nth(labels: Image, n: int) -> Image:
    """Every n-th voxel on each axis."""
    data, matrix = labels.data[:, ::n, ::n, ::n].contiguous(), labels.grid.world_from_index.copy()
    matrix[:3, :3] *= n
    return Image(data, Grid(tuple(data.shape[1:]), matrix))


def painted(labels: torch.Tensor, seed: int) -> torch.Tensor:
    """A T1-like intensity for every label, and noise."""
    white, fluid = (2, 41, 7, 46, 16, 28, 60), (4, 5, 14, 15, 24, 43, 44)
    paint = {0: 0.0, **dict.fromkeys(white, 800.0), **dict.fromkeys(fluid, 150.0)}
    values, places = torch.unique(labels, return_inverse=True)
    shades = [paint.get(int(v), 560.0 if v < 500 else 100.0 + 37.0 * (int(v) % 23)) for v in values]
    noise = torch.randn(labels.shape, generator=torch.Generator().manual_seed(seed))
    return (torch.tensor(shades)[places] + 20.0 * noise * (labels > 0)).clamp(min=0.0)


def abdomens() -> Case:
    """A phantom in Hounsfield units on 2 × 2 × 5 mm, deformed by 20 mm and displaced by 40 mm and 12 degrees."""
    fixed = Grid.from_parts((176, 128, 92), (-175.0, -127.0, -227.5), (2.0, 2.0, 5.0))
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation([0.2, 0.1, 1.0], 12.0), (25.0, -20.0, 24.0)
    truth = Affine(pose) @ smooth_deformation((0.0, 0.0, 20.0), 1.8, 20.0, seed=5)
    matrix = pose @ fixed.world_from_index
    moving = Grid(fixed.shape, matrix)
    aligned = Affine(np.linalg.inv(pose))
    images = [Image(scanned(map_(grid.points()), seed), grid)
              for seed, (grid, map_) in enumerate(((fixed, truth.transforms[1]), (moving, aligned)))]  # fmt: skip
    return Case("abdomen", *images, truth=truth)


def scanned(points: torch.Tensor, seed: int) -> torch.Tensor:
    values = torch.full(points.shape[1:], AIR)
    for middle, semi, shade in ORGANS:
        offset = (points - torch.tensor(middle).view(3, 1, 1, 1)) / torch.tensor(semi).view(3, 1, 1, 1)
        values = torch.where(offset.norm(dim=0) < 1.0, torch.tensor(shade), values)
    noise = torch.randn(values.shape, generator=torch.Generator().manual_seed(seed))
    return (values + 15.0 * noise)[None]


def cases(data: Path, factor: int) -> Iterator[Case]:
    whole = brains(data, factor)
    yield whole
    for which in ("moving", "fixed"):
        half = changed(whole, f"half: the {which} image", which, upper_half)
        yield changed(half, half.name, "moving", displaced)
    for which in ("moving", "fixed"):
        yield changed(whole, f"thick: slices of 6 mm, the {which} image", which, slices(6, 6))
    yield changed(whole, "stack: slices of 4 mm, 16 mm apart, the fixed image", "fixed", slices(16, 4))
    for which in ("fixed", "moving"):
        yield resected(whole, which)
    yield heads(data)
    yield abdomens()


def overlap(case: Case, transform: Transform) -> float:
    """Mean Dice of the common labels on the fixed grid, where the moving image is seen; or mean error in the body."""
    if case.truth is not None:
        points = case.fixed.grid.points()[:, case.fixed.data[0] > -500]
        return float((transform(points) - case.truth(points)).norm(dim=0).mean())
    grid = case.fixed_labels.grid
    index = case.moving.grid.indices(transform(grid.points()))
    size = torch.tensor(case.moving.grid.size).view(3, 1, 1, 1)
    seen = ((index >= 0) & (index <= size - 1)).all(0)
    warped = resample(case.moving_labels, transform, grid, "nearest").data[0]
    scores = metrics.dice(case.fixed_labels.data[0] * seen, warped * seen)
    return float(np.mean([score for label, score in scores.items() if label]))


def measured(case: Case, preset: str) -> str:
    found = pipeline.register(case.fixed, case.moving, preset=preset, threads=1)
    linear = found.transform.transforms[0]
    steps = [overlap(case, t) for t in (Affine.identity(), linear, found.transform)]
    jacobian = found.jacobian.data / abs(np.linalg.det(linear.matrix[:3, :3]))
    folds = found.metrics["folds_in_view"], found.metrics["non_diffeomorphic_volume_voxels"]
    seconds = sum(found.timings.values())
    numbers = [*(f"{step:.3f}" for step in steps), f"{float(jacobian.min()):.2f}–{float(jacobian.max()):.2f}"]
    return " | ".join([case.name, *numbers, f"{folds[0]:g}, {folds[1]:g}", found.similarity, f"{seconds:.0f}"])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--preset", default="balanced")
    parser.add_argument("--factor", type=int, default=1, help="times 1 mm: the voxels of the brains")
    parser.add_argument("--only", action="append", default=[], help="cases whose name holds this word")
    options = parser.parse_args(arguments)
    print(
        "| pair | as stored | affine | result | Jacobian | folds | similarity | s |\n|---|---|---|---|---|---|---|---|"
    )
    for case in cases(options.data, options.factor):
        if not options.only or any(word in case.name for word in options.only):
            print(f"| {measured(case, options.preset)} |", flush=True)


if __name__ == "__main__":
    main()

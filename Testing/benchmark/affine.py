"""The affine stage on real pairs: Dice, TRE, error across contrasts, return from perturbed starts, seconds.

    python Testing/benchmark/affine.py --data DIR [--only brain lung …] [--threads 2] [--pairs 30]

DIR holds brain_labelled/, lung_ct/, multimodal/ and hippocampus/. Seconds are of `register_affine` alone, on images in
memory: wall and CPU.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from pathlib import Path

import numpy as np
import torch
from neuralreg.affine import register_affine
from neuralreg.image import Grid, Image, resample
from neuralreg.io import read_image
from neuralreg.metrics import dice
from neuralreg.transform import Affine


class Watch:
    """Runs the stage and remembers how long it took."""

    def __init__(self):
        self.wall, self.cpu = [], []

    def register(self, *args, **kwargs) -> Affine:
        wall, cpu = time.perf_counter(), time.process_time()
        found = register_affine(*args, **kwargs)
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(time.process_time() - cpu)
        return found.moving_from_aligned

    def __str__(self) -> str:
        return f"{np.mean(self.wall):.2f} s wall, {np.mean(self.cpu):.2f} s CPU" if self.wall else "no time taken"


def overlap(fixed_labels: Image, moving_labels: Image, transform: Affine) -> float:
    """Mean Dice over the labels present in both images."""
    warped = resample(moving_labels, transform, fixed_labels.grid, "nearest")
    present = [set(labels.data.unique().tolist()) for labels in (fixed_labels, moving_labels)]
    common = sorted(int(label) for label in present[0] & present[1] if label)
    return float(np.mean(list(dice(fixed_labels.data[0], warped.data[0], common).values())))


def motion(rng, center: np.ndarray, degrees: float, millimetres: float, scale: float = 0.0) -> np.ndarray:
    """4×4: a turn about a random axis through `center`, random scales in 1 ± scale, a shift in a random direction."""
    axis, shift = (v / np.linalg.norm(v) for v in rng.normal(size=(2, 3)))
    x, y, z = axis * np.deg2rad(degrees)
    turn = torch.linalg.matrix_exp(torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)).numpy()
    matrix = np.eye(4)
    matrix[:3, :3] = turn @ np.diag(1 + rng.uniform(-scale, scale, 3))
    matrix[:3, 3] = center + shift * millimetres - matrix[:3, :3] @ center
    return matrix


def moved(image: Image, matrix: np.ndarray) -> Image:
    """The image placed elsewhere in the world; no voxel changes."""
    return Image(image.data, Grid(image.grid.shape, matrix @ image.grid.world_from_index))


def distance(first: Affine, second: Affine, image: Image) -> float:
    """Mean distance in mm between two transforms over the bright voxels of `image`."""
    body = image.data[0] > 0.5 * image.data[0].float().mean()
    points = image.grid.points()[:, body][:, ::97]
    return float((first(points) - second(points)).norm(dim=0).mean())


def brain(data: Path, watch: Watch, pairs: int) -> str:
    images, labels = _labelled(data / "brain_labelled", "_T1w_brain.nii.gz")
    chosen = list(itertools.permutations(images, 2))
    chosen = chosen[:: max(1, len(chosen) // pairs)]
    scores = [overlap(labels[a], labels[b], watch.register(images[a], images[b])) for a, b in chosen]
    return f"mean Dice {np.mean(scores):.4f} (worst {min(scores):.4f}) over {len(scores)} pairs"


def hippocampus(data: Path, watch: Watch, pairs: int) -> str:
    images, labels = _labelled(data / "hippocampus", "_T1w.nii.gz")
    rng = np.random.default_rng(3)
    chosen = [tuple(rng.choice(list(images), 2, replace=False)) for _ in range(min(pairs, 20))]
    before = np.mean([overlap(labels[a], labels[b], Affine.identity()) for a, b in chosen])
    rows = [f"as stored {before:.3f}"]
    for kind in ("rigid", "affine"):
        scores = [overlap(labels[a], labels[b], watch.register(images[a], images[b], kind)) for a, b in chosen]
        rows.append(f"{kind} {np.mean(scores):.3f}")
    return f"mean Dice {', '.join(rows)} over {len(chosen)} pairs"


def lung(data: Path, watch: Watch, _pairs: int) -> str:
    folder = data / "lung_ct"
    fixed, moving, fixed_mask, moving_mask = (
        read_image(folder / f"{name}.mha") for name in ("baseline_ct", "followup_ct", "baseline_mask", "followup_mask")
    )
    rows = np.loadtxt(folder / "landmarks.csv", delimiter=",", skiprows=1)
    points, targets = torch.from_numpy(rows[:, :3].T.copy()), torch.from_numpy(rows[:, 3:].T.copy())
    masks = {"no mask": {}, "lung masks": {"fixed_mask": fixed_mask, "moving_mask": moving_mask}}
    out = [f"as stored {float((points - targets).norm(dim=0).mean()):.1f}"]
    for name, kind in itertools.product(masks, ("rigid", "affine")):
        found = watch.register(fixed, moving, kind, **masks[name])
        out.append(f"{kind}, {name} {float((found(points) - targets).norm(dim=0).mean()):.2f}")
    return f"TRE mm: {'; '.join(out)}"


def contrasts(data: Path, watch: Watch, pairs: int) -> str:
    images = {name: read_image(data / "multimodal" / f"patient07_{name}.nii.gz") for name in ("T1", "T2", "FLAIR")}
    rng, errors = np.random.default_rng(5), []
    directions = itertools.cycle([("T1", "T2"), ("T1", "FLAIR"), ("T2", "T1")])
    for a, b in itertools.islice(directions, min(pairs, 12)):
        true = motion(rng, images[a].grid.center, rng.uniform(5, 25), rng.uniform(5, 40), 0.1)
        errors.append(distance(watch.register(images[a], moved(images[b], true)), Affine(true), images[a]))
    return f"mean error {np.mean(errors):.2f} mm, largest {max(errors):.2f} mm, over {len(errors)} known affines"


def perturbed(data: Path, watch: Watch, pairs: int) -> str:
    images, _ = _labelled(data / "brain_labelled", "_T1w_brain.nii.gz")
    names, rng, errors = list(images), np.random.default_rng(7), []
    for number in range(min(pairs, 20)):
        fixed, moving = images[names[number % len(names)]], images[names[(number + 1) % len(names)]]
        away = Affine(motion(rng, moving.grid.center, 25, 40))
        start, again = watch.register(fixed, moving), watch.register(fixed, moved(moving, away.matrix))
        errors.append(distance(away.inverse() @ again, start, fixed))
    good = sum(error <= 0.5 for error in errors)
    return f"{good} of {len(errors)} within 0.5 mm of the unperturbed result (largest {max(errors):.2f} mm)"


def _labelled(folder: Path, ending: str) -> tuple[dict[str, Image], dict[str, Image]]:
    names = sorted(path.name.removesuffix(ending) for path in folder.glob(f"*{ending}"))
    images = {name: read_image(folder / f"{name}{ending}") for name in names}
    return images, {name: read_image(folder / f"{name}_labels.nii.gz") for name in names}


TASKS = {"brain": brain, "lung": lung, "contrasts": contrasts, "perturbed": perturbed, "hippocampus": hippocampus}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the images")
    parser.add_argument("--only", nargs="+", choices=TASKS, default=list(TASKS), help="tasks to run")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=30, help="at most this many pairs a task")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    for name in options.only:
        watch = Watch()
        result = TASKS[name](options.data, watch, options.pairs)
        sys.stdout.write(f"{name:12} {result}; {watch} each\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())

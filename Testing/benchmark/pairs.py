"""The pairs of the data sets: which files belong together."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Pair:
    """Files of one registration task; labels, masks and landmarks where the data set has them."""

    dataset: str
    name: str
    fixed: Path
    moving: Path
    fixed_labels: Path | None = None
    moving_labels: Path | None = None
    fixed_mask: Path | None = None
    moving_mask: Path | None = None
    landmarks: Path | None = None


def brain_labelled(folder: Path) -> list[Pair]:
    """All directed pairs of the labelled brains."""
    subjects = sorted(path.name.removesuffix("_labels.nii.gz") for path in folder.glob("*_labels.nii.gz"))
    image, labels = (lambda s: folder / f"{s}_T1w_brain.nii.gz"), (lambda s: folder / f"{s}_labels.nii.gz")
    return [
        Pair("brain_labelled", f"{a}-{b}", image(a), image(b), labels(a), labels(b))
        for a, b in itertools.permutations(subjects, 2)
    ]


def lung_ct(folder: Path) -> list[Pair]:
    """The breathing pair; the landmarks lead from baseline to follow-up, so baseline is fixed."""
    if not (folder / "baseline_ct.mha").is_file():
        return []
    pair = Pair(
        "lung_ct", "baseline-followup", folder / "baseline_ct.mha", folder / "followup_ct.mha",
        fixed_mask=folder / "baseline_mask.mha", moving_mask=folder / "followup_mask.mha",
        landmarks=folder / "landmarks.csv",
    )  # fmt: skip
    return [pair]


def lung_ct_without_masks(folder: Path) -> list[Pair]:
    """The breathing pair as it comes from the scanner."""
    pairs = lung_ct(folder.parent / "lung_ct")
    return [replace(pair, dataset="lung_ct_without_masks", fixed_mask=None, moving_mask=None) for pair in pairs]


def lungs(folder: Path) -> list[Pair]:
    """All directed pairs of chests with five lobes each: in MR, which reliability/public.py downloads, or as chest_ct
    makes them of these."""
    image, labels = (lambda n: folder / f"lungs_{n}.nii.gz"), (lambda n: folder / f"lungs_{n}_labels.nii.gz")
    people = [n for n in range(1, 6) if image(n).is_file()]
    return [
        Pair(folder.name, f"{a}-{b}", image(a), image(b), labels(a), labels(b))
        for a, b in itertools.permutations(people, 2)
    ]


def hippocampus(folder: Path) -> list[Pair]:
    """20 random pairs of small crops."""
    image, labels = (lambda s: folder / f"{s}_T1w.nii.gz"), (lambda s: folder / f"{s}_labels.nii.gz")
    return [
        Pair("hippocampus", f"{a}-{b}", image(a), image(b), labels(a), labels(b)) for a, b in random_pairs(folder, 20)
    ]


def random_pairs(folder: Path, count: int, seed: int = 3) -> list[tuple[str, str]]:
    """Names of the crops of `count` pairs. Raises SystemExit where there are none."""
    names = sorted(path.name.removesuffix("_T1w.nii.gz") for path in folder.glob("*_T1w.nii.gz"))
    if len(names) < 2:
        raise SystemExit(f"{folder} holds no pairs; give the folder that contains hippocampus/ with --data.")
    rng = np.random.default_rng(seed)
    return [tuple(str(n) for n in rng.choice(names, 2, replace=False)) for _ in range(count)]


DATASETS: dict[str, Callable[[Path], list[Pair]]] = {
    "brain_labelled": brain_labelled,
    "lung_ct": lung_ct,
    "lung_ct_without_masks": lung_ct_without_masks,
    "lungs_mr": lungs,
    "chests_ct": lungs,
    "hippocampus": hippocampus,
}


def pairs_of(data: Path, datasets: list[str], count: int | None = None) -> list[Pair]:
    """The pairs of some data sets below a folder, at most `count` of each, spread over the set. Raises SystemExit."""
    found = []
    for name in datasets:
        if name not in DATASETS:
            raise SystemExit(f"There is no data set {name}; choose among {', '.join(DATASETS)}.")
        pairs = DATASETS[name](data / name)
        if not pairs:
            raise SystemExit(f"{data / name} holds no pairs; give the folder that contains {name} with --data.")
        found += pairs if count is None else spread(pairs)[:count]
    return found


def spread(pairs: list[Pair]) -> list[Pair]:
    """The same pairs in strides: any first few lie all over the set, and the first three are among the first six."""
    stride = next(step for step in itertools.count(len(pairs) // 5 + 1) if math.gcd(step, len(pairs)) == 1)
    return [pairs[number * stride % len(pairs)] for number in range(len(pairs))]

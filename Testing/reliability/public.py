"""Volumes from public repositories, which nobody chose for registration: other scanners, contrasts, organs, species.

    python Testing/reliability/public.py --data FOLDER [--only heads] [--turned] [--threads 1]

Files of public_images.csv that FOLDER lacks are downloaded there and checked (40 MB in all). Default settings, nothing
masked. Pairs whose alignment is known, because both lie in one space, are first moved 30 mm and 15° apart; the error is
the mean distance from that truth in the body, in mm. Where there are labels (abdomens: eight organs, drawn by
TotalSegmentator; lungs: five lobes), their mean Dice on what both volumes show. Printed for each pair besides: mean
squared local correlation after the linear stage, mutual information before and after, the range of the Jacobian
determinant, folded voxels, CPU seconds.

With --turned only the linear stage runs, on five pairs, each moving volume turned by 45, 90 and 180 degrees about each
axis: how often it ends within 2 mm of where it ends unturned.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import itertools
import sys
import time
import urllib.request
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "NeuralRegistration"))

import numpy as np
import torch
from neuralreg import io, metrics, pipeline, qa
from neuralreg.affine import register_affine
from neuralreg.body import body_mask
from neuralreg.image import Grid, Image, resample
from neuralreg.phantom import rotation
from neuralreg.transform import Affine

IMAGES = Path(__file__).with_name("public_images.csv")
SHIFT_MM, AXIS, DEGREES = (18.0, -18.0, 16.0), (1.0, -2.0, 1.5), 15.0  # 30 mm
ORGANS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 6, 7: 7, 19: 14}  # number in the CT's labels: in the MR's
LOBES = {number: number for number in range(1, 6)}


@dataclass(frozen=True)
class Row:
    """Names of a fixed and a moving volume; whether both lie in one space; whether they belong together at all; the
    numbers of the structures in the fixed labels and in the moving ones, where there are any."""

    name: str
    fixed: str
    moving: str
    one_space: bool = False
    related: bool = True
    structures: Mapping[int, int] | None = None


ROWS = [
    Row("heads: T1, two people", "t1_chris", "t1_head"),
    Row("heads: mean T1 (MNI152), T1", "mni152", "t1_head"),
    Row("heads: T1, T2 slab", "t1_head", "t2_slab"),
    Row("heads: T1, EPI", "t1_head", "epi"),
    Row("heads: T1, PD slab, one person", "t1_chris", "pd_chris"),
    Row("heads: thick slices, tumours", "tumour_1", "tumour_2"),
    Row("heads: mean T1, mean CT", "mni152", "ct_mean", one_space=True),
    Row("brains: mean T1, T1 of another atlas", "icbm", "cit168", one_space=True),
    Row("brains: mean T1, T1 with contrast medium", "icbm", "t1_gd"),
    Row("brains: mean T1, FLAIR with a stroke", "icbm", "flair"),
    Row("brains: mean T1, T2 with a stroke", "icbm", "t2_stroke"),
    Row("brains: mean T1, fractional anisotropy", "icbm", "fa"),
    Row("brains: T2 with a stroke, T2 with skull", "t2_stroke", "t2_skull"),
    Row("brains: CT atlas, mean T1", "ct_brain", "icbm"),
    Row("chest: CT, crop of the same", "ct_aorta", "ct_heart", one_space=True),
    Row("abdomen: CT, slab of the same", "ct_abdomen", "ct_slab"),
    Row("abdomen: CT slab, MR slab of another person", "ct_slab", "mr_slab", structures=ORGANS),
    Row("lungs: MR, two people", "lungs_1", "lungs_5", structures=LOBES),
    Row("lungs: MR, two others", "lungs_4", "lungs_2", structures=LOBES),
    Row("prostate: ADC, diffusion", "adc", "dwi", one_space=True),
    Row("spine: T1, T2, one person", "spine_t1", "spine_t2"),
    Row("wrong: head, angiogram without brain", "t1_chris", "mra_chris", related=False),
    Row("wrong: head, CT of an abdomen", "t1_chris", "ct_abdomen", related=False),
    Row("wrong: chest, abdomen", "ct_heart", "ct_abdomen", related=False),
    Row("wrong: prostate, head", "adc", "t1_chris", related=False),
    Row("wrong: brain, monkey's brain", "icbm", "monkey", related=False),
]


TURNED = [
    ("t1_chris", "t1_head"),
    ("t1_head", "t2_slab"),
    ("icbm", "flair"),
    ("lungs_1", "lungs_5"),
    ("ct_brain", "icbm"),
]
TURNS = list(itertools.product(((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)), (45.0, 90.0, 180.0)))


def files(folder: Path) -> dict[str, Path]:
    """The files by their names, downloaded where they are missing. Raises ValueError for one that has changed."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    with IMAGES.open(encoding="utf-8") as rows:
        for row in csv.DictReader(rows):
            path = folder / (row["name"] + "".join(Path(row["path"]).suffixes))
            if not path.exists():
                url = f"https://raw.githubusercontent.com/{row['repository']}/{row['commit']}/{row['path']}"
                urllib.request.urlretrieve(url, path)
            if hashlib.sha256(path.read_bytes()).hexdigest() != row["sha256"]:
                raise ValueError(f"{path} is not the file of public_images.csv; delete it.")
            found[row["name"]] = path
    return found


def moved(image: Image, axis=AXIS, degrees: float = DEGREES, shift_mm=SHIFT_MM) -> tuple[Image, Affine]:
    """The image put elsewhere, and the map from where it was to where it is."""
    centre = image.grid.center
    matrix = np.eye(4)
    matrix[:3, :3] = rotation(axis, degrees)
    matrix[:3, 3] = centre + shift_mm - matrix[:3, :3] @ centre
    return Image(image.data, Grid(image.grid.shape, matrix @ image.grid.world_from_index)), Affine(matrix)


def measure(row: Row, paths: dict[str, Path]) -> dict[str, str]:
    fixed, moving = (io.read_image(paths[name]) for name in (row.fixed, row.moving))
    away = None
    if row.one_space:
        moving, away = moved(moving)
    before = time.process_time()
    found = pipeline.register(fixed, moving, device="cpu")
    seconds = time.process_time() - before
    values = found.metrics
    truth = "" if away is None else f"{error_mm(found.transform, away, fixed):.2f} mm"
    if row.structures:
        labels = (io.read_labels(paths[f"{name}_labels"]) for name in (row.fixed, row.moving))
        truth = f"Dice {overlap(found.transform, *labels, row.structures):.3f}"
    alike = values["linear_correlation"]
    return {
        "pair": row.name,
        "compared by": found.similarity,
        "alike": f"{alike:.2f}" + ("" if alike >= qa.ALIKE else ", amber"),
        "mutual information": f"{values['mutual_information_before']:.3f} → {values['mutual_information_after']:.3f}",
        "truth": truth,
        "Jacobian": f"{values['jacobian_min']:.2f}–{values['jacobian_max']:.2f}",
        "folds": str(values["folds_in_view"]),
        "CPU s": f"{seconds:.0f}",
    }


def measure_turned(names: tuple[str, str], paths: dict[str, Path]) -> dict[str, str]:
    fixed, moving = (io.read_image(paths[name]) for name in names)
    upright = register_affine(fixed, moving).moving_from_aligned
    errors = []
    for axis, degrees in TURNS:
        turned, away = moved(moving, axis, degrees, np.zeros(3))
        errors.append(error_mm(register_affine(fixed, turned).moving_from_aligned, away @ upright, fixed))
    right = sum(error < 2 for error in errors)
    return {"pair": ", ".join(names), "right": f"{right} of {len(errors)}", "largest error": f"{max(errors):.1f} mm"}


def error_mm(transform, truth: Affine, fixed: Image) -> float:
    points = fixed.grid.points()[:, body_mask(fixed)][:, ::50]
    return float((transform(points) - truth(points)).norm(dim=0).mean())


def overlap(transform, fixed: Image, moving: Image, structures: Mapping[int, int]) -> float:
    """Mean Dice of structures on the slices of the fixed labels that the moving ones cover."""
    seen = Image(torch.ones_like(moving.data), moving.grid)
    seen, warped = (resample(image, transform, fixed.grid, "nearest").data for image in (seen, moving))
    renamed = sum(torch.where(warped == theirs, ours, 0) for ours, theirs in structures.items())
    scores = metrics.dice(torch.where(seen > 0, fixed.data, 0)[0], renamed[0], structures)
    return float(np.mean(list(scores.values())))


def table(rows: Iterable[dict[str, str]]) -> None:
    for number, row in enumerate(rows):
        if number == 0:
            print("| " + " | ".join(row) + " |\n" + "|---" * len(row) + "|")
        print("| " + " | ".join(row.values()) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--only", default="", help="pairs whose name begins so")
    parser.add_argument("--turned", action="store_true", help="turned volumes instead, linear stage only")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    paths = files(arguments.data)
    if arguments.turned:
        return table(measure_turned(names, paths) for names in TURNED)
    table(measure(row, paths) for row in ROWS if row.name.startswith(arguments.only))


if __name__ == "__main__":
    main()

"""Registration across contrasts: T1 to T2, FLAIR and CT of one head, bent by a known deformation of at most 8 mm.

    python -m benchmark.multimodal --data DIR [--similarities auto mind mi …] [--seeds 0 1] [--commands ants-mi …]

from the folder Testing.

DIR holds multimodal/ and, for the CT, brain_labelled/: that CT is painted from a label map (see painted_ct), its T1 is
real. The images are aligned as they come, so the true map is the deformation itself. The affine stage runs once per
pair. Errors are means over the brain, in mm; seconds are CPU time of `pipeline.register`. `--commands` are peers, or
METHOD:PRESET of neuralreg, run as `benchmark run` does: from files to files, with an affine stage of their own.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "NeuralRegistration"))

import numpy as np
import torch
from neuralreg import io, pipeline
from neuralreg.affine import register_affine
from neuralreg.image import Grid, Image, resample
from neuralreg.job import TRANSFORM
from neuralreg.phantom import SEMI_AXES_MM, SmoothDeformation
from neuralreg.preprocess import shrunk
from neuralreg.transform import Affine, Transform

from . import measure
from .methods import commands
from .painted_ct import TISSUES, painted_ct
from .pairs import Pair

LARGEST_MM, PUSHES, SIGMA_MM = 8.0, 150, 20.0  # of the deformation: Gaussian pushes in random directions
MARGIN_VOXELS = 16  # around the brain: empty space is not carried along
EVERY = 61  # of the brain's voxels, one in so many is measured
CONTRASTS = ("T2", "FLAIR", "CT")
SIMILARITIES = ("mind", "mi", "nmi", "local_gradient", "lncc", "auto")


@dataclass(frozen=True, eq=False)
class Case:
    """A pair, the true map of `points` (3, n), and where the affine stage brings them."""

    name: str
    fixed: Image
    moving: Image
    points: torch.Tensor
    truth: torch.Tensor
    affine: Affine

    def error(self, transform: Transform) -> float:
        """Mean distance from the truth in mm."""
        return float((transform(self.points) - self.truth).norm(dim=0).mean())


def make_case(data: Path, contrast: str, seed: int, factor: int = 1) -> Case:
    """T1 fixed; moving is `contrast` read through a smooth deformation whose inverse is the truth; voxels of `factor`
    mm."""
    fixed, other = with_ct(data / "brain_labelled", seed) if contrast == "CT" else scans(data / "multimodal", contrast)
    fixed, other = (shrunk(image, np.array([factor] * 3)) for image in (fixed, other))
    z, y, x = torch.nonzero(fixed.data[0] != 0)[:: max(EVERY // factor**3, 1)].T
    points = fixed.grid.points()[:, z, y, x]
    bend = bending(points, seed)
    moving = resample(other, bend, other.grid, default=float(other.data.min()))
    affine = register_affine(fixed, moving).moving_from_aligned
    return Case(f"T1-{contrast} seed {seed}", fixed, moving, points, bend.inverse()(points), affine)


def scans(folder: Path, contrast: str) -> tuple[Image, Image]:
    """T1 and another contrast of one patient."""
    return tuple(_brain(io.read_image(folder / f"patient07_{name}.nii.gz")) for name in ("T1", contrast))


def with_ct(folder: Path, seed: int, name: str = "1000") -> tuple[Image, Image]:
    """The T1 of a brain, and a CT of the head around it, painted from the structures that were drawn on the T1."""
    fixed = _brain(io.read_image(folder / f"{name}_T1w_brain.nii.gz"))
    labels = io.read_labels(folder / f"{name}_labels.nii.gz")
    labels = resample(labels, lambda points: points, fixed.grid, "nearest")
    return fixed, painted_ct(labels, TISSUES, seed)


def bending(points: torch.Tensor, seed: int) -> SmoothDeformation:
    """A smooth random map that moves `points` (3, n) by LARGEST_MM at most, and all of the brain by a third of it."""
    random = np.random.default_rng(seed)
    spots = points.mean(1).numpy() + random.uniform(-1.2, 1.2, (PUSHES, 3)) * np.array(SEMI_AXES_MM)
    unit = SmoothDeformation(spots, random.normal(size=(PUSHES, 3)), SIGMA_MM)
    return unit.scaled(LARGEST_MM / float((unit(points) - points).norm(dim=0).max()))


def _brain(image: Image) -> Image:
    """Cropped to its content and a margin."""
    content = torch.nonzero(image.data[0] != 0)
    low, high = (np.array(end.tolist())[::-1] for end in (content.amin(0), content.amax(0)))
    low, high = np.maximum(low - MARGIN_VOXELS, 0), np.minimum(high + 1 + MARGIN_VOXELS, image.grid.size)
    x, y, z = (slice(a, b) for a, b in zip(low, high, strict=True))
    grid: Grid = image.grid.cropped(low, high)
    return Image(image.data[:, z, y, x], grid)


def measured(case: Case, similarity: str, **settings) -> tuple[float, float, str]:
    """Error in mm, CPU seconds, and a remark on what was chosen."""
    start = time.process_time()
    found = pipeline.register(
        case.fixed, case.moving, similarity=similarity, affine="none", initial_transform=case.affine, **settings
    )
    seconds = time.process_time() - start
    folds = found.metrics["folds_in_view"] + found.metrics["non_diffeomorphic_volume_voxels"]
    return case.error(found.transform), seconds, f"{found.similarity}, {folds:g} folded voxels"


def commanded(case: Case, name: str, threads: int) -> tuple[float, float, str]:
    """The same of a command on files; not a number, and why, where it fails."""
    with tempfile.TemporaryDirectory(prefix="multimodal-") as folder:
        fixed, moving, run = (Path(folder) / name for name in ("fixed.nii.gz", "moving.nii.gz", "run"))
        io.write_image(case.fixed, fixed)
        io.write_image(case.moving, moving)
        row = measure.measured(Pair("multimodal", case.name, fixed, moving), name, commands(name)[name], run, threads)
        if row["error"]:
            return float("nan"), float("nan"), str(row["error"])
        error = case.error(io.read_transform(run / TRANSFORM))
    return error, float(row["cpu_s"]), f"from files to files, {row['folds_percent']:.2g} % folded"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="holds the scans")
    parser.add_argument("--similarities", nargs="*", default=list(SIMILARITIES), choices=SIMILARITIES)
    parser.add_argument("--commands", nargs="+", default=[], metavar="METHOD", help="peers, or METHOD:PRESET")
    parser.add_argument("--contrasts", nargs="+", default=list(CONTRASTS), choices=CONTRASTS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="one deformation each")
    parser.add_argument("--factor", type=int, default=1, help="times 1 mm: the voxels")
    parser.add_argument("--method", default="DNVF")
    parser.add_argument("--preset", default="balanced")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    settings = {"method": options.method, "preset": options.preset, "threads": options.threads}
    print("| pair | similarity | mean error mm | CPU s | remark |\n|---|---|---|---|---|", flush=True)
    for contrast in options.contrasts:
        for seed in options.seeds:
            case = make_case(options.data, contrast, seed, options.factor)
            start = float((case.points - case.truth).norm(dim=0).mean())
            print(f"| {case.name} | affine alone | {case.error(case.affine):.2f} | | as stored {start:.2f} mm |")
            own = ((name, measured(case, name, **settings)) for name in options.similarities)
            others = ((name, commanded(case, name, options.threads)) for name in options.commands)
            for name, (error, seconds, remark) in itertools.chain(own, others):
                print(f"| {case.name} | {name} | {error:.3f} | {seconds:.0f} | {remark} |", flush=True)


if __name__ == "__main__":
    main()

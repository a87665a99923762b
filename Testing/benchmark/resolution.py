"""Trained at half resolution, used at full: what it costs FNOReg and VoxelMorph in Dice.

    python -m benchmark.resolution --pack PACK --data DIR --out FOLDER --minutes 12     (from the folder Testing)

PACK is `neuralreg pack brain_training PACK --spacing 2`, DIR holds brain_labelled/. Each network is trained twice from
the same seed and with the settings of its own configuration, at 2 mm and at 4 mm, for the same CPU time or, with
--iterations, for as many iterations; then one forward pass registers the pairs after the affine stage. What is in
FOLDER already is not done again; --only trains one network and measures nothing.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "NeuralRegistration"))

import torch
from neuralreg import feedforward, io, weights
from neuralreg.affine import register_affine
from neuralreg.body import body_mask
from neuralreg.diffeomorphism import untangled
from neuralreg.image import resample
from neuralreg.job import Monitor
from neuralreg.methods import make_method
from neuralreg.metrics import dice, folds_percent, sdlogj
from neuralreg.pipeline import MAX_VOXELS
from neuralreg.preprocess import Pair as Images
from neuralreg.preprocess import make_pair, working_grid
from neuralreg.train import MODEL, train, trainer_of
from neuralreg.training.config import TrainingConfig, load_config
from neuralreg.training.data import Pack
from neuralreg.transform import DisplacementField, jacobian_determinant

from . import table
from .pairs import Pair, pairs_of, spread

SPACING = 2.0  # mm, full resolution
# configuration of a training from nothing, and a lattice as large as a brain
NETWORKS = {
    "FNOReg": ("fnoreg_t1.toml", (82, 98, 82)),
    "VoxelMorph": ("voxelmorph_t1_coarse.toml", (65, 81, 65)),
}
RESOLUTIONS = ("full", "half")  # of the training
AT_HALF = "half at half"  # trained at half resolution and used at it, too
CASES = (*RESOLUTIONS, AT_HALF)
COLUMNS = ("pair", "network", "case", "dice", "dice_affine", "sdlogj", "folds_percent", "cpu_s")
PLAN, RESULTS = "plan.json", "results.csv"
SPEED_SECONDS = 10.0  # of trial iterations, by which the length of the schedule is chosen


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pack", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with brain_labelled/")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="of trainings and results.csv")
    parser.add_argument("--minutes", type=float, default=12.0, help="of CPU time for each training")
    parser.add_argument("--iterations", type=int, default=0, help="of every training, whatever they take")
    parser.add_argument("--pairs", type=int, help="at most so many, spread over the set")
    parser.add_argument("--networks", default=",".join(NETWORKS), help=f"some of {','.join(NETWORKS)}")
    parser.add_argument("--cases", default=",".join(CASES), help=f"some of {','.join(CASES)}")
    parser.add_argument("--only", metavar="NETWORK-RESOLUTION", help="train this one and stop, such as FNOReg-half")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    names, cases = options.networks.split(","), options.cases.split(",")
    for name, resolution in itertools.product(names, RESOLUTIONS):
        if options.only in (None, f"{name}-{resolution}"):
            trained(configuration(name, resolution, options), options)
    if options.only:
        return
    for pair in spread(pairs_of(options.data, ["brain_labelled"]))[: options.pairs]:
        measure(pair, list(itertools.product(names, cases)), options)
    print(report(options))


def configuration(name: str, resolution: str, options: argparse.Namespace) -> TrainingConfig:
    file, lattice = NETWORKS[name]
    settings = {"data": str(options.pack), "output": str(options.out / f"{name}-{resolution}")}
    return load_config(file, **settings, spacing=SPACING, lattice=lattice, training_resolution=resolution)


def trained(config: TrainingConfig, options: argparse.Namespace) -> None:
    """Train one network to the end of its schedule, or find it trained; plan.json says how long that took."""
    folder = Path(config.output)
    plan = folder / PLAN
    if not plan.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        iterations = options.iterations or affordable(config, 60 * options.minutes)
        plan.write_text(json.dumps({"iterations": iterations, "cpu_s": 0.0}), encoding="utf-8")
    values = json.loads(plan.read_text(encoding="utf-8"))
    length, start = values["iterations"], time.process_time()
    if not (folder / MODEL).is_file():  # written by the only validation, at the end
        try:
            train(replace(config, schedule=replace(config.schedule, iterations=length, validate_every=length)))
        finally:
            values["cpu_s"] += round(time.process_time() - start, 1)
            plan.write_text(json.dumps(values), encoding="utf-8")
    print(f"{folder.name}: {values}", flush=True)


def affordable(config: TrainingConfig, seconds: float) -> int:
    """Iterations that take so much CPU time, by a trial whose network is thrown away."""
    trainer = trainer_of(config, Pack.load(Path(config.data), config.seen[1]))
    for _ in range(2):
        trainer.step()
    start, steps = time.process_time(), 0
    while time.process_time() - start < min(SPEED_SECONDS, seconds):
        trainer.step()
        steps += 1
    return max(1, round(seconds * steps / (time.process_time() - start)))


def model_of(name: str, case: str, options: argparse.Namespace) -> Path:
    """The trained model; in the case AT_HALF a copy that is told the lattice and spacing of its training."""
    config = configuration(name, case.split()[0], options)
    source = Path(config.output) / MODEL
    if case != AT_HALF:
        return source
    target, (lattice, spacing) = source.with_name("model-at-half.pt"), config.seen
    if not target.is_file():
        checkpoint = weights.load(source)
        manifest = replace(checkpoint.manifest, lattice=lattice, spacing=spacing)
        weights.save(target, feedforward.network_of(checkpoint), manifest)
    return target


def measure(pair: Pair, wanted: list[tuple[str, str]], options: argparse.Namespace) -> None:
    """Register one pair by the networks and in the cases wanted; the affine stage runs once."""
    results = options.out / RESULTS
    known = {(row["network"], row["case"]) for row in table.read(results) if row["pair"] == pair.name}
    if known >= set(wanted):
        return
    fixed, moving = io.read_image(pair.fixed), io.read_image(pair.moving)
    labels = io.read_labels(pair.fixed_labels), io.read_labels(pair.moving_labels)
    linear, mask = register_affine(fixed, moving).moving_from_aligned, body_mask(fixed)
    images = make_pair(fixed, moving, linear, working_grid(fixed, MAX_VOXELS))
    before = round(overlap(*labels, linear), 4)
    for name, case in wanted:
        if (name, case) in known:
            continue
        start = time.process_time()
        transform = linear @ predicted(images, name, model_of(name, case, options))
        row = {"pair": pair.name, "network": name, "case": case, "cpu_s": round(time.process_time() - start, 2)}
        determinant = jacobian_determinant(transform, fixed.grid).data[0]
        row |= {"sdlogj": round(sdlogj(determinant, mask), 4), "folds_percent": folds_percent(determinant, mask)}
        row |= {"dice": round(overlap(*labels, transform), 4), "dice_affine": before}
        table.append(results, row, COLUMNS)
        print(row, flush=True)


def predicted(images: Images, name: str, model: Path) -> DisplacementField:
    """One forward pass and what follows it in every registration, the mending of folds."""
    fit = make_method(name, "balanced", {"model": str(model), "scales": [1.0]})(images, "lncc", "cpu", Monitor())
    forward = untangled(fit.chain.forward)
    return DisplacementField.from_voxels(forward, images.grid.with_shape(tuple(forward.shape[2:])))


def overlap(fixed_labels, moving_labels, transform) -> float:
    """Mean Dice over the labels; they are warped once."""
    warped = resample(moving_labels, transform, fixed_labels.grid, "nearest")
    return statistics.fmean(dice(fixed_labels.data[0], warped.data[0]).values())


def report(options: argparse.Namespace) -> str:
    """A Markdown table: means over the pairs, and what half resolution cost, pair by pair."""
    rows = table.read(options.out / RESULTS)
    lines = ["| network, training | iterations | CPU s | Dice | against full | SDlogJ | J ≤ 0 % |", "|---" * 7 + "|"]
    for name, case in itertools.product(NETWORKS, CASES):
        these = {row["pair"]: row for row in rows if (row["network"], row["case"]) == (name, case)}
        full = {row["pair"]: row for row in rows if (row["network"], row["case"]) == (name, "full")}
        if these:
            overlaps = [float(row["dice"]) for row in these.values()]
            plan = Path(configuration(name, case.split()[0], options).output) / PLAN
            gains = [float(these[pair]["dice"]) - float(full[pair]["dice"]) for pair in these if pair in full]
            length, seconds = json.loads(plan.read_text(encoding="utf-8")).values()
            means = [table.mean([row[column] for row in these.values()]) for column in ("sdlogj", "folds_percent")]
            lines.append(
                f"| {name}, {case} | {length} | {seconds:.0f} | {spread_of(overlaps)} | {spread_of(gains)} "
                f"| {means[0]:.3f} | {means[1]:.2g} |"
            )
    before = {row["pair"]: float(row["dice_affine"]) for row in rows}
    return "\n".join(lines) + f"\n\n{len(before)} pairs; after the affine stage: {spread_of(list(before.values()))}"


def spread_of(values: list[float]) -> str:
    return f"{statistics.fmean(values):.4f} ({min(values):.3f} to {max(values):.3f})" if values else "–"


if __name__ == "__main__":
    main()

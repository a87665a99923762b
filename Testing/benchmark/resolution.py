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
from neuralreg.image import resample_labels
from neuralreg.job import Monitor
from neuralreg.methods import make_method
from neuralreg.metrics import dice, folds_percent, sdlogj
from neuralreg.pipeline import MAX_VOXELS
from neuralreg.preprocess import Pair as Images
from neuralreg.preprocess import make_pair, working_grid
from neuralreg.train import MODEL, TrainingConfig, load_config, train, trainer_of
from neuralreg.training.data import Pack
from neuralreg.transform import DisplacementField, jacobian_determinant

from . import table
from .pairs import Pair, pairs_of, spread

FULL, HALF = 2.0, 4.0  # mm
# configuration of a training from nothing, and the lattice that covers one field of view at each spacing
NETWORKS = {
    "FNOReg": ("fnoreg_t1.toml", {FULL: (82, 98, 82), HALF: (41, 49, 41)}),
    "VoxelMorph": ("voxelmorph_t1_coarse.toml", {FULL: (65, 81, 65), HALF: (33, 41, 33)}),
}
CASES = {"full": (FULL, FULL), "half": (HALF, FULL), "half at half": (HALF, HALF)}  # trained at, used at
COLUMNS = ("pair", "network", "case", "dice", "dice_affine", "sdlogj", "folds_percent", "cpu_s")
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
    parser.add_argument("--only", metavar="NETWORK-SPACING", help="train this one and stop, such as FNOReg-4")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    names, cases = options.networks.split(","), options.cases.split(",")
    for name, spacing in itertools.product(names, (FULL, HALF)):
        if options.only in (None, f"{name}-{spacing:g}"):
            trained(name, spacing, options)
    if options.only:
        return
    for pair in spread(pairs_of(options.data, ["brain_labelled"]))[: options.pairs]:
        measure(pair, list(itertools.product(names, cases)), options.out)
    print(report(options.out))


def folder_of(out: Path, name: str, spacing: float) -> Path:
    return out / f"{name}-{spacing:g}"


def trained(name: str, spacing: float, options: argparse.Namespace) -> None:
    """Train one network to the end of its schedule, or find it trained; plan.json says how long that took."""
    file, lattices = NETWORKS[name]
    folder = folder_of(options.out, name, spacing)
    settings = {"data": str(options.pack), "output": str(folder), "spacing": spacing, "lattice": lattices[spacing]}
    config, plan = load_config(file, **settings), folder / "plan.json"
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
    trainer = trainer_of(config, Pack.load(Path(config.data), config.spacing))
    for _ in range(2):
        trainer.step()
    start, steps = time.process_time(), 0
    while time.process_time() - start < min(SPEED_SECONDS, seconds):
        trainer.step()
        steps += 1
    return max(1, round(seconds * steps / (time.process_time() - start)))


def used_at(out: Path, name: str, trained_at: float, spacing: float) -> Path:
    """The trained model as one for images of `spacing`: the same weights, told another sampling."""
    source = folder_of(out, name, trained_at) / MODEL
    target = source.with_name(f"model-at-{spacing:g}.pt")
    if not target.is_file():
        checkpoint = weights.load(source)
        manifest = replace(checkpoint.manifest, spacing=spacing, lattice=NETWORKS[name][1][spacing])
        weights.save(target, feedforward.network_of(checkpoint), manifest)
    return target


def measure(pair: Pair, wanted: list[tuple[str, str]], out: Path) -> None:
    """Register one pair by the networks and in the cases wanted; the affine stage runs once."""
    results = out / "results.csv"
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
        transform = linear @ predicted(images, name, used_at(out, name, *CASES[case]))
        row = {"pair": pair.name, "network": name, "case": case, "cpu_s": round(time.process_time() - start, 2)}
        determinant = jacobian_determinant(transform, fixed.grid).data[0]
        row |= {"sdlogj": round(sdlogj(determinant, mask), 4), "folds_percent": folds_percent(determinant, mask)}
        row |= {"dice": round(overlap(*labels, transform), 4), "dice_affine": before}
        table.append(results, row, COLUMNS)
        print(row, flush=True)


def predicted(images: Images, name: str, model: Path) -> DisplacementField:
    """One forward pass and what follows it in every registration, the mending of folds."""
    fit = make_method(name, "balanced", {"model": str(model)})(images, "lncc", "cpu", Monitor())
    forward, _ = untangled(fit.chain.forward)
    return DisplacementField.from_voxels(forward, images.grid.with_shape(tuple(forward.shape[2:])))


def overlap(fixed_labels, moving_labels, transform) -> float:
    """Mean Dice over the labels; they are warped once."""
    warped = resample_labels(moving_labels, transform, fixed_labels.grid)
    return statistics.fmean(dice(fixed_labels.data[0], warped.data[0]).values())


def report(out: Path) -> str:
    """A Markdown table: means over the pairs, and what half resolution cost, pair by pair."""
    rows = table.read(out / "results.csv")
    lines = ["| network, trained at, used at | iterations | CPU s | Dice | against full | SDlogJ | J ≤ 0 % |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for name in NETWORKS:
        full = {row["pair"]: float(row["dice"]) for row in rows if (row["network"], row["case"]) == (name, "full")}
        for case, (trained_at, spacing) in CASES.items():
            these = [row for row in rows if (row["network"], row["case"]) == (name, case)]
            if not these:
                continue
            plan = json.loads((folder_of(out, name, trained_at) / "plan.json").read_text(encoding="utf-8"))
            values = [float(row["dice"]) for row in these]
            gains = [float(row["dice"]) - full[row["pair"]] for row in these if row["pair"] in full]
            means = [table.mean([row[c] for row in these]) for c in ("sdlogj", "folds_percent")]
            lines.append(
                f"| {name}, {trained_at:g} mm, {spacing:g} mm | {plan['iterations']} | {plan['cpu_s']:.0f} "
                f"| {statistics.fmean(values):.4f} ({min(values):.3f} to {max(values):.3f}) "
                f"| {statistics.fmean(gains):+.4f} ({min(gains):+.3f} to {max(gains):+.3f}) "
                f"| {means[0]:.3f} | {means[1]:.2g} |"
            )
    pairs = {row["pair"]: float(row["dice_affine"]) for row in rows}
    return "\n".join(lines) + f"\n\n{len(pairs)} pairs; affine stage alone: {statistics.fmean(pairs.values()):.4f}"


if __name__ == "__main__":
    main()

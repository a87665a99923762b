"""`train`, `pack` and `models`: weights of one's own, and the list of those that are there."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

from ..job import RegistrationError
from ..monitor import line_again
from .shared import add_command, output_file, shower, writing


def add_train(commands: Any) -> None:
    parser = add_command(
        commands,
        "train",
        _train,
        "train a network on your own images",
        "The configuration names the data (a folder, a CSV table or a pack), the network and what is minimised. A "
        "training that was interrupted goes on where it stopped when it is called again.",
        "  neuralreg train voxelmorph_t1.toml --data my_brains --output my_model\n"
        "  neuralreg train my.toml --hours 8\n"
        "  neuralreg register a.nii.gz b.nii.gz -o result --method VoxelMorph --option model=my_model/model.pt\n",
    )
    parser.add_argument("config", metavar="CONFIG.toml", help="a file, or the name of one that comes along")
    parser.add_argument("--data", help="folder, CSV table (image, labels) or pack, instead of the one named there")
    parser.add_argument(
        "-o", "--output", metavar="DIR", help="folder of checkpoint, log and model, instead of the one named there"
    )
    parser.add_argument(
        "--hours", type=float, default=math.inf, metavar="N", help="stop after this time; call again to go on"
    )
    parser.add_argument("--device", metavar="cpu|cuda|mps", help="instead of the one named there")
    parser.add_argument("--tensorboard", action="store_true", help="also log for TensorBoard (if it is installed)")


def _train(options: argparse.Namespace) -> None:
    from ..train import train
    from ..training.config import load_config

    given = {name: getattr(options, name) for name in ("data", "output", "device")}
    config = load_config(options.config, **{name: value for name, value in given.items() if value})
    leads = os.environ.get("RANK", "0") == "0"  # one of the processes that torchrun starts speaks for all
    # The writer keeps rows in memory for two minutes: without being closed it would lose the end of every training.
    logging = _tensorboard(config.output) if options.tensorboard and leads else contextlib.nullcontext()
    with writing(), logging as writer:

        def report(row: dict[str, Any]) -> None:
            if leads:
                values = "  ".join(f"{name} {value}" for name, value in row.items())
                print(line_again(sys.stderr) + values, file=sys.stderr)
            for name, value in row.items():
                if writer and isinstance(value, float):
                    writer.add_scalar(name, value, row["iteration"])

        model = train(config, report, options.hours, shower(None))
    print(line_again(sys.stderr), end="", file=sys.stderr)  # of a training that stopped before its end
    if model.exists() and leads:
        print(model)
    elif leads:
        print("There is no model before the first validation; call again to go on.", file=sys.stderr)


def _tensorboard(folder: str) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise RegistrationError("TensorBoard is not installed; install it, or leave --tensorboard away.") from error
    return SummaryWriter(folder)


def add_pack(commands: Any) -> None:
    parser = add_command(
        commands,
        "pack",
        _pack,
        "make a training pack of a folder of images",
        "Every image is normalised, cropped, brought to the spacing and aligned to the first one; the pack is one "
        "small file from which training starts at once.",
        "  neuralreg pack my_brains pack.npz --spacing 2\n",
    )
    parser.add_argument("data", metavar="DATA", help="folder of images (labels: NAME_labels beside NAME) or CSV table")
    parser.add_argument("output", metavar="PACK.npz", help="the pack")
    parser.add_argument("--spacing", type=float, default=2.0, metavar="MM", help="of its voxels, in mm (default: 2)")
    parser.add_argument("--keep", default="", metavar="1,2,…", help="labels that count; the rest is cut away")
    parser.add_argument("--aligned", action="store_true", help="the images share a space already: no affine stage")


def _pack(options: argparse.Namespace) -> None:
    from ..training.packing import Packing, build_pack, check_name, find_subjects, save_pack

    output = output_file(options.output)
    check_name(output)
    subjects = find_subjects(Path(options.data))
    try:
        keep = tuple(int(label) for label in options.keep.split(",") if label.strip())
    except ValueError as error:
        raise RegistrationError(f'--keep takes labels, whole numbers with commas; got "{options.keep}".') from error
    packing = Packing(options.spacing, align=not options.aligned, keep=keep)
    arrays = build_pack(subjects, packing, lambda text: print(text, file=sys.stderr))
    with writing():
        save_pack(output, arrays)


def add_models(commands: Any) -> None:
    parser = add_command(
        commands,
        "models",
        _models,
        "list the trained models, what they are for and where they come from",
        "",
        "  neuralreg models\n  neuralreg models my_model/model.pt --json\n",
    )
    parser.add_argument("files", nargs="*", metavar="MODEL.pt", help="checkpoints to look at")
    parser.add_argument("--json", action="store_true", help="everything that their manifests say")


def _models(options: argparse.Namespace) -> None:
    from dataclasses import asdict

    from ..methods.start import known_models
    from ..weights import load

    manifests = {}
    for path in [Path(file) for file in options.files] or known_models():
        try:
            manifests[str(path)] = load(path).manifest
        except RegistrationError as error:
            if options.files:
                raise
            print(f"neuralreg: {error}", file=sys.stderr)  # one broken file must not hide the others
    if options.json:
        print(json.dumps({path: asdict(manifest) for path, manifest in manifests.items()}, indent=2))
        return
    for path, manifest in manifests.items():
        kind = "diffeomorphic" if manifest.diffeomorphic else "plain displacement"
        print(f"{Path(path).stem}: {manifest.method}, {kind}, {manifest.anatomy}, {manifest.contrast}")
        print(f"  for images of {manifest.spacing:g} mm, trained on {manifest.data} ({manifest.licence})\n  {path}")
    if not manifests:
        print("There are no trained models; make one with `neuralreg train`.")

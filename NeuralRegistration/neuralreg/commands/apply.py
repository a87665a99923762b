"""`apply`: what a transform was found for, brought to the other space."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..job import INVERSE, TRANSFORM, RegistrationError
from .shared import add_command, output_file, say, writing

PICTURE = (
    "Everything that lies on MOVING is brought to FIXED: image, labels and points move together, moving --> fixed;"
    " `--from fixed` brings what lies on FIXED to MOVING, fixed --> moving."
)


def add_apply(commands: Any) -> None:
    parser = add_command(
        commands,
        "apply",
        _apply,
        "bring an image, a label map or points to the other space with a transform",
        PICTURE + " (A point on a tumour of the moving image becomes the point on the same tumour of the fixed image.)",
        "  neuralreg apply result --reference fixed.nii.gz --image moving_t2.nii.gz -o t2_on_fixed.nii.gz\n"
        "  neuralreg apply result/transform.h5 --reference fixed.nii.gz --labels seg.nii.gz -o seg_on_fixed.nii.gz\n"
        "  neuralreg apply result --points moving_points.mrk.json -o points_on_fixed.mrk.json\n"
        "  neuralreg apply result --from fixed --reference moving.nii.gz --labels atlas.nii.gz -o on_moving.nii.gz\n"
        "  neuralreg apply result --reference fixed.nii.gz --field -o field.nii.gz\n",
    )
    parser.add_argument("transform", metavar="TRANSFORM", help="folder of a run, or a transform file fixed to moving")
    parser.add_argument("--reference", metavar="F", help="volume whose grid the output gets (not needed for points)")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--image", metavar="F", help="volume; interpolated linearly")
    what.add_argument(
        "--labels", metavar="F", help="label map; nearest neighbour, type of number kept, names too in .seg.nrrd"
    )
    what.add_argument("--points", metavar="F", help=".csv (x, y, z in LPS mm), .fcsv or .mrk.json")
    what.add_argument(
        "--field",
        action="store_true",
        help="the transform itself, fixed to moving, as one displacement at each voxel of F (LPS mm); with --from "
        "fixed the inverse",
    )
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="file to write")
    parser.add_argument(
        "--from",
        dest="origin",
        choices=("moving", "fixed"),
        default="moving",
        help="space in which the input lies (default: moving)",
    )


def _apply(options: argparse.Namespace) -> None:
    folder = [str(Path(options.transform, name)) for name in (TRANSFORM, INVERSE)]
    inputs = options.transform, *folder, options.reference, options.image, options.labels, options.points
    output = output_file(options.output, *inputs)
    if options.points is None and options.reference is None:
        raise RegistrationError("Add --reference with the volume whose grid the output shall have.")
    notes: list[str] = []
    with writing():
        if options.points:
            _apply_to_points(options, output)
        else:
            _apply_to_volume(options, output, notes)
    for note in notes:
        say(f"note: {note}")


def _apply_to_volume(options: argparse.Namespace, output: Path, notes: list[str]) -> None:
    from .. import io
    from ..apply import apply_to_image, load_pair

    moving_from_fixed, fixed_from_moving = load_pair(Path(options.transform))
    grid = io.read_grid(options.reference, notes.append)
    forward = options.origin == "moving"
    target_from_grid = moving_from_fixed if forward else fixed_from_moving or moving_from_fixed.inverse()
    if options.field:
        io.write_transform(target_from_grid.displacement(grid), output)
        return
    read = io.read_labels if options.labels else io.read_map
    image = read(options.labels or options.image, notes.append)
    moved = apply_to_image(image, target_from_grid, grid, labels=bool(options.labels))
    if options.labels:
        io.write_image(moved, output, io.pixel_type(options.labels), segments=io.read_segments(options.labels))
    else:
        io.write_image(moved, output)


def _apply_to_points(options: argparse.Namespace, output: Path) -> None:
    import torch

    from ..apply import inverse_points, load_pair
    from ..points import read_points, write_points

    moving_from_fixed, fixed_from_moving = load_pair(Path(options.transform))
    points = read_points(options.points)
    given = torch.from_numpy(points.lps.T.copy())
    if options.origin == "fixed":
        moved = moving_from_fixed(given)
    else:
        moved = inverse_points(moving_from_fixed, given, fixed_from_moving(given) if fixed_from_moving else None)
    write_points(points.moved(moved.T.numpy()), output)

"""The child that reads files for the page: `python -m NeuralRegistrationApp.reading TARGET SOURCE…`

Each source becomes one file in TARGET, named by its number: `.nrrd` for a volume, `.label.nrrd` for a label map,
`.json` for points, `.h5` for a transform. What is broken, hostile or too large takes this process down, not the page.
Exit code 2 with one sentence on the standard error for what the user can put right, as the command line does.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from neuralreg import io
from neuralreg.image import Image
from neuralreg.job import RegistrationError
from neuralreg.points import read_points

from .formats import POINTS, SEGMENTATION, TRANSFORMS

MOST_LABELS = 32  # whole numbers of which an image has no more are taken for labels
LARGEST_LABEL = 32767
SAME_NEIGHBOURS = 0.7  # share of neighbours with one label in an atlas; measured: atlases 0.86 to 0.9, scans 0.05
SAMPLE = 100_003  # voxels looked at first: a scan shows there that it is none


def main(target: str, *sources: str) -> int:
    """Returns the exit code."""
    try:
        for index, source in enumerate(sources):
            _read(source, Path(target) / str(index))
    except RegistrationError as error:
        print(f"neuralreg: {error}", file=sys.stderr)
        return 2
    return 0


def _read(source: str, target: Path) -> None:
    if source.lower().endswith(POINTS):
        points = read_points(source)
        text = json.dumps({"labels": points.labels, "lps": points.lps.tolist()})
        target.with_suffix(".json").write_text(text, encoding="utf-8")
        return
    if source.lower().endswith(TRANSFORMS):
        io.write_transform(io.read_transform(source), target.with_suffix(".h5"))
        return
    image = _segments(source) if source.lower().endswith(SEGMENTATION) else None
    if image is None:
        image = io.read_image(source, lambda warning: print(warning, flush=True))
    if are_labels(image.data.numpy()):
        io.write_image(image, target.with_suffix(".label.nrrd"), np.int16)
    else:
        io.write_image(image, target.with_suffix(".nrrd"), np.float32)


def _segments(source: str) -> Image | None:
    """Every segment of a segmentation together, where they overlap and lie in layers of their own; else None."""
    header = sitk.ImageFileReader()
    header.SetFileName(source)
    try:
        header.ReadImageInformation()
    except RuntimeError as error:
        raise RegistrationError(f"{source} cannot be read as a segmentation; export it again.") from error
    if header.GetNumberOfComponents() == 1:
        return None
    layers = [io.read_map(f"{source}@{layer}") for layer in range(header.GetNumberOfComponents())]
    return Image((sum(layer.data for layer in layers) > 0).float(), layers[0].grid)


def are_labels(values: np.ndarray) -> bool:
    """Whether the voxels are whole numbers, none of them below zero, and either few or the same over whole regions."""
    flat = values.reshape(-1)
    for part in (flat[:: max(1, flat.size // SAMPLE)], flat):
        if part.min() < 0 or part.max() > LARGEST_LABEL or not np.array_equal(part, np.rint(part)):
            return False
    left, right = values[..., :-1], values[..., 1:]
    inside = (left > 0) & (right > 0)
    if np.count_nonzero(left[inside] == right[inside]) > SAME_NEIGHBOURS * np.count_nonzero(inside):
        return True
    return np.count_nonzero(np.bincount(flat.astype(np.intp))) <= MOST_LABELS


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))

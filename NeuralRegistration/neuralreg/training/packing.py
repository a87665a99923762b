"""Making a pack: find the subjects, normalise and crop them, bring them to one space, once."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch

from .. import io
from ..affine import register_affine
from ..files import reading, replacing
from ..image import Image, bounding_box, canonical, centre_of_mass, resample
from ..job import RegistrationError
from ..preprocess import coarsened, normalised
from ..tables import read_table

IMAGE_ENDINGS = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd")
PACK_VERSION = 1
MARGIN_MM = 4.0


@dataclass(frozen=True)
class Files:
    """Where a subject lies on the disk: an image, labels, or both. Subjects with a group are paired within it only."""

    name: str
    image: Path | None
    labels: Path | None = None
    group: str = ""


@dataclass(frozen=True)
class Packing:
    """spacing in mm of what is stored. align: bring everybody to the first subject by the affine stage.

    keep: labels that count; what they do not cover is cut away (a skull, say). Empty keeps everything.
    """

    spacing: float = 2.0
    align: bool = True
    keep: tuple[int, ...] = ()

    def __post_init__(self):
        if not 0.1 <= self.spacing <= 20:
            raise RegistrationError(f"The spacing of a pack lies between 0.1 and 20 mm; got {self.spacing:g}.")


@reading()
def find_subjects(source: Path) -> list[Files]:
    """Subjects of a folder or of a CSV table with the columns image, labels (or one of them) and group (or not).

    In a folder, labels are files with "label" in their names; NAME_labels belongs to the image whose name starts alike,
    and where there are no images the labels are subjects themselves. Paths in a table are relative to it. Raises
    RegistrationError when there are fewer than two subjects, or labels of nobody.
    """
    if source.is_dir():
        found = _in_folder(source)
    elif source.suffix == ".csv" and source.exists():
        found = _in_table(source)
    else:
        raise RegistrationError(f"There is no training data at {source}; give a folder, a CSV file or a pack (.npz).")
    if len(found) < 2:
        raise RegistrationError(f"{source} holds {len(found)} image(s); training needs at least four; add some.")
    return found


def _in_folder(folder: Path) -> list[Files]:
    volumes = sorted(p for p in folder.iterdir() if p.name.endswith(IMAGE_ENDINGS))
    labels = [p for p in volumes if "label" in p.name.lower()]
    images = [p for p in volumes if p not in labels]
    names = [_stem(p) for p in images or labels]
    for name in names:
        if names.count(name) > 1:
            raise RegistrationError(f"{folder} holds {name} in two formats; remove one of the files.")
    if not images:
        return [Files(name, None, p) for name, p in zip(names, labels, strict=True)]
    of_name = {_stem(p).lower().split("_label")[0]: p for p in labels}
    found = [of_name.get(_longest_start(name.lower(), of_name)) for name in names]
    for path in labels:
        if path not in found:  # and would silently not count
            raise RegistrationError(f"{path} is of no image beside it; name it NAME_labels beside NAME, or remove it.")
    return [Files(*files) for files in zip(names, images, found, strict=True)]


def _stem(path: Path) -> str:
    """The name without its ending; points within it stay."""
    return Path(path.name.removesuffix(".gz")).stem


def _longest_start(name: str, starts: Collection[str]) -> str | None:
    """The longest of `starts` with which a name begins, up to the end of a word: s10_T1w is not of s1."""
    return max((s for s in starts if re.match(rf"{re.escape(s)}(?![a-z0-9])", name)), key=len, default=None)


def _in_table(table: Path) -> list[Files]:
    found = []
    for number, (line, row) in enumerate(read_table(table, "table of images", ("image", "labels", "group"))):
        paths = {column: table.parent / row[column] for column in ("image", "labels") if column in row}
        if not paths:
            raise RegistrationError(
                f"Line {line} of {table} has no image and no labels; fill in what the columns image and labels name."
            )
        for path in paths.values():
            if not path.exists():
                raise RegistrationError(f"Line {line} of {table} names {path}, which is not there; correct it.")
        name = f"{number:04}-{_stem(next(iter(paths.values())))}"  # the order of the table is that of the names
        found.append(Files(name, paths.get("image"), paths.get("labels"), row.get("group", "")))
    return found


def build_pack(subjects: Sequence[Files], packing: Packing, report: Callable[[str], None]) -> dict[str, np.ndarray]:
    """The arrays of a pack: every image normalised as at inference, cropped, coarsened, aligned to the first one.

    A subject that cannot be packed is left out, which is said. Raises RegistrationError where fewer than two can.
    """
    reference, packed, refused = None, {}, {}
    state = state_of(subjects, packing)  # of now: what changes meanwhile counts as changed
    for number, files in enumerate(subjects):
        report(f"{number + 1} of {len(subjects)}: {files.name}")
        try:
            image, packed[files.name] = _packed(files, packing, reference)
            reference = reference or image
        except RegistrationError as error:  # the hour spent on the others shall not be lost
            refused[files.name] = error
            report(f"{files.name} is left out: {error}")
    if len(packed) < 2:
        raise next(iter(refused.values()))
    if refused:
        report(f"{len(refused)} of {len(subjects)} left out, for the reasons above: {', '.join(refused)}")
    mean, inverse = _mean_pose([parts["affine"] for parts in packed.values()])
    for parts in packed.values():  # poses are random around the mean subject, not around whoever came first
        parts["affine"] = parts["affine"] @ inverse
    arrays = {f"{kind}/{name}": values for name, parts in packed.items() for kind, values in parts.items()}
    middle = reference.grid.place(centre_of_mass(normalised(reference).data[0].clamp(0, 1).double()))
    arrays["centre"] = (mean @ np.append(middle, 1.0))[:3]
    about = {"version": PACK_VERSION, "spacing": packing.spacing, "subjects": len(packed), "state": state}
    arrays["about"] = np.array(json.dumps(about))
    return arrays


def _packed(files: Files, packing: Packing, reference: Image | None) -> tuple[Image, dict[str, np.ndarray]]:
    """A subject's image, and its arrays by kind; without a reference it is the one to which the others are aligned."""
    image, labels = _read(files, packing.keep)
    small, matrix = _coarse(normalised(image), packing.spacing), np.eye(4)
    if packing.align and reference is not None:
        matrix = register_affine(reference, image).moving_from_aligned.matrix
    arrays = {
        "image": (small.data[0].clamp(0, 1) * 255).round().byte().numpy(),
        "grid": small.grid.world_from_index,
        "affine": matrix,
        "group": np.array(files.group),
    }
    if labels is not None:
        labels = resample(labels, lambda p: p, small.grid, "nearest").data[0].numpy()
        arrays["labels"] = _as_int16(labels, files.labels)
    return image, arrays


def state_of(subjects: Sequence[Files], packing: Packing) -> str:
    """Changes when a pack would: by the names, sizes and times of the files, wherever they lie, and what is done."""
    digest = hashlib.sha256(repr(packing).encode())
    for files in subjects:
        there = [(path.name, path.stat()) for path in (files.image, files.labels) if path]
        known = [(name, found.st_size, found.st_mtime_ns) for name, found in there]
        digest.update(repr((files.name, files.group, known)).encode())
    return digest.hexdigest()


def made_of(pack: Path) -> str:
    """The `state_of` the data of which a pack was made; nothing where it does not say so, or is none."""
    try:
        with np.load(pack, allow_pickle=False) as file:
            return json.loads(str(file["about"]))["state"]
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return ""


def _as_int16(labels: np.ndarray, path: Path) -> np.ndarray:
    if labels.min() < -(2**15) or labels.max() >= 2**15:
        raise RegistrationError(f"{path} holds the label {labels.max()}; number them from 1 to {2**15 - 1}.")
    return labels.astype(np.int16)


def check_name(path: Path) -> None:
    """Raise RegistrationError for another ending than .npz."""
    if path.suffix != ".npz":
        raise RegistrationError(f"{path} cannot be the name of a pack; end it with .npz.")


def save_pack(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write a pack; the file is whole or absent. Raises RegistrationError for another ending than .npz, OSError."""
    check_name(path)
    with replacing(path) as partial:
        np.savez_compressed(partial, **arrays)


def _read(files: Files, keep: tuple[int, ...]) -> tuple[Image, Image | None]:
    """A subject in canonical axes; without an image of its own it gets one in which every label has its grey value."""
    labels = canonical(io.read_labels(files.labels)) if files.labels else None
    if labels is not None and keep:
        kept = torch.isin(labels.data, torch.tensor(keep, dtype=labels.data.dtype))
        labels = Image(torch.where(kept, labels.data, torch.zeros_like(labels.data)), labels.grid)
    if files.image is None:
        # Multiples of the golden ratio, modulo 1: neighbouring numbers get grey values far apart.
        grey = torch.where(labels.data > 0, 0.2 + 0.8 * ((labels.data.float() * 0.618034) % 1.0), torch.zeros(()))
        return Image(grey, labels.grid), labels
    image = canonical(io.read_image(files.image))
    if labels is not None and keep:
        body = resample(Image((labels.data > 0).float(), labels.grid), lambda p: p, image.grid, "nearest").data
        image = Image(torch.where(body > 0, image.data.float(), image.data.float().min()), image.grid)
    return image, labels


def _coarse(image: Image, spacing: float) -> Image:
    """Block means down to about `spacing`, then interpolated to it; cropped to what is not background."""
    image = coarsened(image, spacing)
    inside = image.data[0] > 0.02
    if not bool(inside.any()):
        raise RegistrationError("A subject is empty where it counts; check the labels to keep, and the images.")
    low, high = bounding_box(inside)
    room = np.ceil(MARGIN_MM / image.grid.spacing).astype(int)
    grid = image.grid.cropped(low - room, high + room)
    if not np.allclose(grid.spacing, spacing, rtol=0.02):
        grid = grid.with_shape(
            tuple(np.round((np.array(grid.size) - 1) * grid.spacing / spacing).astype(int)[::-1] + 1)
        )
    return resample(image, lambda p: p, grid)


def _mean_pose(matrices: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean of affine matrices near the identity and its inverse; linear parts are averaged by logarithms."""
    logarithms = np.mean([_logarithm(m) for m in matrices], axis=0)
    mean = torch.linalg.matrix_exp(torch.from_numpy(logarithms)).numpy()
    return mean, np.linalg.inv(mean)


def _logarithm(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eig(matrix.astype(complex))
    return (vectors @ np.diag(np.log(values)) @ np.linalg.inv(vectors)).real

"""Subjects for training: read and brought to one space once, kept as a compact pack, drawn as random pairs.

A pack is one .npz file: for every subject the image (uint8), its lattice, the affine subject_from_reference, and labels
where there are any. It holds images in their own space, so that a random pose costs one interpolation, not two.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .. import io
from ..affine import register_affine
from ..image import Grid, Image, canonical, resample
from ..job import RegistrationError
from ..preprocess import normalised, shrunk
from ..sampling import identity, sample

IMAGE_ENDINGS = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd")
PACK_VERSION = 1


@dataclass(frozen=True, eq=False)
class Subject:
    """image (1, 1, D, H, W) uint8 on `grid`, labels alike (int16) or None; reference and subject in LPS mm."""

    name: str
    image: Tensor
    grid: Grid
    subject_from_reference: np.ndarray
    labels: Tensor | None = None


@dataclass(frozen=True)
class Files:
    """Where a subject lies on the disk."""

    name: str
    image: Path
    labels: Path | None = None


def find_subjects(source: Path) -> list[Files]:
    """Subjects of a folder (every image; `NAME_labels` belongs to the image whose name starts alike) or of a CSV file
    with the columns `image` and, optionally, `labels` (paths relative to the file).

    Raises RegistrationError when there are fewer than two.
    """
    if source.is_dir():
        found = _in_folder(source)
    elif source.suffix == ".csv":
        found = _in_table(source)
    else:
        raise RegistrationError(f"There is no training data at {source}; give a folder, a CSV file or a pack (.npz).")
    if len(found) < 2:
        raise RegistrationError(f"{source} holds {len(found)} image(s); training needs at least two subjects.")
    return found


def _in_folder(folder: Path) -> list[Files]:
    images = sorted(p for p in folder.iterdir() if p.name.endswith(IMAGE_ENDINGS))
    labels = {p.name.split("_labels")[0]: p for p in images if "_labels" in p.name}
    scans = [p for p in images if "_labels" not in p.name]
    stem = lambda p: p.name.split(".")[0]  # noqa: E731
    return [Files(stem(p), p, next((q for k, q in labels.items() if stem(p).startswith(k)), None)) for p in scans]


def _in_table(table: Path) -> list[Files]:
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if rows and "image" not in rows[0]:
        raise RegistrationError(f'{table} has no column "image"; name the columns image and, if there are any, labels.')
    at = lambda name: table.parent / name  # noqa: E731
    return [Files(f"{i:04}", at(r["image"]), at(r["labels"]) if r.get("labels") else None) for i, r in enumerate(rows)]


def build_pack(
    subjects: Sequence[Files], spacing: float, report: Callable[[str], None], margin_mm: float = 4.0, align: bool = True
) -> dict[str, np.ndarray]:
    """The arrays of a pack: every image normalised as at inference, cropped, at `spacing` mm, aligned to the first one.

    With `align` off the images are taken to share one space already.
    """
    reference, arrays = None, {}
    for number, files in enumerate(subjects):
        report(f"{number + 1} of {len(subjects)}: {files.name}")
        image = canonical(io.read_image(files.image))
        reference = reference or image
        matrix = np.eye(4)
        if align and image is not reference:
            matrix = register_affine(reference, image).moving_from_aligned.matrix
        small = _coarse(normalised(image), spacing, margin_mm)
        arrays[f"image/{files.name}"] = (small.data[0].clamp(0, 1) * 255).round().byte().numpy()
        arrays[f"grid/{files.name}"] = small.grid.world_from_index
        arrays[f"affine/{files.name}"] = matrix
        if files.labels:
            labels = resample(io.read_labels(files.labels), lambda p: p, small.grid, "nearest")
            arrays[f"labels/{files.name}"] = labels.data[0].numpy().astype(np.int16)
    mean, inverse = _mean_pose([arrays[f"affine/{f.name}"] for f in subjects])
    for files in subjects:  # poses are random around the mean subject, not around whoever came first
        arrays[f"affine/{files.name}"] = arrays[f"affine/{files.name}"] @ inverse
    arrays["centre"] = (mean @ np.append(_centre_of_mass(reference), 1.0))[:3]
    arrays["about"] = np.array(json.dumps({"version": PACK_VERSION, "spacing": spacing, "subjects": len(subjects)}))
    return arrays


def save_pack(path: Path, arrays: dict[str, np.ndarray]) -> None:
    np.savez_compressed(path, **arrays)


@dataclass(frozen=True, eq=False)
class Pack:
    """All subjects in memory, and `centre` (LPS mm) of the reference space."""

    subjects: tuple[Subject, ...]
    centre: np.ndarray

    @classmethod
    def load(cls, path: Path, spacing: float = 0.0) -> Pack:
        """Read a pack; images finer than half of `spacing` (mm) are averaged down to it.

        Raises RegistrationError when the file is not a pack.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                names = sorted(key.split("/", 1)[1] for key in file.files if key.startswith("image/"))
                subjects = tuple(_subject(file, name, spacing) for name in names)
                centre = file["centre"]
        except (OSError, ValueError, KeyError) as error:
            raise RegistrationError(
                f"{path} is not a training pack ({error}); make one with `neuralreg pack`."
            ) from error
        return cls(subjects, centre)

    def lattice(self, shape: tuple[int, int, int], spacing: float) -> Grid:
        """A lattice centred on the reference's centre, in mm relative to it."""
        matrix = np.diag([spacing, spacing, spacing, 1.0])
        matrix[:3, 3] = -spacing * (np.array(shape[::-1]) - 1) / 2
        return Grid(shape, matrix)

    def view(self, values: Tensor, subject: Subject, pose: Tensor, lattice: Grid, mode: str = "bilinear") -> Tensor:
        """`values` on the subject's grid, read on `lattice` under a pose (4, 4) about the centre -> (1, C, D, H, W)."""
        move = np.eye(4)
        move[:3, 3] = self.centre
        matrix = subject.grid.index_from_world @ subject.subject_from_reference @ move @ pose.numpy()
        matrix = torch.from_numpy(matrix @ lattice.world_from_index).to(values.device, torch.float32)
        points = identity(lattice.shape, matrix)
        index = torch.einsum("ij,bjdhw->bidhw", matrix[:3, :3], points) + matrix[:3, 3].view(1, 3, 1, 1, 1)
        return sample(values.float(), index, mode)


def _subject(file, name: str, spacing: float) -> Subject:
    image = torch.from_numpy(file[f"image/{name}"])[None]
    fine = Grid(tuple(image.shape[1:]), file[f"grid/{name}"])
    factors = np.maximum(np.floor(spacing / fine.spacing + 0.3), 1).astype(int)
    coarse = Image(image, fine) if factors.max() == 1 else shrunk(Image(image.float(), fine), factors)
    labels = file.get(f"labels/{name}")
    if labels is not None:
        labels = resample(Image(torch.from_numpy(labels)[None], fine), lambda p: p, coarse.grid, "nearest").data[None]
    return Subject(name, coarse.data.round().byte()[None], coarse.grid, file[f"affine/{name}"], labels)


def _coarse(image: Image, spacing: float, margin_mm: float) -> Image:
    """Block means down to about `spacing`, then interpolated to it; cropped to what is not background."""
    factors = np.maximum(np.floor(spacing / image.grid.spacing + 0.3), 1).astype(int)
    image = shrunk(image, factors)
    inside = torch.nonzero(image.data[0] > 0.02)
    low, high = inside.min(0).values.flip(0).numpy(), inside.max(0).values.flip(0).numpy() + 1
    room = np.ceil(margin_mm / image.grid.spacing).astype(int)
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


def _centre_of_mass(image: Image) -> np.ndarray:
    weight = normalised(image).data[0].clamp(0, 1)
    points = image.grid.points()
    return np.array([float((points[a] * weight).sum() / weight.sum()) for a in range(3)])

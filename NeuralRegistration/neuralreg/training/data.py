"""A pack: subjects in memory, brought to one space once, seen in any pose by one interpolation.

On the disk it is one .npz file: for every subject the image (uint8), its lattice, the affine subject_from_reference,
and labels and the name of its group where there are any.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from ..image import Grid, Image, apply_matrix, resample
from ..job import RegistrationError
from ..preprocess import coarsened
from ..sampling import identity, sample


@dataclass(frozen=True, eq=False)
class Subject:
    """image (1, 1, D, H, W) uint8 on `grid`, labels alike (int16) or None; reference and subject in LPS mm.

    Subjects with a group are paired within it only (scans of one patient, say).
    """

    name: str
    image: Tensor
    grid: Grid
    subject_from_reference: np.ndarray
    labels: Tensor | None = None
    group: str = ""


@dataclass(frozen=True, eq=False)
class Pack:
    """All subjects in memory, and `centre` (LPS mm) of the reference space."""

    subjects: tuple[Subject, ...]
    centre: np.ndarray

    def digest(self) -> str:
        """Changes when a training would see other images, labels, poses or groups."""
        found = hashlib.sha256(self.centre.tobytes())
        for s in self.subjects:
            arrays = [s.image.numpy(), s.grid.world_from_index, s.subject_from_reference]
            arrays += [] if s.labels is None else [s.labels.numpy()]
            found.update(repr((s.name, s.group, [a.shape for a in arrays])).encode())
            for values in arrays:
                found.update(np.ascontiguousarray(values).tobytes())
        return found.hexdigest()

    @classmethod
    def load(cls, path: Path, spacing: float = 0.0) -> Pack:
        """Read a pack; images finer than half of `spacing` (mm) are averaged down to it.

        Raises RegistrationError when the file is not a pack, or one of larger voxels than `spacing`.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                names = sorted(key.split("/", 1)[1] for key in file.files if key.startswith("image/"))
                subjects = tuple(_subject(file, name, spacing) for name in names)
                centre = file["centre"]
        except FileNotFoundError as error:
            raise RegistrationError(
                f"There is no training pack at {path}; check the path, or make one with `neuralreg pack`."
            ) from error
        except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as error:
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
        values = values.float()
        points = apply_matrix(matrix @ lattice.world_from_index, identity(lattice.shape, values)[0])
        return sample(values, points[None], mode)


def _subject(file, name: str, spacing: float) -> Subject:
    image = torch.from_numpy(file[f"image/{name}"])[None]
    fine = Grid(tuple(image.shape[1:]), file[f"grid/{name}"])
    if spacing and fine.spacing.max() > 1.1 * spacing:  # or a network would learn what blurred images look like
        raise RegistrationError(
            f"The training sees {spacing:g} mm, but its pack has voxels of {fine.spacing.max():g} mm: make a finer one "
            f"(neuralreg pack … --spacing {spacing:g}), or choose a larger spacing."
        )
    coarse = coarsened(Image(image.float(), fine), spacing)
    labels = file.get(f"labels/{name}")
    if labels is not None:
        labels = Image(torch.from_numpy(labels)[None].float(), fine)
        labels = resample(labels, lambda p: p, coarse.grid, "nearest").data[None]
    group = str(file[f"group/{name}"]) if f"group/{name}" in file.files else ""
    return Subject(name, coarse.data.round().byte()[None], coarse.grid, file[f"affine/{name}"], labels, group)

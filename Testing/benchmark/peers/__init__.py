"""The peers: one small file each, `register(task) -> transform, inverse`, run in a process of its own.

A peer reads the files of a `Task` and returns SimpleITK transforms, fixed → moving and back (None where it has none),
in LPS mm. What it needs is imported inside its function: a peer that is not installed fails alone, with its own words.
Settings are those that the peer's authors document for the task, with their source named in the file.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path

import SimpleITK as sitk

# name on the command line → module here, packages whose versions are noted
PEERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "ants": ("syn", ("antspyx",)),
    "ants-mi": ("syn_mi", ("antspyx",)),
    "greedy": ("greedy", ("picsl-greedy",)),
    "greedy-affine": ("greedy_affine", ("picsl-greedy",)),
    "elastix": ("elastix", ("itk-elastix",)),
    "fireants": ("fireants_greedy", ("fireants", "torch")),
    "convexadam": ("convexadam", ("convexAdam", "torch", "picsl-greedy")),
    "voxelmorph": ("voxelmorph", ("voxelmorph", "torch")),
}


@dataclass(frozen=True)
class Task:
    """Files of one pair, an empty folder for whatever the peer writes, and the number of threads."""

    fixed: Path
    moving: Path
    folder: Path
    threads: int
    fixed_mask: Path | None = None
    moving_mask: Path | None = None
    lung: bool = False  # chest CT; else brain MRI: the two tasks for which settings are written down


def register(name: str, task: Task) -> tuple[sitk.Transform, sitk.Transform | None]:
    return importlib.import_module(f".{PEERS[name][0]}", __name__).register(task)


def chained(*transforms: sitk.Transform) -> sitk.CompositeTransform:
    """first(second(…(x))): the last one is applied first, as ITK stores it."""
    return sitk.CompositeTransform(list(transforms))


def field(path: Path) -> sitk.Transform:
    """A displacement field in LPS mm from a vector image."""
    return sitk.DisplacementFieldTransform(sitk.ReadImage(str(path), sitk.sitkVectorFloat64))

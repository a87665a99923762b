"""What Slicer writes into a segmentation (.seg.nrrd) beside the voxels: which number is which structure, its colour."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import SimpleITK as sitk

from ..files import reading, split_number
from ..image import Grid

ENTRY = re.compile(r"Segment(\d+)_(\w+)")
OF_A_PLACE = ("Extent", "Layer")  # which change with the grid, and with the one layer that is taken
SOURCE = ("Segmentation_MasterRepresentation", "Segmentation_SourceRepresentation")


@reading()
def read_segments(name: str | Path) -> dict[str, str]:
    """The header's entries about the segments in one layer of a file (`@1`: the second); none in other files."""
    path, layer = split_number(str(name))
    if not path.name.lower().endswith(".nrrd"):
        return {}
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    entries = {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()}
    found = {key: value for key, value in entries.items() if key in SOURCE}
    for key, value in entries.items():
        match = ENTRY.fullmatch(key)
        if match and entries.get(f"Segment{match[1]}_Layer", "0") == str(layer or 0) and match[2] not in OF_A_PLACE:
            found[key] = value
    return found


def placed(segments: Mapping[str, str], grid: Grid) -> dict[str, str]:
    """The entries for the header of a file on `grid`, in which each segment may lie anywhere."""
    numbers = {match[1] for key in segments if (match := ENTRY.fullmatch(key))}
    extent = " ".join(f"0 {size - 1}" for size in grid.size)
    places = {f"Segment{n}_{key}": value for n in numbers for key, value in (("Extent", extent), ("Layer", "0"))}
    return {**segments, **places}

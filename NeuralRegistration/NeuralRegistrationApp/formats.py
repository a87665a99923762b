"""Which files the page takes, by the endings of their names."""

from __future__ import annotations

VOLUMES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd", ".mgz", ".mgh", ".hdr", ".gipl", ".gipl.gz", ".mnc")
POINTS = (".csv", ".fcsv", ".json", ".mrk.json")
TRANSFORMS = (".h5", ".tfm", ".mat")
SEGMENTATION = ".seg.nrrd"


def stem(name: str) -> str:
    """A file name without its ending: scan.1.nii.gz → scan.1; a name that is only an ending stays."""
    ending = max((e for e in (*VOLUMES, *POINTS, *TRANSFORMS) if name.lower().endswith(e)), key=len, default="")
    return name[: len(name) - len(ending)] or name

"""VoxelMorph: a U-Net that has seen many pairs says how this one fits.

Balakrishnan et al., IEEE TMI 2019 (arXiv 1809.05231); the diffeomorphic variant: Dalca et al., MedIA 2019.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .trained import Trained


@dataclass(frozen=True)
class VoxelMorph(Trained):
    """A convolutional network; it sees the whole field of view at the spacing of its training."""

    summary: ClassVar[str] = "A trained network registers the pair in seconds; for images like those it was trained on."
    network: ClassVar[str] = "VoxelMorph"

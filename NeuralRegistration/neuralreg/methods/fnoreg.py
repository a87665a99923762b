"""FNOReg: a Fourier neural operator says how the pair fits, at any resolution.

Drozdov and Sorokin; see networks/fno.py for the architecture and what differs from the paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .trained import Trained


@dataclass(frozen=True)
class FNOReg(Trained):
    """A Fourier network; it keeps the field of view of its training, whatever the sampling."""

    summary: ClassVar[str] = (
        "A trained Fourier network registers the pair in seconds; for images like those it was trained on."
    )
    network: ClassVar[str] = "FNOReg"

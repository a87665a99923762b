"""Linear: what the affine stage found, and nothing behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..job import Monitor

if TYPE_CHECKING:
    from ..optimise import Fit
    from ..preprocess import Pair


@dataclass(frozen=True)
class Linear:
    """For scans between which nothing has bent: one head in two scanners, one bone on two days."""

    summary: ClassVar[str] = (
        "Position, rotation, scale and shear; nothing is bent. With a rigid linear stage, position and rotation."
    )
    presets: ClassVar[dict[str, dict]] = {"fast": {}, "balanced": {}, "best": {}}
    deforms: ClassVar[bool] = False

    def __call__(self, pair: Pair, similarity: str, device: str, monitor: Monitor) -> Fit:
        """A fit without a single stage: its `chain` is the identity."""
        from ..optimise import Energy, Fit

        return Fit(pair.images(device), Energy(similarity), monitor)

"""What the methods with a trained network share: their options, its passes, and a refinement before the last one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..job import Monitor
from . import option

if TYPE_CHECKING:
    from ..optimise import Fit
    from ..preprocess import Pair

# Of the refinement. Its lattice is coarser than DNVF's last one, so its velocity shall be less smooth: blurred by 1.0
# instead of 0.7 voxels it lost 0.006 and 0.001 Dice on two pairs of brains, and 0.7 is how smooth these knots are.
KNOTS, SQUARINGS = 1.2, 4
MODEL = "auto, name of a shipped model, or path of your own (`neuralreg models` lists them)"
SCALES = "image spacing of each pass of the network, in multiples of that of its training; none: those of the model"


@dataclass(frozen=True)
class Trained:
    """Passes of the network, coarse to fine, and `refine` iterations of instance optimisation before the last one."""

    network: ClassVar[str]  # the kind of network that the model must be of

    model: str = option("auto", MODEL)
    scales: tuple[float, ...] = option((), SCALES, 0.1, 8)
    refine: int = option(
        0, "iterations on this pair, before the last pass (behind it with landmarks); 20 are a good start", 0, 10000
    )
    smoothness: float = option(1.0, "weight of the smoothness during the refinement", 0, 1000)
    volume: float = option(0.3, "weight of local changes of volume during the refinement", 0, 1000)
    refine_spacing: float = option(2.0, "image spacing of the refinement in mm", 0.1, 20)
    landmark_weight: float = option(0.1, "pull of the landmark pairs during the refinement", 0, 1000)

    presets: ClassVar[dict[str, dict]] = {"fast": {"scales": (1.0,)}, "balanced": {}, "best": {"refine": 60}}

    def check_model(self, similarity: str) -> None:
        """Raise RegistrationError when a model that may be needed is missing, damaged, or of another method."""
        from .start import check_model

        check_model(self.model, self.network, similarity)

    def __call__(self, pair: Pair, similarity: str, device: str, monitor: Monitor) -> Fit:
        """Register the pair; the result's `chain` is aligned_from_fixed with its inverse."""
        from ..optimise import Energy, Fit
        from .start import model, predicted, refined

        energy = Energy(similarity, self.smoothness, self.volume, landmark_weight=self.landmark_weight)
        fit = Fit(pair.images(device), energy, monitor, knots=KNOTS, squarings=SQUARINGS)
        checkpoint = model(self.model, self.network, similarity)
        scales = self.scales or checkpoint.manifest.scales
        # The finest pass would be smoothed away, and finds more behind the iterations; but it knows of no landmarks.
        before = max(len(scales) - 1, 1) if fit.images.landmarks is None else len(scales)
        predicted(fit, checkpoint, scales[:before])
        if self.refine:
            refined(fit, self.refine, self.refine_spacing)
        if not fit.stopped:
            predicted(fit, checkpoint, scales[before:])
        return fit

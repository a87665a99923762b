"""Cas-DNVF: a trained network takes the large deformation, a neural velocity field fitted to the pair the small rest.

Han et al., WACV 2023, arXiv 2202.12498: φ = φ_network ∘ exp(v_θ), with v_θ scaled by 0.1 so that the rest stays small.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ..job import Monitor
from . import DIRECTIONS, Directions, option, stages_of
from .trained import MODEL, SCALES

if TYPE_CHECKING:
    from torch import nn

    from ..optimise import Fit
    from ..preprocess import Pair


@dataclass(frozen=True)
class CasDNVF:
    """The network's map, then one stage of DNVF per entry of the lists; see DNVF for what they mean."""

    summary: ClassVar[str] = (
        "A trained network first, a neural velocity field for the rest: fast and fitted to this pair."
    )

    network: Literal["VoxelMorph", "FNOReg"] = option("VoxelMorph", "kind of the trained network")
    model: str = option("auto", MODEL)
    scales: tuple[float, ...] = option((), SCALES, 0.1, 8)
    image_factors: tuple[float, ...] = option((1.0,), "image spacing of each stage, in working voxels", 1, 16)
    velocity_factors: tuple[float, ...] = option((1.0,), "spacing of the velocity lattice, in working voxels", 1, 32)
    iterations: tuple[int, ...] = option((16,), "Adam iterations of each stage", 0, 10000)
    windows: tuple[int, ...] = option((5,), "width of the local correlation window, in strides", 2, 31)
    strides: tuple[int, ...] = option((2,), "voxels between two windows of the local correlation", 1, 4)
    directions: tuple[Directions, ...] = option(("alternate",), DIRECTIONS)
    residual: Literal["encoded", "siren"] = option("encoded", "network of the velocity field")
    scale: float = option(0.1, "factor on the siren's velocity, for stability", 0.001, 1)
    smoothness: float = option(0.3, "weight of the smoothness of the displacement", 0, 1000)
    volume: float = option(0.2, "weight of local changes of volume", 0, 1000)
    landmark_weight: float = option(0.1, "pull of the landmark pairs, where some are given", 0, 1000)
    rate: float = option(0.06, "learning rate (the siren's is 500 times smaller)", 1e-6, 1)

    presets: ClassVar[dict[str, dict]] = {
        "fast": {"iterations": (6,)},
        "balanced": {},
        "best": {"iterations": (40,)},
    }

    def __post_init__(self):
        stages_of(self)  # raises where the lists do not fit together

    def check_model(self, similarity: str) -> None:
        """Raise RegistrationError when a model that may be needed is missing, damaged, or of another method."""
        from .start import check_model

        check_model(self.model, self.network, similarity)

    def __call__(self, pair: Pair, similarity: str, device: str, monitor: Monitor) -> Fit:
        """Register the pair; the result's `chain` is aligned_from_fixed with its inverse."""
        from ..optimise import Energy, Fit, Level, Stage
        from .start import model, predicted

        energy = Energy(similarity, self.smoothness, self.volume, landmark_weight=self.landmark_weight)
        fit = Fit(pair.images(device), energy, monitor)
        checkpoint = model(self.model, self.network, similarity)
        predicted(fit, checkpoint, self.scales or checkpoint.manifest.scales)
        rate = self.rate if self.residual == "encoded" else self.rate / 500
        return fit.run([Stage(self._velocity, [Level(*row)], rate) for row in stages_of(self)], begin=0.1)

    def _velocity(self, shape: tuple[int, int, int]) -> nn.Module:
        from ..networks.siren import EncodedSiren, Siren

        return EncodedSiren(shape) if self.residual == "encoded" else Siren(scale=0.1 * self.scale)

"""DNVF: a diffeomorphic map as the flow of an implicit neural velocity field, fitted to one pair.

Han, Sun, Li, et al., "Diffeomorphic Image Registration with Neural Velocity Field", WACV 2023, arXiv 2202.12498.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from ..job import Monitor
from . import DIRECTIONS, KNOTS, Directions, at_stage, option, stages_of

if TYPE_CHECKING:
    from torch import nn

    from ..optimise import Fit, Stage
    from ..preprocess import Pair


# A crop of one organ: every stage but the first sees all voxels. More iterations, or a SIREN, gain nothing there.
SMALL = {"directions": ("alternate",), "smoothness": 0.4, "volume": 0.4}
SMALL_WHOLE = {
    **SMALL,
    "image_factors": (2.0, 1.0, 1.0),
    "velocity_factors": (3.0, 2.0, 1.2),
    "iterations": (80, 80, 60),
    "windows": (5, 5, 5),
    "strides": (1, 1, 1),
}
# Mostly scans of one patient. Lungs move smoothly and stretch a good deal, which bending leaves free; what CT shows
# between their vessels is mostly noise, which wide windows average out.
CT = {"smoothness": 0.5, "bending": 15.0, "volume": 0.4}


@dataclass(frozen=True)
class DNVF:
    """One velocity network per stage; the stages' exponentials are chained. Lists have one entry per stage.

    A network gives the coefficients of a cubic B-spline, and that is the velocity: as smooth as a blurred field of
    full resolution, at a third of the network's points and without the blur.
    """

    summary: ClassVar[str] = "Fits a neural velocity field to this very pair: any anatomy, no training data, no folds."

    image_factors: tuple[float, ...] = option((4.0, 2.0, 1.0), "image spacing of each stage, in working voxels", 1, 16)
    velocity_factors: tuple[float, ...] = option(
        (6.0, 3.0, 1.0), "spacing of the velocity lattice, in working voxels", 1, 32
    )
    iterations: tuple[int, ...] = option((40, 25, 20), "Adam iterations of each stage", 0, 10000)
    windows: tuple[int, ...] = option((5, 5, 5), "width of the local correlation window, in strides", 2, 31)
    strides: tuple[int, ...] = option((1, 1, 2), "voxels between two windows of the local correlation", 1, 4)
    directions: tuple[Directions, ...] = option(("both", "both", "alternate"), DIRECTIONS)
    networks: tuple[Literal["encoded", "siren"], ...] = option(
        ("encoded",), "network of each stage: encoded or siren (the last entry repeats)"
    )
    smoothness: float = option(0.3, "weight of the smoothness of the displacement", 0, 1000)
    bending: float = option(0.0, "weight of the bending of the displacement; even stretching is free", 0, 1000)
    volume: float = option(0.2, "weight of local changes of volume", 0, 1000)
    folding: float = option(0.0, "weight of the penalty on folds", 0, 10000)
    landmark_weight: float = option(0.1, "pull of the landmark pairs, where some are given", 0, 1000)
    rate: float = option(0.06, "learning rate of the encoded network", 1e-6, 1)
    siren_rate: float = option(3e-4, "learning rate of the siren network", 1e-7, 1)
    knots: float = option(KNOTS, "spacing of the velocity's B-spline coefficients, in voxels of its lattice", 1, 8)
    squarings: int = option(1, "squarings when integrating the velocity during the optimisation", 1, 10)
    features: int = option(4, "features per resolution of the encoded network", 1, 64)
    hidden: int = option(16, "sine units of the encoded network", 1, 512)
    siren_hidden: int = option(512, "sine units per layer of the siren network", 8, 1024)
    siren_layers: int = option(5, "layers of the siren network", 2, 10)
    omega: float = option(30.0, "frequency of the siren network", 0.1, 1000)

    presets: ClassVar[dict[str, dict]] = {
        "fast": {
            "image_factors": (4.0, 2.0),
            "velocity_factors": (6.0, 2.0),
            "iterations": (60, 40),
            "windows": (5, 5),
            "strides": (1, 1),
            "directions": ("both", "alternate"),
            "knots": 1.8,
        },
        "balanced": {},
        "best": {
            "image_factors": (4.0, 2.0, 2.0, 1.0),
            "velocity_factors": (6.0, 3.0, 2.0, 1.0),
            "iterations": (100, 60, 40, 40),
            "windows": (5, 5, 5, 5),
            "strides": (1, 1, 1, 2),
            "networks": ("siren", "siren", "encoded", "encoded"),
            "directions": ("both", "both", "both", "alternate"),
            "squarings": 7,
        },
    }

    suits: ClassVar[dict[str, dict[str, dict]]] = {
        "small": {
            "fast": {
                **SMALL,
                "image_factors": (2.0, 1.0),
                "velocity_factors": (3.0, 1.5),
                "iterations": (60, 40),
            },
            "balanced": SMALL_WHOLE,
            "best": {**SMALL_WHOLE, "networks": ("encoded",), "squarings": 1},
        },
        "ct": {
            "fast": {**CT, "windows": (7, 7)},
            "balanced": {
                **CT,
                "velocity_factors": (6.0, 3.0, 2.0),
                "knots": 2.0,
                "iterations": (60, 40, 15),
                "windows": (7, 7, 7),
            },
            "best": {**CT, "windows": (7, 7, 7, 7)},
        },
    }

    def __post_init__(self):
        stages_of(self)  # raises where the lists do not fit together

    def __call__(self, pair: Pair, similarity: str, device: str, monitor: Monitor) -> Fit:
        """Fit the pair; the fit's `chain` is aligned_from_fixed and its inverse, in voxels of the finest lattice."""
        from ..optimise import Energy, Fit

        weights = {name: getattr(self, name) for name in ("smoothness", "bending", "volume", "folding")}
        energy = Energy(similarity, **weights, landmark_weight=self.landmark_weight)
        fit = Fit(pair.images(device), energy, monitor, knots=self.knots, squarings=self.squarings)
        return fit.run(self._stages())

    def _stages(self) -> list[Stage]:
        """Neighbouring siren stages are one network seen at several resolutions."""
        from ..optimise import Level, Stage

        stages: list[Stage] = []
        for index, row in enumerate(stages_of(self)):
            siren = at_stage(self.networks, index) == "siren"
            if siren and stages and stages[-1].network == self._siren:
                stages[-1].levels.append(Level(*row))
            else:
                network, rate = (self._siren, self.siren_rate) if siren else (self._encoded, self.rate)
                stages.append(Stage(network, [Level(*row)], rate))
        return stages

    def _siren(self, shape: tuple[int, int, int]) -> nn.Module:
        from ..networks.siren import Siren

        return Siren(self.siren_hidden, self.siren_layers, self.omega)

    def _encoded(self, shape: tuple[int, int, int]) -> nn.Module:
        from ..networks.siren import EncodedSiren

        return EncodedSiren(shape, self.features, self.hidden)

"""What training minimises: terms by name, each with its weight."""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import losses
from ..feedforward import displacements
from ..job import RegistrationError, choose
from ..sampling import jacobian_determinant, resize, warp
from .examples import Example

REGULARISERS = ("smoothness", "bending", "folding", "dice", "known")
TERMS = (*losses.SIMILARITIES, *REGULARISERS)


@dataclass(frozen=True)
class Objective:
    """terms: name → weight. Similarities are those of `losses`, averaged over `scales` halvings of the lattice and, if
    `symmetric`, over both directions of a diffeomorphic field. "smoothness" and "bending" weigh the network's field,
    "folding" the displacement, "dice" warped labels, "known" the distance in voxels to a synthetic field.

    options: keyword arguments by name of a similarity. Raises RegistrationError for an unknown term or option.
    """

    terms: dict[str, float] = field(default_factory=lambda: {"lncc": 1.0, "smoothness": 0.3})
    options: dict[str, dict] = field(default_factory=dict)
    scales: int = 3
    symmetric: bool = True
    diffeomorphic: bool = True
    squarings: int = 6

    def __post_init__(self):
        if self.scales < 1 or not self.terms:
            raise RegistrationError("An objective needs terms and at least one scale; say which.")
        if not 0 <= self.squarings <= 32 or not all(0 <= weight < math.inf for weight in self.terms.values()):
            raise RegistrationError("squarings lie between 0 and 32, weights of terms are 0 or larger; correct them.")
        object.__setattr__(self, "terms", {choose("loss term", name, TERMS): v for name, v in self.terms.items()})
        object.__setattr__(self, "options", dict(_known_options(*item) for item in self.options.items()))

    def __call__(self, example: Example, network_field: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Total and its terms; `network_field` is what the network said of the example."""
        shape = tuple(example.fixed.shape[2:])
        there, back = displacements(network_field, shape, self.squarings, self.diffeomorphic)
        values = {}
        for name in self.terms:
            if name in losses.SIMILARITIES:
                values[name] = self._similarity(name, example, there, back)
        coarse = network_field * (network_field.shape[-1] - 1) / (shape[-1] - 1)
        values["smoothness"] = losses.smoothness(coarse)
        if "bending" in self.terms:
            values["bending"] = losses.bending(coarse)
        if "folding" in self.terms:
            values["folding"] = losses.folding(jacobian_determinant(there), margin=0.05)
        if "dice" in self.terms and example.fixed_labels is not None:
            values["dice"] = losses.dice(example.fixed_labels, warp(example.moving_labels, there))
        if "known" in self.terms and example.velocity is not None:
            values["known"] = distance(network_field, example.velocity, example.fixed)
        # An example may have nothing that the terms compare, no labels say; then it teaches nothing.
        nothing = 0.0 * values["smoothness"]
        total = sum((weight * values[name] for name, weight in self.terms.items() if name in values), nothing)
        return total, {name: float(value.detach()) for name, value in values.items()}

    def _similarity(self, name: str, example: Example, there: Tensor, back: Tensor | None) -> Tensor:
        total = self._at_scales(name, example.fixed, warp(example.moving, there))
        if not self.symmetric or back is None:
            return total
        return (total + self._at_scales(name, example.moving, warp(example.fixed, back))) / 2

    def _at_scales(self, name: str, fixed: Tensor, warped: Tensor) -> Tensor:
        similarity, total = losses.SIMILARITIES[name], fixed.new_zeros(())
        for scale in range(self.scales):
            if scale:
                fixed, warped = F.avg_pool3d(fixed, 2), F.avg_pool3d(warped, 2)
            total = total + similarity(fixed, warped, content(fixed), **self.options.get(name, {}))
        return total / self.scales


def _known_options(term: str, options: dict) -> tuple[str, dict]:
    """Name and options of a similarity as it knows them. Raises RegistrationError."""
    name = choose("similarity with options", term, list(losses.SIMILARITIES))
    known = list(inspect.signature(losses.SIMILARITIES[name]).parameters)[3:]  # behind fixed, warped, weight
    return name, {choose(f"option of {name}", key, known): value for key, value in options.items()}


def content(image: Tensor) -> Tensor:
    """1 within two voxels of something, 0 in empty space, where there is nothing to compare."""
    return (losses.box_mean((image > 0.02).to(image.dtype), 5) > 1e-4).to(image.dtype)


def distance(found: Tensor, true: Tensor, fixed: Tensor) -> Tensor:
    """Mean distance of two fields (B, 3, d, h, w) where the fixed image is not empty, in their unit."""
    true = resize(true, tuple(found.shape[2:]))
    weight = resize(content(fixed), tuple(found.shape[2:]))
    error = ((found - true).square().sum(1, keepdim=True) + 1e-2).sqrt()
    return (error * weight).sum() / weight.sum().clamp_min(1.0)


@torch.no_grad()
def measure(objective: Objective, example: Example, network_field: Tensor) -> dict[str, float]:
    """What validation reports of one example: similarity of the finest lattice and Dice before and after, folds."""
    shape = tuple(example.fixed.shape[2:])
    there, _ = displacements(network_field, shape, objective.squarings, objective.diffeomorphic)
    mask = example.fixed[:, 0] > 0.05
    determinant = jacobian_determinant(there)[mask]
    window = {"window": 3, "stride": 2}
    values = {
        "lncc before": -losses.lncc(example.fixed, example.moving, content(example.fixed), **window),
        "lncc": -losses.lncc(example.fixed, warp(example.moving, there), content(example.fixed), **window),
        "sdlogj": determinant.clamp(min=1e-3).log().std(),
        "folds %": 100 * (determinant <= 0).float().mean(),
    }
    if example.fixed_labels is not None:
        values["dice before"] = 1 - losses.dice(example.fixed_labels, example.moving_labels)
        values["dice"] = 1 - losses.dice(example.fixed_labels, warp(example.moving_labels, there, "nearest"))
    return {name: float(value) for name, value in values.items()}

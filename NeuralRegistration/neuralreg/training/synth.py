"""Ground truth that is made, not measured: known velocity fields, and images of random contrast painted from labels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..feedforward import displacements
from ..pyramid import softened
from ..sampling import warp

SQUARINGS = 6
# knots along the shortest axis and standard deviation in mm: large and smooth to small and rough
SCALES = ((4, 5.0), (8, 4.0), (14, 3.0))


def random_velocity(shape: tuple[int, int, int], spacing: float, generator: torch.Generator) -> Tensor:
    """A smooth random velocity (1, 3, D, H, W) in voxels of `spacing` mm, a sum of cubic-ish bumps of three sizes."""
    velocity, shortest = torch.zeros(1, 3, *shape), min(shape)
    for knots, deviation in SCALES:
        coarse = [max(3, round(knots * n / shortest)) for n in shape]
        bumps = torch.randn(1, 3, *coarse, generator=generator) * torch.rand(1, generator=generator) * 1.5
        velocity += deviation / spacing * F.interpolate(bumps, size=shape, mode="trilinear", align_corners=True)
    return velocity


def known_pair(image: Tensor, velocity: Tensor, mode: str = "bilinear") -> Tensor:
    """The moving image for which `velocity`, in voxels of the image, is the answer: image ∘ exp(−velocity).

    Then moving ∘ exp(velocity) = image, the fixed one. The velocity may lie on a coarser lattice with the same corners.
    """
    _, inverse = displacements(velocity, tuple(image.shape[2:]), SQUARINGS)
    return warp(image, inverse, mode)


def painted(labels: Tensor, generator: torch.Generator) -> Tensor:
    """An image in [0, 1] of random contrast from a label map (1, 1, D, H, W) of integers, as in SynthMorph.

    Each label draws a mean and a texture; the background (0) stays black in half of the draws.
    Hoffmann et al., IEEE TMI 2022.
    """
    table = labels.flatten().unique()
    position = torch.searchsorted(table, labels.flatten())
    mean = torch.rand(len(table), generator=generator)
    noise = 0.02 + 0.08 * torch.rand(len(table), generator=generator)
    if table[0] == 0 and torch.rand(1, generator=generator) < 0.5:
        mean[0], noise[0] = 0.0, 0.0
    texture = torch.randn(labels.numel(), generator=generator)
    image = (mean.to(labels.device)[position] + noise.to(labels.device)[position] * texture.to(labels.device)).view(
        labels.shape
    )
    width = float(torch.rand(1, generator=generator))
    return softened(image, 0.25 * width).clamp(0, 1)  # as partial volumes do

"""Random poses and appearances; every function draws from the generator that it is given and from nothing else."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

TONE_KNOTS = 7


@dataclass(frozen=True)
class Augmentation:
    """Standard deviations unless said otherwise.

    rotation: degrees about x (nodding varies most between scans), y, z, for both images together; shift: ± mm; scale
    and stretch: of the logarithm of size, common and per axis. flip: chance of a left-right mirror of both images.
    residual_*: pose of the moving image against the fixed one, what an affine stage leaves behind.
    gamma, gain, bias: logarithms of exponent, factor and bias field, for each image on its own. tone: chance that an
    image is shown in a random contrast, each of its grey values mapped to another one.
    """

    rotation: tuple[float, float, float] = (8.0, 4.0, 4.0)
    shift: float = 8.0
    scale: float = 0.06
    stretch: float = 0.03
    flip: float = 0.5
    residual_rotation: float = 1.5
    residual_shift: float = 1.5
    residual_scale: float = 0.015
    gamma: float = 0.15
    gain: float = 0.1
    bias: float = 0.15
    tone: float = 0.0


def random_poses(options: Augmentation, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Affine matrices (4, 4) in mm about the centre of the lattice, for the fixed and the moving image."""
    flip = bool(torch.rand(1, generator=generator) < options.flip)
    rotation = torch.tensor(options.rotation)
    fixed = _affine(rotation, options.shift, options.scale, options.stretch, flip, generator)
    rotation = torch.full((3,), options.residual_rotation)
    residual = _affine(rotation, options.residual_shift, 0.0, options.residual_scale, False, generator)
    return fixed, fixed @ residual


def random_appearance(image: Tensor, options: Augmentation, generator: torch.Generator) -> Tensor:
    """Another scanner's view of `image` (1, 1, D, H, W) in [0, 1]: tone curve, gamma, gain and a smooth bias field."""

    def normal(*shape):
        return torch.randn(*shape, generator=generator).to(image.device)

    if options.tone and torch.rand(1, generator=generator) < options.tone:
        image = random_tone(image.clamp(0, 1), generator)
    bias = F.interpolate(normal(1, 1, 3, 3, 3), size=image.shape[2:], mode="trilinear", align_corners=True)
    gamma, gain = torch.exp(options.gamma * normal(1)), options.gain * normal(1)
    return image.clamp(0, 1) ** gamma * torch.exp(options.bias * bias + gain)


def random_tone(image: Tensor, generator: torch.Generator) -> Tensor:
    """`image` in [0, 1] through a random, not monotonic, piecewise linear curve; what is black stays black.

    So a T1 image turns into something like T2, FLAIR or nothing known, while its anatomy stays.
    """
    curve = torch.rand(TONE_KNOTS + 1, generator=generator).to(image.device)
    curve[-1] = curve[-2]
    position = image * (TONE_KNOTS - 1)
    left = position.floor().long()
    toned = torch.lerp(curve[left], curve[left + 1], position - left)
    return toned * (image / 0.08).clamp(max=1)


def _affine(rotation: Tensor, shift: float, scale: float, stretch: float, flip: bool, generator) -> Tensor:
    """Random rotation, then size along the axes; float64 (4, 4)."""
    x, y, z = (torch.randn(3, generator=generator) * rotation * math.pi / 180).tolist()
    turn = _turn(1, 0, z) @ _turn(0, 2, y) @ _turn(2, 1, x)
    size = torch.exp(
        torch.randn(1, generator=generator) * scale + torch.randn(3, generator=generator) * stretch
    ).double()
    if flip:
        size[0] = -size[0]
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = turn @ torch.diag(size)
    matrix[:3, 3] = (2 * torch.rand(3, generator=generator) - 1) * shift
    return matrix


def _turn(to: int, of: int, angle: float) -> Tensor:
    """Rotation by `angle` radians in the plane of two axes."""
    matrix = torch.eye(3, dtype=torch.float64)
    matrix[to, to] = matrix[of, of] = math.cos(angle)
    matrix[to, of], matrix[of, to] = math.sin(angle), -math.sin(angle)
    return matrix

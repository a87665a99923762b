"""Implicit velocity fields v_θ: R³ → R³, evaluated on any lattice. Tensors in and out.

`Siren` is the network of DNVF (Han et al., WACV 2023, arXiv 2202.12498) with the initialisation of Sitzmann et al.
2020: f₀(x) = W₀x + b₀, fᵢ(x) = Wᵢ sin(x) + bᵢ on normalised coordinates. `EncodedSiren` puts a learned multi-resolution
encoding of the position (as instant NGP does, Müller et al. 2022, here on dense grids) in front of one sine layer: the
same kind of field at a hundredth of the arithmetic, because what a deep network must learn of position is stored in the
encoding.

Both start at v = 0 (`Siren` nearly so) and return velocities in voxels of the lattice they are evaluated on.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Shape = tuple[int, int, int]
PORTION = 1 << 17  # points that the sine layer handles at once: few enough to save memory, enough for several threads


class Siren(nn.Module):
    """A sine MLP of `layers` linear layers; x, y, z ∈ [−1, 1] -> velocity, in units of `scale` · half the long side."""

    def __init__(self, hidden: int = 512, layers: int = 5, omega: float = 30.0, scale: float = 0.1):
        super().__init__()
        widths = [3, *[hidden] * (layers - 1), 3]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))
        self.omega, self.scale = omega, scale
        with torch.no_grad():
            self.layers[0].weight.uniform_(-1 / 3, 1 / 3)
            for layer in self.layers[1:]:
                bound = math.sqrt(6 / layer.in_features) / omega
                layer.weight.uniform_(-bound, bound)
            # A velocity of zero to begin with; the layers below still differ, so gradients flow at once.
            self.layers[-1].weight.mul_(1e-2)
            self.layers[-1].bias.zero_()

    def forward(self, shape: Shape) -> Tensor:  # -> (1, 3, D, H, W)
        hidden = _coordinates(shape, self.layers[0].weight)
        for layer in self.layers[:-1]:
            hidden = torch.sin(self.omega * layer(hidden))
        velocity = self.layers[-1](hidden).T.reshape(1, 3, *shape)
        return velocity * (self.scale * max(shape) / 2)


class EncodedSiren(nn.Module):
    """One sine layer over learned features, `features` channels each on lattices of 1, 1/2 and 1/4 of the resolution.

    With features and bias at zero the field starts at exactly zero, while the layers' random weights let gradients
    reach every feature in the first step. Coarse features move large regions at once: the optimisation is
    coarse-to-fine by itself.
    """

    def __init__(self, shape: Shape, features: int = 4, hidden: int = 16, divisors: tuple[int, ...] = (1, 2, 4)):
        super().__init__()
        self.grids = nn.ParameterList(
            torch.zeros(1, features, *(max(math.ceil((n - 1) / divisor) + 1, 2) for n in shape)) for divisor in divisors
        )
        self.sine = nn.Linear(features * len(divisors), hidden)
        self.out = nn.Linear(hidden, 3, bias=False)
        with torch.no_grad():
            nn.init.zeros_(self.sine.bias)
            for layer in (self.sine, self.out):
                bound = math.sqrt(6 / layer.in_features)
                layer.weight.uniform_(-bound, bound)

    def forward(self, shape: Shape) -> Tensor:  # -> (1, 3, D, H, W)
        encoding = [
            grid
            if grid.shape[2:] == tuple(shape)
            else F.interpolate(grid, size=shape, mode="trilinear", align_corners=True)
            for grid in self.grids
        ]
        points = torch.cat(encoding, dim=1).view(-1, math.prod(shape))
        return _SineLayer.apply(points, self.sine.weight, self.sine.bias, self.out.weight).view(1, 3, *shape)


class _SineLayer(torch.autograd.Function):
    """V sin(W x + b) for all points at once, (features, points) -> (3, points).

    Goes through the points in portions and keeps no sines for the gradient: with 16 of them for each voxel of a fine
    lattice they would be the largest tensors of a registration, and computing them again is as fast as reading them.
    """

    @staticmethod
    def forward(ctx, points: Tensor, weight: Tensor, bias: Tensor, out: Tensor) -> Tensor:
        ctx.save_for_backward(points, weight, bias, out)
        values = points.new_empty(len(out), points.shape[1])
        for part, phase in _phases(points, weight, bias):
            values[:, part] = out @ phase.sin_()
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        points, weight, bias, out = ctx.saved_tensors
        into_points = torch.empty_like(points)
        into_weight, into_bias, into_out = (torch.zeros_like(values) for values in (weight, bias, out))
        for part, phase in _phases(points, weight, bias):
            into_out.addmm_(gradient[:, part], phase.sin().T)
            into_phase = (out.T @ gradient[:, part]).mul_(phase.cos_())
            into_weight.addmm_(into_phase, points[:, part].T)
            into_bias += into_phase.sum(1)
            into_points[:, part] = weight.T @ into_phase
        return into_points, into_weight, into_bias, into_out


def _phases(points: Tensor, weight: Tensor, bias: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """W x + b, portion by portion. Channels come first: products of matrices without a transposition."""
    for first in range(0, points.shape[1], PORTION):
        part = slice(first, first + PORTION)
        yield part, torch.addmm(bias[:, None], weight, points[:, part])


def _coordinates(shape: Shape, like: Tensor) -> Tensor:  # -> (D·H·W, 3) in [−1, 1], proportions kept
    longest = max(max(shape) - 1, 1)
    axes = [(torch.arange(n, dtype=like.dtype, device=like.device) * 2 - (n - 1)) / longest for n in shape]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    return torch.stack((x, y, z), dim=-1).reshape(-1, 3)

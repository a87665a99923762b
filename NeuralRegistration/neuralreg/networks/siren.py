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
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Shape = tuple[int, int, int]
DIVISORS = 1, 2, 4  # of the resolution, for the learned features
SLAB_POINTS, GPU_SLAB_POINTS = 1 << 17, 1 << 21  # of the encoded network; a GPU wants few and large operations


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
    """One sine layer over learned features, `features` channels on a lattice for each of DIVISORS.

    With features and bias at zero the field starts at exactly zero, while the layers' random weights let gradients
    reach every feature in the first step. Coarse features move large regions at once: the optimisation is
    coarse-to-fine by itself.
    """

    def __init__(self, shape: Shape, features: int = 4, hidden: int = 16):
        super().__init__()
        self.grids = nn.ParameterList(
            torch.zeros(1, features, *(max(math.ceil((n - 1) / divisor) + 1, 2) for n in shape)) for divisor in DIVISORS
        )
        self.sine = nn.Linear(features * len(DIVISORS), hidden)
        self.out = nn.Linear(hidden, 3, bias=False)
        with torch.no_grad():
            nn.init.zeros_(self.sine.bias)
            for layer in (self.sine, self.out):
                bound = math.sqrt(6 / layer.in_features)
                layer.weight.uniform_(-bound, bound)

    def forward(self, shape: Shape) -> Tensor:  # -> (1, 3, D, H, W)
        return _BySlabs.apply(tuple(shape), self.sine.weight, self.sine.bias, self.out.weight, *self.grids)


class _BySlabs(torch.autograd.Function):
    """The velocity of an EncodedSiren, slab by slab; its gradient computes each slab again.

    On a fine lattice the encoding, the sines and their gradients would be by far the largest tensors of a registration,
    and computing a slab again in the processor cache is as fast as reading them back.
    """

    @staticmethod
    def forward(ctx, shape: Shape, *parameters: Tensor) -> Tensor:
        ctx.shape = shape
        ctx.save_for_backward(*parameters)
        layers, grids = parameters[:3], parameters[3:]
        slabs = [_slab(layers, [grid[:, :, _rows(grid, shape, planes)] for grid in grids], grids, shape, planes)
                 for planes in _slabs(shape, grids[0])]  # fmt: skip
        return torch.cat(slabs, dim=2)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        layers, grids = ctx.saved_tensors[:3], ctx.saved_tensors[3:]
        sums = [torch.zeros_like(parameter) for parameter in ctx.saved_tensors]
        for planes in _slabs(ctx.shape, gradient):
            rows = [_rows(grid, ctx.shape, planes) for grid in grids]
            parts = [grid[:, :, where] for grid, where in zip(grids, rows, strict=True)]
            leaves = [values.detach().requires_grad_() for values in (*layers, *parts)]
            with torch.enable_grad():
                velocity = _slab(leaves[:3], leaves[3:], grids, ctx.shape, planes)
                # The product has this gradient; torch imports sympy, five hundred modules, where it is given one.
                product = torch.dot(velocity.flatten(), gradient[:, :, planes.start : planes.stop].flatten())
            found = torch.autograd.grad(product, leaves)
            into = sums[:3] + [whole[:, :, where] for whole, where in zip(sums[3:], rows, strict=True)]
            torch._foreach_add_(into, list(found))
        return None, *sums


def _slabs(shape: Shape, like: Tensor) -> list[range]:
    """Planes of a lattice, so many at a time that they stay in the cache and still keep several threads busy."""
    step = max(1, (SLAB_POINTS if like.device.type == "cpu" else GPU_SLAB_POINTS) // (shape[1] * shape[2]))
    return [range(first, min(first + step, shape[0])) for first in range(0, shape[0], step)]


def _slab(
    layers: Sequence[Tensor], parts: Sequence[Tensor], grids: Sequence[Tensor], shape: Shape, planes: range
) -> Tensor:
    """V sin(W e(x) + b) on some planes (1, 3, planes, H, W), the encoding e read from the parts of the grids there."""
    weight, bias, out = layers
    encoding = [_interpolated(part, grid, shape, planes) for part, grid in zip(parts, grids, strict=True)]
    # Channels come first, so the layers are applied from the left: products of matrices without a transposition.
    points = torch.cat(encoding, dim=1).flatten(2)[0]
    hidden = torch.sin(torch.addmm(bias[:, None], weight, points))
    return (out @ hidden).view(1, 3, len(planes), *shape[1:])


def _below(plane: int | Tensor, grid: Tensor, shape: Shape) -> int | Tensor:
    """The plane of the grid at or before one of the lattice; both have the same first and last plane."""
    return plane * (grid.shape[2] - 1) // max(shape[0] - 1, 1)


def _rows(grid: Tensor, shape: Shape, planes: range) -> slice:
    """The planes of the grid that interpolating `planes` of the lattice needs."""
    return slice(_below(planes[0], grid, shape), _below(planes[-1], grid, shape) + 2)


def _interpolated(part: Tensor, grid: Tensor, shape: Shape, planes: range) -> Tensor:
    """Trilinear, (1, C, rows, h, w) -> (1, C, planes, H, W)."""
    if grid.shape[2:] == shape:
        return part[:, :, : len(planes)]
    places = torch.arange(planes.start, planes.stop, device=part.device)
    below = _below(places, grid, shape)
    whole = max(shape[0] - 1, 1)
    beyond = (places * (grid.shape[2] - 1) - below * whole).to(part) / whole
    row = below - _below(planes[0], grid, shape)
    last = part.shape[2] - 1
    near, far = (part.index_select(2, (row + step).clamp(max=last)) for step in (0, 1))
    values = torch.lerp(near, far, beyond.view(-1, 1, 1))
    flat = F.interpolate(values.flatten(1, 2), size=shape[1:], mode="bilinear", align_corners=True)
    return flat.view(1, -1, len(planes), *shape[1:])


def _coordinates(shape: Shape, like: Tensor) -> Tensor:  # -> (D·H·W, 3) in [−1, 1], proportions kept
    longest = max(max(shape) - 1, 1)
    axes = [(torch.arange(n, dtype=like.dtype, device=like.device) * 2 - (n - 1)) / longest for n in shape]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    return torch.stack((x, y, z), dim=-1).reshape(-1, 3)

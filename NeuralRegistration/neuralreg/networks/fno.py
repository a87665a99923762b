"""FNOReg: registration by a Fourier neural operator, independent of the sampling of its input.

Drozdov and Sorokin, "FNOReg: Resolution-Robust Medical Image Registration Method Based on Fourier Neural Operator";
the operator: Li et al., ICLR 2021 (arXiv 2010.08895); the spectral transform: Chi et al., NeurIPS 2020.

    (F, M) → lift → spectral block → N × { x + GELU(spectral convolution(x) + 1×1(x)) } → spectral block → project

What is learned lives on Fourier modes of the field of view, never on voxels: the same weights work on any sampling of
the same field of view. Where the paper's spectral transform works on the whole spectrum, orthonormal on the lattice,
ours works on the lowest modes, orthonormal among them: else amplitudes and statistics would depend on the sampling.
Where the paper normalises by batches, ours normalises each pair by its own statistics, which is the same in training
on one pair at a time. With their running means instead, the weights that ship lose 0.004 to 0.013 Dice on four pairs.

"compact" does its work on a fixed coarse lattice: pointwise features are computed at the input's sampling, band-limited
exactly, and only then mixed; it costs nearly the same at every input resolution.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIZES = {
    "paper": {"modes": (40, 48, 56), "width": 12, "projection": 24, "layers": 15, "rank": 0.42, "body": None},
    "paper-2d": {"modes": (40, 48), "width": 32, "projection": 24, "layers": 12, "rank": 0.42, "body": None},
    "compact": {"modes": (32, 40, 32), "width": 16, "projection": 32, "layers": 4, "rank": 0.03, "body": (32, 40, 32)},
    "compact-2d": {"modes": (20, 24), "width": 24, "projection": 32, "layers": 6, "rank": 0.2, "body": (40, 48)},
}


class FNOReg(nn.Module):
    """fixed, moving (B, 1, D, H, W) -> field (B, 3, D, H, W) in voxels of the input's lattice, channels x, y, z.

    modes: Fourier modes kept per array axis (D, H, W); two numbers make a 2D network. rank: share of the dense spectral
    weights that the Tucker factors keep. body: lattice on which the layers work, None for the input's own.
    half_resolution: the field comes on every second voxel (n → ⌈n/2⌉), still in voxels of the input's lattice.
    """

    def __init__(
        self,
        modes: tuple[int, ...] = (32, 40, 32),
        width: int = 16,
        projection: int = 32,
        layers: int = 4,
        rank: float = 0.03,
        body: tuple[int, ...] | None = (32, 40, 32),
        half_resolution: bool = False,
    ):
        super().__init__()
        self.modes, self.body, self.half_resolution = tuple(modes), tuple(body) if body else None, half_resolution
        features = width // 2  # at the input's sampling, where every channel costs most
        self.features = nn.Sequential(Pointwise(2, features), nn.GELU())
        self.lift = Pointwise(features, width)
        self.first = SpectralBlock(width, modes)
        self.layers = nn.ModuleList(OperatorLayer(width, modes, rank) for _ in range(layers))
        self.last = SpectralBlock(width, modes)
        self.project = nn.Sequential(Pointwise(width, projection), nn.ReLU(), Pointwise(projection, len(modes)))
        nn.init.normal_(self.project[-1].weight, 0.0, 1e-5)  # starts as the identity
        nn.init.zeros_(self.project[-1].bias)

    def forward(self, fixed: Tensor, moving: Tensor) -> Tensor:
        shape = fixed.shape[2:]
        x = self.features(torch.cat((moving, fixed), dim=1))
        if self.body:
            x = band_limited(x, [torch.arange(b, device=x.device) / b for b in self.body], self.body)
        x = self.first(self.lift(x))
        for layer in self.layers:
            x = layer(x)
        x = self.last(x)
        with torch.autocast(x.device.type, enabled=False):  # bfloat16 has 8 bits: a quarter of a voxel at 30 voxels
            field = self.project(x.float())
        step = 2 if self.half_resolution else 1
        if self.body or step > 1:
            positions = [torch.arange(0, n, step, device=x.device) / n for n in shape]
            field = band_limited(field, positions, self.body or shape)
        # The layers speak in periods of the highest mode, a length that does not change with the sampling.
        voxels = [n / m for n, m in zip(shape, self.modes, strict=True)]
        return field * torch.tensor(voxels[::-1], device=x.device).view(1, -1, *[1] * len(shape))


class OperatorLayer(nn.Module):
    """x + GELU(spectral convolution(x) + 1×1(x)); (B, C, …) -> the same shape."""

    def __init__(self, width: int, modes: tuple[int, ...], rank: float):
        super().__init__()
        self.spectral = SpectralConvolution(width, modes, rank)
        self.local = Pointwise(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + F.gelu(self.spectral(x) + self.local(x))


class SpectralConvolution(nn.Module):
    """Convolution with a learned kernel given by complex weights on the lowest modes, Tucker factorised.

    weight[i, o, k…] = Σ core[a, b, c…] input[i, a] output[o, b] mode_0[k_0, c] …; applied factor by factor.
    """

    def __init__(self, width: int, modes: tuple[int, ...], rank: float):
        super().__init__()
        self.modes = tuple(modes)
        shape = (width, width, *half_spectrum(modes))
        ranks = tucker_ranks(shape, rank)
        # Complex numbers are pairs of real ones here: every optimiser and half-precision storage understands those.
        self.core = nn.Parameter(torch.randn(*ranks, 2) / (width * math.sqrt(2)))
        self.factors = nn.ParameterList(
            torch.randn(n, r, 2) / math.sqrt(2 * r) for n, r in zip(shape, ranks, strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # half precision has no FFT on most devices
            spectrum = low_modes(x.float(), self.modes)
            into, out, *along = (torch.view_as_complex(f) for f in self.factors)
            weight = torch.view_as_complex(self.core)
            for factor in along:  # each step moves its axis to the end, so that the order is kept
                weight = torch.tensordot(weight, factor, dims=([2], [1]))
            spectrum = torch.tensordot(spectrum, into, dims=([1], [0])).movedim(-1, 1)
            spectrum = (spectrum.unsqueeze(2) * weight).sum(dim=1)
            spectrum = torch.tensordot(spectrum, out, dims=([1], [1])).movedim(-1, 1)
            return from_modes(spectrum, x.shape[2:])


class SpectralBlock(nn.Module):
    """Two spectral transforms with a residual; (B, C, …) -> the same shape."""

    def __init__(self, width: int, modes: tuple[int, ...]):
        super().__init__()
        self.transforms = nn.Sequential(SpectralTransform(width, modes), SpectralTransform(width, modes))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.transforms(x)


class SpectralTransform(nn.Module):
    """1×1 to half the channels, 1×1 on real and imaginary parts of the spectrum with a residual, 1×1 back."""

    def __init__(self, width: int, modes: tuple[int, ...]):
        super().__init__()
        half = width // 2
        norm = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}[len(modes)]
        self.modes = tuple(modes)
        self.inward = nn.Sequential(Pointwise(width, half), norm(half, affine=True), nn.ReLU())
        self.spectral = nn.Sequential(Pointwise(2 * half, 2 * half), norm(2 * half, affine=True), nn.ReLU())
        self.outward = Pointwise(half, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inward(x)
        with torch.autocast(x.device.type, enabled=False):
            orthonormal = math.sqrt(math.prod(self.modes))  # among the modes, whatever the lattice
            spectrum = low_modes(x.float(), self.modes) * orthonormal
            mixed = self.spectral(torch.cat((spectrum.real, spectrum.imag), dim=1)) / orthonormal
            x = x + from_modes(torch.complex(*mixed.chunk(2, dim=1)), x.shape[2:])
        return self.outward(x)


class Pointwise(nn.Module):
    """A 1×1 convolution of any dimension, as one matrix product: torch's own is several times slower on a CPU."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        bound = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.empty(outputs, inputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(outputs, 1).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        return (self.weight @ x.flatten(2) + self.bias).unflatten(2, x.shape[2:])


def half_spectrum(modes: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of the modes that a real function needs: the last axis has no negative frequencies."""
    return (*modes[:-1], modes[-1] // 2 + 1)


def tucker_ranks(shape: tuple[int, ...], share: float) -> tuple[int, ...]:
    """Ranks in one proportion to `shape` so that core and factors hold about `share` of the dense numbers."""
    dense, low, high = math.prod(shape), 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        ranks = [max(1, round(n * middle)) for n in shape]
        size = math.prod(ranks) + sum(n * r for n, r in zip(shape, ranks, strict=True))
        low, high = (middle, high) if size <= share * dense else (low, middle)
    return tuple(max(1, round(n * low)) for n in shape)


def low_modes(x: Tensor, modes: tuple[int, ...]) -> Tensor:
    """Fourier coefficients of real x (B, C, n…) -> complex (B, C, *half_spectrum(modes)); frequency 0 comes first.

    Even where the lattice has fewer frequencies than `modes`, the shape is the same: what is missing is zero.
    """
    axes = tuple(range(2, x.dim()))
    return _cut(torch.fft.rfftn(x, dim=axes, norm="forward"), x.shape[2:], modes, half_spectrum(modes))


def from_modes(spectrum: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The real function with these coefficients on a lattice of `shape`; inverse of `low_modes` on band-limited x."""
    axes = tuple(range(2, spectrum.dim()))
    modes = (*spectrum.shape[2:-1], 2 * (spectrum.shape[-1] - 1))
    full = _cut(spectrum, modes, shape, half_spectrum(tuple(shape)))
    return torch.fft.irfftn(full, s=tuple(shape), dim=axes, norm="forward")


def _cut(spectrum: Tensor, old: tuple[int, ...], new: tuple[int, ...], result: tuple[int, ...]) -> Tensor:
    """Copy the frequencies |k| < min(old, new) / 2 that two lattices share into a spectrum of another shape."""
    for axis, (n, m) in enumerate(zip(old, new, strict=True), start=2):
        keep = (min(n, m) - 1) // 2
        positive = spectrum.narrow(axis, 0, keep + 1)
        negative = keep if axis < spectrum.dim() - 1 else 0
        gap = list(spectrum.shape)
        gap[axis] = result[axis - 2] - keep - 1 - negative
        parts = [positive, spectrum.new_zeros(gap)]
        if negative:
            parts.append(spectrum.narrow(axis, spectrum.shape[axis] - negative, negative))
        spectrum = torch.cat(parts, dim=axis)
    return spectrum


def band_limited(x: Tensor, positions: list[Tensor], band: tuple[int, ...]) -> Tensor:
    """x (B, C, n…), taken as a periodic function, without the frequencies |k| ≥ band / 2, evaluated at `positions`.

    positions: one vector per axis, in fractions of the period. Separable, hence one small matrix product per axis.
    """
    with torch.autocast(x.device.type, enabled=False):
        x = x.float()
        for axis, (where, m) in enumerate(zip(positions, band, strict=True), start=2):
            n = x.shape[axis]
            k = torch.arange(1, (min(n, m) - 1) // 2 + 1, device=x.device)
            distance = where[:, None] - torch.arange(n, device=x.device)[None] / n
            kernel = (1 + 2 * torch.cos(2 * math.pi * distance[..., None] * k).sum(-1)) / n  # Dirichlet
            kernel, rest = kernel.to(x.dtype), x.shape[axis + 1 :]
            x = (kernel @ x.flatten(axis + 1)).unflatten(axis + 1, rest) if rest else x @ kernel.T
        return x

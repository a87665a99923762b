"""The U-Net of VoxelMorph: two images in, a displacement or velocity field in voxels out.

Balakrishnan et al., "VoxelMorph: a learning framework for deformable medical image registration", IEEE TMI 2019
(arXiv 1809.05231); half-resolution velocities: Dalca et al., MICCAI 2018 (arXiv 1805.04605).

    in ── 16 ── 32 ── 32 ── 32          each step halves the lattice (stride 2)
     │     │     │     │     │
     │     │     │     └─32──┤ 32       each step doubles it and takes the skip from the left
     │     │     └─32─ ...
     └─── 32 16 16 ── conv ── field     VoxelMorph-2;  8 8 for VoxelMorph-1

Voxel j of a halved lattice lies on voxel 2j of the finer one. On sizes 16k + 1 the corners of all lattices therefore
coincide, which is what `sampling.resize` assumes; other sizes work too, with a stretch of at most one voxel.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# encoder features, decoder features: one of the decoder per encoder step, the rest at the output's resolution.
# The lists are the authors' vm1 and vm2; TransMorph calls another one VoxelMorph-1: 8-32-32-32, then 32 × 5, 8, 8.
SIZES = {
    "voxelmorph-1": ((16, 32, 32, 32), (32, 32, 32, 32, 8, 8)),
    "voxelmorph-2": ((16, 32, 32, 32), (32, 32, 32, 32, 32, 16, 16)),
}


class UNet(nn.Module):
    """fixed, moving (B, channels, D, H, W) -> field (B, 3, D, H, W) in voxels of the input's lattice, channels x, y, z.

    size: "voxelmorph-1" or "voxelmorph-2". width multiplies all feature counts.
    half_resolution: the field comes on the halved lattice (n → ⌈n/2⌉), still in voxels of the input's lattice.
    pooling: convolutions of stride 1 and max-pooling in the encoder, as in later public VoxelMorph code.
    dimensions 2 works on (B, channels, H, W) and gives (B, 2, H, W).
    """

    def __init__(
        self,
        size: str = "voxelmorph-2",
        half_resolution: bool = False,
        width: float = 1.0,
        pooling: bool = False,
        dimensions: int = 3,
        channels: int = 1,
    ):
        super().__init__()
        down, up = ([round(width * n) for n in features] for features in SIZES[size])
        self.half_resolution, self.pooling, self.dimensions = half_resolution, pooling, dimensions
        levels, counts = len(down), [2 * channels, *down]
        skips = counts[1:] if pooling else counts[:-1]
        self.encoder = nn.ModuleList(
            convolution(dimensions, counts[i], down[i], stride=1 if pooling else 2) for i in range(levels)
        )
        self.decoder, features = nn.ModuleList(), down[-1]
        for i in range(levels):
            self.decoder.append(convolution(dimensions, features, up[i]))
            last = half_resolution and i == levels - 1
            features = up[i] + (0 if last else skips[levels - 1 - i])
        self.final = nn.ModuleList()
        for n in up[levels:]:
            self.final.append(convolution(dimensions, features, n))
            features = n
        self.field = convolution(dimensions, features, dimensions)
        nn.init.normal_(self.field.weight, 0.0, 1e-5)  # starts as the identity

    def forward(self, fixed: Tensor, moving: Tensor) -> Tensor:
        x, skips = torch.cat((moving, fixed), dim=1), []
        for layer in self.encoder:
            skips.append(x)
            x = convolved(layer, x)
            if self.pooling:
                skips[-1] = x
                x = halved(x)
        for layer in self.decoder:
            x, skip = convolved(layer, x), skips.pop()
            if skips or not self.half_resolution:
                x = torch.cat((doubled(x, skip.shape[2:]), skip), dim=1)
        for layer in self.final:
            x = convolved(layer, x)
        with torch.autocast(x.device.type, enabled=False):  # bfloat16 has 8 bits: a quarter of a voxel at 30 voxels
            return self.field(x.float())


def convolution(dimensions: int, inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    """A 3×3(×3) convolution that keeps the lattice, or halves it with stride 2."""
    layer = {2: nn.Conv2d, 3: nn.Conv3d}[dimensions](inputs, outputs, kernel_size=3, stride=stride, padding=1)
    # He's initialisation as in the paper's code: torch's own loses two thirds of the variance in every layer, and the
    # last one then sees little but biases.
    nn.init.kaiming_normal_(layer.weight, a=0.2)
    nn.init.zeros_(layer.bias)
    return layer


def convolved(layer: nn.Module, x: Tensor) -> Tensor:
    """The layer and its activation; in float32, also under autocast, where an axis has less than three voxels.

    There, on a processor, oneDNN leaves the gradient of bfloat16 weights unset (torch 2.13): what lay in memory.
    """
    if min(x.shape[2:]) < 3:
        with torch.autocast(x.device.type, enabled=False):
            return F.leaky_relu(layer(x.float()), 0.2)
    return F.leaky_relu(layer(x), 0.2)


def halved(x: Tensor) -> Tensor:
    pool = F.max_pool2d if x.dim() == 4 else F.max_pool3d
    return pool(x, kernel_size=2, ceil_mode=True)


def doubled(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Nearest-neighbour up-sampling by 2, cut to `shape` (odd sizes were rounded up on the way down)."""
    x = F.interpolate(x, scale_factor=2, mode="nearest")
    for axis, n in enumerate(shape):
        x = x.narrow(2 + axis, 0, n)
    return x

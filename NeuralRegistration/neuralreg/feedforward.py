"""Registration networks at work: built, loaded, shown a pair, and their fields turned into displacements.

Training and inference share `build` and `displacements`; only inference needs the rest.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import sampling
from .image import apply_matrix, centre_of_mass
from .job import RegistrationError, choose
from .losses import mind_descriptor
from .networks.fno import FNOReg
from .networks.unet import UNet
from .pyramid import Shape, border_window
from .weights import Checkpoint

NETWORKS: dict[str, type[nn.Module]] = {"VoxelMorph": UNet, "FNOReg": FNOReg}
FEATURES, MIND_CHANNELS = ("intensity", "mind"), 12
WORLD = {"L": (0, 1.0), "R": (0, -1.0), "P": (1, 1.0), "A": (1, -1.0), "S": (2, 1.0), "I": (2, -1.0)}
BORDER = 3  # voxels of the network's field, over which it falls to zero at the edge of what the network saw


def build(method: str, options: dict[str, Any]) -> nn.Module:
    """An untrained network of a method; the option features = "mind" lets it see self-similarities, not intensities.

    Raises RegistrationError for unknown options.
    """
    kind = NETWORKS[choose("network", method, list(NETWORKS))]
    known = inspect.signature(kind).parameters
    options = {choose(f"option of a {method} network", o, [*known, "features"]): v for o, v in options.items()}
    features = choose("features", options.pop("features", "intensity"), FEATURES)
    switches = {p.name for p in known.values() if isinstance(p.default, bool)}
    try:
        for name, value in options.items():  # any text would count as true
            if (name in switches) != isinstance(value, bool):
                raise TypeError(f"{name} is {'true or false' if name in switches else 'no switch'}")
        if features == "mind":
            return OnSelfSimilarity(kind(**options, channels=MIND_CHANNELS))
        return kind(**options)
    except (ArithmeticError, TypeError, KeyError, ValueError, RuntimeError) as error:
        raise RegistrationError(f"{method} has no network with {options} ({error}); correct the options.") from error


class OnSelfSimilarity(nn.Module):
    """A network that is shown MIND-SSC descriptors of both images (Heinrich et al., MICCAI 2013) instead of their
    intensities, and so hardly notices a change of contrast."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, fixed: Tensor, moving: Tensor) -> Tensor:
        with torch.autocast(fixed.device.type, enabled=False):  # differences of bfloat16 would be mostly rounding
            seen = [mind_descriptor(image.float(), dilation=1) for image in (fixed, moving)]
        return self.network(*seen)


def network_of(checkpoint: Checkpoint) -> nn.Module:
    """The network with its weights, for inference."""
    network = build(checkpoint.manifest.method, checkpoint.manifest.network)
    try:
        network.load_state_dict(checkpoint.state)
    except RuntimeError as error:
        raise RegistrationError(
            f"The weights do not fit {checkpoint.manifest.method} with {checkpoint.manifest.network}; use a file of a "
            "network of these sizes, as it was published."
        ) from error
    return network.eval().requires_grad_(False)


def placed(network: nn.Module, device: str | torch.device) -> nn.Module:
    """The network on a device; on a processor in the layout in which its convolutions take two thirds of the time."""
    if torch.device(device).type == "cpu":
        return network.to(device, memory_format=torch.channels_last_3d)
    return network.to(device)


def displacements(
    field: Tensor, shape: Shape, squarings: int, diffeomorphic: bool = True
) -> tuple[Tensor, Tensor | None]:
    """The displacement of a network's field (B, 3, d, h, w), and of the inverse map, on the lattice `shape`.

    The field is in voxels of `shape` but may lie on a coarser lattice with the same corners. A diffeomorphic one is a
    velocity, integrated where it lies; a plain one is the displacement itself, and its inverse is not known.
    """
    scale = [(d - 1) / max(n - 1, 1) for d, n in zip(field.shape[2:], shape, strict=True)][::-1]
    coarse = field * torch.tensor(scale, dtype=field.dtype, device=field.device).view(1, 3, 1, 1, 1)
    if not diffeomorphic:
        return sampling.resize_displacement(coarse, shape), None
    forward, inverse = (sampling.integrate(sign * coarse, squarings) for sign in (1.0, -1.0))
    return sampling.resize_displacement(forward, shape), sampling.resize_displacement(inverse, shape)


@dataclass(frozen=True, eq=False)
class Lens:
    """The lattice on which a network looks at a pair: its shape and working_from_network, a 4×4 matrix in voxels."""

    shape: Shape
    working_from_network: np.ndarray

    @classmethod
    def of(cls, checkpoint: Checkpoint, fixed: Tensor, spacing: tuple[float, ...]) -> Lens:
        """The network's spacing and orientation, about the fixed image's centre of mass.

        fixed (1, 1, D, H, W) on the working grid, whose axes run nearly left, posterior, superior; spacing x, y, z in
        mm. A Fourier network keeps the field of view of its training; a convolutional one sees the whole working grid.
        """
        manifest = checkpoint.manifest
        matrix, extent = np.zeros((4, 4)), np.zeros(3)
        size_mm = np.array(fixed.shape[:1:-1]) * np.array(spacing)
        for axis, letter in enumerate(manifest.orientation):
            world, sign = WORLD[letter]
            matrix[world, axis] = sign * manifest.spacing / spacing[world]
            extent[axis] = size_mm[world] / manifest.spacing
        matrix[3, 3] = 1.0
        shape, middle = tuple(manifest.lattice), centre_of_mass(fixed[0, 0].clamp(min=0))
        if manifest.method != "FNOReg":
            shape = tuple(16 * int(np.ceil((n - 1) / 16)) + 1 for n in extent[::-1])
            middle = (np.array(fixed.shape[:1:-1]) - 1) / 2
        matrix[:3, 3] = middle - matrix[:3, :3] @ ((np.array(shape[::-1]) - 1) / 2)
        return cls(shape, matrix)

    def view(self, image: Tensor) -> Tensor:
        """An image of the working grid on the network's lattice; averaged over blocks first where that is coarser."""
        steps = np.abs(self.working_from_network[:3, :3]).sum(axis=1)  # working voxels per network voxel, x y z
        factors = np.maximum(np.floor(steps + 0.3), 1).astype(int)
        factors = np.minimum(factors, image.shape[:1:-1])
        pooled = F.avg_pool3d(image, tuple(factors[::-1].tolist()))
        pooled_from_working = np.diag([*(1.0 / factors), 1.0])
        pooled_from_working[:3, 3] = -((factors - 1) / 2) / factors
        points = sampling.identity(self.shape, image)[0]
        return sampling.sample(pooled, apply_matrix(pooled_from_working @ self.working_from_network, points)[None])

    def unview(self, field: Tensor, shape: Shape, working: Shape) -> Tensor:
        """A network's field on a lattice of `shape` with the corners of the working grid, in voxels of that lattice."""
        field = field * border_window(tuple(field.shape[2:]), field, BORDER, smooth=False)
        coarse = [(d - 1) / max(n - 1, 1) for d, n in zip(field.shape[2:], self.shape, strict=True)][::-1]
        fine = [(n - 1) / max(d - 1, 1) for d, n in zip(shape, working, strict=True)][::-1]
        field_from_target = np.diag([*coarse, 1.0]) @ np.linalg.inv(self.working_from_network) @ np.diag([*fine, 1.0])
        points = sampling.identity(shape, field)[0]
        values = sampling.sample(field, apply_matrix(field_from_target, points)[None])
        target_from_network = np.diag([*(1 / np.array(fine)), 1.0]) @ self.working_from_network
        target_from_network[:3, 3] = 0.0  # a vector has a direction and a length, no place
        return apply_matrix(target_from_network, values[0])[None]


def at_spacing(checkpoint: Checkpoint, spacing: float) -> Checkpoint:
    """The same network, to be shown images of another spacing (mm); a Fourier network keeps its field of view."""
    manifest = checkpoint.manifest
    lattice = tuple(round((n - 1) * manifest.spacing / spacing) + 1 for n in manifest.lattice)
    return Checkpoint(replace(manifest, spacing=spacing, lattice=lattice), checkpoint.state)


@torch.no_grad()
def predict(
    checkpoint: Checkpoint,
    fixed: Tensor,
    moving: Tensor,
    spacing: tuple[float, ...],
    shape: Shape,
    check: Callable[[], object] = lambda: None,
) -> Tensor:
    """What the network says of a pair: a velocity, or a displacement, on a lattice of `shape` in its voxels.

    fixed, moving (1, 1, D, H, W) in [0, 1] on one working grid of `spacing` (x, y, z, mm); `shape` shares its corners.
    `check` is called before every layer of the network; it may raise.

    A velocity is the mean of two answers, one of which has the images exchanged and its sign: whoever exchanges them
    gets the inverse, and errors that depend on the order cancel (cf. Greer et al., MICCAI 2023).
    """
    lens = Lens.of(checkpoint, fixed, spacing)
    network = placed(network_of(checkpoint), fixed.device)
    for layer in network.modules():
        layer.register_forward_pre_hook(lambda *_: check())
    pair = lens.view(fixed), lens.view(moving)
    field = _field(network, *pair)
    if checkpoint.manifest.diffeomorphic and checkpoint.manifest.either_order:
        field = (field - _field(network, *reversed(pair))) / 2
    return lens.unview(field, shape, tuple(fixed.shape[2:]))


def _field(network: nn.Module, fixed: Tensor, moving: Tensor) -> Tensor:
    """What the network says; in half precision where that pays, unless a number does not fit into it."""
    if _halves(fixed.device):
        with torch.autocast(fixed.device.type, dtype=torch.float16):  # moves points by 0.01 mm on average
            field = network(fixed, moving).float()
        if bool(field.isfinite().all()):
            return field
    return network(fixed, moving)


def _halves(device: torch.device) -> bool:
    """Whether the device computes with float16 faster than with float32: NVIDIA's, from Volta on."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (7, 0)

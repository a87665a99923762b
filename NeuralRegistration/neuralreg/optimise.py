"""Fitting a velocity field to one pair: images coarse to fine, Adam, a chain of diffeomorphisms.

The map is φ = φ₁ ∘ φ₂ ∘ … with φₖ = exp(vₖ): every stage adds one stationary velocity field behind the map so far,
which stays
as it is. A chain of exponentials reaches deformations that one stationary field cannot, and stays a diffeomorphism.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import losses, sampling
from .adam import Adam, cosine
from .job import Monitor, Progress

Shape = tuple[int, int, int]
Similarity = Callable[..., Tensor]  # (fixed, warped, weight, window=…, stride=…) -> ()

BORDER_VOXELS = 2  # of the velocity lattice, over which velocities fall to zero
FINAL_SQUARINGS = 7
CHECK_EVERY = 5  # iterations between two looks at the loss: each look makes a GPU wait
PLATEAU_CHECKS, PLATEAU_GAIN = 4, 1e-3
# How much a similarity typically gains from a good deformation, relative to LNCC: one smoothness weight then suits them
# all.
SCALES = {"mind": 2.0, "mse": 20.0, "nmi": 0.4}
FILL_VOXELS = 2.0  # reach of what is painted over masked voxels
SMALLEST_SIDE = 10  # voxels; coarser levels of small crops are skipped


@dataclass(frozen=True)
class Level:
    """One resolution: images and velocity lattice at `image` and `velocity` times the working grid's spacing."""

    image: float
    velocity: float
    iterations: int
    window: int = 5
    stride: int = 1


@dataclass(frozen=True)
class Energy:
    """What is minimised: scaled similarity + smoothness · mean‖∇u‖² + volume · mean (log J)² + folding · mean
    relu(margin − J) + landmark weight · mean distance of landmark pairs, with the whole displacement u and J its
    determinant.
    """

    similarity: str = "lncc"
    smoothness: float = 1.0
    volume: float = 0.3
    folding: float = 0.0
    folding_margin: float = 0.1
    landmark_weight: float = 0.0

    def compare(self, fixed: Tensor, warped: Tensor, weight: Tensor, seen: Tensor | None, level: Level) -> Tensor:
        if self.similarity == "lncc":
            return losses.lncc(fixed, warped, weight, level.window, level.stride, seen)
        return SCALES.get(self.similarity, 1.0) * losses.SIMILARITIES[self.similarity](fixed, warped, weight)

    def regularise(self, displacement: Tensor, spacing: Tensor) -> Tensor:
        energy = self.smoothness * losses.smoothness(displacement, spacing)
        if not (self.volume or self.folding):
            return energy
        determinant = sampling.jacobian_determinant(displacement)
        if self.folding:
            energy = energy + self.folding * losses.folding(determinant, self.folding_margin)
        return energy + self.volume * losses.volume_change(determinant)

    def pull(self, displacement: Tensor, landmarks: Landmarks | None, spacing: Tensor) -> Tensor:
        if landmarks is None or not self.landmark_weight:
            return displacement.new_zeros(())
        return self.landmark_weight * losses.landmark_distance(landmarks.residual_mm(displacement, spacing))


@dataclass(frozen=True)
class Landmarks:
    """Points that belong together, (1, 3, 1, 1, n), x y z, as fractions of the way between a lattice's corner voxels.

    All lattices of a pair share their corners, so the fractions hold for each of them.
    """

    fixed: Tensor
    moving: Tensor

    def residual_mm(self, displacement: Tensor, spacing: Tensor) -> Tensor:  # -> (1, 3, 1, 1, n)
        """How far beside their partners the fixed points end; displacement in voxels of a lattice of `spacing` mm."""
        last = torch.stack([spacing.new_full((), n - 1.0) for n in displacement.shape[:1:-1]]).view(1, 3, 1, 1, 1)
        start = self.fixed * last
        moved = start + sampling.sample(displacement, start, outside="border")
        return (moved - self.moving * last) * spacing.view(1, 3, 1, 1, 1)


@dataclass(frozen=True)
class Images:
    """A pair as tensors (1, 1, D, H, W) on one lattice, with weights or None, and the lattice's spacing in mm."""

    fixed: Tensor
    moving: Tensor
    fixed_weight: Tensor | None
    moving_weight: Tensor | None
    spacing: tuple[float, float, float]  # x, y, z
    landmarks: Landmarks | None = None

    def at(self, factor: float) -> Images:
        """The pair at `factor` times the smallest spacing; thick slices are not made thinner or thicker than needed.

        What does not count is painted over, lest it mix with what counts between voxels.
        """
        shape = coarser_shape(tuple(self.fixed.shape[2:]), self.spacing, factor)
        pairs = ((self.fixed, self.fixed_weight), (self.moving, self.moving_weight))
        images = [image if weight is None else filled(image, weight) for image, weight in pairs]
        images += [self.fixed_weight, self.moving_weight]
        if shape != tuple(self.fixed.shape[2:]):
            images = [None if image is None else downsample(image, shape) for image in images]
        return Images(*images, coarser_spacing(tuple(self.fixed.shape[2:]), self.spacing, shape), self.landmarks)


def coarser_shape(shape: Shape, spacing, factor: float) -> Shape:
    """Shape of the lattice with the same corners and spacing of about factor · min(spacing), nowhere finer than now."""
    target = factor * min(spacing)
    sizes = [round((n - 1) * s / max(s, target)) + 1 for n, s in zip(shape, spacing[::-1], strict=True)]
    return tuple(max(size, min(n, 4)) for size, n in zip(sizes, shape, strict=True))


def coarser_spacing(shape: Shape, spacing, new_shape: Shape) -> tuple[float, ...]:
    ratios = [(n - 1) / max(m - 1, 1) for n, m in zip(shape, new_shape, strict=True)][::-1]
    return tuple(s * r for s, r in zip(spacing, ratios, strict=True))


def downsample(image: Tensor, shape: Shape) -> Tensor:
    """Gaussian blur that suits the ratio, then trilinear: no detail of the fine image folds into noise of the coarse
    one.
    """
    sigmas = [0.4 * (n - 1) / max(m - 1, 1) for n, m in zip(image.shape[2:], shape, strict=True)]
    return sampling.resize(gaussian(image, [s if s > 0.45 else 0.0 for s in sigmas]), shape)


def filled(image: Tensor, weight: Tensor) -> Tensor:
    """The image with a Gaussian mean of what counts nearby where `weight` is 0, and 0 far away from all that counts."""
    there = gaussian(weight, [FILL_VOXELS] * 3)
    around = gaussian(image * weight, [FILL_VOXELS] * 3) / there.clamp_min(1e-6)
    return torch.where(weight > 0, image, around)


def gaussian(values: Tensor, sigmas) -> Tensor:
    """Gaussian blur of (B, C, D, H, W) with sigmas (z, y, x) in voxels; the border value continues outside."""
    channels = values.shape[1]
    for dim, sigma in zip((2, 3, 4), sigmas, strict=True):
        if sigma <= 0:
            continue
        radius = max(1, math.ceil(3 * sigma))
        x = torch.arange(-radius, radius + 1, dtype=values.dtype, device=values.device)
        kernel = torch.exp(-x.square() / (2 * sigma**2))
        kernel = kernel / kernel.sum()
        padding, size = [0] * 6, [1, 1, 1]
        padding[2 * (4 - dim) : 2 * (4 - dim) + 2] = radius, radius
        size[dim - 2] = 2 * radius + 1
        padded = F.pad(values, padding, mode="replicate")
        values = F.conv3d(padded, kernel.view(1, 1, *size).expand(channels, 1, *size), groups=channels)
    return values


def dilated(mask: Tensor, radius: int) -> Tensor:
    """A mask (B, 1, D, H, W) widened by a cube of `radius` voxels, one axis after another."""
    for axis in range(3):
        size, padding = [1, 1, 1], [0, 0, 0]
        size[axis], padding[axis] = 2 * radius + 1, radius
        mask = F.max_pool3d(mask, tuple(size), 1, tuple(padding))
    return mask


def border_window(shape: Shape, like: Tensor) -> Tensor:  # -> (1, 1, D, H, W)
    """1 inside, falling smoothly to 0 at the outermost voxels."""
    window = torch.ones((), dtype=like.dtype, device=like.device)
    for dim, n in enumerate(shape):
        index = torch.arange(n, dtype=like.dtype, device=like.device)
        ramp = (torch.minimum(index, n - 1 - index) / BORDER_VOXELS).clamp(0, 1)
        window = window * (ramp * ramp * (3 - 2 * ramp)).view([-1 if d == dim else 1 for d in range(3)])
    return window[None, None]


@dataclass
class Chain:
    """The map so far and its inverse: displacements (1, 3, d, h, w) in voxels of one lattice; None is the identity."""

    forward: Tensor | None = None
    inverse: Tensor | None = None

    def on(self, shape: Shape) -> Chain:
        if self.forward is None:
            return self
        return Chain(*(sampling.resize_displacement(u, shape) for u in (self.forward, self.inverse)))

    def then(self, velocity: Tensor) -> Chain:
        """φ ∘ exp(v), and its inverse exp(−v) ∘ φ⁻¹."""
        here = self.on(tuple(velocity.shape[2:]))
        forward, inverse = (sampling.integrate(sign * velocity, FINAL_SQUARINGS) for sign in (1.0, -1.0))
        if here.forward is None:
            return Chain(forward, inverse)
        return Chain(sampling.compose(here.forward, forward), sampling.compose(inverse, here.inverse))


@dataclass
class Fit:
    """Fits velocity networks to a pair, one stage after another; keeps the loss curve and the chain of maps."""

    images: Images
    energy: Energy
    monitor: Monitor = field(default_factory=Monitor)
    rate: float = 0.05
    smoothing: float = 0.7  # voxels of the velocity lattice
    squarings: int = 4
    chain: Chain = field(default_factory=Chain)
    curve: list[list[float]] = field(default_factory=list)  # [level, iteration, loss]
    stopped: bool = False
    best: Tensor | None = None  # velocity of the lowest loss that this level has shown, for whoever stops it
    warnings: list[str] = field(default_factory=list)
    levels_done: int = 0

    def stage(self, network: nn.Module, levels: list[Level], span: tuple[float, float]) -> None:
        """Fit `network` (shape -> velocity in voxels) on the levels in turn, then append its exponential to the chain.

        `span` is the part of the run, as fractions, that this stage is.
        """
        costs = [self.cost(level) for level in levels]
        begin = span[0]
        for level, cost in zip(levels, costs, strict=True):
            end = begin + (span[1] - span[0]) * cost / max(sum(costs), 1e-12)
            if not self.stopped:
                self._level(network, level, (begin, end))
            begin = end
        with torch.no_grad():
            shape = self.lattice(levels[-1].velocity)
            self.chain = self.chain.then(self.best if self.stopped else self._velocity(network, shape))

    def lattice(self, factor: float) -> Shape:
        return coarser_shape(tuple(self.images.fixed.shape[2:]), self.images.spacing, factor)

    def too_small(self, level: Level) -> bool:
        whole = self.images.fixed.shape[2:]
        return any(n < min(SMALLEST_SIDE, full) for n, full in zip(self.lattice(level.image), whole, strict=True))

    def cost(self, level: Level) -> float:
        voxels = math.prod(self.lattice(level.image)) + 3 * math.prod(self.lattice(level.velocity))
        return voxels * level.iterations

    def _velocity(self, network: nn.Module, shape: Shape) -> Tensor:
        velocity = network(shape)
        return gaussian(velocity, [self.smoothing] * 3) * border_window(shape, velocity)

    def _level(self, network: nn.Module, level: Level, span: tuple[float, float]) -> None:
        images, shape = self.images.at(level.image), self.lattice(level.velocity)
        here = self.chain.on(shape)
        spacing = torch.tensor(coarser_spacing(tuple(self.images.fixed.shape[2:]), self.images.spacing, shape))
        step = _Step(images, self.energy, level, here.forward, spacing.to(images.fixed))
        optimiser = Adam(network.parameters(), betas=(0.9, 0.99))
        pending: list[Tensor] = []
        lowest = math.inf
        for iteration in range(level.iterations):
            velocity = self._velocity(network, shape)
            loss, warped = step(sampling.integrate(velocity, self.squarings))
            loss.backward()
            optimiser.step(cosine(self.rate, iteration / level.iterations))
            self.monitor.check()
            pending.append(loss.detach())
            if (iteration + 1) % CHECK_EVERY == 0 or iteration + 1 == level.iterations:
                fraction = span[0] + (span[1] - span[0]) * (iteration + 1) / level.iterations
                self._look(pending, iteration, fraction, level)
                if self.curve[-1][2] <= lowest:
                    lowest, self.best = self.curve[-1][2], velocity.detach()
                self.monitor.preview(warped)
                if self.stopped or self._plateau(iteration + 1):
                    break
        self.levels_done += 1

    def _look(self, pending: list[Tensor], iteration: int, fraction: float, level: Level) -> None:
        values = torch.stack(pending).tolist()
        first = iteration + 1 - len(values)
        self.curve += [[self.levels_done, first + i, round(value, 6)] for i, value in enumerate(values)]
        pending.clear()
        self.monitor.report(Progress("deformable", fraction, loss=values[-1]))
        self.stopped = self.monitor.stop_and_keep()

    def _plateau(self, done: int) -> bool:
        """Whether the last checks gained less than PLATEAU_GAIN of what this level has gained in all."""
        span = PLATEAU_CHECKS * CHECK_EVERY
        values = [value for level, _, value in self.curve if level == self.levels_done]
        if done < 2 * span:
            return False
        recent, before = sum(values[-span // 2 :]), sum(values[-span : -span // 2])
        return (before - recent) / (span / 2) < PLATEAU_GAIN * max(values[0] - min(values), 1e-6)


@dataclass
class _Step:
    """The energy of one residual displacement at one level, and the warped image for whoever wants to look."""

    images: Images
    energy: Energy
    level: Level
    before: Tensor | None
    spacing: Tensor

    def __post_init__(self):
        self.content = dilated((self.images.fixed > 0.02).float(), 2)  # where nothing is, nothing is compared

    def __call__(self, residual: Tensor) -> tuple[Tensor, Tensor]:
        displacement = residual if self.before is None else sampling.compose(self.before, residual)
        fine = sampling.resize_displacement(displacement, tuple(self.images.fixed.shape[2:]))
        warped = sampling.warp(self.images.moving, fine)
        seen = self._seen(fine)
        weight = self.content if seen is None else self.content * seen
        loss = self.energy.compare(self.images.fixed, warped, weight, seen, self.level)
        loss = loss + self.energy.pull(displacement, self.images.landmarks, self.spacing)
        return loss + self.energy.regularise(displacement, self.spacing), warped.detach()

    def _seen(self, displacement: Tensor) -> Tensor | None:
        """Which voxels both images show, as their masks and fields of view tell; None where all of them."""
        fixed, moving = self.images.fixed_weight, self.images.moving_weight
        if moving is None:
            return fixed
        with torch.no_grad():
            moving = sampling.warp(moving, displacement)
        return moving if fixed is None else fixed * moving

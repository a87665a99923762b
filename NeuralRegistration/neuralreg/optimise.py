"""Fitting a velocity field to one pair: images coarse to fine, Adam, a chain of diffeomorphisms.

The map is φ = φ₁ ∘ φ₂ ∘ … with φₖ = exp(vₖ): every stage adds one stationary velocity field behind the map so far,
which stays as it is. A chain of exponentials reaches deformations that one stationary field cannot, and stays a
diffeomorphism. Fixed and moving image play the same part: F is compared with M ∘ φ and M with F ∘ φ⁻¹, so that nothing
of the moving image can be made to disappear by shrinking it (symmetric registration, as in SyN: Avants et al. 2008).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from . import losses, sampling
from .adam import Adam, cosine
from .job import Monitor, Progress
from .pyramid import Images, Landmarks, Shape, border_window, coarser_shape, coarser_spacing, spline

FINAL_SQUARINGS = 7
CHECK_EVERY = 5  # iterations between two looks at the loss: each look makes a GPU wait
PLATEAU_CHECKS, PLATEAU_GAIN = 4, 1e-3
# How much a similarity typically gains from a good deformation, relative to LNCC: one smoothness weight then suits them
# all.
SCALES = {"mind": 2.0, "mse": 20.0, "nmi": 0.4}
# Of Adam. A short memory lets fewer iterations do (RESULTS.md); a shorter one leaves noise where nothing is seen.
BETAS = (0.7, 0.95)
CORNERS = (0, 7, 1, 6, 2, 5, 3, 4)  # of the lattice's cells, in turns; opposite ones follow each other
SMALLEST_SIDE = 10  # voxels; coarser levels of small crops are skipped
# MIND has twelve descriptors a voxel: images with more voxels than this are compared at MIND_FACTOR working voxels.
MIND_VOXELS, MIND_FACTOR = 1_500_000, 2.0


@dataclass(frozen=True)
class Level:
    """One resolution: images and velocity lattice at `image` and `velocity` times the working grid's spacing.

    `directions`: both compares M ∘ φ with F and F ∘ φ⁻¹ with M, alternate takes turns at half the cost, forward
    compares the former only.
    """

    image: float
    velocity: float
    iterations: int
    window: int = 5
    stride: int = 1
    directions: str = "both"


@dataclass(frozen=True)
class Stage:
    """One link of the chain: a network, the levels on which it is fitted in turn, and Adam's learning rate.

    `network` makes it (shape -> velocity in voxels) for the lattice on which it is evaluated last.
    """

    network: Callable[[Shape], nn.Module]
    levels: list[Level]
    rate: float = 0.06


@dataclass(frozen=True)
class Energy:
    """What is minimised: scaled similarity + smoothness · mean‖∇u‖² + bending · mean‖∇²u‖² + volume · mean (log J)² +
    folding · mean relu(margin − J) + landmark weight · mean distance of landmark pairs, with the whole displacement u
    and J its determinant.
    """

    similarity: str = "lncc"
    smoothness: float = 1.0
    volume: float = 0.3
    bending: float = 0.0
    folding: float = 0.0
    folding_margin: float = 0.1
    landmark_weight: float = 0.0

    def compare(self, fixed: Tensor, warped: Tensor, weight: Tensor, seen: Tensor | None, level: Level) -> Tensor:
        """The scaled similarity -> (). All (1, 1, D, H, W); `weight` and `seen` as for `losses.lncc`."""
        if self.similarity == "lncc":
            return losses.lncc(fixed, warped, weight, level.window, level.stride, seen)
        return SCALES.get(self.similarity, 1.0) * losses.SIMILARITIES[self.similarity](fixed, warped, weight)

    def regularise(self, displacement: Tensor, spacing: Tensor, corner: int) -> Tensor:
        """`corner` is the one of every lattice cell at which J is taken this time."""
        energy = displacement.new_zeros(())
        if self.smoothness:
            energy = energy + self.smoothness * losses.smoothness(displacement, spacing)
        if self.bending:
            energy = energy + self.bending * losses.bending(displacement, spacing)
        if not (self.volume or self.folding):
            return energy
        return energy + losses.mean_over_cells(displacement, self._penalty, corner)

    def _penalty(self, determinant: Tensor) -> Tensor:
        energy = self.volume * losses.volume_change(determinant)
        return energy + self.folding * losses.folding(determinant, self.folding_margin) if self.folding else energy

    def pull(self, displacement: Tensor, landmarks: Landmarks | None, spacing: Tensor) -> Tensor:
        """The weighted distance of the landmark pairs -> (); 0 where there are none."""
        if landmarks is None or not self.landmark_weight:
            return displacement.new_zeros(())
        return self.landmark_weight * losses.landmark_distance(landmarks.residual_mm(displacement, spacing))


@dataclass
class Chain:
    """The map so far and its inverse: displacements (1, 3, d, h, w) in voxels of one lattice; None is the identity."""

    forward: Tensor | None = None
    inverse: Tensor | None = None

    def on(self, shape: Shape) -> Chain:
        """The same maps on another lattice with the same corners."""
        if self.forward is None:
            return self
        return Chain(*(sampling.resize_displacement(u, shape) for u in (self.forward, self.inverse)))

    def then(self, velocity: Tensor) -> Chain:
        """φ ∘ exp(v), and its inverse exp(−v) ∘ φ⁻¹."""
        here = self.on(tuple(velocity.shape[2:]))
        forward, inverse = (sampling.integrate(sign * velocity, FINAL_SQUARINGS) for sign in (1.0, -1.0))
        return Chain(here.forward_after(forward), here.inverse_before(inverse))

    def forward_after(self, residual: Tensor) -> Tensor:
        """φ ∘ residual, with the chain on the residual's lattice."""
        return residual if self.forward is None else sampling.compose(self.forward, residual)

    def inverse_before(self, residual: Tensor) -> Tensor:
        """residual ∘ φ⁻¹, with the chain on the residual's lattice."""
        return residual if self.inverse is None else sampling.compose(residual, self.inverse)


@dataclass
class Fit:
    """Fits velocity networks to a pair, one stage after another; keeps the loss curve and the chain of maps."""

    images: Images
    energy: Energy
    monitor: Monitor = field(default_factory=Monitor)
    knots: float = 1.5  # spacing of the velocity's B-spline coefficients, in voxels of its lattice
    squarings: int = 1
    chain: Chain = field(default_factory=Chain)
    curve: list[list[float]] = field(default_factory=list)  # [level, iteration, loss]
    stopped: bool = False
    best: Tensor | None = None  # velocity of the lowest loss that this level has shown (0 before), for whoever stops it
    warnings: list[str] = field(default_factory=list)
    levels_done: int = 0

    def run(self, stages: Sequence[Stage], begin: float = 0.0) -> Fit:
        """Fit one stage after another and append the exponential of each to the chain, until it is stopped -> itself.

        `begin` is the fraction of the run that is over. A network is made when its turn comes.
        """
        stages = self.suited(stages)
        total = max(sum(self.cost(level) for stage in stages for level in stage.levels), 1.0)
        share = (1.0 - begin) / total
        for stage in stages:
            begin = self._stage(stage, begin, share)
            if self.stopped:
                break
        return self

    def _stage(self, stage: Stage, begin: float, share: float) -> float:
        """Fit one stage; the fraction of the run that is over then, where a unit of cost is `share` of it."""
        network = stage.network(self.coefficients(stage.levels[-1])).to(self.images.fixed.device)
        for level in stage.levels:
            end = begin + share * self.cost(level)
            self._level(network, level, stage.rate, (begin, end))
            begin = end
            if self.stopped:
                break
        with torch.no_grad():
            shape = self.lattice(stage.levels[-1].velocity)
            self.chain = self.chain.then(self.best if self.stopped else self._velocity(network, shape))
        return begin

    def lattice(self, factor: float) -> Shape:
        """Shape of the lattice at `factor` times the smallest spacing of the working grid."""
        return coarser_shape(self.images.shape, self.images.spacing, factor)

    def coefficients(self, level: Level) -> Shape:
        """The lattice on which a level's network is evaluated."""
        return self._knots(self.lattice(level.velocity))

    def _knots(self, shape: Shape) -> Shape:
        return coarser_shape(shape, self._spacing(shape), self.knots)

    def _spacing(self, shape: Shape) -> tuple[float, ...]:
        return coarser_spacing(self.images.shape, self.images.spacing, shape)

    def suited(self, stages: Sequence[Stage]) -> list[Stage]:
        """The stages as this pair allows: levels too coarse for a small volume are left out, the last one excepted, and
        images are coarser where MIND's descriptors would be too many."""
        last = stages[-1].levels[-1]
        kept = [(s, [level for level in s.levels if level is last or not self._too_small(level)]) for s in stages]
        return [replace(s, levels=[self._affordable(level) for level in levels]) for s, levels in kept if levels]

    def _too_small(self, level: Level) -> bool:
        sizes = zip(self.lattice(level.image), self.images.shape, strict=True)
        return any(n < min(SMALLEST_SIDE, full) for n, full in sizes)

    def _affordable(self, level: Level) -> Level:
        large = self.energy.similarity == "mind" and math.prod(self.lattice(level.image)) > MIND_VOXELS
        return replace(level, image=max(level.image, MIND_FACTOR)) if large else level

    def cost(self, level: Level) -> float:
        """What a level takes, in voxels, relative to the others; see also `methods.work`."""
        voxels = math.prod(self.lattice(level.image)) + 3 * math.prod(self.lattice(level.velocity))
        return voxels * level.iterations * (2 if level.directions == "both" else 1)

    def _velocity(self, network: nn.Module, shape: Shape) -> Tensor:
        velocity = spline(network(self._knots(shape)), shape)
        return velocity * border_window(shape, velocity)

    def _level(self, network: nn.Module, level: Level, rate: float, span: tuple[float, float]) -> None:
        shape = self.lattice(level.velocity)
        spacing = torch.tensor(self._spacing(shape)).to(self.images.fixed)
        step = _Step(self.images.at(level.image), self.energy, level, self.chain.on(shape), spacing)
        optimiser = Adam(network.parameters(), betas=BETAS)
        pending: list[Tensor] = []
        lowest, self.best = math.inf, self.images.fixed.new_zeros(1, 3, *shape)
        for iteration in range(level.iterations):
            velocity = self._velocity(network, shape)
            loss = step(velocity, iteration, self.squarings)
            optimiser.step(cosine(rate, iteration / level.iterations))
            self.monitor.check()
            pending.append(loss)
            if (iteration + 1) % CHECK_EVERY == 0 or iteration + 1 == level.iterations:
                fraction = span[0] + (span[1] - span[0]) * (iteration + 1) / level.iterations
                self._look(pending, iteration, fraction, level)
                reached = sum(value for *_, value in self.curve[-2:])  # one of each direction, where they alternate
                if reached <= lowest:
                    lowest, self.best = reached, velocity.detach()
                self.monitor.preview(step.warped)
                if self.stopped or self._plateau(iteration + 1):
                    break
        self.levels_done += 1

    def _look(self, pending: list[Tensor], iteration: int, fraction: float, level: Level) -> None:
        values = torch.stack(pending).tolist()
        first = iteration + 1 - len(values)
        self.curve += [[self.levels_done, first + i, round(value, 6)] for i, value in enumerate(values)]
        pending.clear()
        shown = values[-2:]  # one of each direction, where they alternate
        self.monitor.report(Progress("deformable", fraction, loss=sum(shown) / len(shown)))
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
class _Side:
    """The energy of a map at one level: the images' moving one is warped onto their fixed one."""

    images: Images
    energy: Energy
    level: Level
    spacing: Tensor  # of the map's lattice

    def __post_init__(self):
        self.content = self.images.content()

    def __call__(self, displacement: Tensor, corner: int) -> tuple[Tensor, Tensor]:  # -> loss, warped
        fine = sampling.resize_displacement(displacement, self.images.shape)
        warped = sampling.warp(self.images.moving, fine)
        seen = self._seen(fine)
        weight = self.content if seen is None else self.content * seen
        loss = self.energy.compare(self.images.fixed, warped, weight, seen, self.level)
        loss = loss + self.energy.pull(displacement, self.images.landmarks, self.spacing)
        return loss + self.energy.regularise(displacement, self.spacing, corner), warped.detach()

    def _seen(self, displacement: Tensor) -> Tensor | None:
        """Which voxels both images show, as their masks and fields of view tell; None where all of them."""
        fixed, moving = self.images.fixed_weight, self.images.moving_weight
        if moving is None:
            return fixed
        with torch.no_grad():
            moving = sampling.warp(moving, displacement)
        return moving if fixed is None else fixed * moving


@dataclass
class _Step:
    """The energy of one velocity behind the chain so far, in the directions whose turn it is."""

    images: Images
    energy: Energy
    level: Level
    chain: Chain
    spacing: Tensor  # of the velocity's lattice
    warped: Tensor | None = None  # the moving image as it was last seen on the fixed one

    def __post_init__(self):
        self.forward = _Side(self.images, self.energy, self.level, self.spacing)
        if self.level.directions != "forward":
            self.backward = _Side(self.images.swapped(), self.energy, self.level, self.spacing)

    def __call__(self, velocity: Tensor, iteration: int, squarings: int) -> Tensor:
        """The energy; its gradient is left in whatever `velocity` was made of.

        One direction is differentiated before the other begins, so that one graph at a time takes memory.
        """
        turns = {"both": (1, -1), "alternate": ((1, -1)[iteration % 2],), "forward": (1,)}[self.level.directions]
        corner = CORNERS[iteration // 2 % len(CORNERS)]  # the same for either direction, where they alternate
        leaf = velocity.detach().requires_grad_()
        total = leaf.new_zeros(())
        for sign in turns:
            loss = self._toward(sign, sampling.integrate(sign * leaf, squarings), corner) / len(turns)
            loss.backward()
            total += loss.detach()
        # The product has this gradient; torch imports sympy, five hundred modules, where it is given one.
        torch.dot(velocity.flatten(), leaf.grad.flatten()).backward()
        return total

    def _toward(self, sign: int, residual: Tensor, corner: int) -> Tensor:
        if sign < 0:
            return self.backward(self.chain.inverse_before(residual), corner)[0]
        loss, self.warped = self.forward(self.chain.forward_after(residual), corner)
        return loss

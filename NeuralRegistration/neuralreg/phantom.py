"""A brain-like pair of volumes with a deformation known in closed form: for tests, the demo and benchmarks.

The anatomy is a function of points, so a volume on any lattice (oblique, anisotropic, flipped) is exact and nothing is
ever resampled: `moving(y) = anatomy(y)` and `fixed(x) = anatomy(φ(x))` with φ the true moving_from_fixed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from .image import Grid, Image
from .transform import Affine, Transform

SEMI_AXES_MM = (66.0, 82.0, 60.0)  # left-right, front-back, up-down: an adult brain at scale 1
MARGIN = 1.15  # the lattice reaches this much beyond the brain
# Labels: 1 cortex, 2 white matter, 3 ventricles, 4 thalamus, 5 putamen, 6 caudate, 7 cerebellum, 8 brain stem.
INTENSITIES = {  # of the fluid around the brain (label 0), then of labels 1, 2, …
    "T1": (160.0, 560.0, 850.0, 130.0, 690.0, 620.0, 590.0, 600.0, 780.0),
    "T2": (900.0, 560.0, 330.0, 980.0, 430.0, 400.0, 450.0, 600.0, 360.0),
}


@dataclass(frozen=True, eq=False)
class SmoothDeformation(Transform):
    """x ↦ x + Σ aₖ exp(−|x − cₖ|² / 2σ²): a sum of Gaussian pushes, exact at every point, with an exact gradient.

    centers, pushes: (n, 3) float64 LPS mm; sigma: mm. Invertible while the gradient of the sum stays below 1.
    """

    centers: np.ndarray
    pushes: np.ndarray
    sigma: float

    def __call__(self, points: Tensor) -> Tensor:
        return points + sum(self._push(k, points)[0] for k in range(len(self.centers)))

    def jacobian_matrix(self, points: Tensor) -> Tensor:  # (3, …) -> (3, 3, …), ∂(output row) / ∂(input column)
        total = torch.eye(3, dtype=points.dtype).view(3, 3, *[1] * (points.ndim - 1))
        for k in range(len(self.centers)):
            push, offset = self._push(k, points)
            total = total - push[:, None] * offset[None] / self.sigma**2
        return total

    def inverse(self) -> InverseDeformation:
        return InverseDeformation(self)

    def scaled(self, factor: float) -> SmoothDeformation:
        return replace(self, pushes=self.pushes * factor)

    def _push(self, k: int, points: Tensor) -> tuple[Tensor, Tensor]:
        ones = [1] * (points.ndim - 1)
        offset = points - torch.from_numpy(self.centers[k]).to(points).view(3, *ones)
        weight = torch.exp(-offset.square().sum(0) / (2 * self.sigma**2))
        return torch.from_numpy(self.pushes[k]).to(points).view(3, *ones) * weight, offset


@dataclass(frozen=True, eq=False)
class InverseDeformation(Transform):
    """y ↦ the point that `forward` sends to y, by fixed-point iteration (a contraction: its gradient is below 1)."""

    forward: SmoothDeformation
    iterations: int = 60

    def __call__(self, points: Tensor) -> Tensor:
        guess = points
        for _ in range(self.iterations):
            guess = points - (self.forward(guess) - guess)
        return guess

    def inverse(self) -> SmoothDeformation:
        return self.forward


@dataclass(frozen=True, eq=False)
class Phantom:
    """A pair with labels, and the truth. `moving_from_fixed` maps LPS mm to LPS mm like every transform here."""

    fixed: Image
    moving: Image
    fixed_labels: Image
    moving_labels: Image
    moving_from_fixed: Transform

    def landmarks(self, count: int = 50, seed: int = 0) -> tuple[Tensor, Tensor]:  # two (3, n) float64 LPS mm
        """Corresponding points inside the brain: of the fixed image, and where they are in the moving one."""
        inside = torch.nonzero(self.fixed_labels.data[0] > 0)
        chosen = torch.from_numpy(np.random.default_rng(seed).integers(len(inside), size=count))
        index = inside[chosen].flip(1).T.double()  # z, y, x -> x, y, z
        matrix = torch.from_numpy(self.fixed.grid.world_from_index)
        fixed = matrix[:3, :3] @ index + matrix[:3, 3:]
        return fixed, self.moving_from_fixed(fixed)


def make_phantom(
    grid: Grid | None = None,
    moving_grid: Grid | None = None,
    *,
    amplitude_mm: float | None = None,
    pose: Affine | None = None,
    contrasts: tuple[str, str] = ("T1", "T1"),
    noise: float = 10.0,
    seed: int = 0,
) -> Phantom:
    """A pair on `grid` (fixed) and `moving_grid` (the same by default); the brain fills the fixed lattice.

    amplitude_mm: largest displacement (default: 10 mm for an adult-sized brain, in proportion for smaller lattices; a
    ValueError where it would fold). pose: where the moving head lies, aligned → moving, applied after the deformation.
    contrasts: "T1" or "T2" for fixed and moving. noise: standard deviation (tissues lie between 130 and 980).
    """
    grid = demo_grid() if grid is None else grid
    moving_grid = grid if moving_grid is None else moving_grid
    scale, center = brain_scale(grid), grid.center
    deformation = smooth_deformation(center, scale, 10.0 * scale if amplitude_mm is None else amplitude_mm, seed)
    pose = Affine.identity() if pose is None else pose
    random = torch.Generator().manual_seed(seed)
    view = {"center": center, "scale": scale, "noise": noise, "random": random}
    fixed = _volume(grid, deformation, contrast=contrasts[0], **view)
    moving = _volume(moving_grid, pose.inverse(), contrast=contrasts[1], **view)
    return Phantom(fixed[0], moving[0], fixed[1], moving[1], pose @ deformation)


def demo_grid(spacing_mm: float = 1.5) -> Grid:
    """A lattice that just holds an adult brain, centred on the origin, array axes running to L, P, S."""
    size = [math.ceil(2 * MARGIN * semi / spacing_mm) for semi in SEMI_AXES_MM]
    origin = [-(n - 1) / 2 * spacing_mm for n in size]
    return Grid.from_parts(size, origin, [spacing_mm] * 3)


def demo_phantom(spacing_mm: float = 1.5) -> Phantom:
    """The demo's pair: the moving head is tilted, shifted and stored on an oblique lattice with thicker slices."""
    grid = demo_grid(spacing_mm)
    turn = rotation([0.3, 0.2, 1.0], 8.0)
    spacing = np.array([spacing_mm, spacing_mm, spacing_mm * 1.25])
    size = np.ceil(np.array(grid.size) * grid.spacing * 1.12 / spacing).astype(int)
    oblique = np.eye(4)
    oblique[:3, :3] = rotation([1.0, 0.4, -0.2], 11.0) * spacing
    shift = np.array([9.0, -6.0, 12.0])
    oblique[:3, 3] = shift - oblique[:3, :3] @ ((size - 1) / 2)
    pose = np.eye(4)
    pose[:3, :3] = turn
    pose[:3, 3] = shift
    return make_phantom(grid, Grid(tuple(size[::-1]), oblique), pose=Affine(pose), seed=7)


def rotation(axis, degrees: float) -> np.ndarray:
    """3×3 rotation matrix about an axis (Rodrigues)."""
    x, y, z = np.asarray(axis, dtype=np.float64) / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = math.radians(degrees)
    return np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross


def brain_scale(grid: Grid) -> float:
    """The size (1 = adult) at which the brain, whose axes are those of the world, just fits into an oblique lattice."""
    half_mm = np.array(grid.size) * grid.spacing / 2
    support_mm = np.linalg.norm(np.array(SEMI_AXES_MM)[:, None] * grid.direction, axis=0)
    return float((half_mm / (MARGIN * support_mm)).min())


def smooth_deformation(center, scale: float, amplitude_mm: float, seed: int = 0) -> SmoothDeformation:
    """Random pushes inside the brain, their sum at most `amplitude_mm` long. ValueError where that folds."""
    random = np.random.default_rng(seed)
    directions = random.normal(size=(16, 3))
    spots = random.normal(size=(16, 3))
    spots = spots / np.linalg.norm(spots, axis=1, keepdims=True) * random.uniform(0.1, 0.65, (16, 1))
    centers = np.asarray(center) + spots * np.array(SEMI_AXES_MM) * scale
    unit = SmoothDeformation(centers, directions / np.linalg.norm(directions, axis=1, keepdims=True), 16.0 * scale)
    semi = np.array(SEMI_AXES_MM) * scale
    probe = Grid.from_parts((25, 25, 25), np.asarray(center) - semi, semi / 12).points()
    longest = float((unit(probe) - probe).norm(dim=0).max())
    deformation = unit.scaled(amplitude_mm / longest)
    gradient = deformation.jacobian_matrix(probe).reshape(3, 3, -1).permute(2, 0, 1) - torch.eye(3, dtype=torch.float64)
    if float(torch.linalg.matrix_norm(gradient, ord=2).max()) > 0.9:
        raise ValueError(f"smooth_deformation: {amplitude_mm:g} mm folds a brain of scale {scale:.2f}; choose less")
    return deformation


def _volume(grid, anatomy_from_grid, *, center, scale, contrast, noise, random) -> tuple[Image, Image]:
    """The anatomy seen through a transform on a lattice: intensities and labels (as float32)."""
    intensities, labels = [], []
    for first, last in grid.slabs():
        points = anatomy_from_grid(grid.points(first, last))
        head = (points - torch.from_numpy(np.asarray(center)).view(3, 1, 1, 1)) / scale
        values, names = _paint(head.float(), INTENSITIES[contrast], edge_mm=0.8 * float(grid.spacing.min()) / scale)
        intensities.append(values)
        labels.append(names)
    values, names = torch.cat(intensities), torch.cat(labels)
    values = values + noise * torch.randn(values.shape, generator=random) * (values > 5.0)
    return Image(values.clamp(min=0.0)[None], grid), Image(names[None], grid)


def _paint(p: Tensor, intensity: tuple[float, ...], edge_mm: float) -> tuple[Tensor, Tensor]:
    """Intensity and label at head coordinates (3, d, h, w) in mm: soft-edged structures, one painted over another."""
    values = torch.zeros_like(p[0])
    labels = torch.zeros_like(p[0])
    for label, distance in _structures(p):
        inside = torch.sigmoid(-distance / (edge_mm / 2))
        values = values * (1 - inside) + intensity[label] * inside
        labels = torch.where(distance < 0, float(label), labels)
    bias = 1.0 + 0.06 * torch.sin(p[0] / 45.0) * torch.cos(p[1] / 60.0)
    return values * bias, labels


def _structures(p: Tensor) -> list[tuple[int, Tensor]]:
    """(label, signed distance in mm, negative inside) in painting order; label 0 is fluid. Mirror pairs use |x|.

    Intersections are maxima, unions minima, and a structure is cut out of another by the maximum with its negative.
    """
    x, y, z = p
    brain = _ellipsoid(p, (0, 0, 0), SEMI_AXES_MM)
    below = torch.maximum(z + 22.0 + 0.2 * y, 0.5 * x.abs() - y - 2.0)  # under the tentorium: no cerebrum there
    below = torch.minimum(below, torch.maximum(z + 30.0, x.abs() - 16.0))  # nor between the temporal lobes
    cerebrum = torch.maximum(brain, -below)
    fissure = torch.maximum(x.abs() - 1.4, -_ellipsoid(p, (0, 4, -4), (40, 50, 30)))
    depth = 16.0 + 3.0 * torch.sin(x / 17.0) * torch.cos(y / 19.0)
    sulci = torch.maximum(3.3 * _gyroid(p, 27.0).abs() - 0.9, -depth - brain)
    cortex = torch.maximum(cerebrum, -torch.minimum(fissure, sulci))
    bowed = torch.stack((x.abs() - 0.12 * y, y, z + (y / 26.0) ** 2 * 5.0))
    ventricles = torch.minimum(_ellipsoid(bowed, (9, 2, 9), (4.5, 30, 6)), _ellipsoid(p, (0, 6, -6), (1.8, 12, 9)))
    pair = torch.stack((x.abs(), y, z))
    small_brain = torch.maximum(_ellipsoid(p, (0, 46, -34), (44, 30, 22)), brain)
    leaves = torch.maximum(1.1 * torch.sin((z + 0.35 * y) * 0.75).abs() - 0.25, -9.0 - small_brain)
    stem = torch.maximum(_ellipsoid(p, (0, 20, -42), (11, 11, 30)), brain)
    return [
        (0, torch.minimum(cerebrum, torch.minimum(small_brain, stem)) - 1.0),
        (1, cortex),
        (2, cortex + 3.0),
        (4, _ellipsoid(pair, (10, 13, -1), (8, 13, 8))),
        (5, _ellipsoid(pair, (25, -1, -3), (6, 17, 10))),
        (6, _ellipsoid(pair, (14, -19, 5), (5, 13, 7))),
        (3, ventricles),
        (7, torch.maximum(small_brain, -leaves)),
        (8, stem),
    ]


def _ellipsoid(p: Tensor, center, semi) -> Tensor:
    """Approximate signed distance to an ellipsoid in mm, exact on its surface."""
    q = p - torch.tensor(center, dtype=p.dtype).view(3, 1, 1, 1)
    semi = torch.tensor(semi, dtype=p.dtype).view(3, 1, 1, 1)
    radius = (q / semi).norm(dim=0)
    return radius * (radius - 1.0) / (q / semi**2).norm(dim=0).clamp(min=1e-6)


def _gyroid(p: Tensor, period_mm: float) -> Tensor:
    """A smooth labyrinth whose zero surface serves as sulci."""
    x, y, z = p * (2 * math.pi / period_mm)
    return x.sin() * y.cos() + y.sin() * z.cos() + z.sin() * x.cos()

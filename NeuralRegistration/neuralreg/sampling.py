"""The only `grid_sample` in the house: warping, composing and integrating bare tensors in voxels.

Images are (B, C, D, H, W). Coordinates and displacements are (B, 3, D, H, W) in voxels, channels in the order x, y, z
(the last array axis first). Normalised [−1, 1] coordinates exist inside `sample` only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

# Determinants of so many voxels stay in the processor cache: up to ten times as fast as all at once. A GPU wants few
# and large operations, of which each takes some microseconds however little it does.
SLAB_VOXELS, GPU_SLAB_VOXELS = 100_000, 2_000_000
STUCK_VOXELS = 0.05  # residual of an inverse above which single voxels are looked after
NEWTON_STEPS, NEWTON_REACH, NEWTON_LONGEST = 40, 0.05, 2.0  # voxels, for slopes and for a step
NEWTON_PARTS = 1.0, 0.5, 0.25, 0.1, 0.03  # of a step
FINER_STEPS, FINER_SHARE = 3, 0.01  # of iterations on a finer lattice; of the longest displacement, between its voxels
FINEST_VOXELS = 2_000_000  # 24 MB


def identity(shape: tuple[int, int, int], like: Tensor) -> Tensor:  # -> (1, 3, D, H, W)
    """Voxel coordinates (x, y, z) of a lattice, with the dtype and device of `like`."""
    axes = [torch.arange(n, dtype=like.dtype, device=like.device) for n in shape]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    return torch.stack((x, y, z))[None]


def sample(image: Tensor, coordinates: Tensor, mode: str = "bilinear", outside: str = "zeros") -> Tensor:
    """Values of `image` (B, C, D, H, W) at voxel `coordinates` (B, 3, d, h, w) -> (B, C, d, h, w).

    mode: "bilinear" (trilinear in 3D) or "nearest". outside: "zeros", or "border" for the nearest border value.
    """
    scale = _normalising_scale(image, coordinates)
    return _grid_sample(image, (coordinates * scale - 1.0).permute(0, 2, 3, 4, 1), mode, outside)


def warp(image: Tensor, displacement: Tensor, mode: str = "bilinear", outside: str = "zeros") -> Tensor:
    """`image ∘ (id + displacement)` for a displacement on the image's own lattice -> (B, C, D, H, W)."""
    sizes = image.shape[:1:-1]
    moved = [
        torch.add(_normalised_axis(axis, n, displacement), values, alpha=2.0 / max(n - 1, 1))
        for axis, n, values in zip((2, 1, 0), sizes, displacement.unbind(1), strict=True)
    ]
    # The channels of a vector field side by side in memory: one look into the cache instead of three.
    image = image.contiguous(memory_format=torch.channels_last_3d) if image.shape[1] > 1 else image
    return _grid_sample(image, torch.stack(moved, dim=-1), mode, outside)


def _normalised_axis(axis: int, size: int, like: Tensor) -> Tensor:
    """Where the voxels of a lattice, that of `like` (B, 3, D, H, W), lie along one axis: −1 to 1 over `size` voxels."""
    places = torch.arange(like.shape[2 + axis], dtype=like.dtype, device=like.device)
    return (places * (2.0 / max(size - 1, 1)) - 1.0).view([1, *(-1 if axis == other else 1 for other in range(3))])


def _normalising_scale(image: Tensor, like: Tensor) -> Tensor:
    """2 / (size − 1) along x, y, z: voxel coordinates times this, minus 1, run from −1 to 1 between corner voxels."""
    return _along_axes([2.0 / max(n - 1, 1) for n in image.shape[:1:-1]], like)


def _along_axes(values: list[float], like: Tensor) -> Tensor:  # x, y, z -> (1, 3, 1, 1, 1)
    """Made by fill kernels: a tensor copied from a list would make a GPU wait for the host at every warp."""
    return torch.stack([like.new_full((), float(value)) for value in values]).view(1, 3, 1, 1, 1)


def _grid_sample(image: Tensor, grid: Tensor, mode: str, outside: str) -> Tensor:
    """torch's 3D grid_sample runs its batch entries in parallel on a CPU, but not the voxels of one entry: slabs of one
    volume are therefore handed over as a batch (the image is expanded, not copied)."""
    batch, depth = grid.shape[:2]
    threads = torch.get_num_threads()
    if image.device.type != "cpu" or batch != 1 or threads == 1 or depth < 2 * threads:
        return F.grid_sample(image, grid, mode=mode, padding_mode=outside, align_corners=True)
    whole = depth - depth % threads
    slabs = grid[:, :whole].reshape(threads, whole // threads, *grid.shape[2:])
    parts = F.grid_sample(
        image.expand(threads, -1, -1, -1, -1), slabs, mode=mode, padding_mode=outside, align_corners=True
    )
    warped = parts.transpose(0, 1).reshape(1, image.shape[1], whole, *grid.shape[2:4])
    if whole == depth:
        return warped
    rest = F.grid_sample(image, grid[:, whole:], mode=mode, padding_mode=outside, align_corners=True)
    return torch.cat((warped, rest), dim=2)


def cubic_spline(distance: Tensor) -> Tensor:
    """The uniform cubic B-spline at distances ≥ 0 from its knot, in spacings of the knots."""
    near, far = 2 / 3 - distance.square() + distance**3 / 2, (2 - distance).clamp_min(0) ** 3 / 6
    return torch.where(distance < 1, near, far)


def length(vectors: Tensor, dim: int = 1) -> Tensor:
    """Length of the vectors along `dim`; on a CPU torch's norm takes five to nine times as long for short ones."""
    return vectors.square().sum(dim).sqrt()


def compose(outer: Tensor, inner: Tensor) -> Tensor:
    """Displacement of `(id + outer) ∘ (id + inner)`: `inner` is applied first. All (B, 3, D, H, W)."""
    return inner + warp(outer, inner, outside="border")


def integrate(velocity: Tensor, steps: int) -> Tensor:
    """Displacement of `exp(velocity)` by scaling and squaring, `steps` squarings (Arsigny 2006). (B, 3, D, H, W)"""
    displacement = velocity / 2**steps
    for _ in range(steps):
        displacement = compose(displacement, displacement)
    return displacement


def resize(values: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Trilinear resampling of (B, C, D, H, W) to another lattice with the same corner voxels; values stay unscaled."""
    if tuple(values.shape[2:]) == tuple(shape):
        return values
    return F.interpolate(values, size=tuple(shape), mode="trilinear", align_corners=True)


def resize_displacement(displacement: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """`resize` for displacements or velocities: also rescales the values to voxels of the new lattice."""
    return resize(in_voxels_of(shape, displacement), shape)


def in_voxels_of(shape: tuple[int, int, int], displacement: Tensor) -> Tensor:
    """The values (B, 3, d, h, w) in voxels of a lattice of `shape` with the same corners; they stay where they are."""
    old, new = displacement.shape[:1:-1], tuple(shape)[::-1]
    if tuple(old) == new:
        return displacement
    factors = [(n - 1) / max(o - 1, 1) for o, n in zip(old, new, strict=True)]
    return displacement * _along_axes(factors, displacement)


def jacobian_matrix(displacement: Tensor) -> Tensor:  # (B, 3, D, H, W) -> (B, 3, 3, D, H, W)
    """∂(id + u)_row / ∂(x, y, z)_column by central differences, one-sided at the border."""
    columns = [torch.gradient(displacement, dim=dim)[0] for dim in (4, 3, 2)]
    gradient = torch.stack(columns, dim=2)
    return gradient + torch.eye(3, dtype=gradient.dtype, device=gradient.device).view(1, 3, 3, 1, 1, 1)


def determinant(matrix: Tensor) -> Tensor:  # (B, 3, 3, …) -> (B, …)
    """Determinant of 3×3 matrices laid out channel-first (torch.linalg.det wants them last, and is slow there)."""
    a, b, c = matrix[:, 0].unbind(1)
    d, e, f = matrix[:, 1].unbind(1)
    g, h, i = matrix[:, 2].unbind(1)
    return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)


def jacobian_determinant(displacement: Tensor) -> Tensor:  # (B, 3, D, H, W) -> (B, D, H, W)
    """det ∇(id + u). On one lattice this is also the determinant in millimetres, whatever the lattice's orientation."""
    return determinant(jacobian_matrix(displacement))


def slabs_with_neighbours(values: Tensor) -> Iterator[tuple[int, int, int, int]]:
    """(first, last, low, high): planes first to last − 1 of a lattice, that of `values` (…, D, H, W), and low to high −
    1 with those on either side, which central differences of the former look at."""
    shape = values.shape[-3:]
    step = max(1, (SLAB_VOXELS if values.device.type == "cpu" else GPU_SLAB_VOXELS) // (shape[1] * shape[2]))
    for first in range(0, shape[0], step):
        last = min(first + step, shape[0])
        yield first, last, max(first - 1, 0), min(last + 1, shape[0])


def corner_determinants(displacement: Tensor, corners: Iterable[int] = range(8)) -> Tensor:
    """det ∇(id + u) of the trilinear interpolant at some of the eight corners of every lattice cell.

    Each is six times the signed volume of the tetrahedron spanned by a corner and its three neighbours along the cell's
    edges. Central differences skip a voxel and miss folds that these see (Liu et al., IJCV 2022). Corner x + 2y + 4z
    lies at the cell's far end along x, y and z where these are 1. (B, 3, D, H, W) -> (B, corners, D-1, H-1, W-1).
    """
    edges = [displacement.diff(dim=dim) for dim in (4, 3, 2)]  # ∂/∂x, ∂/∂y, ∂/∂z on the cells' edges
    d, h, w = (n - 1 for n in displacement.shape[2:])
    eye = torch.eye(3, dtype=displacement.dtype, device=displacement.device).view(1, 3, 3, 1, 1, 1)
    found = []
    for corner in corners:
        x, y, z = corner & 1, corner >> 1 & 1, corner >> 2
        along_x = edges[0][:, :, z : z + d, y : y + h, :]
        along_y = edges[1][:, :, z : z + d, :, x : x + w]
        along_z = edges[2][:, :, :, y : y + h, x : x + w]
        found.append(determinant(torch.stack((along_x, along_y, along_z), dim=2) + eye))
    return torch.stack(found, dim=1)


def invert(
    displacement: Tensor,
    start: Tensor,
    iterations: int = 20,
    tolerance: float = 1e-3,
    check: Callable[[], object] = lambda: None,
) -> Tensor:
    """Displacement w with (id + u) ∘ (id + w) = id, on the lattice of `start`, a first guess such as exp(−v).

    displacement, start: (1, 3, …) in voxels of their own lattices, which share their corner voxels. Quasi-Newton: the
    residual r = w + u ∘ (id + w) is turned by the gradient of the inverse itself, w ← w − (I + ∇w) r, because that is
    the inverse of the gradient of the map. A step that makes a voxel worse is not taken, so the result is nowhere
    worse than `start`. Ends when no residual exceeds `tolerance` voxels. Where the map is so rough that this is stuck,
    Newton's method goes on at the single voxels. `check` is called often; it may raise.
    """
    shape = tuple(start.shape[2:])
    ratio = _normalising_scale(start, start) / _normalising_scale(displacement, start)
    fine_units, points = displacement / ratio, identity(shape, start)
    residual_at = lambda places, w: w + sample(fine_units, (places + w) * ratio, outside="border")  # noqa: E731
    inverse, residual = start, residual_at(points, start)
    for _ in range(iterations):
        if float(residual.abs().max()) <= tolerance:
            return inverse
        check()
        candidate = inverse - residual
        for axis, dim in enumerate((4, 3, 2)):  # (I + ∇w) r a column at a time: nine numbers a voxel are many
            candidate -= torch.gradient(inverse, dim=dim)[0] * residual[:, axis : axis + 1]
            check()
        inverse, residual = _better(inverse, residual, candidate, residual_at(points, candidate))
    check()
    stuck = (length(residual) > STUCK_VOXELS).flatten().nonzero()[:, 0]
    places, found = (values.flatten(2)[:, :, stuck, None, None] for values in (points, inverse))
    settled = _newton(lambda w: residual_at(places, w), found, check)
    return inverse.flatten(2).index_copy(2, stuck, settled.flatten(2)).view_as(inverse)


def invert_between(displacement: Tensor) -> Tensor:
    """`invert` for a lattice that may be too coarse for the inverse: interpolation between its voxels would go wrong.

    The lattice is halved, its corners kept, until that costs a hundredth of the longest displacement at most, or
    FINEST_VOXELS are reached. (1, 3, d, h, w) in voxels -> (1, 3, D, H, W) in voxels of a lattice with the same
    corners. A displacement that folds has no inverse to be refined, and keeps its lattice.
    """
    inverse = invert(displacement, -displacement)
    if float(length(compose(displacement, inverse)).max()) > 2 * STUCK_VOXELS or min(inverse.shape[2:]) < 2:
        return inverse
    finer = tuple(2 * n - 1 for n in inverse.shape[2:])
    while math.prod(finer) <= FINEST_VOXELS:
        guess = resize_displacement(inverse, finer)
        off = length(compose(resize_displacement(displacement, finer), guess)).max()
        if float(off) <= FINER_SHARE * float(length(guess).max()):
            break
        inverse = invert(displacement, guess, FINER_STEPS)
        finer = tuple(2 * n - 1 for n in finer)
    return inverse


def _newton(residual_of: Callable[[Tensor], Tensor], start: Tensor, check: Callable[[], object]) -> Tensor:
    """A root of `residual_of` for each of the points `start` (1, 3, n, 1, 1), or the best that was found.

    A map without folds has no other place where the length of the residual cannot be made smaller, so steps that are
    shortened until they help end at the root.
    """
    found, residual = start, residual_of(start)
    for _ in range(NEWTON_STEPS):
        if not residual.numel() or float(residual.norm(dim=1).max()) <= STUCK_VOXELS:
            break
        check()
        columns = []
        for axis in range(3):
            ahead = torch.zeros_like(found[:, :, :1])
            ahead[:, axis] = NEWTON_REACH
            columns.append((residual_of(found + ahead) - residual_of(found - ahead)) / (2 * NEWTON_REACH))
        step = _solved(columns, residual)
        step = step * (NEWTON_LONGEST / step.norm(dim=1, keepdim=True).clamp_min(NEWTON_LONGEST))
        origin = found
        for part in NEWTON_PARTS:
            candidate = origin - part * step
            found, residual = _better(found, residual, candidate, residual_of(candidate))
    return found


def _solved(columns: list[Tensor], right: Tensor) -> Tensor:
    """x with [a b c] x = right, by Cramer's rule; all (1, 3, …). Zero where the columns are (nearly) dependent."""
    a, b, c = columns
    bc, ca, ab = torch.linalg.cross(b, c, dim=1), torch.linalg.cross(c, a, dim=1), torch.linalg.cross(a, b, dim=1)
    whole = (a * bc).sum(1, keepdim=True)
    x = torch.cat([(right * side).sum(1, keepdim=True) for side in (bc, ca, ab)], dim=1)
    return torch.where(whole.abs() > 1e-6, x / whole, 0)


def _better(values: Tensor, residual: Tensor, others: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
    """Voxel by voxel the values with the smaller residual, and that residual."""
    better = theirs.square().sum(1, keepdim=True) < residual.square().sum(1, keepdim=True)
    return torch.where(better, others, values), torch.where(better, theirs, residual)

"""What a transform does to space: folds, volume change, displacement."""

from __future__ import annotations

from torch import Tensor

from .. import sampling
from ..diffeomorphism import inner_tetrahedra
from ..image import Image, Watch, portion, slabs
from ..transform import DisplacementField, Transform
from .moments import Moments

LOG_FLOOR = 1e-9  # where J ≤ 0 its logarithm is that of this number, as in the Learn2Reg challenge


def folds_percent(jacobian: Tensor, mask: Tensor) -> float:
    """Share of the voxels of `mask` with J ≤ 0, in percent; both (D, H, W)."""
    return 100.0 * int(((jacobian <= 0) & mask).count_nonzero()) / max(int(mask.count_nonzero()), 1)


def sdlogj(jacobian: Tensor, mask: Tensor, watch: Watch | None = None) -> float:
    """Standard deviation of log J over `mask`; J below 1e-9 counts as 1e-9. Both (D, H, W)."""
    logarithms = Moments()
    for first, last in slabs(mask.shape, watch):
        logarithms.add(jacobian[first:last][mask[first:last]].double().clamp(min=LOG_FLOOR).log())
    return logarithms.deviation


def non_diffeomorphic_volume(displacement_vox: Tensor, mask: Tensor) -> tuple[float, float]:
    """Volume that the digital transformation turns inside out: in voxels, and in percent of the cells looked at.

    Liu et al., "On finite difference Jacobian computation in deformable image registration", IJCV 2024, precisely:
    a cell of the lattice (the cube between eight voxel centres) can be cut into five tetrahedra in two ways, each with
    one tetrahedron through four alternate corners and one at each of the four other corners. After moving the corners
    by the displacement, a tetrahedron with edges e₁, e₂, e₃ from one corner has the signed volume det(e₁, e₂, e₃) / 6;
    the digital transformation is a diffeomorphism where all ten are positive. The volume is Σ ½ max(0, −det / 6) over
    the ten tetrahedra of all cells of which at least one corner lies in `mask`; the half is there because each way of
    cutting fills the cell once. Central differences skip the middle voxel and miss folds that this sees.

    displacement_vox: (1, 3, D, H, W) in voxels of its own lattice. mask: (D, H, W) bool.
    """
    negative, cells = _inside_out(displacement_vox, mask)
    return negative, 100.0 * negative / max(cells, 1)


def _inside_out(displacement_vox: Tensor, mask: Tensor) -> tuple[float, int]:
    """The volume in voxels, and the number of cells looked at."""
    negative, cells = 0.0, 0
    for first, _last, _low, behind in sampling.slabs_with_neighbours(displacement_vox):
        if behind - first < 2:  # the last plane has no cells behind it
            continue
        inside = _cells_touching(mask[first:behind])
        cells += int(inside.sum())
        part = displacement_vox[:, :, first:behind]
        for determinants in (*sampling.corner_determinants(part).split(1, dim=1), *inner_tetrahedra(part)):
            if float(determinants.min()) < 0:  # rarely: picking the cells of the mask costs more than the determinants
                negative += float((-determinants[0, 0][inside]).clamp(min=0).double().sum()) / 12.0
    return negative, cells


def _cells_touching(mask: Tensor) -> Tensor:  # (D, H, W) -> (D-1, H-1, W-1) bool
    """Cells with at least one corner in the mask."""
    for dim in range(3):
        mask = mask.narrow(dim, 0, mask.shape[dim] - 1) | mask.narrow(dim, 1, mask.shape[dim] - 1)
    return mask


def regularity(
    moving_from_fixed: Transform, jacobian: Image, mask: Tensor, watch: Watch | None = None
) -> dict[str, float]:
    """Folds, non-diffeomorphic volume, SDlogJ, range of J and displacement over `mask`, on the Jacobian's grid."""
    determinant, grid = jacobian.data[0], jacobian.grid
    lengths, range_of_j, negative, cells = Moments(), Moments(), 0.0, 0
    for first, last in grid.slabs(portion(watch, 0.0, 0.9)):
        end = min(last + 1, grid.shape[0])  # the cells between this slab and the next
        points = grid.points(first, end)
        part = DisplacementField(
            (moving_from_fixed(points) - points).float(), grid.cropped((0, 0, first), (*grid.size[:2], end))
        )
        found = _inside_out(part.to_voxels(), mask[first:end])
        negative, cells = negative + found[0], cells + found[1]
        inside = mask[first:last]
        lengths.add(sampling.length(part.mm[:, : last - first], dim=0)[inside])
        range_of_j.add(determinant[first:last][inside])
    return {
        "folds_percent": folds_percent(determinant, mask),
        "folds_in_view": int((determinant <= 0).count_nonzero()),
        "non_diffeomorphic_volume_voxels": negative,
        "non_diffeomorphic_volume_percent": 100.0 * negative / max(cells, 1),
        "sdlogj": sdlogj(determinant, mask, portion(watch, 0.9, 1.0)),
        "jacobian_min": range_of_j.smallest,
        "jacobian_max": range_of_j.largest,
        "displacement_mean_mm": lengths.mean,
        "displacement_max_mm": lengths.largest,
    }

"""Metrics against analytic fields, plain float64 references and SimpleITK."""

import itertools
import math

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from neuralreg import metrics, sampling
from neuralreg.body import body_mask
from neuralreg.image import Grid, Image, resample
from neuralreg.phantom import make_phantom, rotation, smooth_deformation
from neuralreg.transform import Affine, DisplacementField, jacobian_determinant

OBLIQUE = Grid.from_parts((20, 22, 18), (-30, 10, 200), (2.0, 1.5, 3.0), rotation([1, 2, -0.5], 35))
EVERYWHERE = torch.ones(OBLIQUE.shape, dtype=torch.bool)


def blob(center, radius, shape=(24, 26, 28), spacing=(1.0, 1.0, 1.0)):  # center, spacing: x, y, z
    z, y, x = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    squared = sum(((a - c) * s) ** 2 for a, c, s in zip((x, y, z), center, spacing, strict=True))
    return torch.from_numpy((squared <= radius**2).astype(np.int64))


def test_dice_counts_each_label_on_its_own():
    fixed, warped = torch.zeros(4, 4, 4).long(), torch.zeros(4, 4, 4).long()
    fixed[:2], warped[1:3] = 7, 7  # one slice of two in common
    fixed[3], warped[3, :2] = 2, 2
    fixed[2, 0, 0] = 9
    assert metrics.dice(fixed, warped) == pytest.approx({2: 2 * 8 / 24, 7: 0.5, 9: 0.0})
    assert metrics.dice(fixed, warped, [7, 100]) == pytest.approx({7: 0.5})


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.8, 1.2, 3.0)])
def test_hd95_agrees_with_all_pairs_of_surface_voxels(spacing):
    fixed, warped = blob((12, 12, 11), 6.0, spacing=spacing), blob((14, 11, 12), 5.0, spacing=spacing)

    def surface(mask):
        inner = np.pad(mask.numpy().astype(bool), 1)
        kept = inner.copy()
        for axis, step in itertools.product(range(3), (1, -1)):
            kept &= np.roll(inner, step, axis)
        return (np.argwhere(inner & ~kept)[:, ::-1] - 1) * np.array(spacing)

    a, b = surface(fixed), surface(warped)
    distance = np.linalg.norm(a[:, None] - b[None], axis=2)
    expected = max(np.percentile(distance.min(1), 95), np.percentile(distance.min(0), 95))
    measured = metrics.hd95(fixed * 3, warped * 3, spacing)
    assert measured == pytest.approx({3: expected}, abs=1e-4)


def test_hd95_of_a_shifted_label_is_the_shift_and_absent_labels_are_left_out():
    fixed, warped = torch.zeros(12, 12, 12).long(), torch.zeros(12, 12, 12).long()
    fixed[:, 2:5], warped[:, 5:8], fixed[0, 0, 0] = 1, 1, 4
    assert metrics.hd95(fixed, warped, (1.0, 2.0, 1.0)) == pytest.approx({1: 6.0})


def test_tre_tells_fixed_from_moving():
    shift = np.eye(4)
    shift[:3, 3] = (3.0, 4.0, 0.0)
    fixed = torch.randn(3, 5, dtype=torch.float64)
    moved = fixed + torch.tensor([[3.0], [4.0], [0.0]])
    assert torch.allclose(metrics.tre(Affine(shift), fixed, moved), torch.zeros(5, dtype=torch.float64))
    assert torch.allclose(metrics.tre(Affine(shift), moved, fixed), torch.full((5,), 10.0, dtype=torch.float64))


def rotation_about_center(degrees):
    matrix = np.eye(4)
    matrix[:3, :3] = rotation([1, -1, 2], degrees)
    matrix[:3, 3] = OBLIQUE.center - matrix[:3, :3] @ OBLIQUE.center
    return Affine(matrix)


def test_a_rotation_on_an_oblique_grid_has_determinant_one_where_itk_forgets_directions():
    turn = rotation_about_center(20)
    jacobian = jacobian_determinant(turn, OBLIQUE)
    values = metrics.regularity(turn, jacobian, EVERYWHERE)
    assert values["jacobian_min"] == pytest.approx(1, abs=1e-4) and values["jacobian_max"] == pytest.approx(1, abs=1e-4)
    assert values["folds_percent"] == 0 and values["non_diffeomorphic_volume_voxels"] == 0
    assert values["sdlogj"] == pytest.approx(0, abs=1e-4)
    field = sitk.GetImageFromArray(turn.displacement(OBLIQUE).mm.double().movedim(0, -1).numpy(), isVector=True)
    field.SetSpacing(OBLIQUE.spacing.tolist())
    field.SetDirection(OBLIQUE.direction.ravel().tolist())
    theirs = sitk.GetArrayFromImage(sitk.DisplacementFieldJacobianDeterminant(field))
    assert abs(theirs[9, 11, 10] - 1) > 0.05


def test_jacobian_statistics_agree_with_an_analytic_deformation():
    grid = OBLIQUE
    deformation = smooth_deformation(grid.center, 0.6, 4.0)
    analytic = torch.linalg.det(deformation.jacobian_matrix(grid.points()).movedim((0, 1), (3, 4)))
    inner = torch.zeros_like(EVERYWHERE)
    inner[1:-1, 1:-1, 1:-1] = True
    values = metrics.regularity(deformation, jacobian_determinant(deformation, grid), inner)
    assert values["sdlogj"] == pytest.approx(float(analytic[inner].log().std(correction=0)), rel=0.05)
    assert values["jacobian_min"] == pytest.approx(float(analytic[inner].min()), abs=0.03)
    lengths = (deformation(grid.points()) - grid.points()).norm(dim=0)[inner]
    assert values["displacement_mean_mm"] == pytest.approx(float(lengths.mean()), rel=1e-6)
    assert values["displacement_max_mm"] == pytest.approx(float(lengths.max()), rel=1e-6)


def reference_non_diffeomorphic_volume(displacement, mask):
    """Cell by cell in float64: both ways of cutting a cube into five tetrahedra, volumes of the inverted ones."""
    u = displacement[0].double().numpy()
    depth, height, width = mask.shape
    middle = {0: ((0, 0, 0), (1, 1, 0), (0, 1, 1), (1, 0, 1)), 1: ((1, 1, 1), (0, 0, 1), (0, 1, 0), (1, 0, 0))}
    total, cells = 0.0, 0
    for k, j, i in itertools.product(range(depth - 1), range(height - 1), range(width - 1)):
        if not mask[k : k + 2, j : j + 2, i : i + 2].any():
            continue
        cells += 1
        at = {c: u[:, k + c[2], j + c[1], i + c[0]] + np.array(c) for c in itertools.product((0, 1), repeat=3)}
        still = {c: np.array(c, dtype=float) for c in at}
        for way in (0, 1):
            corners = [c for c in at if c not in middle[way]]
            pieces = [middle[way]] + [
                (c, *(tuple(np.abs(np.array(c) - e)) for e in np.eye(3, dtype=int))) for c in corners
            ]
            volumes = [[np.linalg.det([p[t[n]] - p[t[0]] for n in (1, 2, 3)]) / 6 for p in (still, at)] for t in pieces]
            assert sum(abs(v[0]) for v in volumes) == pytest.approx(1.0)  # the five pieces fill the cell
            total += 0.5 * sum(max(0.0, -math.copysign(1, before) * after) for before, after in volumes)
    return total, 100 * total / cells


@pytest.mark.parametrize("size", [0.2, 0.6, 1.5])
def test_non_diffeomorphic_volume_agrees_with_the_definition(size):
    torch.manual_seed(1)
    displacement = size * torch.randn(1, 3, 5, 6, 7)
    mask = torch.rand(5, 6, 7) > 0.6
    expected = reference_non_diffeomorphic_volume(displacement, mask)
    assert metrics.non_diffeomorphic_volume(displacement, mask) == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_non_diffeomorphic_volume_sees_the_checkerboard_that_central_differences_miss():
    z, y, x = torch.meshgrid(*(torch.arange(8.0) for _ in range(3)), indexing="ij")
    displacement = torch.zeros(1, 3, 8, 8, 8)
    displacement[0, 0] = 0.8 * (-1) ** (x + y + z)
    mask = torch.ones(8, 8, 8, dtype=torch.bool)
    jacobian = sampling.jacobian_determinant(displacement)[0]
    assert metrics.folds_percent(jacobian[:, :, 1:-1], mask[:, :, 1:-1]) == 0
    assert metrics.non_diffeomorphic_volume(displacement, mask)[1] > 10


def test_folds_are_counted_inside_the_mask_only():
    jacobian, mask = torch.ones(4, 4, 4), torch.zeros(4, 4, 4, dtype=torch.bool)
    jacobian[0], mask[:2] = -0.5, True
    jacobian[1, 0, 0] = 0.0
    assert metrics.folds_percent(jacobian, mask) == pytest.approx(100 * 17 / 32)
    assert metrics.folds_percent(jacobian, ~mask) == 0
    assert metrics.folds_percent(jacobian, torch.zeros_like(mask)) == 0


def test_inverse_consistency_is_zero_for_the_inverse_and_the_distance_otherwise():
    deformation = smooth_deformation(OBLIQUE.center, 0.6, 4.0)
    mean, largest = metrics.inverse_consistency_mm(deformation, deformation.inverse(), OBLIQUE, EVERYWHERE)
    assert largest < 1e-9
    mean, largest = metrics.inverse_consistency_mm(deformation, Affine.identity(), OBLIQUE, EVERYWHERE)
    moved = (deformation(OBLIQUE.points()) - OBLIQUE.points()).norm(dim=0)
    assert (mean, largest) == pytest.approx((float(moved.mean()), float(moved.max())))
    field = deformation.displacement(OBLIQUE)
    assert isinstance(field, DisplacementField)
    assert metrics.inverse_consistency_mm(field, field.inverse(), OBLIQUE, EVERYWHERE)[0] < 0.1


def test_correlation_and_mutual_information_against_numpy():
    torch.manual_seed(0)
    a = torch.randn(10, 11, 12)
    b, mask = 0.6 * a + torch.randn(10, 11, 12), torch.rand(10, 11, 12) > 0.3
    assert metrics.ncc(a, b, mask) == pytest.approx(np.corrcoef(a[mask].numpy(), b[mask].numpy())[0, 1], abs=1e-6)
    assert metrics.ncc(a, 3 - 2 * a, mask) == pytest.approx(-1)
    assert metrics.ncc(a, torch.ones_like(a), mask) == 0
    shuffled = a.flatten()[torch.randperm(a.numel())].view_as(a)
    entropy = metrics.mutual_information(a, a, mask, 8)
    assert entropy == pytest.approx(metrics.mutual_information(a, -a, mask, 8), rel=0.02)
    assert metrics.mutual_information(a, shuffled, mask, 8) < 0.1 < metrics.mutual_information(a, b, mask, 8) < entropy
    counts = np.histogram(a[mask], np.linspace(*np.percentile(a[mask], (0.5, 99.5)), 9))[0].astype(float)
    counts[0] += (a[mask] < np.percentile(a[mask], 0.5)).sum()
    counts[-1] += (a[mask] > np.percentile(a[mask], 99.5)).sum()
    assert entropy == pytest.approx(-(counts / counts.sum() * np.log(counts / counts.sum())).sum(), abs=0.01)


@pytest.mark.parametrize("shift_mm", [-12.0, -60.0], ids=["much of it", "nothing"])
def test_similarity_is_measured_where_the_moving_volume_is_seen(shift_mm):
    """Half a head that its file puts elsewhere, and its true transform: all that is seen agrees."""
    phantom, way = make_phantom(OBLIQUE, noise=0.0, amplitude_mm=1.0), shift_mm * OBLIQUE.direction[:, 2]
    part, shift = OBLIQUE.cropped((0, 0, 8), (20, 22, 18)), np.eye(4)
    shift[:3, 3] = way
    stored = part.world_from_index.copy()
    stored[:3, 3] += way
    half = Image(phantom.moving.data[:, 8:], Grid(part.shape, stored))
    true = Affine(shift) @ phantom.moving_from_fixed
    warped = resample(half, true, OBLIQUE)
    jacobian = jacobian_determinant(true, OBLIQUE)
    found = metrics.summary(phantom.fixed, half, warped, jacobian, true, true.inverse(), None)
    assert found["ncc_after"] > 0.95 > 0.8 > found["ncc_before"]
    assert found["mutual_information_after"] > found["mutual_information_before"] + 0.3


def test_body_mask_keeps_the_body_and_fills_the_lungs():
    stripped = make_phantom(OBLIQUE, noise=0.0)
    mask = body_mask(stripped.fixed)
    assert mask[stripped.fixed_labels.data[0] > 0].all() and not mask[0].any()
    chest = torch.full((1, 20, 30, 30), -1000.0) + 20 * torch.randn(1, 20, 30, 30)
    chest[:, :, 4:26, 4:26] = 40.0
    chest[:, :, 10:20, 8:14] = -850.0
    filled = body_mask(Image(chest, Grid.from_parts((30, 30, 20))))
    assert filled[:, 4:26, 4:26].all() and not filled[:, :3].any()


@pytest.mark.parametrize("zeros", [0.2, 0.5, 0.8])
def test_noisy_air_with_exact_zeros_is_no_body(zeros):
    """Magnitudes are rounded, and scanners blank a part of the air: then as many are zero as of a stripped brain."""
    body, air = _ball_in_noise(3.0)
    air[torch.rand(air.shape, generator=torch.Generator().manual_seed(1)) < zeros] = 0.0
    mask = body_mask(Image(torch.where(body, 300.0, air)[None], Grid.from_parts((40, 40, 40))))
    assert (mask == body).float().mean() > 0.99


def test_air_within_the_bore_of_a_scanner_is_no_body():
    """Scanners write one value outside the circle that they see."""
    body, air = _ball_in_noise(20.0)
    ct = torch.where(body, 40.0, air - 1000.0)
    y, x = torch.meshgrid(torch.arange(40), torch.arange(40), indexing="ij")
    ct[:, (x - 19.5) ** 2 + (y - 19.5) ** 2 > 400] = -2048.0
    mask = body_mask(Image(ct[None], Grid.from_parts((40, 40, 40))))
    assert (mask == body).float().mean() > 0.99


def _ball_in_noise(sigma: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Where a ball of radius 12 is, and the magnitude of complex noise, rounded; (40, 40, 40)."""
    z, y, x = torch.meshgrid(*[torch.arange(40.0) - 19.5] * 3, indexing="ij")
    noise = torch.randn(2, 40, 40, 40, generator=torch.Generator().manual_seed(0)) * sigma
    return z**2 + y**2 + x**2 < 144, noise.norm(dim=0).round()

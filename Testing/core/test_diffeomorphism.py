"""Whatever is put in, what comes out has no fold; where nothing was wrong nothing changes."""

import pytest
import torch
from neuralreg import diffeomorphism, metrics, sampling
from neuralreg.diffeomorphism import MARGIN, extreme_determinants, untangled, with_inverse
from neuralreg.job import RegistrationError

SHAPE = (20, 22, 24)


def rough(seed, amplitude):
    random = torch.Generator().manual_seed(seed)
    field = sampling.resize(torch.randn(1, 3, 8, 8, 8, generator=random), SHAPE) * amplitude
    field[..., 0, :, :] = field[..., -1, :, :] = field[..., 0, :] = field[..., -1, :] = 0
    field[..., 0] = field[..., -1] = 0
    return field


def test_a_clean_field_is_returned_as_it_is():
    field = rough(0, 0.2)
    assert untangled(field) is field


def test_folds_are_gone_by_every_criterion_and_on_finer_lattices_too():
    field = rough(1, 2.0)
    assert extreme_determinants(field)[0].min() < 0
    mended = untangled(field)
    assert extreme_determinants(mended)[0].min() > MARGIN
    fine = sampling.resize_displacement(mended, tuple(2 * n - 1 for n in SHAPE))
    everywhere = torch.ones(fine.shape[2:], dtype=torch.bool)
    assert metrics.non_diffeomorphic_volume(fine, everywhere) == (0.0, 0.0)
    assert sampling.jacobian_determinant(fine).min() > 0


def test_a_cell_that_folds_between_its_corners_is_seen():
    """The tetrahedra through alternate corners of a cell, which the digital criterion looks at, too."""
    field = rough(1, 2.0)
    places, (d, h, w) = sampling.identity(SHAPE, field) + field, (n - 1 for n in SHAPE)
    corner = lambda x, y, z: places[0, :, z : z + d, y : y + h, x : x + w]  # noqa: E731
    smallest, at_corners = extreme_determinants(field)[0][0, 0], sampling.corner_determinants(field).amin(1)[0]
    for apex in (0, 1):
        ends = [corner(*(abs(apex - i) for i in end)) for end in ((1, 1, 0), (0, 1, 1), (1, 0, 1))]
        edges = torch.stack([end - corner(apex, apex, apex) for end in ends], dim=-1)
        inside = torch.linalg.det(edges.movedim(0, -2)) * (1 - 2 * apex)
        assert bool((smallest <= inside + 1e-4).all()) and bool((inside < at_corners - 0.1).any())


@pytest.mark.parametrize("voxels", [1, 3 * 22 * 24, 19 * 22 * 24])
def test_slabs_find_the_same_folds(voxels, monkeypatch):
    field = rough(3, 2.0)
    smallest, largest = extreme_determinants(field)
    cells = ((smallest <= MARGIN) | (largest >= 1 / MARGIN)).float()
    expected = torch.nn.functional.max_pool3d(torch.nn.functional.pad(cells, [1] * 6), 2, 1) > 0
    expected |= sampling.jacobian_determinant(field)[:, None] <= MARGIN
    monkeypatch.setattr(sampling, "SLAB_VOXELS", voxels)
    assert 0 < expected.sum() < expected.numel()
    assert torch.equal(diffeomorphism._bad_voxels(field), expected)


def test_a_single_fold_is_mended_locally():
    field = torch.zeros(1, 3, *SHAPE)
    field[0, 0, 10, 11, 12] = 1.6
    mended = untangled(field)
    assert not torch.equal(mended, field)
    far = mended.clone()
    far[..., 4:17, 5:18, 6:19] = 0
    assert not far.any()


def test_the_border_stays_at_zero_next_to_a_fold():
    field = torch.zeros(1, 3, *SHAPE)
    field[0, 0, 2, 11, 12] = 1.6
    mended = untangled(field)
    assert not torch.equal(mended, field) and not mended[..., 0, :, :].any()


def test_a_field_that_is_not_finite_is_refused():
    with pytest.raises(RegistrationError, match="diverged"):
        untangled(torch.full((1, 3, *SHAPE), float("nan")))


def test_every_voxel_comes_back_after_a_rough_field():
    velocity = rough(2, 0.6)
    forward, guess = sampling.integrate(velocity, 7), sampling.integrate(-velocity, 7)
    fine = tuple(2 * n - 1 for n in SHAPE)
    forward, inverse = with_inverse(forward, guess, fine)
    back = sampling.compose(inverse, sampling.resize_displacement(forward, fine)).norm(dim=1)
    assert back.mean() < 0.05 and back.max() < 1.0


@pytest.mark.parametrize("allowed", [0.7, 0.6])
def test_where_voxels_come_back_too_far_away_the_map_is_smoothed(allowed, monkeypatch):
    monkeypatch.setattr(diffeomorphism, "RETURN_VOXELS", allowed)
    velocity, fine = rough(2, 1.0), tuple(2 * n - 1 for n in SHAPE)
    given = sampling.integrate(velocity, 7)
    forward, inverse = with_inverse(given, sampling.integrate(-velocity, 7), fine)
    back = sampling.compose(inverse, sampling.resize_displacement(forward, fine)).norm(dim=1)
    assert back.max() <= allowed
    assert (forward - untangled(given)).norm(dim=1).mean() < 0.05, "smoothed where it must be, not everywhere"


def test_the_inverse_is_nearer_between_the_voxels_than_one_that_is_exact_at_them():
    forward = sampling.integrate(rough(4, 0.5), 7)
    forward, inverse = with_inverse(forward, sampling.integrate(-rough(4, 0.5), 7), SHAPE)
    exact = sampling.invert(forward, inverse, 50, tolerance=1e-5)
    random = torch.Generator().manual_seed(0)
    places = 4 + torch.rand(1, 3, 40, 50, 1, generator=random) * (torch.tensor(SHAPE[::-1]) - 9).view(1, 3, 1, 1, 1)

    def after(outer, inner):  # mean distance from where a place started, both maps applied
        there = places + sampling.sample(inner, places)
        return float((there + sampling.sample(outer, there) - places).norm(dim=1).mean())

    assert after(inverse, forward) < 0.9 * after(exact, forward)
    assert after(forward, inverse) < 0.9 * after(forward, exact)


def test_a_fold_is_mended_by_its_surroundings_as_by_the_whole_lattice(monkeypatch):
    """In the middle and at the border, where a large shift takes many rounds to be spread out."""
    field = torch.zeros(1, 3, 60, 44, 40)
    field[0, :, 5:25, 20:26, 20:26] = torch.randn(3, 20, 6, 6, generator=torch.Generator().manual_seed(0))
    field[0, 1, 8:20, 1:9, 8:30] = -6.0
    sizes = []

    def box_around(*arguments):
        sizes.append(torch.zeros(field.shape)[around(*arguments)].numel())
        return around(*arguments)

    around = diffeomorphism._box_around
    monkeypatch.setattr(diffeomorphism, "_box_around", box_around)
    mended = untangled(field)
    monkeypatch.setattr(diffeomorphism, "_box_around", lambda bad, margin: (slice(None),) * 2 + whole)
    whole = tuple(slice(0, n) for n in field.shape[2:])
    expected = untangled(field)
    assert not torch.equal(mended, field) and len(sizes) > 15 and min(sizes) < field.numel() / 2
    torch.testing.assert_close(mended, expected, atol=1e-5, rtol=0)

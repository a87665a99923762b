"""Every loss against a plain float64 reference, its gradient against finite differences."""

import itertools
import math

import numpy as np
import pytest
import torch
from neuralreg import losses, sampling
from neuralreg.losses import local_correlation, similarities
from scipy.ndimage import uniform_filter

SHAPE = (9, 10, 11)


@pytest.fixture
def images():
    random = torch.Generator().manual_seed(0)
    fixed, warped = (torch.rand(1, 1, *SHAPE, generator=random, dtype=torch.float64) for _ in range(2))
    weight = (torch.rand(1, 1, *SHAPE, generator=random) > 0.3).double()
    return fixed, 0.6 * warped + 0.4 * fixed, weight


def finite_difference(loss, warped, voxel, step=1e-5):
    values = []
    for sign in (1, -1):
        moved = warped.clone()
        moved[(0, 0, *voxel)] += sign * step
        values.append(float(loss(moved)))
    return (values[0] - values[1]) / (2 * step)


@pytest.mark.parametrize("name", list(losses.SIMILARITIES))
@pytest.mark.parametrize("weighted", [False, True])
def test_gradients_equal_finite_differences(images, name, weighted):
    fixed, warped, weight = images
    loss = lambda w: losses.SIMILARITIES[name](fixed, w, weight if weighted else None)  # noqa: E731
    warped = warped.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(loss(warped), warped)
    scale = float(gradient.abs().max())
    for voxel in [(4, 5, 5), (0, 0, 0), (8, 9, 10), (2, 7, 1)]:
        assert float(gradient[(0, 0, *voxel)]) == pytest.approx(
            finite_difference(loss, warped.detach(), voxel), rel=1e-4, abs=1e-5 * scale
        )


@pytest.mark.parametrize(("window", "stride"), [(5, 1), (9, 1), (3, 2), (2, 2), (4, 1), (3, 3)])
@pytest.mark.parametrize("masked", [False, True])
def test_analytic_lncc_gradient_equals_autograd(images, window, stride, masked):
    fixed, warped, weight = images
    seen = torch.linspace(0, 1, weight.numel(), dtype=torch.float64).view_as(weight) * weight if masked else None
    warped = warped.clone().requires_grad_(True)
    value = losses.lncc(fixed, warped, weight, window, stride, seen)
    plain = plain_lncc(fixed, warped, weight, window, stride, seen)
    assert float(value) == pytest.approx(float(plain), rel=1e-9)
    (got,), (expected,) = torch.autograd.grad(value, warped), torch.autograd.grad(plain, warped)
    assert torch.allclose(got, expected, rtol=1e-7, atol=1e-12)


def plain_lncc(fixed, warped, weight, window, stride, seen=None):
    """The same formula from pooling and autograd alone."""
    before = window // 2
    pad = [before, window - 1 - before] * 3

    def mean(x, share=1.0):
        x = torch.nn.functional.avg_pool3d(x, stride, stride, ceil_mode=True, count_include_pad=False)
        return torch.nn.functional.avg_pool3d(torch.nn.functional.pad(x, pad), window, 1) / share

    if seen is not None:
        present, whole = mean(seen).clamp_min(local_correlation.LEAST_SHARE), mean
        mean = lambda x: whole(x * seen, present)  # noqa: E731
    fixed, warped = fixed - fixed.mean(), warped - fixed.mean()
    f, w = mean(fixed), mean(warped)
    a = mean(fixed**2) - f**2 + local_correlation.VARIANCE_FLOOR
    b = mean(warped**2) - w**2 + local_correlation.VARIANCE_FLOOR
    share = torch.nn.functional.avg_pool3d(weight, stride, stride, ceil_mode=True, count_include_pad=False)
    share = share if seen is None else share * present
    return -((mean(fixed * warped) - f * w) ** 2 / (a * b) * share / share.sum()).sum()


@pytest.mark.parametrize("stride", [1, 2])
def test_lncc_does_not_look_behind_the_mask(images, stride):
    """What an image holds where nothing counts changes neither the value nor the gradient."""
    fixed, warped, seen = images
    seen[..., :5] = 0

    def value_and_gradient(behind):
        changed = torch.where(seen > 0, warped, behind).requires_grad_(True)
        value = losses.lncc(torch.where(seen > 0, fixed, -behind), changed, seen, 5, stride, seen)
        return value.detach(), torch.autograd.grad(value, changed)[0]

    (value, gradient), (other, of_other) = (value_and_gradient(torch.tensor(b).double()) for b in (0.0, 0.9))
    assert float(value) == pytest.approx(float(other), rel=1e-6)  # the floor of the variance is not scaled
    assert torch.allclose(gradient, of_other, rtol=1e-5, atol=1e-9)
    assert float(gradient[..., :5].abs().max()) == 0


def test_lncc_equals_scipy_windows_inside(images):
    fixed, warped, _ = images
    inner = torch.zeros(1, 1, *SHAPE, dtype=torch.float64)
    inner[..., 2:-2, 2:-2, 2:-2] = 1
    f, w = fixed[0, 0].numpy(), warped[0, 0].numpy()
    mean = lambda x: uniform_filter(x, 5)  # noqa: E731
    cov = mean(f * w) - mean(f) * mean(w)
    var = [mean(x * x) - mean(x) ** 2 + local_correlation.VARIANCE_FLOOR for x in (f, w)]
    expected = -(cov**2 / (var[0] * var[1]))[2:-2, 2:-2, 2:-2].mean()
    assert float(losses.lncc(fixed, warped, inner, window=5)) == pytest.approx(expected, rel=1e-6)


def test_lncc_does_not_see_local_brightness_or_contrast(images):
    fixed, _, _ = images
    ramp = torch.linspace(0.9, 1.1, SHAPE[2], dtype=torch.float64)
    assert losses.lncc(fixed, fixed * ramp, window=3) < -0.97
    assert losses.lncc(fixed, 1 - fixed, window=3) < -0.99


@pytest.mark.parametrize("name", list(losses.SIMILARITIES))
@pytest.mark.parametrize("value", ["zeros", "flat", "huge"])
def test_no_nan_from_flat_or_huge_images(name, value):
    fixed = torch.full((1, 1, 8, 8, 8), {"zeros": 0.0, "flat": 1.0, "huge": 1e6}[value])
    warped = fixed.clone().requires_grad_(True)
    loss = losses.SIMILARITIES[name](fixed, warped)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(warped.grad).all()


@pytest.mark.parametrize("name", list(losses.SIMILARITIES))
def test_alignment_scores_better_than_a_shift(name):
    random = torch.Generator().manual_seed(1)
    image = losses.box_mean(torch.rand(1, 1, 20, 20, 20, generator=random), 3)
    image = (image - image.min()) / (image.max() - image.min())
    loss = losses.SIMILARITIES[name]
    assert loss(image, image) < loss(image, image.roll(2, -1)) - 0.01 * abs(float(loss(image, image)))


def test_global_correlation_and_mse_equal_numpy(images):
    fixed, warped, _ = images
    f, w = fixed.numpy().ravel(), warped.numpy().ravel()
    assert float(losses.ncc(fixed, warped)) == pytest.approx(-(np.corrcoef(f, w)[0, 1] ** 2), rel=1e-6)
    assert float(losses.mse(fixed, warped)) == pytest.approx(((f - w) ** 2).mean())


def test_mutual_information_knows_its_extremes():
    random = torch.Generator().manual_seed(2)
    image = torch.rand(1, 1, 24, 24, 24, generator=random, dtype=torch.float64)
    other = torch.rand(1, 1, 24, 24, 24, generator=random, dtype=torch.float64)
    assert -0.06 < float(losses.mi(image, other)) < 0  # independent: nearly nothing in common
    inverted = float(losses.mi(image, 1 - image))
    assert inverted == pytest.approx(float(losses.mi(image, image)), rel=0.05)  # the sign does not matter
    assert inverted < -1.5
    assert -2.0 < float(losses.mi(image, image, normalised=True)) < -1.3


def test_joint_histogram_is_a_probability_with_the_right_means():
    random = torch.Generator().manual_seed(3)
    fixed, warped = torch.rand(2, 5000, generator=random, dtype=torch.float64)
    joint = similarities._joint_histogram(fixed, warped, torch.ones(5000, dtype=torch.float64), 32)
    assert float(joint.sum()) == pytest.approx(1)
    bins = torch.arange(32, dtype=torch.float64)
    assert float((joint.sum(1) * bins).sum()) == pytest.approx(float(fixed.mean() * 31))
    assert float((joint.sum(0) * bins).sum()) == pytest.approx(float(warped.mean() * 28 + 1.5))


@pytest.mark.parametrize("normalised", [False, True])
def test_mutual_information_has_the_slope_by_every_input_and_does_not_depend_on_its_pieces(monkeypatch, normalised):
    random = torch.Generator().manual_seed(5)
    values = torch.rand(3, 1, 1, 4, 5, 6, generator=random, dtype=torch.float64) * 1.2 - 0.1  # some are clamped
    inputs = [values[0], values[1], values[2].abs()]
    measure = lambda *images: losses.mi(*images, bins=8, normalised=normalised)  # noqa: E731
    whole = measure(*inputs)
    monkeypatch.setattr(similarities, "_piece", lambda values: 7)
    assert float(measure(*inputs)) == pytest.approx(float(whole), rel=1e-12)
    assert torch.autograd.gradcheck(measure, [image.requires_grad_(True) for image in inputs])


def test_mind_compares_the_twelve_pairs_of_neighbours_at_root_two():
    assert len(similarities._MIND_PAIRS) == 12
    assert {math.dist(a, b) for a, b in similarities._MIND_PAIRS} == {math.sqrt(2)}


def test_mind_does_not_see_inverted_contrast():
    random = torch.Generator().manual_seed(4)
    image = torch.rand(1, 1, 16, 16, 16, generator=random)
    assert float(losses.mind(image, 1 - image)) < 1e-9
    assert float(losses.mind(image, image.roll(1, -1))) > 1e-2


def test_smoothness_and_bending_of_known_fields():
    x = torch.arange(10.0).expand(8, 9, 10)
    linear = torch.zeros(1, 3, 8, 9, 10)
    linear[0, 1] = 0.5 * x  # ∂u_y/∂x = 0.5
    assert float(losses.smoothness(linear)) == pytest.approx(0.25 / 3)
    assert float(losses.bending(linear)) == pytest.approx(0)
    spacing = torch.tensor([2.0, 1.0, 1.0])  # in mm: u_y is half as steep along x
    assert float(losses.smoothness(linear, spacing)) == pytest.approx(0.0625 / 3)
    bowl = torch.zeros(1, 3, 8, 9, 10)
    bowl[0, 0] = 0.25 * x.square()  # ∂²u_x/∂x² = 0.5
    assert float(losses.bending(bowl)) == pytest.approx(0.25 / 3)
    twisted = torch.zeros(1, 3, 8, 9, 10)
    twisted[0, 2] = 0.5 * x * torch.arange(9.0).view(1, 9, 1)  # ∂²u_z/∂x∂y = 0.5, and once more as ∂²/∂y∂x
    assert float(losses.bending(twisted)) == pytest.approx(2 * 0.25 / 3)
    step = 2 ** (1 / 3)  # mm: the mean spacing
    assert float(losses.bending(bowl, spacing)) == pytest.approx((0.5 * 2 / (2 * 2) * step) ** 2 / 3)
    assert float(losses.bending(twisted, spacing)) == pytest.approx(2 * (0.5 / 2 * step) ** 2 / 3)


def roughness(displacement, spacing, order):
    """Means of squared derivatives of that order in mm, a component and axis at a time."""
    total, step = 0.0, spacing.prod() ** (1 / 3)
    for axes in itertools.product((2, 3, 4), repeat=order):
        for x in range(3):
            steps = displacement[:, x] * spacing[x] * step ** (order - 1)
            for axis in axes:
                steps = steps.diff(dim=axis - 1) / spacing[4 - axis]
            total = total + steps.square().mean() / 3
    return total


@pytest.mark.parametrize("voxels", [1, 3 * 7 * 8, 10**6])
@pytest.mark.parametrize(("penalty", "order"), [(losses.smoothness, 1), (losses.bending, 2)])
def test_roughness_is_the_same_slab_by_slab(penalty, order, voxels, monkeypatch):
    """Value and gradient are those of all voxels at once, in one slab or in many."""
    monkeypatch.setattr(sampling, "SLAB_VOXELS", voxels)
    random, spacing = torch.Generator().manual_seed(0), torch.tensor([0.7, 1.3, 3.0], dtype=torch.float64)
    displacement = torch.randn(1, 3, 11, 7, 8, generator=random, dtype=torch.float64).requires_grad_()
    found, expected = penalty(displacement, spacing), roughness(displacement, spacing, order)
    assert torch.allclose(found, expected) and bool(expected > 0)
    ours, theirs = (torch.autograd.grad(3 * value, displacement)[0] for value in (found, expected))
    assert torch.allclose(ours, theirs)
    flat = displacement[:, :, :2, :1].detach()  # too few voxels for differences across them
    assert bool(torch.isfinite(penalty(flat, spacing)))


def test_volume_change_is_blind_to_direction_and_pulls_folds_back():
    half, double = losses.volume_change(torch.tensor([0.5])), losses.volume_change(torch.tensor([2.0]))
    assert float(half) == pytest.approx(float(double)) == pytest.approx(np.log(2) ** 2)
    assert float(losses.volume_change(torch.ones(5))) == 0.0
    folded = torch.tensor([-1.0, 0.04999, 0.05001], requires_grad=True)
    losses.volume_change(folded).backward()
    assert (folded.grad < 0).all()  # descending makes all of them larger
    assert float(folded.grad[1]) == pytest.approx(float(folded.grad[2]), rel=1e-2)  # no kink
    determinant = torch.tensor([-0.3, 0.02, 0.4, 1.0, 7.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(losses.volume_change, determinant)


@pytest.mark.parametrize("voxels", [1, 3 * 7 * 8, 10**6])
@pytest.mark.parametrize("penalty", [losses.volume_change, lambda determinant: losses.folding(determinant, margin=0.9)])
def test_mean_over_cells_is_the_mean_over_one_corner_of_all_of_them(penalty, voxels, monkeypatch):
    """Value and gradient are those of all cells at once, in one slab or in many."""
    monkeypatch.setattr(sampling, "SLAB_VOXELS", voxels)
    random = torch.Generator().manual_seed(0)
    displacement = 0.2 * torch.randn(1, 3, 11, 7, 8, generator=random, dtype=torch.float64)
    displacement.requires_grad_()
    for corner in (0, 3, 6):
        found = losses.mean_over_cells(displacement, penalty, corner)
        expected = penalty(sampling.corner_determinants(displacement)[:, corner])
        assert torch.allclose(found, expected) and bool(expected > 0)
        ours, theirs = (torch.autograd.grad(3 * value, displacement)[0] for value in (found, expected))
        assert torch.allclose(ours, theirs)


def test_a_wave_of_two_voxels_costs_something():
    """Central differences do not see it, and it folds every other cell."""
    wave = torch.zeros(1, 3, 9, 9, 9)
    wave[:, 0, ..., ::2] = 1.2
    assert float(losses.volume_change(sampling.jacobian_determinant(wave)[..., 1:-1])) == 0.0
    assert all(float(losses.mean_over_cells(wave, losses.volume_change, corner)) > 0.3 for corner in range(8))


def test_folding_counts_what_is_below_the_margin_only():
    assert float(losses.folding(torch.tensor([2.0, 0.5, -1.0, -3.0]))) == pytest.approx(1.0)


def test_dice_of_half_overlap():
    fixed, warped = torch.zeros(1, 2, 4, 4, 4), torch.zeros(1, 2, 4, 4, 4)
    fixed[0, 0, :2], warped[0, 0, 1:3] = 1, 1
    assert float(losses.dice(fixed, warped)) == pytest.approx(0.5)

"""Laws of the tensor layer: identity, composition, integration, inversion, determinants."""

import numpy as np
import pytest
import torch
from neuralreg import sampling
from scipy.ndimage import map_coordinates

SHAPE = (13, 16, 19)


def smooth(seed, amplitude, shape=SHAPE, dtype=torch.float32):
    """A smooth random displacement (1, 3, D, H, W) in voxels that falls to zero at the border."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, 3, 4, 4, 4, generator=random, dtype=dtype)
    field = sampling.resize(coarse, shape)
    window = 1.0
    for dim, n in enumerate(shape):
        ramp = torch.sin(torch.linspace(0, torch.pi, n, dtype=dtype))
        window = window * ramp.view([-1 if d == dim else 1 for d in range(3)])
    return amplitude * field * window


def test_zero_displacement_returns_the_image_itself():
    image = torch.rand(2, 3, *SHAPE)
    assert torch.allclose(sampling.warp(image, torch.zeros(2, 3, *SHAPE)), image, atol=1e-5)


@pytest.mark.parametrize(("outside", "mode"), [("zeros", "grid-constant"), ("border", "nearest")])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_warp_equals_scipy_with_channels_in_xyz_order(threads, outside, mode):
    """Also beyond the last voxels, which are those that do not divide among the threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        image, displacement = torch.rand(1, 1, *SHAPE), smooth(0, 2.5) + 1.5
        got = sampling.warp(image, displacement, outside=outside)[0, 0].numpy()
    finally:
        torch.set_num_threads(before)
    zyx = np.indices(SHAPE) + displacement[0].flip(0).numpy()
    expected = map_coordinates(image[0, 0].numpy(), zyx, order=1, mode=mode)
    assert np.abs(got - expected).max() < 1e-5


def test_a_shift_along_x_reads_the_next_voxel_of_the_last_axis():
    image = torch.arange(19.0).expand(1, 1, *SHAPE)
    shift = torch.zeros(1, 3, *SHAPE)
    shift[:, 0] = 1.0
    assert torch.allclose(sampling.warp(image, shift)[..., :-1], image[..., 1:], atol=1e-5)


def test_compose_applies_the_inner_displacement_first():
    outer, inner = smooth(1, 2.0), smooth(2, 2.0)
    points = sampling.identity(SHAPE, outer)
    moved = points + inner
    expected = moved + sampling.sample(outer, moved, outside="border")
    assert torch.allclose(points + sampling.compose(outer, inner), expected, atol=1e-5)


def test_exp_of_a_velocity_and_of_its_negative_are_inverse():
    velocity = smooth(3, 1.5, (25, 27, 29))
    there, back = sampling.integrate(velocity, 7), sampling.integrate(-velocity, 7)
    assert sampling.compose(there, back).norm(dim=1).mean() < 0.01


def test_exp_has_the_flow_property():
    velocity = smooth(4, 1.0, (25, 27, 29))
    once = sampling.integrate(velocity, 7)
    assert (sampling.compose(once, once) - sampling.integrate(2 * velocity, 8)).abs().max() < 1e-5


def test_invert_is_exact_where_exp_is_not_enough():
    velocity = smooth(5, 3.0, (25, 27, 29))
    forward, guess = sampling.integrate(velocity, 7), sampling.integrate(-velocity, 7)
    inverse = sampling.invert(forward, guess)
    residual, before = sampling.compose(forward, inverse).norm(dim=1), sampling.compose(forward, guess).norm(dim=1)
    assert residual.max() < 2e-3 < before.max()


def test_resize_displacement_keeps_the_physical_map():
    coarse = smooth(6, 1.0, (7, 8, 9))
    fine = sampling.resize_displacement(coarse, (13, 15, 17))
    assert torch.allclose(fine[..., ::2, ::2, ::2], 2 * coarse, atol=1e-5)


def linear_field(matrix, shape=SHAPE):
    points = sampling.identity(shape, torch.zeros((), dtype=torch.float64))
    return torch.einsum("ab,nbzyx->nazyx", torch.as_tensor(matrix, dtype=torch.float64) - torch.eye(3), points)


def test_jacobians_of_a_linear_map_are_its_determinant_everywhere():
    matrix = np.array([[1.1, 0.2, 0.0], [-0.1, 0.9, 0.3], [0.05, 0.0, 1.2]])
    field, expected = linear_field(matrix), np.linalg.det(matrix)
    assert np.allclose(sampling.jacobian_determinant(field), expected)
    assert np.allclose(sampling.corner_determinants(field), expected)


def test_corner_determinants_see_a_fold_that_central_differences_miss():
    fold = torch.zeros(1, 3, *SHAPE)
    fold[0, 0, 6, 8, 9] = 1.5  # one voxel jumps over its neighbour
    assert sampling.jacobian_determinant(fold)[0, 6, 8, 9] > 0
    assert sampling.corner_determinants(fold).min() < 0


def test_invert_ends_at_the_root_where_the_map_is_rough():
    """A strongly squeezing map without folds: x ↦ x + a sin(kx) with a k = 0.9, so slopes from 0.1 to 1.9."""
    shape, k = (6, 8, 96), 2 * np.pi / 24
    x = sampling.identity(shape, torch.empty(0))
    displacement = torch.zeros(1, 3, *shape)
    displacement[:, 0] = (0.9 / k * torch.sin(k * x[:, 0])) * (x[:, 0] > 0)
    inverse = sampling.invert(displacement, torch.zeros_like(displacement), iterations=1)
    returned = inverse + sampling.warp(displacement, inverse, outside="border")
    assert float(returned.norm(dim=1)[..., 4:-4].max()) < 0.06
    assert float(displacement.abs().max()) > 3


def test_invert_on_a_finer_lattice_than_the_field():
    forward = sampling.integrate(smooth(7, 1.5, (13, 14, 15)), 7)
    fine = (25, 27, 29)
    inverse = sampling.invert(forward, -sampling.resize_displacement(forward, fine))
    residual = sampling.compose(sampling.resize_displacement(forward, fine), inverse)
    assert residual[..., 2:-2, 2:-2, 2:-2].norm(dim=1).max() < 2e-3

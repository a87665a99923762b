"""Coarse and fine lattices: SciPy and the B-spline's own laws are the judges."""

import numpy as np
import pytest
import torch
from neuralreg.pyramid import border_window, spline
from scipy.ndimage import map_coordinates

SHAPES = [((5, 6, 4), (9, 11, 10)), ((4, 4, 4), (4, 4, 4)), ((7, 5, 9), (10, 5, 13)), ((2, 3, 2), (6, 7, 5))]


@pytest.mark.parametrize(("coarse", "fine"), SHAPES)
def test_spline_is_that_of_scipy_in_voxels_of_the_fine_lattice(coarse, fine):
    coefficients = torch.randn(1, 3, *coarse, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    axes = [np.linspace(0, m - 1, n) for m, n in zip(coarse, fine, strict=True)]
    places = np.stack(np.meshgrid(*axes, indexing="ij"))
    values = spline(coefficients, fine)[0].numpy()
    for channel, axis in enumerate((2, 1, 0)):  # x lies along the last axis
        expected = map_coordinates(coefficients[0, channel].numpy(), places, order=3, prefilter=False, mode="nearest")
        np.testing.assert_allclose(values[channel], expected * (fine[axis] - 1) / (coarse[axis] - 1), atol=1e-12)


def test_spline_keeps_what_is_constant_and_inside_what_is_linear():
    coarse, fine = (8, 9, 7), (15, 17, 13)  # steps of half a coefficient
    constant = torch.ones(1, 3, *coarse)
    torch.testing.assert_close(spline(constant, fine), torch.full((1, 3, *fine), 2.0))
    linear = torch.arange(7.0).expand(1, 3, *coarse)
    inside = spline(linear, fine)[..., 2:-2]
    torch.testing.assert_close(inside, torch.arange(2.0, 11.0).expand_as(inside))


def test_gradient_of_the_spline_is_its_adjoint():
    coefficients = torch.randn(1, 3, 4, 5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda values: spline(values, (6, 7, 5)), coefficients)


def test_velocities_fall_to_zero_at_the_border():
    window = border_window((6, 8, 7), torch.zeros(()))[0, 0]
    assert float(window[0].max()) == float(window[:, -1].max()) == float(window[..., 0].max()) == 0.0
    assert float(window[3, 4, 3]) == 1.0
    line = border_window((9, 9, 9), torch.zeros(()), 3, smooth=False)[0, 0, 4, 4]
    torch.testing.assert_close(line, torch.tensor([0, 1 / 3, 2 / 3, 1, 1, 1, 2 / 3, 1 / 3, 0]))

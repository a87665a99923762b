"""The phantom is an oracle for other tests, so its own truth is tested first."""

import numpy as np
import pytest
import torch
from neuralreg.image import Grid, resample
from neuralreg.phantom import brain_scale, demo_phantom, make_phantom, rotation, smooth_deformation
from neuralreg.transform import Affine, jacobian_determinant

OBLIQUE = Grid.from_parts((28, 34, 26), (-40, 12, 300), (5.0, 4.5, 5.5), rotation([1, 2, -0.5], 25))
PLAIN = Grid.from_parts((30, 36, 28), (-70, -85, -62), (4.8, 4.8, 4.6))


@pytest.mark.parametrize("grid", [PLAIN, OBLIQUE], ids=["plain", "oblique"])
def test_moving_seen_through_the_true_transform_is_the_fixed_image(grid):
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation([0, 1, 1], 6), (4.0, -3.0, 2.0)
    phantom = make_phantom(grid, amplitude_mm=6 * brain_scale(grid), pose=Affine(pose), noise=0.0)
    warped = resample(phantom.moving, phantom.moving_from_fixed, grid).data
    before = (phantom.moving.data - phantom.fixed.data).abs().mean()
    after = (warped - phantom.fixed.data).abs().mean()
    assert after < 0.55 * before  # what remains is the blur of one interpolation on a coarse lattice
    labels = resample(phantom.moving_labels, phantom.moving_from_fixed, grid, "nearest").data
    assert (labels == phantom.fixed_labels.data).float().mean() > 0.85


def test_gradient_agrees_with_differences_of_the_transform():
    deformation = smooth_deformation((3.0, 4.0, 5.0), 1.0, 9.0)
    points = torch.randn(3, 50, dtype=torch.float64) * 30
    step, gradient = 1e-4, deformation.jacobian_matrix(points)
    for axis in range(3):
        shift = torch.zeros(3, 1, dtype=torch.float64)
        shift[axis] = step
        difference = (deformation(points + shift) - deformation(points - shift)) / (2 * step)
        assert torch.allclose(gradient[:, axis], difference, atol=1e-6)


def test_inverse_undoes_the_deformation():
    deformation = smooth_deformation((0.0, 0.0, 0.0), 0.8, 8.0, seed=3)
    points = torch.randn(3, 200, dtype=torch.float64) * 40
    assert torch.allclose(deformation(deformation.inverse()(points)), points, atol=1e-9)
    assert deformation.inverse().inverse() is deformation


def test_jacobian_on_an_oblique_lattice_is_the_analytic_one():
    grid = OBLIQUE
    deformation = smooth_deformation(grid.center, 1.0, 8.0)
    analytic = torch.linalg.det(deformation.jacobian_matrix(grid.points()).movedim((0, 1), (3, 4)))
    measured = jacobian_determinant(deformation, grid).data[0].double()
    assert (measured - analytic)[1:-1, 1:-1, 1:-1].abs().max() < 0.06  # central differences over 9–11 mm
    assert analytic.min() > 0.3 and analytic.max() > 1.15


def test_a_folding_amplitude_is_refused():
    with pytest.raises(ValueError, match="folds"):
        smooth_deformation((0, 0, 0), 1.0, 60.0)


def test_the_brain_fits_and_the_field_is_small_at_the_border():
    phantom = make_phantom(OBLIQUE)
    labels = phantom.fixed_labels.data[0]
    for dim in range(3):
        assert labels.select(dim, 0).max() == 0 and labels.select(dim, -1).max() == 0
    fixed, moving = phantom.landmarks(30)
    assert fixed.shape == moving.shape == (3, 30)
    assert 0.5 < (fixed - moving).norm(dim=0).mean() < 10
    assert set(labels.unique().tolist()) >= {0, 1, 2, 3, 4, 5, 7, 8}


def test_the_demo_pair_differs_in_lattice_pose_and_shape_and_is_reproducible():
    phantom, again = demo_phantom(4.0), demo_phantom(4.0)
    assert torch.equal(phantom.moving.data, again.moving.data)
    assert not phantom.fixed.grid.same_as(phantom.moving.grid)
    fixed, moving = phantom.landmarks(20)
    assert (fixed - moving).norm(dim=0).mean() > 8

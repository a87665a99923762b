"""The method Linear: what the affine stage found is the whole result, in the files, the images and the figures."""

import numpy as np
import pytest
import SimpleITK as sitk
from geometry import affine, tilted_grid
from neuralreg import io, pipeline
from neuralreg.job import RegistrationError, RegistrationJob
from neuralreg.phantom import make_phantom, rotation
from neuralreg.run import run
from neuralreg.transform import Affine

GRID = tilted_grid((44, 48, 36), (4.0, 4.2, 4.6))


def turned() -> Affine:
    """12 degrees and 10 mm about the middle of the head."""
    matrix = np.eye(4)
    matrix[:3, :3] = rotation([0.3, -1.0, 0.5], 12.0)
    matrix[:3, 3] = GRID.center - matrix[:3, :3] @ GRID.center + [6.0, -8.0, 2.0]
    return Affine(matrix)


@pytest.fixture(scope="module")
def phantom():
    """The same head twice, turned and in another contrast; nothing is bent."""
    moving_grid = tilted_grid((52, 50, 44), (3.8, 4.0, 4.4))
    return make_phantom(GRID, moving_grid, amplitude_mm=0.0, pose=turned(), contrasts=("T1", "T2"))


@pytest.fixture(scope="module")
def result(phantom):
    return pipeline.register(phantom.fixed, phantom.moving, "Linear", affine="rigid", threads=1)


def test_finds_how_a_head_was_turned_whatever_the_contrast(phantom, result):
    fixed, moving = phantom.landmarks(80)
    before, after = ((end(fixed) - moving).norm(dim=0).mean() for end in (lambda p: p, result.transform))
    assert before > 10.0 and after < 1.0  # mm, on voxels of more than 4


def test_rigid_means_that_distances_stay(result):
    turn = result.transform.matrix[:3, :3]
    assert np.allclose(turn @ turn.T, np.eye(3), atol=1e-9) and np.linalg.det(turn) == pytest.approx(1.0)
    assert result.jacobian.data.sub(1.0).abs().max() < 1e-4
    assert result.metrics["folds_in_view"] == 0 and result.metrics["inverse_consistency_max_mm"] < 1e-6


def test_says_nothing_of_a_similarity_that_was_not_used(result):
    assert result.similarity == "" and result.loss == [] and result.warnings == []


def test_the_files_hold_one_affine_transform_that_itk_applies_alike(phantom, tmp_path):
    paths = [tmp_path / "fixed.nii.gz", tmp_path / "moving.nii.gz"]
    for path, image in zip(paths, (phantom.fixed, phantom.moving), strict=True):
        io.write_image(image, path)
    run(RegistrationJob(*map(str, paths), str(tmp_path / "out"), method="Linear", affine="rigid", threads=1))
    transform, inverse = (sitk.ReadTransform(str(tmp_path / "out" / f"{name}.h5")) for name in ("transform", "inverse"))
    assert transform.GetTransformEnum() == inverse.GetTransformEnum() == sitk.sitkAffine
    fixed, moving = map(sitk.ReadImage, map(str, paths))
    by_itk = sitk.Resample(moving, fixed, transform, sitk.sitkLinear, float(phantom.moving.data.min()))
    ours = sitk.ReadImage(str(tmp_path / "out" / "warped.nii.gz"))
    one, other = (sitk.GetArrayFromImage(image)[4:-4, 4:-4, 4:-4] for image in (by_itk, ours))
    assert (
        np.abs(one - other).max()
        < 1e-3 * np.ptp(one)
        < np.abs(one - sitk.GetArrayFromImage(fixed)[4:-4, 4:-4, 4:-4]).max()
    )
    assert np.allclose(
        transform.GetInverse().TransformPoint((9.0, -20.0, 40.0)), inverse.TransformPoint((9.0, -20.0, 40.0))
    )


def test_without_a_linear_stage_the_initial_transform_is_the_result(phantom):
    given = affine()
    found = pipeline.register(phantom.fixed, phantom.moving, "Linear", affine="none", initial_transform=given)
    assert np.array_equal(found.transform.matrix, given.matrix)


def test_landmarks_that_cannot_count_are_said_to(phantom):
    found = pipeline.register(
        phantom.fixed,
        phantom.moving,
        "Linear",
        affine="none",
        initial_transform=turned(),
        landmarks=phantom.landmarks(5),
    )
    assert any("did not count" in warning for warning in found.warnings)
    assert found.metrics["landmarks_after_mm"] < 0.1 < found.metrics["landmarks_before_mm"]


def test_options_of_other_methods_are_refused():
    with pytest.raises(RegistrationError, match="option of Linear"):
        pipeline.make_method("Linear", "balanced", {"smoothness": 1.0})

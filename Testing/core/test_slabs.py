"""What goes through a volume slab by slab: the same answer whatever the slab, and a watch that is asked in between."""

import itertools

import numpy as np
import pytest
import torch
from geometry import DIRECTIONS, grid_of, image_on, transform_on
from neuralreg import body, hdf5, image, io, metrics, sampling
from neuralreg.body import body_mask
from neuralreg.image import Grid, Image, resample
from neuralreg.io.nifti import read_header
from neuralreg.io.nifti_write import write_nifti
from neuralreg.phantom import make_phantom, rotation
from neuralreg.preprocess import make_pair
from neuralreg.transform import Affine, jacobian_determinant

GRID = grid_of("oblique, left-handed", (12, 14, 11))


def everything(watch=None) -> dict:
    """Every function that works in slabs, on one small pair."""
    transform = transform_on(GRID)
    fixed, moving = image_on(GRID), image_on(grid_of("LPS", (13, 12, 10)), 1)
    warped = resample(moving, transform, GRID, default=-1.0, watch=watch)
    jacobian = jacobian_determinant(transform, GRID, watch)
    field = transform.displacement(GRID, watch).mm
    ball = torch.rand(1, *GRID.shape, generator=torch.Generator().manual_seed(0)) > 0.4
    mask = Image(ball.float(), GRID)
    values = metrics.summary(fixed, moving, warped, jacobian, transform, transform.inverse(), mask, watch)
    inside = body_mask(Image(warped.data.clamp(min=0), GRID), watch)
    return {"warped": warped.data, "jacobian": jacobian.data, "field": field, "body": inside, **values}


def test_the_size_of_the_slabs_does_not_matter(monkeypatch):
    whole = everything()
    monkeypatch.setattr(image, "SLAB_VOXELS", 2 * GRID.shape[1] * GRID.shape[2])
    monkeypatch.setattr(sampling, "SLAB_VOXELS", 1)
    sliced = everything()
    for name, expected in whole.items():
        if isinstance(expected, torch.Tensor):
            assert torch.allclose(sliced[name].float(), expected.float(), atol=1e-5), name
        else:
            assert sliced[name] == pytest.approx(expected, rel=1e-6, abs=1e-9), name


def test_a_watch_sees_shares_that_rise_from_slab_to_slab(monkeypatch):
    monkeypatch.setattr(image, "SLAB_VOXELS", 2 * GRID.shape[1] * GRID.shape[2])
    mask = torch.ones(GRID.shape, dtype=torch.bool)
    seen = []
    metrics.regularity(transform_on(GRID), Image(torch.ones(1, *GRID.shape), GRID), mask, seen.append)
    assert seen == sorted(seen) and len(seen) == 12 and seen[0] == 0.0 and seen[-1] < 1.0
    seen.clear()
    fixed = image_on(GRID)
    metrics.agreement(fixed, fixed, fixed, mask, seen.append)
    assert seen == sorted(seen) and len(seen) == 4 * 6 and seen[-1] < 1.0


def test_a_watch_sees_shares_that_rise_while_a_transform_is_written(monkeypatch, tmp_path):
    monkeypatch.setattr(hdf5, "CHUNK", 4096)
    seen = []
    transform = transform_on(GRID)
    io.write_transform(transform @ transform, tmp_path / "t.h5", seen.append)
    assert seen == sorted(seen) and len(set(seen)) > 10 and seen[0] < 0.01 and 0.9 < seen[-1] <= 1.0


class Enough(Exception):
    pass


def test_a_watch_can_end_every_one_of_them():
    limit = itertools.count()
    everything(lambda share: next(limit))
    for calls in range(next(limit)):
        count = itertools.count()

        def watch(share, count=count, calls=calls):
            if next(count) == calls:
                raise Enough

        with pytest.raises(Enough):
            everything(watch)


def test_the_body_is_what_two_axes_enclose(monkeypatch):
    monkeypatch.setattr(image, "SLAB_VOXELS", 3 * 9 * 8)
    mask = torch.rand(10, 9, 8, generator=torch.Generator().manual_seed(1)) > 0.85
    expected = mask.clone()
    for index in itertools.product(*(range(n) for n in mask.shape)):
        votes = 0
        for axis in range(3):
            line = mask[tuple(slice(None) if a == axis else i for a, i in enumerate(index))]
            votes += bool(line[: index[axis] + 1].any()) and bool(line[index[axis] :].any())
        expected[index] |= votes >= 2
    assert torch.equal(body._enclosed(mask), expected)


def test_thresholds_of_a_large_volume_come_from_a_sample(monkeypatch):
    chest = make_phantom(GRID, noise=0.0).fixed
    noisy = Image(chest.data + 3.0 * torch.randn(chest.data.shape, generator=torch.Generator().manual_seed(2)), GRID)
    whole = body_mask(noisy)
    monkeypatch.setattr(body, "SAMPLE_VOXELS", noisy.data.numel() // 3)
    assert (body_mask(noisy) != whole).float().mean() < 0.03


@pytest.mark.parametrize("kind", list(DIRECTIONS))
def test_the_field_of_view_ends_where_the_voxels_end(kind):
    """The weight of an image without a mask is that of a mask of ones."""
    moving = image_on(grid_of(kind, (9, 10, 8)), 1)
    moving.data.abs_()
    fixed, matrix = image_on(GRID), np.diag([1.1, 0.9, 1.0, 1.0])
    matrix[:3, 3] = moving.grid.center - matrix[:3, :3] @ GRID.center
    pose = Affine(matrix)
    ones = Image(torch.ones(1, *moving.grid.shape), moving.grid)
    without, with_mask = (make_pair(fixed, moving, pose, GRID, None, mask) for mask in (None, ones))
    assert torch.equal(without.moving_weight.data, with_mask.moving_weight.data)
    assert 0 < without.moving_weight.data.mean() < 1


@pytest.mark.parametrize("degrees", [0, 15, 90, 135, 180])
@pytest.mark.parametrize("axis", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, -2, 3)])
@pytest.mark.parametrize("hand", [1, -1])
def test_both_orientations_of_a_nifti_header_agree(tmp_path, degrees, axis, hand):
    turn = rotation(axis, degrees)
    turn[:, 1] *= hand
    grid = Grid.from_parts((4, 3, 2), (10, -20, 30), (1.0, 2.0, 3.0), turn)
    write_nifti(tmp_path / "a.nii", np.zeros(grid.shape, np.int16), grid, packed=False)
    header = read_header(tmp_path / "a.nii")
    np.testing.assert_allclose(header.sform, grid.world_from_index, atol=1e-5)
    np.testing.assert_allclose(header.qform, grid.world_from_index, atol=1e-5)
    assert (tmp_path / "a.nii").stat().st_size == header.needed


def test_equal_volumes_are_equal_files(tmp_path):
    volume = image_on(GRID)
    for name in ("a.nii.gz", "b.nii.gz"):
        io.write_image(volume, tmp_path / name)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()

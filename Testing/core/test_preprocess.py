"""Working grids, intensities and weights."""

import numpy as np
import pytest
import torch
from geometry import TURN
from neuralreg.image import Grid, Image, resample
from neuralreg.intensities import intensity_range, is_ct
from neuralreg.job import RegistrationError
from neuralreg.preprocess import (
    MARGIN_VOXELS,
    check_mask,
    make_pair,
    normalised,
    shrunk,
    working_grid,
)
from neuralreg.transform import Affine
from test_image import stored_otherwise


def head(size=(40, 44, 36), spacing=(1.0, 1.0, 1.0), direction=TURN) -> Image:
    """A bright block in an empty volume."""
    grid = Grid.from_parts(size, (-20, 30, 5), spacing, direction)
    data = torch.zeros(1, *grid.shape)
    x, y, z = size
    data[0, z // 4 : -z // 4, y // 4 : -y // 4, x // 4 : -x // 4] = 100.0
    return Image(data, grid)


def test_working_grid_is_the_fixed_lattice_around_the_body():
    image = head()
    grid = working_grid(image, 10**7)
    offset = grid.index_from_world @ image.grid.world_from_index
    assert np.allclose(offset[:3, :3].round(6), offset[:3, :3], atol=1e-6)
    assert np.allclose(offset, offset.round(), atol=1e-6)  # voxels coincide: the fixed image is not interpolated
    assert grid.size == tuple(n - 2 * (n // 4) + 2 * MARGIN_VOXELS for n in image.grid.size)


def test_working_grid_respects_the_limit_and_keeps_thick_slices():
    image = head((80, 80, 16), (1.0, 1.0, 5.0))
    grid = working_grid(image, 12_000)
    assert np.prod(grid.shape) < 20_000
    assert sorted(grid.spacing)[-1] == pytest.approx(5.0, rel=0.05) and grid.spacing.min() > 1.2


def test_few_thick_slices_too_have_room_for_the_field_to_fall_to_zero():
    assert working_grid(head((40, 44, 16), (1.0, 1.0, 15.0)), 10**7).size[2] == 8 + 2 * 2


def test_a_stray_voxel_does_not_widen_the_grid():
    image = head((100, 100, 100))
    expected = working_grid(image, 10**7)
    image.data[0, 1, 1, 1] = 100.0
    assert working_grid(image, 10**7).same_as(expected)


def test_working_grid_does_not_depend_on_the_storage():
    image = head()
    expected = working_grid(image, 10**7)
    for order, flips in [((2, 0, 1), ()), ((0, 1, 2), (0, 2)), ((1, 0, 2), (1,))]:
        assert working_grid(stored_otherwise(image, order, flips), 10**7).same_as(expected, 1e-9)


def test_a_mask_outside_the_body_widens_the_grid():
    image = head()
    mask = Image(torch.zeros_like(image.data), image.grid)
    mask.data[0, 2:5] = 1
    assert working_grid(image, 10**7, mask).shape[0] > working_grid(image, 10**7).shape[0]


def test_coarsening_leaves_no_strip_at_the_far_border_empty():
    image = Image(torch.ones(1, 9, 11, 8), Grid.from_parts((8, 11, 9), (-3, 4, 5), (1.0, 1.2, 2.0)))
    coarse = shrunk(image, np.array((3, 2, 2)))
    assert coarse.grid.size == (3, 6, 5)
    seen = resample(coarse, lambda points: points, image.grid).data
    assert torch.allclose(seen, torch.ones_like(seen))


def test_intensities_of_ct_are_air_to_bone_whatever_the_padding():
    ct = torch.full((20, 20, 20), -3024.0)
    ct[2:-2] = -900.0
    ct[5:15, 5:15, 5:15] = 40.0
    assert intensity_range(ct) == (-1000.0, 700.0) and is_ct(ct)
    assert not is_ct(ct + 3024.0)


@pytest.mark.parametrize("change", [lambda v: v - 32768.0, lambda v: (v - 500.0) * 60.0], ids=["offset", "stretched"])
def test_values_far_below_zero_are_no_ct_by_themselves(change):
    """MR stored with a sign, or a phase: read as Hounsfield units, all of it would be air, or air and bone."""
    mr = torch.rand(20, 20, 20, generator=torch.Generator().manual_seed(0)) * 1000
    stored = change(mr)
    assert not is_ct(stored)
    shown = [normalised(Image(values[None], Grid.from_parts((20, 20, 20)))).data for values in (mr, stored)]
    assert torch.allclose(*shown, atol=1e-4)


def test_outliers_do_not_set_the_scale():
    random = torch.Generator().manual_seed(0)
    image = torch.rand(24, 24, 24, generator=random) * 100
    image[0, 0, :3] = 1e6
    low, high = intensity_range(image)
    assert low < 5 and 90 < high < 110


def test_hot_spots_leave_the_body_its_greys_and_its_place_in_the_working_grid():
    """A bladder in PET is fifty times as bright as muscle."""
    plain, hot = head(), head()
    hot.data[0, 14:19, 20:25, 16:21] = 6000.0
    assert intensity_range(hot.data[0])[1] <= 4 * intensity_range(plain.data[0])[1]
    assert working_grid(hot, 10**7).same_as(working_grid(plain, 10**7))


def test_a_small_body_in_a_noisy_field_of_view_keeps_its_greys():
    """A foot, a mouse, a brain in PET: 2 % of the voxels, and the rest is noise."""
    data = 2 * torch.rand(80, 80, 80, generator=torch.Generator().manual_seed(0))
    data[30:52, 30:52, 30:52] += 100 * torch.linspace(0.5, 1, 22)
    assert intensity_range(data)[1] > 95


def test_a_wide_border_is_no_part_of_what_is_shown():
    """Splines leave values below the border's: then all of the border lies above the darkest value."""
    narrow = torch.zeros(40, 40, 40)
    narrow[8:32, 8:32, 8:32] = 100.0
    narrow[5:8], narrow[32:35] = -1.0, -1.0
    wide = torch.nn.functional.pad(narrow, [30] * 6)
    assert intensity_range(wide) == pytest.approx(intensity_range(narrow), abs=1.0)


def test_nan_becomes_background():
    image = head()
    image.data[0, 0, 0, 0] = float("nan")
    image.data[0, 0, 0, 1] = float("inf")
    data = normalised(image).data
    assert torch.isfinite(data).all() and data.min() == 0 and data.max() <= 1.2
    assert data[0, 0, 0, :2].tolist() == [0.0, 0.0]


def test_no_overlap_is_said_in_a_sentence():
    image = head()
    away = np.eye(4)
    away[0, 3] = 1000.0
    with pytest.raises(RegistrationError, match="do not overlap"):
        make_pair(image, image, Affine(away), working_grid(image, 10**7))


def test_masks_that_leave_nothing_in_common_are_blamed_and_not_the_volumes():
    image = head()
    speck = Image(torch.zeros_like(image.data), image.grid)
    speck.data[(0, *(n // 2 for n in image.grid.shape))] = 1
    with pytest.raises(RegistrationError, match="Inside the masks the volumes share 1 of the 500 voxels"):
        make_pair(image, image, Affine.identity(), working_grid(image, 10**7), speck)


def box_mask(image: Image, *sides: int) -> Image:
    """A box of so many voxels (z, y, x) in the middle of a volume."""
    mask = Image(torch.zeros_like(image.data), image.grid)
    middle = (
        slice(n // 2 - side // 2, n // 2 - side // 2 + side) for n, side in zip(image.grid.shape, sides, strict=True)
    )
    mask.data[(0, *middle)] = 1
    return mask


def test_a_mask_too_small_to_register_by_is_refused_as_one_that_may_be_inverted():
    image, said = head(), []
    with pytest.raises(RegistrationError, match="The moving mask holds 490 voxels, and at least 500"):
        check_mask(image, box_mask(image, 10, 7, 7), "moving", said)
    check_mask(image, box_mask(image, 10, 10, 5), "moving", said)  # 500 of 7920 voxels of the block
    assert not said


def test_a_mask_that_leaves_little_of_the_body_is_told():
    image, said = head((80, 80, 80)), []
    check_mask(image, box_mask(image, 18, 18, 18), "fixed", said)  # 9 % of the block
    assert not said
    check_mask(image, box_mask(image, 14, 14, 14), "fixed", said)
    assert len(said) == 1 and "holds only 4.3 % of what the fixed volume shows" in said[0] and "invert it" in said[0]


def test_weights_follow_the_masks_and_what_is_seen():
    image = head()
    grid = working_grid(image, 10**7)
    mask = Image((image.data > 0).float(), image.grid)
    pair = make_pair(image, image, Affine.identity(), grid, mask)
    assert float(pair.fixed_weight.data.sum()) == float(mask.data.sum())
    inside = Image(image.data[..., 15:], image.grid.cropped((15, 0, 0), image.grid.size))
    half = make_pair(image, inside, Affine.identity(), grid)
    assert half.moving_weight is not None and 0 < float(half.moving_weight.data.mean()) < 1


def test_beside_an_mr_a_ct_shows_soft_tissue_and_beside_a_ct_all_of_its_range():
    grid = Grid.from_parts((12, 12, 12), (0, 0, 0), (1, 1, 1))
    hu = torch.linspace(-1000, 1000, 12**3)
    ct, mr = (Image(values.view(1, 12, 12, 12), grid) for values in (hu, hu + 1000))

    def seen(fixed, moving):
        pair = make_pair(fixed, moving, Affine.identity(), grid)
        return pair.fixed.data.flatten(), pair.moving.data.flatten()

    def width(values, low, high):
        return float(values[hu <= high].max() - values[hu >= low].min())

    for as_ct, as_mr in (seen(ct, mr), seen(mr, ct)[::-1]):
        assert bool((as_ct.diff() >= 0).all()) and float(as_ct.min()) == 0 and float(as_ct.max()) <= 1.2
        assert width(as_ct, 20, 60) > 5 * 40 / 1700 > width(as_ct, -900, -860) and width(as_ct, -160, 240) > 0.5
        steps = as_mr[100:-100].diff()
        assert torch.allclose(steps, steps[0], atol=1e-5)
    overshot = torch.where(torch.arange(12**3) % 100 == 50, -200.0, hu + 1000)  # as splines leave beside edges
    assert torch.equal(seen(ct, Image(overshot.view(1, 12, 12, 12), grid))[0], seen(ct, mr)[0])
    organ = Image(ct.data.clamp(-110, 200), grid)  # a crop without air is a CT, too
    steps = seen(ct, organ)[0][100:-400].diff()
    assert torch.allclose(steps, steps[0], atol=1e-5)
    inside = (hu > -1000) & (hu < 700)
    for image in seen(ct, ct):
        assert torch.allclose(image[inside], (hu[inside] + 1000) / 1700, atol=1e-4)

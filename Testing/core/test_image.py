"""Grids and images against SimpleITK, on lattices in every orientation."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from geometry import DIRECTIONS, TURN, grid_of, image_on, points_in, transform_on
from neuralreg import io
from neuralreg.image import Grid, Image, bounding_box, canonical, resample
from neuralreg.job import RegistrationError
from neuralreg.transform import Affine


@pytest.mark.parametrize("kind", DIRECTIONS)
def test_points_are_where_itk_puts_voxels(kind):
    grid = grid_of(kind)
    volume = io.to_sitk(image_on(grid))
    points = grid.points()
    for index in [(0, 0, 0), (3, 5, 7), tuple(n - 1 for n in grid.size)]:
        x, y, z = index
        expected = volume.TransformIndexToPhysicalPoint(index)
        assert np.allclose(points[:, z, y, x].numpy(), expected, atol=1e-9)


def test_slabs_of_points_are_the_points():
    grid = grid_of("oblique, left-handed")
    assert torch.equal(grid.points(3, 6), grid.points()[:, 3:6])
    assert [r for a, b in grid.slabs() for r in range(a, b)] == list(range(grid.shape[0]))


def centred_at(point, size=(18, 16, 11), spacing=(1.1, 0.9, 1.7)) -> Grid:
    direction = DIRECTIONS["oblique, left-handed"]
    return Grid.from_parts(size, point - direction @ ((np.array(size) - 1) / 2 * spacing), spacing, direction)


@pytest.mark.parametrize("kind", DIRECTIONS)
@pytest.mark.parametrize(
    ("mode", "interpolator"), [("bilinear", sitk.sitkLinear), ("nearest", sitk.sitkNearestNeighbor)]
)
def test_resample_equals_simpleitk_voxel_by_voxel(kind, mode, interpolator, tmp_path):
    grid = grid_of(kind)
    transform = transform_on(grid)
    moving = image_on(centred_at(transform(torch.from_numpy(grid.center).view(3, 1))[:, 0].numpy()))
    got = resample(moving, transform, grid, mode, default=-7.0).data[0].numpy()
    io.write_transform(transform, tmp_path / "t.h5")
    oracle = sitk.Resample(
        io.to_sitk(moving), io.to_sitk(image_on(grid)), sitk.ReadTransform(str(tmp_path / "t.h5")), interpolator, -7.0
    )
    different = np.abs(got - sitk.GetArrayFromImage(oracle)) > 1e-3
    # A point that lies on the border of the image to the last digit may fall on either side of it.
    assert different.mean() < 2e-3 and (got != -7).mean() > 0.1


def test_halfway_between_two_voxels_the_nearest_is_that_of_itk():
    """A label map seen from a lattice that lies half a voxel beside it: every single point is halfway, and where the
    image ends."""
    values = torch.arange(6.0**3).view(1, 6, 6, 6) + 1
    labels, beside = Image(values, Grid.from_parts((6, 6, 6))), Grid.from_parts((7, 7, 7), (-0.5, -0.5, -0.5))
    got = resample(labels, lambda p: p, beside, "nearest").data[0].numpy()
    reference = io.to_sitk(Image(torch.zeros(1, 7, 7, 7), beside))
    oracle = sitk.Resample(io.to_sitk(labels), reference, sitk.Transform(), sitk.sitkNearestNeighbor)
    np.testing.assert_array_equal(got, sitk.GetArrayFromImage(oracle))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_whole_numbers_come_back_as_they_were(dtype):
    """Numbers of a large atlas, which float32 takes for one another, and a value of its own around the image."""
    largest = torch.iinfo(dtype).max
    values = torch.full((1, 4, 4, 4), largest, dtype=dtype)
    values[:, 2:] -= 1
    values[:, 0] = 0
    grid = Grid.from_parts((4, 4, 4))
    same = resample(Image(values, grid), lambda p: p, grid, "nearest").data
    assert same.dtype == dtype and torch.equal(same, values)
    beside = resample(Image(values, grid), lambda p: p + 100.0, grid, "nearest", default=7.0).data
    assert beside.dtype == dtype and bool((beside == 7).all())


def test_canonical_copies_nothing_where_nothing_is_to_do():
    """A whole-body CT is 600 MB."""
    image = image_on(grid_of("LPS"))
    assert canonical(image).data.data_ptr() == image.data.data_ptr()


@pytest.mark.parametrize("kind", DIRECTIONS)
def test_canonical_moves_no_voxel(kind):
    image = image_on(grid_of(kind))
    same = canonical(image)
    assert torch.allclose(same.at(image.grid.points()), image.data, atol=1e-3)
    assert (np.diag(same.grid.direction) > 0.5).all()


def test_every_storage_of_a_volume_becomes_the_same_tensor():
    image = image_on(Grid.from_parts((14, 12, 10), (1, 2, 3), (1, 1.5, 2.5), TURN))
    expected = canonical(image)
    for order in [(0, 1, 2), (2, 0, 1), (1, 0, 2)]:
        for flips in [(), (0,), (0, 2), (0, 1, 2)]:
            got = canonical(stored_otherwise(image, order, flips))
            assert torch.equal(got.data, expected.data) and got.grid.same_as(expected.grid, 1e-9)


def stored_otherwise(image: Image, order, flips) -> Image:
    """The same volume with its array axes (z, y, x) reordered and flipped."""
    data = image.data.permute(0, *(1 + a for a in order)).flip([1 + f for f in flips])
    old_from_new = np.zeros((4, 4))
    old_from_new[3, 3] = 1
    for new, old in enumerate(order):
        old_from_new[2 - old, 2 - new] = -1 if new in flips else 1
        old_from_new[2 - old, 3] = data.shape[1 + new] - 1 if new in flips else 0
    return Image(data.contiguous(), Grid(tuple(data.shape[1:]), image.grid.world_from_index @ old_from_new))


def test_with_shape_keeps_the_corner_voxels():
    grid = grid_of("oblique, left-handed")
    other = grid.with_shape((5, 7, 4))
    for corner in np.ndindex(2, 2, 2):
        ends = [g.world_from_index @ [*(np.array(corner) * (np.array(g.size) - 1)), 1] for g in (grid, other)]
        assert np.allclose(*ends)


def test_cropped_keeps_the_place_of_each_voxel_and_pads_outside():
    grid = grid_of("RAS")
    part = grid.cropped((2, -3, 1), (9, 8, 12))
    assert part.size == (7, 11, 11)
    assert np.allclose(part.world_from_index @ [1, 4, 2, 1], grid.world_from_index @ [3, 1, 3, 1])


def test_an_image_ends_half_a_voxel_beyond_its_voxels():
    grid = Grid.from_parts((4, 4, 4))
    image = Image(torch.ones(1, 4, 4, 4), grid)
    points = torch.ones(3, 1, 1, 4, dtype=torch.float64)
    points[0, 0, 0] = torch.tensor([-0.49, -0.51, 3.49, 3.51])
    assert image.at(points, default=5.0).flatten().tolist() == [1, 5, 1, 5]


def test_nothing_is_lost_by_resampling_onto_itself():
    image = image_on(grid_of("permuted and flipped"))
    assert torch.allclose(resample(image, Affine.identity(), image.grid).data, image.data, atol=1e-3)


def test_indices_invert_points():
    grid = grid_of("oblique, left-handed")
    points = points_in(grid)
    axes, origin = torch.from_numpy(grid.world_from_index[:3, :3]), torch.from_numpy(grid.origin)
    back = axes @ grid.indices(points) + origin[:, None]
    assert torch.allclose(back, points)


@pytest.mark.parametrize("bad", [np.zeros((4, 4)), np.full((4, 4), np.nan)])
def test_a_grid_without_extent_is_refused(bad):
    with pytest.raises(ValueError, match="invertible"):
        Grid((4, 4, 4), bad)


def test_an_image_must_fit_its_grid():
    with pytest.raises(ValueError, match="data must be"):
        Image(torch.zeros(1, 4, 4, 5), Grid.from_parts((4, 4, 4)))
    with pytest.raises(ValueError, match="data must be a tensor"):
        Image(np.zeros((1, 4, 4, 4)), Grid.from_parts((4, 4, 4)))
    with pytest.raises(ValueError, match="got complex ones"):
        Image(torch.zeros(1, 4, 4, 4, dtype=torch.complex64), Grid.from_parts((4, 4, 4)))
    with pytest.raises(ValueError, match="grid must be a Grid, got tuple"):
        Image(torch.zeros(1, 4, 4, 4), (4, 4, 4))


@pytest.mark.parametrize("bad", [4, "4×4×4", (4, 4), (4.5, 4, 4), (0, 4, 4), np.eye(4)])
def test_a_shape_that_is_none_is_refused(bad):
    with pytest.raises(ValueError, match="Grid: shape must be"):
        Grid(bad, np.eye(4))


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        ("resample needs an Image, then a Transform; got Tensor", lambda i: (i.data, Affine.identity(), i.grid)),
        ("got Image and str", lambda i: (i, "transform.h5", i.grid)),
        ("resample needs a Grid, such as image.grid; got Image", lambda i: (i, Affine.identity(), i)),
        ('Unknown mode "linear"', lambda i: (i, Affine.identity(), i.grid, "linear")),
    ],
)
def test_a_wrong_argument_of_resample_is_a_sentence(words, arguments):
    with pytest.raises(RegistrationError, match=words):
        resample(*arguments(image_on(grid_of("LPS"))))


def test_a_displacement_lies_on_a_grid():
    with pytest.raises(RegistrationError, match="displacement needs a Grid, such"):
        Affine.identity().displacement(image_on(grid_of("LPS")))


def test_the_box_of_a_mask_holds_all_of_it_and_no_plane_more():
    mask = torch.zeros(5, 6, 7, dtype=torch.bool)
    assert [end.tolist() for end in bounding_box(mask)] == [[0, 0, 0], [7, 6, 5]], "nothing: the whole lattice"
    mask[1, 2, 6] = mask[3, 4, 3] = True
    assert [end.tolist() for end in bounding_box(mask)] == [[3, 2, 1], [7, 5, 4]]

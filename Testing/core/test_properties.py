"""Laws over random geometries: where a patient is does not depend on how the voxels are stored.

Lattices are oblique, flipped, left-handed, permuted and anisotropic (0.3 to 6 mm); every law is checked on many of
them. SimpleITK is the judge wherever files are involved.
"""

import struct

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from geometry import image_on, points_in
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from neuralreg import api, io
from neuralreg.apply import apply_to_image, inverse_points
from neuralreg.image import Grid, Image, canonical, resample
from neuralreg.job import RegistrationError
from neuralreg.metrics import tre
from neuralreg.phantom import Phantom, SmoothDeformation, make_phantom, rotation
from neuralreg.preprocess import make_pair, with_landmarks, working_grid
from neuralreg.transform import Affine, DisplacementField, Transform, jacobian_determinant
from test_image import stored_otherwise

laws = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

# Rounded: cosines of 1e-300, which no scanner writes, are beyond ITK's own matrices.
units = st.integers(-1000, 1000).map(lambda n: n / 1000)
degrees = st.integers(0, 1800).map(lambda n: n / 10)
millimetres = st.integers(3, 60).map(lambda n: n / 10)
axes = st.permutations((0, 1, 2)).map(tuple)
flips = st.sets(st.sampled_from((0, 1, 2))).map(tuple)


@st.composite
def directions(draw) -> np.ndarray:
    """Orthonormal 3×3: a turn about any axis, then the axes permuted and flipped, so that half are left-handed."""
    axis = np.array([draw(units), draw(units), draw(units)])
    turn = rotation(axis if np.linalg.norm(axis) > 0.1 else (0, 0, 1), draw(degrees))
    signs = [-1.0 if i in draw(flips) else 1.0 for i in range(3)]
    return turn[:, list(draw(axes))] * np.array(signs)


@st.composite
def grids(draw) -> Grid:
    origin = [300 * draw(units) for _ in range(3)]
    spacing = [draw(millimetres) for _ in range(3)]
    return Grid.from_parts([draw(st.integers(8, 13)) for _ in range(3)], origin, spacing, draw(directions()))


@st.composite
def affines(draw) -> Affine:
    """Turns up to 40°, scales and shears up to a quarter, shifts up to 30 mm."""
    matrix = np.eye(4)
    shear = np.array([[0.25 * draw(units) for _ in range(3)] for _ in range(3)])
    matrix[:3, :3] = rotation((1, draw(units), draw(units)), 40 * draw(units)) @ (np.eye(3) + 0.5 * shear)
    matrix[:3, 3] = [30 * draw(units) for _ in range(3)]
    return Affine(matrix)


def bump(grid: Grid, share: float = 0.15) -> SmoothDeformation:
    """A push in the middle of a lattice, zero at its border to the last digit of a float32 millimetre."""
    extent = float((np.array(grid.size - np.array(1)) * grid.spacing).min())
    return SmoothDeformation(grid.center[None], share * extent * np.array([[0.6, -0.5, 0.6]]) / 2, extent / 9)


def field_of(transform: Transform, grid: Grid) -> DisplacementField:
    return transform.displacement(grid)


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm(dim=0).max())


@laws
@given(grid=grids(), ending=st.sampled_from((".nii", ".nii.gz", ".nrrd", ".mha")))
def test_a_file_keeps_every_voxel_at_its_place(tmp_path, grid, ending):
    path = tmp_path / f"a{ending}"
    io.write_image(image_on(grid), path)
    back, oracle = io.read_image(path), sitk.ReadImage(str(path))
    assert torch.equal(back.data, image_on(grid).data)
    for corner in np.ndindex(2, 2, 2):
        index = [int(c * (n - 1)) for c, n in zip(corner, grid.size, strict=True)]
        mine = (back.grid.world_from_index @ [*index, 1.0])[:3]
        np.testing.assert_allclose(mine, oracle.TransformIndexToPhysicalPoint(index), atol=1e-6)
        np.testing.assert_allclose(mine, (grid.world_from_index @ [*index, 1.0])[:3], atol=2e-3)


@laws
@given(grid=grids(), order=axes, flipped=flips)
def test_every_storage_of_a_volume_is_one_volume(grid, order, flipped):
    """Canonical form, working grid, and what a method sees, to the bit."""
    image, other = image_on(grid), stored_otherwise(image_on(grid), order, flipped)
    one, two = canonical(image), canonical(other)
    assert torch.equal(one.data, two.data) and one.grid.same_as(two.grid, 1e-6)
    grids_of_both = [working_grid(volume, 50_000) for volume in (image, other)]
    assert grids_of_both[0].same_as(grids_of_both[1], 1e-6)
    stay = Affine.identity()
    pairs = [make_pair(volume, volume, stay, grids_of_both[0]) for volume in (image, other)]
    assert torch.allclose(pairs[0].fixed.data, pairs[1].fixed.data, atol=2e-3)


@laws
@given(fixed=grids(), moving=grids(), linear=affines(), order=axes, flipped=flips)
def test_resampling_reads_the_same_tissue_however_it_is_stored(fixed, moving, linear, order, flipped):
    """The moving image stored otherwise; the fixed lattice stored otherwise: the same value at the same place."""
    centred = np.eye(4)
    centred[:3, 3] = moving.center - linear(torch.from_numpy(fixed.center)[:, None])[:, 0].numpy()
    transform = Affine(centred) @ linear @ bump(fixed)
    smooth = Image(moving.points().sin().sum(0)[None].float(), moving)
    expected = resample(smooth, transform, fixed)
    again = resample(stored_otherwise(smooth, order, flipped), transform, fixed)
    differs = ((again.data - expected.data).abs() > 1e-3).float().mean()
    assert float(differs) < 0.02  # a point on the very border of the image may fall on either side of it
    elsewhere = stored_otherwise(expected, order, flipped)
    direct = resample(smooth, transform, elsewhere.grid)
    assert float(((direct.data - elsewhere.data).abs() > 1e-3).float().mean()) < 0.02


@laws
@given(grid=grids(), linear=affines(), ending=st.sampled_from((".h5",)))
def test_files_of_transforms_mean_the_same_to_itk(tmp_path, grid, linear, ending):
    transform, points = linear @ field_of(bump(grid), grid), points_in(grid)
    io.write_transform(transform, tmp_path / f"t{ending}")
    oracle = sitk.ReadTransform(str(tmp_path / f"t{ending}"))
    expected = torch.tensor([oracle.TransformPoint(p) for p in points.T.tolist()], dtype=torch.float64).T
    assert apart(transform(points), expected) < 1e-3
    assert apart(io.read_transform(tmp_path / f"t{ending}")(points), expected) < 1e-3


@laws
@given(grid=grids(), a=affines(), b=affines())
def test_composition_and_inverse_laws(grid, a, b):
    points, push = points_in(grid), bump(grid)
    assert apart(((a @ push) @ b)(points), (a @ (push @ b))(points)) < 1e-9
    assert apart((a @ push @ b)(points), a(push(b(points)))) < 1e-9
    assert apart((a @ b).inverse()(points), (b.inverse() @ a.inverse())(points)) < 1e-6
    there = a @ push
    assert apart(there.inverse()(there(points)), points) < 1e-6
    assert apart(there(there.inverse()(points)), points) < 1e-6


@laws
@given(grid=grids(), linear=affines())
def test_applied_points_come_back_and_lie_on_their_tissue(grid, linear):
    """Points and images go opposite ways through one transform and meet at the same tissue."""
    transform = linear @ field_of(bump(grid), grid)
    fixed_points = points_in(grid)
    moving_points = transform(fixed_points)
    assert apart(inverse_points(transform, moving_points), fixed_points) < 1e-3
    tissue = lambda points: points[0] + 2 * points[1] - points[2]  # noqa: E731
    reach = Grid.from_parts((9, 9, 9), moving_points.mean(1).numpy() - 400, (100, 100, 100))
    moving = Image(tissue(reach.points())[None].float(), reach)
    warped = apply_to_image(moving, transform, grid)
    z, y, x = np.array(grid.shape) // 2
    place = grid.points()[:, z, y, x][:, None]
    assert float(warped.data[0, z, y, x]) == pytest.approx(float(tissue(transform(place))), abs=2e-2)


@laws
@given(grid=grids(), linear=affines())
def test_jacobian_is_a_property_of_space(grid, linear):
    """An affine map changes volumes by its determinant on every lattice, oblique or not."""
    expected = float(np.linalg.det(linear.matrix[:3, :3]))
    found = jacobian_determinant(linear, grid).data
    assert torch.allclose(found, torch.full_like(found, expected), rtol=1e-3)


@laws
@given(grid=grids(), order=axes, flipped=flips, linear=affines())
def test_landmarks_do_not_depend_on_the_storage(grid, order, flipped, linear):
    points = points_in(grid, 6)
    pairs = []
    for volume in (image_on(grid), stored_otherwise(image_on(grid), order, flipped)):
        lattice = working_grid(volume, 10**6)
        pair = make_pair(volume, volume, Affine.identity(), lattice)
        pairs.append(with_landmarks(pair, (points, linear(points)), linear, []).landmarks)
    assert torch.allclose(pairs[0].fixed, pairs[1].fixed, atol=1e-4)
    assert torch.allclose(pairs[0].fixed, pairs[0].moving, atol=1e-4)


# Headers --------------------------------------------------------------------------------------------------------------


def write_header(path, grid: Grid, qform: int, sform: int, rows: np.ndarray) -> None:
    """A NIfTI file of `grid` whose two orientations have these codes, and `rows` (3, 4) as sform."""
    io.write_image(image_on(grid), path)
    data = bytearray(path.read_bytes())
    struct.pack_into("<hh", data, 252, qform, sform)
    struct.pack_into("<12f", data, 280, *rows.flatten())
    path.write_bytes(data)


@laws
@given(
    grid=grids(), qform=st.integers(0, 4), sform=st.integers(0, 4), shift=st.sampled_from((0.0, 0.05, 40.0)),
    shear=st.sampled_from((0.0, 0.3)),
)  # fmt: skip
def test_two_orientations_are_read_as_itk_does_or_refused(tmp_path, grid, qform, sform, shift, shear):
    """Agreeing, contradicting, missing, sheared: the place that ITK shows, a word of doubt, or a refusal."""
    ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ grid.world_from_index
    ras[:3, 1] += shear * ras[:3, 0]
    ras[0, 3] += shift
    path, said = tmp_path / "a.nii", []
    write_header(path, grid, qform, sform, ras[:3])
    try:
        oracle = sitk.ReadImage(str(path))
    except RuntimeError:
        with pytest.raises(RegistrationError, match="right angles"):
            io.read_image(path)
        return
    found = io.read_image(path, said.append).grid
    for index in [(0, 0, 0), (1, 0, 0), (0, 7, 0), (0, 0, 7)]:
        mine = (found.world_from_index @ [*index, 1.0])[:3]
        np.testing.assert_allclose(mine, oracle.TransformIndexToPhysicalPoint(index), atol=1e-4)
    contradict = qform > 0 and sform > 0 and (shift == 40.0 or shear > 0)
    assert any("two orientations" in sentence for sentence in said) == contradict


# The whole flow -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation([0.1, 0.4, 1.0], 7.0), (8.0, -5.0, 4.0)
    grid = Grid.from_parts((26, 30, 26), (-64, -84, -66), (5.4, 5.8, 5.6))
    return make_phantom(grid, pose=Affine(pose), amplitude_mm=9.0)


ONCE = (Phase.explicit, Phase.generate)  # a registration takes seconds: no search for a simpler example
QUICK = {"image_factors": [1], "velocity_factors": [2], "iterations": [25], "windows": [5], "strides": [1]}


@pytest.fixture(scope="module")
def expected(phantom):
    return api.register(phantom.fixed, phantom.moving, threads=1, options=QUICK)


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], phases=ONCE)
@given(orders=st.tuples(axes, axes), flipped=st.tuples(flips, flips))
def test_the_transform_found_does_not_depend_on_the_storage(tmp_path, phantom, expected, orders, flipped):
    """From files that store the pair in any order to the transform: the same map within a twentieth of a millimetre.

    Not NIfTI, which keeps geometry in float32: the optimisation makes tenths of a millimetre of such a difference.
    """
    paths = [tmp_path / "f.mha", tmp_path / "m.nrrd"]
    for path, image, order, flip in zip(paths, (phantom.fixed, phantom.moving), orders, flipped, strict=True):
        io.write_image(stored_otherwise(image, order, flip), path)
    found = api.register(*paths, threads=1, options=QUICK)
    points, truth = phantom.landmarks(100)
    assert apart(found.transform(points), expected.transform(points)) < 0.05
    assert float(tre(found.transform, points, truth).mean()) < 2.5

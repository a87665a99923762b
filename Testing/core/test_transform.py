"""Group laws of transforms on four kinds of grid; SimpleITK and analytic fields as judges."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from geometry import DIRECTIONS, TURN, affine, field_on, grid_of, image_on, points_in, transform_on
from neuralreg import io, sampling
from neuralreg.apply import inverse_points
from neuralreg.image import Grid, Image
from neuralreg.job import RegistrationError
from neuralreg.transform import Affine, Composite, DisplacementField, VelocityField, jacobian_determinant

kinds = pytest.mark.parametrize("kind", DIRECTIONS)


def close(a, b, tolerance=1e-6):
    return float((a - b).abs().max()) <= tolerance


@kinds
def test_composition_applies_the_right_hand_side_first(kind):
    field, points = field_on(grid_of(kind)), points_in(grid_of(kind))
    assert close((affine() @ field)(points), affine()(field(points)))
    assert not close((field @ affine())(points), affine()(field(points)), 0.1)


@kinds
def test_composition_is_associative_and_has_a_neutral_element(kind):
    a, b, c = affine(), field_on(grid_of(kind)), Affine(affine().matrix @ affine().matrix)
    points = points_in(grid_of(kind))
    assert close(((a @ b) @ c)(points), (a @ (b @ c))(points))
    assert close((Affine.identity() @ b)(points), b(points)) and close((b @ Affine.identity())(points), b(points))


def test_affine_transforms_compose_to_one_matrix():
    wide, points = Affine(np.diag([1.5, 0.8, 1.0, 1.0])), points_in(grid_of("LPS"))
    assert isinstance(affine() @ wide, Affine)
    assert close((affine() @ wide)(points), affine()(wide(points)))
    assert not close((wide @ affine())(points), affine()(wide(points)), 0.1)
    assert np.allclose((affine() @ affine().inverse()).matrix, np.eye(4))


@kinds
def test_inverse_undoes_on_both_sides(kind):
    grid = grid_of(kind)
    field, points = field_on(grid, 0.8), grid.points()
    assert close(field(field.inverse()(points)), points, 1e-3)  # at voxels; elsewhere it is interpolated
    transform, between = affine() @ field, points_in(grid)
    inverse = transform.inverse()
    assert close(inverse(transform(between)), between, 0.2)
    assert close(transform(inverse(affine()(between))), affine()(between), 0.2)


@kinds
def test_inverse_of_a_coarse_field_is_right_between_its_voxels(kind):
    """As an initial transform may be one: on its own lattice of 20 mm the inverse would be off by a quarter of a mm."""
    field = field_on(Grid.from_parts((11, 11, 11), (-100.0, -90.0, -110.0), (20.0,) * 3, DIRECTIONS[kind]), 12.0)
    points = field.grid.with_shape((48, 48, 48)).points()
    for first, second in ((field, field.inverse()), (field.inverse(), field)):
        off = (second(first(points)) - points).norm(dim=0)
        assert off.mean() < 0.01 and off.max() < 0.5


def test_inverse_reaches_as_far_as_its_field():
    """Half a voxel beyond the outermost ones, of the coarse lattice: a field that is no zero there moves points."""
    field = field_on(Grid.from_parts((11, 11, 11), spacing=(20.0,) * 3), 12.0)
    field = DisplacementField(field.mm + 3.0, field.grid)
    edge = torch.tensor([[-8.0, 100.0, 206.0], [100.0, -8.0, 206.0], [100.0, 100.0, 206.0]], dtype=torch.float64)
    assert close(field.inverse()(field(edge)), edge, 0.05) and field.inverse().grid.shape > (80, 80, 80)


def test_inverse_is_refined_no_further_than_it_helps():
    grid = grid_of("LPS", (40, 40, 40))
    nearly_straight, folding = field_on(grid, 0.2), field_on(grid_of("LPS"), 40.0)
    assert float(sampling.corner_determinants(folding.to_voxels()).min()) < 0
    assert nearly_straight.inverse().grid.shape == grid.shape and folding.inverse().grid.shape == folding.grid.shape


@kinds
def test_inverse_of_a_product_is_the_product_of_inverses(kind):
    field, points = field_on(grid_of(kind)), points_in(grid_of(kind))
    product = (affine() @ field).inverse()
    assert close(product(points), (field.inverse() @ affine().inverse())(points), 1e-9)


@kinds
def test_points_agree_with_simpleitk(kind, tmp_path):
    grid = grid_of(kind)
    transform = transform_on(grid)
    io.write_transform(transform, tmp_path / "t.h5")
    oracle, points = sitk.ReadTransform(str(tmp_path / "t.h5")), points_in(grid)
    expected = np.array([oracle.TransformPoint(p) for p in points.T.tolist()]).T
    assert np.abs(transform(points).numpy() - expected).max() < 1e-4


@kinds
def test_points_of_whole_numbers_are_points_like_others(kind):
    """As they are typed; the matrix must not lose its fractions to them."""
    whole = points_in(grid_of(kind)).round().long()
    for transform in (affine(), field_on(grid_of(kind)), affine() @ field_on(grid_of(kind))):
        assert torch.equal(transform(whole), transform(whole.double()))


@pytest.mark.parametrize("transform", [affine(), field_on(grid_of("LPS")), transform_on(grid_of("LPS"))])
def test_points_may_be_arrays_or_lists(transform):
    points = points_in(grid_of("LPS")).half()
    expected = transform(points.double())
    for same in (points, points.numpy(), points.tolist()):
        assert torch.equal(transform(same), expected)
    assert torch.equal(transform(points[:, 0].tolist()), expected[:, 0])


@pytest.mark.parametrize("make", [affine, lambda: field_on(grid_of("LPS")), lambda: transform_on(grid_of("LPS"))])
@pytest.mark.parametrize(
    ("points", "words"),
    [
        (torch.zeros(5, 3), r"got \(5, 3\), so turn it round"),
        (np.zeros((5, 3)), "turn it round"),
        (torch.zeros(1, 3, 4), r"got \(1, 3, 4\)"),
        (7, r"got \(\)"),
        (None, r"got \(\)"),
        ("points.csv", "got str"),
        (image_on(grid_of("LPS")), "got Image"),
    ],
)
def test_what_is_no_points_is_a_sentence(make, points, words):
    """A field would take any numbers in groups of three, in the wrong order."""
    with pytest.raises(RegistrationError, match=words):
        make()(points)


@pytest.mark.parametrize("other", [np.eye(4), sitk.AffineTransform(3), None])
def test_a_transform_is_composed_with_transforms_only(other):
    for wrong in (lambda: affine() @ other, lambda: other @ affine()):
        with pytest.raises(TypeError):
            wrong()


@pytest.mark.parametrize(
    ("words", "make"),
    [
        ("last row", lambda grid, mm: Affine([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]])),
        ("invertible", lambda grid, mm: Affine("identity")),
        ("got Grid", lambda grid, mm: DisplacementField(grid, mm)),
        ("grid must be a Grid, got Image", lambda grid, mm: DisplacementField(mm, Image(mm, grid))),
        ("floating point", lambda grid, mm: DisplacementField(mm.int(), grid)),
        ("floating point", lambda grid, mm: VelocityField(mm.numpy(), grid)),
        ("must be \\(3, 10, 12, 14\\)", lambda grid, mm: VelocityField(mm.movedim(0, -1), grid)),
        ("steps must be", lambda grid, mm: VelocityField(mm, grid, 1.5)),
        ("must be transforms, got str", lambda grid, mm: Composite((affine(), "transform.h5"))),
        ("must be transforms, got ndarray", lambda grid, mm: Composite(np.eye(4))),
    ],
)
def test_a_transform_of_wrong_parts_is_a_sentence(words, make):
    field = field_on(grid_of("LPS"))
    with pytest.raises(ValueError, match=words):
        make(field.grid, field.mm)


def test_a_field_moves_nothing_outside_its_grid():
    field = field_on(grid_of("LPS"))
    far = torch.tensor([[500.0], [0.0], [0.0]], dtype=torch.float64)
    assert torch.equal(field(far), far)


@kinds
def test_voxels_and_millimetres_are_inverse_conversions(kind):
    field = field_on(grid_of(kind))
    again = DisplacementField.from_voxels(field.to_voxels(), field.grid)
    assert close(again.mm, field.mm, 1e-5)


@kinds
def test_displacement_of_a_composite_is_the_composite_on_the_grid(kind):
    grid = grid_of(kind)
    transform, points = transform_on(grid), grid.points()
    assert close(transform.displacement(grid)(points), transform(points), 1e-4)


@kinds
def test_velocity_exp_and_inverse(kind):
    grid = grid_of(kind)
    velocity, points = VelocityField(field_on(grid, 0.8).mm, grid), points_in(grid)
    assert close(velocity.inverse()(velocity(points)), points, 0.1)
    assert close(velocity.exp().inverse()(grid.points()), velocity.inverse()(grid.points()), 0.1)
    half = VelocityField(velocity.mm / 2, grid)
    assert close(half(half(points)), velocity(points), 0.1)


@kinds
def test_jacobian_of_an_affine_map_is_its_determinant_on_any_grid(kind):
    jacobian = jacobian_determinant(affine(), grid_of(kind)).data
    assert torch.allclose(jacobian, torch.full_like(jacobian, np.linalg.det(affine().matrix[:3, :3])), atol=1e-4)


def test_jacobian_of_a_rotation_on_an_oblique_grid_is_one():
    matrix = np.eye(4)
    matrix[:3, :3] = TURN
    jacobian = jacobian_determinant(Affine(matrix), grid_of("oblique, left-handed")).data
    assert torch.allclose(jacobian, torch.ones_like(jacobian), atol=1e-4)


@kinds
def test_jacobian_equals_itk_where_itk_is_right_and_multiplies_under_composition(kind):
    grid = grid_of(kind)
    field = field_on(grid)
    got = jacobian_determinant(field, grid).data[0]
    if kind == "LPS":
        volume = sitk.GetImageFromArray(field.mm.permute(1, 2, 3, 0).numpy(), isVector=True)
        volume.SetSpacing(grid.spacing.tolist())
        oracle = torch.from_numpy(sitk.GetArrayFromImage(sitk.DisplacementFieldJacobianDeterminant(volume)))
        inside = (slice(1, -1),) * 3
        assert close(got[inside], oracle[inside], 1e-4)
    both = jacobian_determinant(affine() @ field, grid).data[0]
    assert close(both, got * np.linalg.det(affine().matrix[:3, :3]), 1e-3)


def test_jacobian_of_large_grids_does_not_depend_on_the_slabs(monkeypatch):
    grid = grid_of("RAS")
    whole = jacobian_determinant(transform_on(grid), grid).data
    monkeypatch.setattr("neuralreg.image.SLAB_VOXELS", 300)
    assert torch.allclose(jacobian_determinant(transform_on(grid), grid).data, whole, atol=1e-5)


def test_image_and_points_go_opposite_ways():
    """The classic confusion: a structure at p in the moving image appears at inverse(p) in the warped one."""
    grid = grid_of("LPS", (24, 22, 20))
    transform = field_on(grid, 3.0)
    image = image_on(grid)
    image.data.zero_()
    image.data[0, 10, 11, 12] = 1000.0
    from neuralreg.image import resample

    warped = resample(image, transform, grid)
    mass = warped.data[0].double()
    center = torch.stack([(grid.points()[a] * mass).sum() / mass.sum() for a in range(3)])
    expected = transform.inverse()(grid.points()[:, 10, 11, 12].view(3, 1))[:, 0]
    assert float((center - expected).norm()) < 0.5


@pytest.mark.parametrize("bad", [np.zeros((4, 4)), np.eye(3)])
def test_an_affine_needs_an_invertible_matrix(bad):
    with pytest.raises(ValueError, match="invertible 4×4"):
        Affine(bad)


def test_a_field_must_fit_its_grid():
    with pytest.raises(ValueError, match="mm must be"):
        DisplacementField(torch.zeros(3, 4, 4, 5), grid_of("LPS"))


def test_composites_are_flat():
    field = field_on(grid_of("LPS"))
    assert len(Composite((affine(),)).__matmul__(field @ affine()).transforms) == 3


def test_untouched_inputs():
    field = field_on(grid_of("LPS"))
    before = field.mm.clone()
    (affine() @ field).inverse()(points_in(field.grid))
    sampling.integrate(field.to_voxels(), 5)
    assert torch.equal(field.mm, before)


def test_points_beyond_a_flat_transform_get_a_sentence():
    """Everything along x is mapped to one plane: the derivative there has no inverse, and neither has the map."""
    grid = Grid.from_parts((8, 8, 8), (-3.5, 0, 0))
    mm = torch.zeros(3, *grid.shape)
    mm[0] = -grid.points()[0].float()
    flat, inside = DisplacementField(mm, grid), torch.full((3, 1), 3.0, dtype=torch.float64)
    with pytest.raises(RegistrationError, match="folds there"):
        inverse_points(flat, inside)

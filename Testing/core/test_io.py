"""Files ⇄ types, with SimpleITK as the oracle."""

import re
import sys

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from child import python
from geometry import DIRECTIONS, TURN, affine, field_on, grid_of, image_on, points_in, transform_on
from neuralreg import io
from neuralreg.hdf5 import ItkTransform, write_itk_transforms
from neuralreg.image import Grid, Image
from neuralreg.job import RegistrationError
from neuralreg.phantom import demo_phantom
from neuralreg.points import Points, write_points
from neuralreg.transform import Affine, Composite, DisplacementField, VelocityField

KINDS = list(DIRECTIONS)


def itk_points(transform: sitk.Transform, points: torch.Tensor) -> np.ndarray:
    return np.array([transform.TransformPoint(p) for p in points.T.tolist()]).T


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_image_keeps_values_and_place(tmp_path, kind, ending, recwarn):
    image = image_on(grid_of(kind))
    io.write_image(image, tmp_path / f"a{ending}")
    back = io.read_image(tmp_path / f"a{ending}")
    assert torch.equal(back.data, image.data)
    assert back.grid.same_as(image.grid, 1e-4)
    assert not recwarn.list  # a header that we wrote leaves nothing open
    oracle = sitk.ReadImage(str(tmp_path / f"a{ending}"))
    index = (3, 5, 7)
    assert oracle.GetPixel(index) == image.data[0, 7, 5, 3]
    mine = image.grid.world_from_index @ np.array([*index, 1.0])
    np.testing.assert_allclose(oracle.TransformIndexToPhysicalPoint(index), mine[:3], atol=1e-4)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.uint32])
def test_labels_keep_their_type_of_number(tmp_path, dtype):
    grid = grid_of("LPS")
    values = torch.arange(np.prod(grid.shape)).reshape(1, *grid.shape) % 200
    io.write_image(Image(values, grid), tmp_path / "labels.nii.gz", dtype)
    back = io.read_labels(tmp_path / "labels.nii.gz")
    assert not back.data.is_floating_point()
    assert torch.equal(back.data.long(), values)
    assert io.pixel_type(tmp_path / "labels.nii.gz") == dtype


def test_a_file_that_cannot_be_written_is_blamed_by_its_own_name(tmp_path):
    """Not by that under which it comes into being."""
    with pytest.raises(OSError, match="File name too long") as failed:
        write_points(Points(np.zeros((1, 3)), ("a",)), tmp_path / f"{'x' * 250}.csv")
    assert failed.value.filename == str(tmp_path / f"{'x' * 250}.csv")


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_a_mask_of_truth_values_is_written_as_ones(tmp_path, ending):
    """As a comparison makes it: no file type has truth values."""
    image = image_on(grid_of("oblique, left-handed"))
    inside = image.data > image.data.mean()
    io.write_image(Image(inside, image.grid), tmp_path / f"mask{ending}")
    assert torch.equal(io.read_labels(tmp_path / f"mask{ending}").data, inside.byte())


def test_fractions_are_no_labels(tmp_path):
    io.write_image(image_on(grid_of("LPS")), tmp_path / "a.nrrd")
    with pytest.raises(RegistrationError, match="no label map"):
        io.read_labels(tmp_path / "a.nrrd")


def test_labels_that_are_no_numbers_are_background_with_a_warning(tmp_path):
    """Some programs write NaN outside the brain, also into parcellations."""
    grid = grid_of("oblique, left-handed")
    labels = torch.zeros(1, *grid.shape)
    labels[:, 4:], labels[:, 0] = 3.0, torch.nan
    io.write_image(Image(labels, grid), tmp_path / "labels.nii.gz")
    said = []
    back = io.read_labels(tmp_path / "labels.nii.gz", said.append)
    assert len(said) == 1 and "NaN" in said[0]
    assert torch.equal(back.data, torch.nan_to_num(labels).int()) and back.grid.same_as(grid)


def test_a_scan_in_the_place_of_a_label_map_is_said(tmp_path):
    """Of whole numbers, as scanners store them: every grey value would be a structure, and their Dice 0."""
    phantom, noise = demo_phantom(4.0), torch.Generator().manual_seed(0)
    scan = phantom.fixed.data.round()
    ct = torch.where(scan > 0, scan, -1024)
    dots = torch.zeros_like(scan)
    dots[:, 1::4, 1::4, 1::4] = torch.randint(1, 99, dots[:, 1::4, 1::4, 1::4].shape, generator=noise).float()
    said = {}
    for name, values in {"labels": phantom.fixed_labels.data, "dots": dots, "scan": scan, "ct": ct}.items():
        io.write_image(Image(values, phantom.fixed.grid), tmp_path / f"{name}.nrrd", np.int16)
        said[name] = []
        io.read_labels(tmp_path / f"{name}.nrrd", said[name].append)
    assert said["labels"] == said["dots"] == []
    assert "scan.nrrd looks like a scan" in said["scan"][0] and "looks like a scan" in said["ct"][0]


@pytest.mark.parametrize(("old", "new"), [(rb" = ", b"="), (rb"LOCAL", b"LOCAL ")])
@pytest.mark.parametrize("compressed", [True, False])
def test_metaimage_headers_in_other_handwriting(tmp_path, old, new, compressed):
    """MetaIO reads them, so they must not be taken for incomplete files."""
    sitk.WriteImage(io.to_sitk(image_on(grid_of("RAS"))), str(tmp_path / "a.mha"), compressed)
    head, local, body = (tmp_path / "a.mha").read_bytes().partition(b"ElementDataFile = LOCAL")
    (tmp_path / "b.mha").write_bytes(re.sub(old, new, head + local) + body)
    assert torch.equal(io.read_image(tmp_path / "b.mha").data, image_on(grid_of("RAS")).data)


@pytest.mark.parametrize("kind", KINDS)
def test_sitk_image_and_back(kind):
    image = image_on(grid_of(kind))
    back = io.from_sitk(io.to_sitk(image))
    assert torch.equal(back.data, image.data)
    assert back.grid.same_as(image.grid, 1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_written_transform_is_the_same_map_for_itk(tmp_path, kind):
    grid = grid_of(kind)
    transform, points = transform_on(grid), points_in(grid)
    io.write_transform(transform, tmp_path / "t.h5")
    oracle = sitk.ReadTransform(str(tmp_path / "t.h5"))
    assert oracle.GetName() == "CompositeTransform"
    np.testing.assert_allclose(itk_points(oracle, points), transform(points), atol=1e-4)
    np.testing.assert_allclose(io.read_transform(tmp_path / "t.h5")(points), transform(points), atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_transform_written_by_itk_is_the_same_map_here(tmp_path, kind):
    grid = grid_of(kind)
    points = points_in(grid)
    field = sitk.DisplacementFieldTransform(sitk.Cast(_field_image(field_on(grid)), sitk.sitkVectorFloat64))
    linear = sitk.Euler3DTransform((1, 2, 3), 0.1, -0.2, 0.3, (4, 5, 6))
    shift = sitk.TranslationTransform(3, (1, 2, 3))
    composite = sitk.CompositeTransform([linear, field, shift])
    sitk.WriteTransform(composite, str(tmp_path / "t.h5"))
    expected = itk_points(composite, points)
    np.testing.assert_allclose(io.read_transform(tmp_path / "t.h5")(points), expected, atol=1e-4)
    nested = sitk.CompositeTransform([sitk.CompositeTransform([linear, field]), shift])
    np.testing.assert_allclose(io.from_sitk_transform(nested)(points), expected, atol=1e-4)


def _field_image(field: DisplacementField) -> sitk.Image:
    return io.to_sitk(Image(field.mm, field.grid))


def test_affine_after_field_and_field_after_affine_differ(tmp_path):
    """Otherwise the tests above would not notice a swapped order."""
    grid = grid_of("LPS")
    points = points_in(grid)
    other = field_on(grid) @ affine()
    assert (transform_on(grid)(points) - other(points)).abs().max() > 0.5
    io.write_transform(other, tmp_path / "t.h5")
    np.testing.assert_allclose(itk_points(sitk.ReadTransform(str(tmp_path / "t.h5")), points), other(points), atol=1e-4)


@pytest.mark.parametrize("ending", [".tfm", ".txt", ".mat", ".h5"])
@pytest.mark.parametrize(
    "linear",
    [
        sitk.Euler3DTransform((1, 2, 3), 0.1, -0.2, 0.3, (4, 5, 6)),
        sitk.VersorRigid3DTransform((1.0, 0.0, 0.0), 0.4, (4, 5, 6), (1, 2, 3)),
        sitk.Similarity3DTransform(1.2, (0.0, 1.0, 0.0), 0.3, (4, 5, 6), (1, 2, 3)),
        sitk.AffineTransform(TURN.reshape(-1).tolist(), (4, 5, 6), (7, 8, 9)),
        sitk.TranslationTransform(3, (1, 2, 3)),
    ],
    ids=lambda t: t.GetName(),
)
def test_every_linear_transform_of_itk(tmp_path, linear, ending):
    points = points_in(grid_of("LPS"))
    sitk.WriteTransform(linear, str(tmp_path / f"t{ending}"))
    read = io.read_transform(tmp_path / f"t{ending}")
    assert isinstance(read, Affine)
    np.testing.assert_allclose(read(points), itk_points(linear, points), atol=1e-9)
    io.write_transform(read, tmp_path / f"back{ending}")
    np.testing.assert_allclose(
        itk_points(sitk.ReadTransform(str(tmp_path / f"back{ending}")), points), read(points), atol=1e-9
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha", ".h5"])
def test_single_field(tmp_path, kind, ending):
    grid = grid_of(kind)
    field, points = field_on(grid), points_in(grid)
    io.write_transform(field, tmp_path / f"u{ending}")
    read = io.read_transform(tmp_path / f"u{ending}")
    assert isinstance(read, DisplacementField)
    np.testing.assert_allclose(read(points), field(points), atol=1e-4)
    if ending != ".h5":
        oracle = sitk.DisplacementFieldTransform(sitk.ReadImage(str(tmp_path / f"u{ending}"), sitk.sitkVectorFloat64))
        np.testing.assert_allclose(itk_points(oracle, points), field(points), atol=1e-4)


def test_velocity_field_is_written_as_its_exponential(tmp_path):
    grid = grid_of("LPS")
    velocity, points = VelocityField(field_on(grid).mm, grid), points_in(grid)
    io.write_transform(velocity, tmp_path / "t.h5")
    np.testing.assert_allclose(
        itk_points(sitk.ReadTransform(str(tmp_path / "t.h5")), points), velocity(points), atol=1e-4
    )


def test_long_chain_keeps_its_order(tmp_path):
    """Group names are sorted as text in the file: "10" comes before "2"."""
    shift = np.eye(4)
    shift[:3, 3] = (1, 0, 0)
    chain = Composite(tuple(affine() if i % 3 else Affine(shift) for i in range(12)))
    points = points_in(grid_of("LPS"))
    io.write_transform(chain, tmp_path / "t.h5")
    np.testing.assert_allclose(itk_points(sitk.ReadTransform(str(tmp_path / "t.h5")), points), chain(points), rtol=1e-9)


@pytest.mark.parametrize("parts", [63, 64])
def test_a_chain_that_no_file_can_hold_is_a_sentence(tmp_path, parts):
    chain = Composite((affine(),) * parts)
    if parts == 63:
        io.write_transform(chain, tmp_path / "t.h5")
        assert close_to(io.read_transform(tmp_path / "t.h5"), chain)
        return
    with pytest.raises(RegistrationError, match="64 parts has no room in one file, which takes 63"):
        io.write_transform(chain, tmp_path / "t.h5")
    assert not list(tmp_path.iterdir())


def close_to(found, expected):
    points = points_in(grid_of("LPS"))
    return np.allclose(found(points), expected(points), rtol=1e-9)


def test_fields_are_stored_as_float32(tmp_path):
    grid = grid_of("LPS", (40, 40, 40))
    io.write_transform(transform_on(grid), tmp_path / "t.h5")
    assert (tmp_path / "t.h5").stat().st_size < 1.05 * 40**3 * 3 * 4


def test_bspline_transform_is_refused_with_a_sentence(tmp_path):
    spline = sitk.BSplineTransformInitializer(io.to_sitk(image_on(grid_of("LPS"))), [3, 3, 3])
    sitk.WriteTransform(spline, str(tmp_path / "t.tfm"))
    with pytest.raises(RegistrationError, match="displacement field"):
        io.read_transform(tmp_path / "t.tfm")


@pytest.mark.parametrize("change", ["cut", "flip"])
def test_damaged_transform_is_a_sentence_and_no_crash(tmp_path, change):
    io.write_transform(transform_on(grid_of("LPS")), tmp_path / "t.h5")
    data = bytearray((tmp_path / "t.h5").read_bytes())
    if change == "cut":
        del data[len(data) // 2 :]
    else:
        data[120] ^= 0xFF
    (tmp_path / "t.h5").write_bytes(data)
    with pytest.raises(RegistrationError, match="cannot be read as a transform"):
        io.read_transform(tmp_path / "t.h5")


@pytest.mark.parametrize("ending", ["h5", "mha"])
def test_a_field_with_a_hole_is_a_sentence(tmp_path, ending):
    field = field_on(grid_of("LPS"))
    field.mm[0, 3, 3, 3] = torch.nan
    io.write_transform(field, tmp_path / f"t.{ending}")
    with pytest.raises(RegistrationError, match="its displacements hold NaN or infinity"):
        io.read_transform(tmp_path / f"t.{ending}")


def test_a_transform_of_somebody_else_that_ends_too_early_is_a_sentence(tmp_path, capfd):
    """The HDF5 library would print a page."""
    field = io.to_sitk_transform(transform_on(grid_of("LPS")))
    sitk.WriteTransform(field, str(tmp_path / "t.h5"))
    io.read_transform(tmp_path / "t.h5")
    data = (tmp_path / "t.h5").read_bytes()
    (tmp_path / "t.h5").write_bytes(data[: len(data) // 2])
    with pytest.raises(RegistrationError, match="the file is damaged"):
        io.read_transform(tmp_path / "t.h5")
    assert capfd.readouterr() == ("", "")


def euler() -> sitk.Transform:
    return sitk.Euler3DTransform((5.25, 6.5, 7.75), 0.1, 0.2, 0.3, (4.5, -3.25, 2.125))


@pytest.mark.parametrize(
    ("ending", "composed"), [("tfm", False), ("tfm", True), ("txt", False), ("txt", True), ("mat", False)]
)
def test_a_linear_transform_that_ends_too_early_is_never_another_transform(tmp_path, ending, composed):
    """ITK takes what is left of it for the identity, or fills it up with other numbers."""
    written = sitk.CompositeTransform([euler(), sitk.TranslationTransform(3, (1, 2, 3))]) if composed else euler()
    whole, part = tmp_path / f"whole.{ending}", tmp_path / f"part.{ending}"
    sitk.WriteTransform(written, str(whole))
    data = whole.read_bytes()
    lines = data.splitlines(keepends=True)
    # A composition that ends between two members is whole again: nothing in the file tells how many there were.
    ends = [
        len(b"".join(lines[:n])) for n in range(len(lines)) if not lines[n - 1].startswith((b"Fixed", b"#Transform 2"))
    ]
    np.testing.assert_allclose(io.read_transform(whole).matrix[:3, 3], written.TransformPoint((0, 0, 0)), atol=1e-9)
    for end in range(0, len(data) - 8, 3) if ending == "mat" else ends:
        part.write_bytes(data[:end])
        with pytest.raises(RegistrationError, match="cannot be read as a transform"):
            io.read_transform(part)


@pytest.mark.parametrize("ending", ["tfm", "mat"])
def test_of_several_transforms_in_a_file_not_only_the_first_is_used(tmp_path, ending):
    sitk.WriteTransform(euler(), str(tmp_path / f"one.{ending}"))
    one = (tmp_path / f"one.{ending}").read_bytes()
    (tmp_path / f"two.{ending}").write_bytes(one + one.replace(b"#Insight Transform File V1.0\n", b""))
    with pytest.raises(RegistrationError, match="several transforms"):
        io.read_transform(tmp_path / f"two.{ending}")


def test_of_several_transforms_in_an_hdf5_file_not_only_the_first_is_used(tmp_path):
    """ITK can write such files, SimpleITK only reads them."""
    one, other = (ItkTransform("TranslationTransform_double_3_3", np.zeros(0), np.eye(3)[axis]) for axis in (0, 1))
    write_itk_transforms(tmp_path / "two.h5", [one, other])
    with pytest.raises(RegistrationError, match="several transforms, and does not say that they are composed"):
        io.read_transform(tmp_path / "two.h5")
    write_itk_transforms(tmp_path / "one.h5", [one])
    assert io.read_transform(tmp_path / "one.h5")(torch.zeros(3, 1)).flatten().tolist() == [1, 0, 0]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("flirt.mat", "1.0 0.0 0.0 2.0\n0.0 1.0 0.0 3.0\n0.0 0.0 1.0 4.0\n0.0 0.0 0.0 1.0\n"),
        ("TransformParameters.0.txt", '(Transform "EulerTransform")\n(TransformParameters 0.1 0 0 1 2 3)\n'),
        ("register.lta", "type      = 1\nnxforms   = 1\n1 4 4\n1 0 0 2\n0 1 0 3\n0 0 1 4\n0 0 0 1\n"),
        (
            "talairach.xfm",
            "MNI Transform File\nTransform_Type = Linear;\nLinear_Transform =\n 1 0 0 2\n 0 1 0 3\n 0 0 1 4;\n",
        ),
    ],
)
def test_transforms_of_other_programs_are_refused(tmp_path, name, text):
    """Their numbers mean something else: SimpleITK reads the last one, but takes its axes R, A for L, P."""
    (tmp_path / name).write_text(text)
    with pytest.raises(RegistrationError, match="give an ITK transform"):
        io.read_transform(tmp_path / name)


def test_minc_files_are_refused(tmp_path):
    """They run to R, A and S, but SimpleITK takes their coordinates for L, P and S."""
    sitk.WriteImage(io.to_sitk(image_on(grid_of("LPS"))), str(tmp_path / "t1.mnc"))
    with pytest.raises(RegistrationError, match="left and right"):
        io.read_image(tmp_path / "t1.mnc")


def test_a_picture_in_colours_is_no_displacement_field(tmp_path):
    colours = sitk.GetImageFromArray(np.full((9, 9, 9, 3), 7, np.uint8), isVector=True)
    sitk.WriteImage(colours, str(tmp_path / "rgb.nrrd"))
    with pytest.raises(RegistrationError, match="whole numbers, as colours are"):
        io.read_transform(tmp_path / "rgb.nrrd")


def test_a_mask_beside_its_image_by_a_small_voxel_lies_on_another_grid():
    """Of mice and of cells, whose voxels measure micrometres."""
    grid = Grid.from_parts((10, 12, 14), (0, 0, 0), (0.006, 0.006, 0.006))
    mask = Image(torch.zeros(1, *grid.shape), grid.cropped((1, 0, 0), (11, 12, 14)))
    mask.data[0, 4:8, 4:8, 4:8] = 1.0
    said = []
    moved = io.resampled_mask(mask, grid, "mask", said.append)
    assert said and torch.equal(moved.data.roll(-1, 3), mask.data)


@pytest.mark.parametrize("kind", [sitk.sitkComplexFloat32, sitk.sitkLabelUInt8])
def test_sitk_images_without_real_numbers_are_a_sentence(kind):
    with pytest.raises(RegistrationError, match="real number"):
        io.from_sitk(sitk.Image([9, 9, 9], kind))


def test_mask_on_another_grid_is_resampled_and_said():
    whole = grid_of("LPS", (20, 20, 20))
    part = Grid.from_parts((10, 20, 20), whole.origin, whole.spacing)
    said = []
    mask = io.resampled_mask(Image(torch.ones(1, *part.shape), part), whole, "m.nii", said.append)
    assert mask.grid is whole
    assert mask.data[0, :, :, :10].all() and not mask.data[0, :, :, 10:].any()
    assert len(said) == 1 and "another grid" in said[0]


@pytest.mark.parametrize("kind", KINDS)
def test_not_a_number_becomes_background_with_a_warning(tmp_path, kind):
    image = image_on(grid_of(kind))
    image.data[0, 2:4] = float("nan")
    image.data[0, 5, 5, 5] = float("inf")
    image.data[0, 6, 6, 6] = -50.0  # the background: NIfTI's own library would say 0
    for ending in (".nii.gz", ".nrrd"):
        io.write_image(image, tmp_path / f"a{ending}")
        said = []
        back = io.read_image(tmp_path / f"a{ending}", said.append)
        assert len(said) == 1 and "background" in said[0]
        assert (back.data[0, 2:4] == -50.0).all() and back.data[0, 5, 5, 5] == -50.0
        kept = torch.isfinite(image.data)
        assert torch.equal(back.data[kept], image.data[kept])


FULL_DISK = """
import resource, sys, torch
from neuralreg import io
from neuralreg.image import Grid, Image
from neuralreg.transform import DisplacementField
grid = Grid.from_parts((40, 40, 40))
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
for name in sys.argv[1:]:
    try:
        if name == "t.h5":
            io.write_transform(DisplacementField(torch.rand(3, 40, 40, 40), grid), name)
        else:
            io.write_image(Image(torch.rand(1, 40, 40, 40), grid), name)
    except OSError as error:
        print(name)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the limit on file size, which stands in for a full disk, is POSIX")
def test_full_disk_is_an_error_and_leaves_nothing(tmp_path):
    names = ["a.nii.gz", "a.nii", "a.nrrd", "a.mha", "t.h5"]
    done = python(FULL_DISK, *names, cwd=tmp_path)
    assert done.stdout.split() == names and done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []

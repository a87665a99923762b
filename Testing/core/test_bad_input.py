"""Whatever is wrong with a file: one sentence that says what to do, and nothing allocated for a header's promises."""

import gzip
import os
import re
import struct
import sys
from pathlib import Path

import neuralreg
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from child import python
from geometry import affine, grid_of, image_on
from neuralreg import io
from neuralreg.image import Grid, Image
from neuralreg.job import RegistrationError, RegistrationJob
from neuralreg.transform import Affine, DisplacementField
from refusals import fails


def stack(count: int) -> sitk.Image:
    return sitk.JoinSeries([io.to_sitk(image_on(grid_of("LPS"), seed)) for seed in range(count)])


def test_missing_unreadable_empty(tmp_path):
    fails(tmp_path / "none.nii", "There is no file", "none.nii")
    fails(tmp_path, "no DICOM images")
    for name in ("a.nii", "a.nii.gz", "a.nrrd", "a.mha", "a.txt"):
        (tmp_path / name).write_bytes(b"")
        fails(tmp_path / name, "cannot be read")
        (tmp_path / name).write_bytes(b"nonsense" * 100)
        fails(tmp_path / name, "cannot be read")


def test_not_three_dimensional(tmp_path):
    sitk.WriteImage(io.to_sitk(image_on(grid_of("LPS")))[:, :, 3], str(tmp_path / "flat.mha"))
    fails(tmp_path / "flat.mha", "2 dimensions")


def test_four_dimensions_name_the_volume_to_pick(tmp_path):
    sitk.WriteImage(stack(4), str(tmp_path / "many.nii.gz"))
    fails(tmp_path / "many.nii.gz", "4 volumes", "many.nii.gz@0", "many.nii.gz@3")
    fails(f"{tmp_path / 'many.nii.gz'}@4", "4 volumes")
    picked = io.read_image(f"{tmp_path / 'many.nii.gz'}@2")
    assert torch.equal(picked.data, image_on(grid_of("LPS"), 2).data)


def test_four_dimensions_with_one_volume_are_fine(tmp_path):
    sitk.WriteImage(stack(1), str(tmp_path / "one.nii.gz"))
    assert torch.equal(io.read_image(tmp_path / "one.nii.gz").data, image_on(grid_of("LPS"), 0).data)
    assert io.read_image(tmp_path / "one.nii.gz").grid.same_as(grid_of("LPS"))


def test_vector_volume_names_the_component_to_pick(tmp_path):
    volume = sitk.Compose([io.to_sitk(image_on(grid_of("LPS"), seed)) for seed in range(3)])
    sitk.WriteImage(volume, str(tmp_path / "rgb.nrrd"))
    fails(tmp_path / "rgb.nrrd", "3 values per voxel", "rgb.nrrd@0")
    assert torch.equal(io.read_image(f"{tmp_path / 'rgb.nrrd'}@1").data, image_on(grid_of("LPS"), 1).data)


def test_constant_small_complex_and_all_nan(tmp_path):
    grid = grid_of("LPS")
    io.write_image(Image(torch.full((1, *grid.shape), 7.0), grid), tmp_path / "same.nii")
    fails(tmp_path / "same.nii", "same value")
    io.write_image(image_on(grid_of("LPS", (20, 20, 7))), tmp_path / "thin.nii")
    fails(tmp_path / "thin.nii", "20 × 20 × 7", "at least 8")
    io.write_image(Image(torch.full((1, *grid.shape), float("nan")), grid), tmp_path / "nan.nrrd")
    fails(tmp_path / "nan.nrrd", "no number")
    sitk.WriteImage(sitk.Image([9, 9, 9], sitk.sitkComplexFloat32), str(tmp_path / "complex.nii"))
    fails(tmp_path / "complex.nii", "real numbers")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_no_utf8_does_not_end_the_process(tmp_path):
    """Of an old archive, say; ITK knows no way to such a file."""
    image, name = image_on(grid_of("LPS")), os.fsdecode(b"caf\xe9")
    io.write_image(image, tmp_path / "plain.nrrd")
    io.write_transform(Affine.identity(), tmp_path / "plain.h5")
    for ending, read in ((".nrrd", io.read_image), (".h5", io.read_transform)):
        (tmp_path / f"plain{ending}").rename(tmp_path / f"{name}{ending}")
        fails(tmp_path / f"{name}{ending}", "caf?", "rename it", read=read)
    fails(tmp_path / f"{name}.mha", "rename it", read=lambda path: io.write_image(image, path))
    with pytest.raises(RegistrationError, match="all programs can read"):
        RegistrationJob("f.nii", "m.nii", name)


@pytest.mark.parametrize("unit", [1e300, 1e-300])
def test_values_that_32_bits_cannot_hold_are_named(tmp_path, unit):
    volume = sitk.GetImageFromArray(image_on(grid_of("LPS")).data[0].double().numpy() * unit)
    sitk.WriteImage(volume, str(tmp_path / "doubles.nrrd"))
    fails(tmp_path / "doubles.nrrd", "too large for 32 bits", read=lambda path: io.read_image(path, id))


def test_a_value_that_32_bits_cannot_hold_is_background_with_a_warning(tmp_path):
    values, said = image_on(grid_of("LPS")).data[0].double().numpy(), []
    values[3, 3, 3] = 1e300
    sitk.WriteImage(sitk.GetImageFromArray(values), str(tmp_path / "doubles.nrrd"))
    assert io.read_image(tmp_path / "doubles.nrrd", said.append).data[0, 3, 3, 3] == values.min()
    assert len(said) == 1 and "too large for 32 bits" in said[0]


def test_masks(tmp_path):
    grid = grid_of("LPS")
    io.write_image(Image(torch.zeros(1, *grid.shape), grid), tmp_path / "empty.nii")
    fails(tmp_path / "empty.nii", "is empty", read=lambda path: io.read_mask(path, grid))
    far = Grid.from_parts(grid.size, grid.origin + 1000, grid.spacing)
    io.write_image(Image(torch.ones(1, *grid.shape), far), tmp_path / "far.nii")
    fails(tmp_path / "far.nii", "does not overlap", read=lambda path: io.read_mask(path, grid, lambda _: None))


def rewritten(path: Path, name: str, old: bytes, new: bytes) -> Path:
    """A copy of a file with a text header, beside it, in which one entry is another."""
    copy = path.with_name(name)
    copy.write_bytes(re.sub(old, new, path.read_bytes(), count=1))
    assert copy.read_bytes() != path.read_bytes()
    return copy


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ("fixed mask must be a path", {"fixed_mask": np.ones((10, 12, 14))}),
        ("fixed mask has 2 values", {"fixed_mask": sitk.Image([14, 12, 10], sitk.sitkVectorUInt8, 2)}),
        ("initial transform must be a path", {"initial_transform": np.eye(4)}),
        ("initial transform cannot be used", {"initial_transform": sitk.DisplacementFieldTransform(3)}),
        (
            "initial transform holds NaN or infinity",
            {"initial_transform": DisplacementField(torch.full((3, 10, 12, 14), torch.nan), grid_of("LPS"))},
        ),
        ("two point files or two arrays", {"landmarks": ("points.csv",)}),
        ("two point files or two arrays", {"landmarks": ("points.csv", np.zeros((3, 3)))}),
        ("a coordinate is no number", {"landmarks": ([[1, 2, np.nan], [0, 0, 0]], [[1, 2, 3], [0, 0, 0]])}),
        ('"options" must be a table', {"options": ["iterations"]}),
        ('"seed" must be a whole number', {"seed": "first"}),
        ('"threads" must be a whole number', {"threads": -1}),
        ('"monitor" must be a neuralreg.Monitor', {"monitor": print}),
        ("The fixed mask is empty", {"fixed_mask": Image(torch.zeros(1, 10, 12, 14), grid_of("LPS"))}),
        ("two point files or two arrays", {"landmarks": (torch.zeros(4, 3, requires_grad=True),) * 2}),
    ],
)
def test_a_wrong_argument_from_python_is_a_sentence(words, wrong):
    image = image_on(grid_of("LPS"))
    with pytest.raises(RegistrationError, match=words):
        neuralreg.register(image, image, **wrong)


@pytest.mark.parametrize("write", [neuralreg.write_image, neuralreg.write_transform])
@pytest.mark.parametrize("ending", ["nii.gz", "nrrd", "h5", "tfm"])
def test_a_folder_that_is_not_there_is_a_sentence(tmp_path, write, ending):
    if write is neuralreg.write_image and ending in ("h5", "tfm"):
        ending = "mha"
    field = DisplacementField(torch.zeros(3, 10, 12, 14), grid_of("LPS"))
    thing = {"mha": image_on(grid_of("LPS")), "tfm": affine(), "h5": affine()}.get(ending, field)
    thing = image_on(grid_of("LPS")) if write is neuralreg.write_image else thing
    with pytest.raises(RegistrationError, match=r"There is no folder .*missing to write to; make it"):
        write(thing, tmp_path / "missing" / f"a.{ending}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (
            "write_image needs an Image, then its file; got ndarray",
            lambda i: io.write_image(np.ones((4, 4, 4)), "a.nii"),
        ),
        ("named by a text or a pathlib.Path; got Image", lambda i: io.write_image("a.nii", i)),
        ("write_transform needs a Transform, then its file", lambda i: io.write_transform(np.eye(4), "a.h5")),
        ("named by a text or a pathlib.Path; got Image", lambda i: io.read_image(i)),
        ("named by a text or a pathlib.Path; got ndarray", lambda i: io.read_labels(i.data.numpy())),
        ("named by a text or a pathlib.Path; got NoneType", lambda i: io.read_transform(None)),
        ("read_mask needs a Grid, such as image.grid; got Image", lambda i: io.read_mask("a.nii", i)),
        ("The name xxx", lambda i: io.read_image("x" * 300 + ".nii")),
    ],
)
def test_a_wrong_argument_of_reading_and_writing_is_a_sentence(words, wrong):
    with pytest.raises(RegistrationError, match=words):
        wrong(image_on(grid_of("LPS")))


@pytest.mark.parametrize("kind", ["float16", complex, str, "banana", torch.uint8])
def test_a_type_of_number_that_no_file_has_is_a_sentence(tmp_path, kind):
    with pytest.raises(RegistrationError, match="Voxels cannot be written as"):
        io.write_image(image_on(grid_of("LPS")), tmp_path / "a.nii.gz", kind)


@pytest.mark.parametrize("value", [256.0, -1.0, float("nan")])
def test_values_that_a_type_of_number_cannot_hold_are_not_wrapped(tmp_path, value):
    """300 would become 44."""
    image = Image(torch.full((1, 10, 12, 14), 7.6), grid_of("LPS"))
    io.write_image(image, tmp_path / "a.nii", np.uint8)
    assert set(io.read_labels(tmp_path / "a.nii").data.unique().tolist()) == {8}
    image.data[0, 0, 0, 0] = value
    with pytest.raises(RegistrationError, match="do not fit into uint8; choose a larger type"):
        io.write_image(image, tmp_path / "b.nii", np.uint8)


def test_sheared_axes_outside_nifti(tmp_path):
    """ITK keeps them, but the outputs of a run, which lie on the fixed grid, are NIfTI files."""
    for name, old, new in (
        ("a.nrrd", rb"space directions: .*", b"space directions: (1,0,0) (0.2,1.5,0) (0,0,2.5)"),
        ("a.mha", rb"TransformMatrix = .*", b"TransformMatrix = 1 0 0 0.2 1 0 0 0 1"),
    ):
        io.write_image(image_on(grid_of("LPS")), tmp_path / name)
        fails(rewritten(tmp_path / name, f"sheared {name}", old, new), "not at right angles", f"sheared {name}")


def test_headers_without_a_place_in_space(tmp_path):
    io.write_image(image_on(grid_of("LPS")), tmp_path / "a.mha")
    for old, new in (
        (rb"ElementSpacing = .*", b"ElementSpacing = 0 1 1"),
        (rb"TransformMatrix = .*", b"TransformMatrix = 1 0 0 1 0 0 0 0 1"),
    ):
        fails(rewritten(tmp_path / "a.mha", "b.mha", old, new), "b.mha has no usable position")


@pytest.mark.parametrize(
    ("kind", "place", "values", "words"),
    [
        ("<8h", 40, (99, 14, 12, 10, 1, 1, 1, 1), "no possible size"),
        ("<8h", 40, (3, 14, -12, 10, 1, 1, 1, 1), "no possible size"),
        ("<12f", 280, (float("nan"),) * 12, "no possible orientation"),
    ],
)
def test_headers_of_which_a_library_would_complain_aloud(tmp_path, kind, place, values, words, capfd):
    io.write_image(image_on(grid_of("LPS")), tmp_path / "a.nii")
    data = bytearray((tmp_path / "a.nii").read_bytes())
    struct.pack_into(kind, data, place, *values)
    (tmp_path / "a.nii").write_bytes(data)
    fails(tmp_path / "a.nii", "is damaged", words)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("padding", [bytes(512), b"junk" * 20])
@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd"])
def test_padding_behind_a_compressed_volume_is_no_damage(tmp_path, name, padding):
    sitk.WriteImage(io.to_sitk(image_on(grid_of("LPS"))), str(tmp_path / name), True)
    with (tmp_path / name).open("ab") as file:
        file.write(padding)
    assert torch.equal(io.read_image(tmp_path / name).data, image_on(grid_of("LPS")).data)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.nii")
    fails(tmp_path / "a.nii", "is no file")


def test_sheared_axes(tmp_path):
    io.write_image(image_on(grid_of("LPS")), tmp_path / "a.nii")
    data = bytearray((tmp_path / "a.nii").read_bytes())
    struct.pack_into("<hh", data, 252, 0, 2)  # sform only
    struct.pack_into("<12f", data, 280, 1, 0.3, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0)
    (tmp_path / "a.nii").write_bytes(data)
    fails(tmp_path / "a.nii", "not at right angles")


def test_two_orientations_in_one_header_are_said(tmp_path):
    io.write_image(image_on(grid_of("RAS")), tmp_path / "a.nii")
    data = bytearray((tmp_path / "a.nii").read_bytes())
    rows = list(struct.unpack_from("<12f", data, 280))
    rows[3] += 40
    struct.pack_into("<12f", data, 280, *rows)
    (tmp_path / "a.nii").write_bytes(data)
    said = []
    io.read_image(tmp_path / "a.nii", said.append)
    assert len(said) == 1 and "two orientations" in said[0] and "40.0 mm" in said[0]


def test_an_analyze_header_has_no_orientations_to_differ(tmp_path):
    """Where NIfTI keeps its two, Analyze 7.5 keeps the origin that SPM writes, and names."""
    sitk.WriteImage(io.to_sitk(image_on(grid_of("LPS"))), str(tmp_path / "a.img"))
    data = bytearray((tmp_path / "a.hdr").read_bytes())
    data[252:348] = bytes(96)
    struct.pack_into("<3h", data, 253, 10, 9, 8)
    (tmp_path / "a.hdr").write_bytes(data)
    said = []
    io.read_image(tmp_path / "a.hdr", said.append)
    assert said == []


@pytest.fixture
def nothing_is_read(monkeypatch):
    """SimpleITK allocates what a header promises as soon as it is asked for voxels: it must not be asked."""

    def forbidden(reader):
        raise AssertionError("the voxels were read")

    monkeypatch.setattr(sitk.ImageFileReader, "Execute", forbidden)


LIES = {
    "a.nii": lambda data: data[:40] + struct.pack("<8h", 3, 2000, 2000, 500, 1, 1, 1, 1) + data[56:],
    "a.nii.gz": lambda data: gzip.compress(LIES["a.nii"](gzip.decompress(data))),
    "a.mha": lambda data: data.replace(b"DimSize = 14 12 10", b"DimSize = 2000 2000 500"),
    "a.nrrd": lambda data: data.replace(b"sizes: 14 12 10", b"sizes: 2000 2000 500"),
}


@pytest.mark.parametrize("name", LIES)
def test_header_that_promises_gigabytes(tmp_path, name, nothing_is_read):
    io.write_image(image_on(grid_of("LPS")), tmp_path / name)
    data = (tmp_path / name).read_bytes()
    lie = LIES[name](data)
    assert lie != data
    (tmp_path / name).write_bytes(lie)
    fails(tmp_path / name, "incomplete or damaged", "8.0 GB")


@pytest.mark.parametrize("name", LIES)
@pytest.mark.parametrize("compressed", [True, False])
def test_truncated_file(tmp_path, name, compressed, nothing_is_read):
    """SimpleITK reads a truncated NIfTI file without a word."""
    sitk.WriteImage(io.to_sitk(image_on(grid_of("LPS"))), str(tmp_path / name), compressed)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) * 2 // 3])
    fails(tmp_path / name, "incomplete or damaged")


def test_damaged_compressed_body(tmp_path, nothing_is_read):
    io.write_image(image_on(grid_of("LPS", (60, 60, 60))), tmp_path / "a.nii.gz")
    data = bytearray((tmp_path / "a.nii.gz").read_bytes())
    data[-40] ^= 0xFF
    (tmp_path / "a.nii.gz").write_bytes(data)
    fails(tmp_path / "a.nii.gz", "incomplete or damaged")


def test_header_without_its_voxels(tmp_path):
    sitk.WriteImage(io.to_sitk(image_on(grid_of("LPS"))), str(tmp_path / "a.mhd"))
    assert torch.equal(io.read_image(tmp_path / "a.mhd").data, image_on(grid_of("LPS")).data)
    (tmp_path / "a.raw").unlink()
    fails(tmp_path / "a.mhd", "a.raw", "is not there")


@pytest.mark.parametrize("name", ["a.mhd", "a.nhdr", "a.hdr", "a.txt", "a"])
def test_file_types_that_are_not_written(tmp_path, name):
    """Of a pair of files one could be left behind."""
    fails(tmp_path / name, ".nii.gz, .nrrd or .mha", read=lambda path: io.write_image(image_on(grid_of("LPS")), path))
    assert list(tmp_path.iterdir()) == []


def test_names_with_spaces_accents_links(tmp_path):
    folder = tmp_path / "Jürgen's scans – 日本"
    folder.mkdir()
    image = image_on(grid_of("LPS"))
    io.write_image(image, folder / "a b@2.nii.gz")  # a name that looks like a picked volume is a name first
    assert torch.equal(io.read_image(folder / "a b@2.nii.gz").data, image.data)
    if sys.platform != "win32":
        (tmp_path / "link.nii.gz").symlink_to(folder / "a b@2.nii.gz")
        assert torch.equal(io.read_image(tmp_path / "link.nii.gz").data, image.data)


def test_a_file_is_not_taken_for_its_neighbour(tmp_path):
    """The NIfTI library reads the voxels of scan.nii for scan.nii.gz where both are there."""
    for name, seed in (("scan.nii", 1), ("scan.nii.gz", 2)):
        io.write_image(image_on(grid_of("LPS"), seed), tmp_path / name)
    for name, seed in (("scan.nii", 1), ("scan.nii.gz", 2)):
        assert torch.equal(io.read_image(tmp_path / name).data, image_on(grid_of("LPS"), seed).data), name


def test_numbers_beyond_float32_are_background(tmp_path):
    values = np.random.default_rng(0).random((10, 12, 14))
    values[3, 3, 3] = 1e300
    sitk.WriteImage(sitk.GetImageFromArray(values), str(tmp_path / "a.nrrd"))
    said = []
    assert torch.isfinite(io.read_image(tmp_path / "a.nrrd", said.append).data).all()
    assert len(said) == 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit on memory is Linux's")
def test_fuzz(tmp_path):
    """1000 mutated files of 11 types: read or refused with a sentence, quickly and in little memory, never a crash."""
    fuzz = Path(__file__).with_name("fuzz_images.py")
    done = python(fuzz.read_text(encoding="utf-8"), tmp_path, "1000", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("1000 files")

"""FreeSurfer's .mgz and .mgh as nibabel writes them, and such that are damaged."""

import gzip
import struct

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from geometry import DIRECTIONS, grid_of, image_on
from neuralreg import io
from neuralreg.freesurfer import BEFORE_VOXELS
from neuralreg.report import pictures
from refusals import fails


def ras_affine(volume: sitk.Image) -> np.ndarray:
    """Index (x, y, z) → RAS mm, as nibabel counts."""
    affine = np.eye(4)
    affine[:3, :3] = np.array(volume.GetDirection()).reshape(3, 3) * volume.GetSpacing()
    affine[:3, 3] = volume.GetOrigin()
    return np.diag([-1, -1, 1, 1]) @ affine


def write(path, values: np.ndarray, affine: np.ndarray) -> None:
    nibabel.MGHImage(values, affine).to_filename(str(path))


def volume_on(kind: str, seed: int = 0) -> sitk.Image:
    return io.to_sitk(image_on(grid_of(kind), seed))


@pytest.mark.parametrize("ending", ["mgz", "mgh", "MGZ"])
@pytest.mark.parametrize("kind", DIRECTIONS)
def test_the_volume_lies_where_nibabel_puts_it(tmp_path, kind, ending):
    volume = volume_on(kind)
    path = tmp_path / f"norm.{ending.lower()}"
    write(path, sitk.GetArrayFromImage(volume).T, ras_affine(volume))
    path = path.rename(tmp_path / f"norm.{ending}")
    for found in (io.to_sitk(io.read_image(path)), pictures.read_volume(str(path))):
        np.testing.assert_array_equal(sitk.GetArrayFromImage(found), sitk.GetArrayFromImage(volume))
        np.testing.assert_allclose(ras_affine(found), ras_affine(volume), atol=1e-4)


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int32, np.float32])
def test_labels_keep_their_numbers_and_their_type(tmp_path, kind):
    values = np.zeros((12, 10, 9), kind)
    values[3:9, 2:8, 2:7], values[4:6, 4:6, 3:5] = 17, 53
    write(tmp_path / "aseg.mgz", values, np.diag([2.0, 2, 2, 1]))
    labels = io.read_labels(tmp_path / "aseg.mgz")
    np.testing.assert_array_equal(labels.data[0].numpy().T, values)
    assert io.pixel_type(tmp_path / "aseg.mgz") is kind


def test_one_of_several_volumes_is_picked_by_its_number(tmp_path):
    values = np.random.default_rng(0).normal(size=(10, 9, 8, 3)).astype(np.float32)
    write(tmp_path / "bold.mgz", values, np.eye(4))
    fails(tmp_path / "bold.mgz", "holds 3 volumes", "bold.mgz@0")
    for read in (io.to_sitk(io.read_image(f"{tmp_path}/bold.mgz@2")), pictures.read_volume(f"{tmp_path}/bold.mgz@2")):
        np.testing.assert_array_equal(sitk.GetArrayFromImage(read).T, values[..., 2])
    write(tmp_path / "t1.mgz", values[..., 0], np.eye(4))
    fails(f"{tmp_path}/t1.mgz@1", "one volume only")


def damaged(tmp_path, change, packed: bool):
    """A sound file, opened up, changed by `change(bytearray)`, and packed again."""
    sound = tmp_path / "sound.mgh"
    write(sound, np.random.default_rng(0).normal(size=(10, 9, 8)).astype(np.float32), np.eye(4))
    stored = change(bytearray(sound.read_bytes()))
    path = tmp_path / ("a.mgz" if packed else "a.mgh")
    path.write_bytes(gzip.compress(bytes(stored)) if packed else bytes(stored))
    return path


def put(offset: int, form: str, *values):
    def change(stored: bytearray) -> bytearray:
        struct.pack_into(form, stored, offset, *values)
        return stored

    return change


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(("change", "words"), [
    (lambda stored: stored[: BEFORE_VOXELS + 100], "incomplete"),
    (lambda stored: stored[:40], "damaged"),
    (lambda stored: stored[:0], "damaged"),
    (put(0, ">i", 7), "damaged"),
    (put(4, ">i", -3), "damaged"),
    (put(4, ">3i", 60000, 60000, 60000), "promises"),
    (put(20, ">i", 99), "damaged"),
    (put(28, ">h", 0), "no usable position"),
    (put(30, ">f", 0.0), "no usable position"),
    (put(42, ">9f", *[0.0] * 9), "no usable position"),
    (put(78, ">f", float("nan")), "no usable position"),
    (put(42, ">3f", 0.8, 0.6, 0.0), "right angles"),
])  # fmt: skip
def test_a_damaged_file_gets_one_sentence(tmp_path, change, words, packed):
    fails(damaged(tmp_path, change, packed), words)


def test_a_file_cut_short_within_its_compressed_bytes_gets_one_sentence(tmp_path):
    path = damaged(tmp_path, lambda stored: stored, packed=True)
    path.write_bytes(path.read_bytes()[:-500])
    fails(path, "incomplete")
    (tmp_path / "b.mgz").write_bytes(b"\x1f\x8bno gzip at all" * 30)
    fails(tmp_path / "b.mgz", "b.mgz")

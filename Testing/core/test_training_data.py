"""What training learns from: subjects found, packed, aligned, grouped and held out."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from neuralreg import train, weights
from neuralreg.cli import main
from neuralreg.job import RegistrationError
from neuralreg.training import data
from neuralreg.training.augment import Augmentation
from neuralreg.training.examples import _two
from neuralreg.training.packing import Packing, build_pack, find_subjects, save_pack
from training_setup import Executed, blob, config, pack_of, write_subjects


def grouped(tmp_path, subjects, groups: list[tuple[int, str]]) -> list[data.Subject]:
    """The packed subjects of a table: numbers of images and their groups."""
    rows = "".join(f"{subjects / f's{number}_T1w.nii.gz'},{group}\n" for number, group in groups)
    (tmp_path / "t.csv").write_text("image,group\n" + rows)
    return data.Pack.load(pack_of(tmp_path / "t.csv", tmp_path / "p.npz")).subjects


def test_wrong_data_get_a_sentence(tmp_path, pack):
    with pytest.raises(RegistrationError, match="at least four"):
        find_subjects(tmp_path)
    with pytest.raises(RegistrationError, match="no training data"):
        find_subjects(tmp_path / "nowhere")
    (tmp_path / "t.csv").write_text("picture\na.nii\n")
    with pytest.raises(RegistrationError, match="choose one of image, labels, group"):
        find_subjects(tmp_path / "t.csv")
    (tmp_path / "p.npz").write_bytes(b"nothing")
    np.savez(tmp_path / "trap.npz", centre=np.array([Executed(tmp_path / "trap")], dtype=object))
    (tmp_path / "empty.npz").touch()
    (tmp_path / "cut.npz").write_bytes(pack.read_bytes()[:-500])  # as a copy onto a full disk leaves it
    (tmp_path / "rotten.npz").write_bytes(
        bytes(255 - b if 300 < i < 340 else b for i, b in enumerate(pack.read_bytes()))
    )
    for name in ("p.npz", "trap.npz", "empty.npz", "cut.npz", "rotten.npz"):
        with pytest.raises(RegistrationError, match="not a training pack"):
            data.Pack.load(tmp_path / name)
    assert not (tmp_path / "trap").exists()
    with pytest.raises(RegistrationError, match="no training pack at"):
        data.Pack.load(tmp_path / "missing.npz")
    with pytest.raises(RegistrationError, match='need two each; add subjects, or change "validation_subjects"'):
        train.train(config(pack, tmp_path / "out", validation_subjects=4))


@pytest.mark.parametrize(
    "text", ["image,labels\na.nii,a_seg.nii\nb.nii,\n", " Image ; labels\n a.nii; a_seg.nii\n;\nb.nii;\n"]
)
def test_a_table_of_images_is_understood(tmp_path, text):
    """Also as spreadsheets of other countries write it."""
    for name in ("a.nii", "a_seg.nii", "b.nii"):
        (tmp_path / name).touch()
    (tmp_path / "t.csv").write_text(text)
    first, second = find_subjects(tmp_path / "t.csv")
    assert (first.image, first.labels) == (tmp_path / "a.nii", tmp_path / "a_seg.nii")
    assert second.labels is None
    assert first.name < second.name, "the order of the table says who is held out"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("image,label\na.nii,b.nii\n", 'did you mean "labels"'),
        ("image,labels\na.nii,\nb.nii,none.nii\n", "Line 3 .* names .*none.nii, which is not there"),
        ("image,group\na.nii,x\n,x\n", "Line 3 .* has no image and no labels"),
        ("image,image\na.nii,b.nii\n", "two columns"),
        ("image\na.nii,b.nii\n", "more entries than the heading"),
    ],
)
def test_a_table_that_would_lose_something_is_refused_before_the_work(tmp_path, text, words):
    for name in ("a.nii", "b.nii"):
        (tmp_path / name).touch()
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(RegistrationError, match=words):
        find_subjects(tmp_path / "t.csv")


def test_points_in_names_do_not_make_one_subject_of_many(tmp_path):
    for name in ("sub.1.nii.gz", "sub.2.nii.gz", "sub.2_labels.nii.gz"):
        (tmp_path / name).touch()
    found = {files.name: files.labels and files.labels.name for files in find_subjects(tmp_path)}
    assert found == {"sub.1": None, "sub.2": "sub.2_labels.nii.gz"}
    (tmp_path / "sub.1.nrrd").touch()
    with pytest.raises(RegistrationError, match=r"sub\.1 in two formats"):
        find_subjects(tmp_path)


def test_labels_belong_to_the_image_whose_whole_name_they_begin_with(tmp_path):
    for name in ("s1_T1w", "s10_T1w", "s2", "s1_labels", "s2_label"):
        (tmp_path / f"{name}.nii.gz").touch()
    found = {files.name: files.labels and files.labels.name for files in find_subjects(tmp_path)}
    assert found == {"s1_T1w": "s1_labels.nii.gz", "s10_T1w": None, "s2": "s2_label.nii.gz"}


@pytest.mark.parametrize("name", ["s3_labels", "labels_s1", "s1_T1w_other_label"])
def test_labels_of_nobody_are_refused(tmp_path, name):
    """A name that differs by a letter would lose them without a word."""
    for other in ("s1_T1w", "s2_T1w", name):
        (tmp_path / f"{other}.nii.gz").touch()
    with pytest.raises(RegistrationError, match=rf"{name}\.nii\.gz is of no image beside it; name it NAME_labels"):
        find_subjects(tmp_path)


def test_what_cannot_be_packed_gets_a_sentence(tmp_path, subjects):
    found = find_subjects(subjects)
    with pytest.raises(RegistrationError, match="empty where it counts"):
        build_pack(found, Packing(2.0, align=False, keep=(77,)), lambda text: None)
    with pytest.raises(RegistrationError, match=r"between 0\.1 and 20 mm"):
        Packing(0.0)
    with pytest.raises(RegistrationError, match=r"end it with \.npz"):
        save_pack(tmp_path / "pack.zip", {})
    for number in range(2):
        labels = np.where(blob(number) > 150, 40_000, 0).astype(np.int32)
        sitk.WriteImage(sitk.GetImageFromArray(labels), str(tmp_path / f"labels_{number}.nii.gz"))
    with pytest.raises(RegistrationError, match="holds the label 40000"):
        build_pack(find_subjects(tmp_path), Packing(1.0, align=False), lambda text: None)
    assert main(["pack", str(subjects), str(tmp_path / "p.npz"), "--keep", "cortex"]) == 2


@pytest.mark.parametrize("bad", [0, 3])
def test_a_subject_that_cannot_be_packed_is_left_out_and_named(tmp_path, bad, capsys):
    """Not the whole folder: with the others an hour of work would be lost."""
    write_subjects(tmp_path)
    (tmp_path / f"s{bad}_T1w.nii.gz").write_bytes(b"no image")
    assert main(["pack", str(tmp_path), str(tmp_path / "p.npz"), "--aligned"]) == 0
    said = capsys.readouterr().err.splitlines()
    assert f"s{bad}_T1w.nii.gz" in next(line for line in said if line.startswith(f"s{bad}_T1w is left out: "))
    assert said[-1] == f"1 of 5 left out, for the reasons above: s{bad}_T1w"
    names = [subject.name for subject in data.Pack.load(tmp_path / "p.npz").subjects]
    assert names == [f"s{number}_T1w" for number in range(5) if number != bad]


@pytest.mark.parametrize(("name", "words"), [("missing/p.npz", "There is no folder"), ("p.zip", "end it with .npz")])
def test_where_a_pack_cannot_go_is_said_before_the_work(tmp_path, subjects, name, words, capsys):
    assert main(["pack", str(subjects), str(tmp_path / name)]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1, "no subject was read"


def test_alignment_makes_the_subjects_share_a_space(tmp_path):
    """Shifted copies: their affines must undo the shift, whoever is the reference."""
    for number, shift in enumerate((0.0, 12.0, -8.0)):
        image = sitk.GetImageFromArray(blob(0, 32).astype(np.float32))
        image.SetSpacing((3.0, 3.0, 3.0))
        image.SetOrigin((shift, 0.0, -shift))
        sitk.WriteImage(image, str(tmp_path / f"{number}.nii.gz"))
    arrays = build_pack(find_subjects(tmp_path), Packing(3.0), lambda text: None)
    offsets = [arrays[f"affine/{n}"][:3, 3] for n in range(3)]
    np.testing.assert_allclose(offsets[1] - offsets[0], (12, 0, -12), atol=1.0)
    np.testing.assert_allclose(offsets[2] - offsets[0], (-8, 0, 8), atol=1.0)


def test_label_maps_alone_are_subjects_and_the_skull_can_be_cut_away(tmp_path):
    for number in range(2):
        labels = np.where(blob(number) > 150, 3, np.where(blob(number) > 0, 500, 0)).astype(np.int16)
        sitk.WriteImage(sitk.GetImageFromArray(labels), str(tmp_path / f"label_map_{number}.nii.gz"))
    found = find_subjects(tmp_path)
    assert [f.image for f in found] == [None, None]
    whole = build_pack(found, Packing(1.0, align=False), lambda text: None)
    inner = build_pack(found, Packing(1.0, align=False, keep=(3,)), lambda text: None)
    assert set(np.unique(whole["labels/label_map_0"])) == {0, 3, 500}
    assert set(np.unique(inner["labels/label_map_0"])) == {0, 3}
    assert inner["image/label_map_0"].size < whole["image/label_map_0"].size
    assert ((inner["image/label_map_0"] > 0) == (inner["labels/label_map_0"] > 0)).all()


def test_a_model_of_painted_contrasts_expects_no_contrast(tmp_path, pack):
    for changes, expects in (({}, True), ({"painted": 1.0}, False), ({"augmentation": Augmentation(tone=0.5)}, False)):
        trainer = train.trainer_of(config(pack, tmp_path, **changes), data.Pack.load(pack))
        assert ("deciles" in trainer.domain()) is expects


def test_subjects_of_a_group_are_paired_within_it(tmp_path, subjects):
    found = grouped(tmp_path, subjects, [(n, "ab"[n % 2]) for n in range(4)])
    for seed in range(8):
        first, second = _two(found, torch.Generator().manual_seed(seed))
        assert first != second
        assert found[first].group == found[second].group


def test_subjects_of_every_group_are_held_out(tmp_path, subjects):
    found = grouped(tmp_path, subjects, [(n, "ab"[n // 2 % 2]) for n in (0, 1, 2, 3, 0, 1, 2, 3)])
    training, validation = train._split(found, 2)
    assert [s.group for s in validation] == ["a", "a", "b", "b"]
    assert {s.name for s in training} == {s.name for s in found} - {s.name for s in validation}
    with pytest.raises(RegistrationError, match="4, 4 subjects, 3 of each group"):
        train._split(found, 3)


def test_pairs_of_ones_own_train_and_whole_pairs_are_held_out(tmp_path, subjects):
    rows = [(0, "p"), (1, "p"), (2, "q"), (3, "q"), (4, "r"), (0, "r")]
    found = grouped(tmp_path, subjects, rows)
    training, validation = train._split(found, 2)
    assert [s.group for s in training] == ["p", "p", "q", "q"]
    assert [s.group for s in validation] == ["r", "r"]
    settings = config(tmp_path / "p.npz", tmp_path / "out")
    assert weights.load(train.train(settings)).manifest.training["iterations"] == 6
    for held_out in (1, 5):
        with pytest.raises(RegistrationError, match="2, 2, 2 subjects"):
            train._split(found, held_out)
    with pytest.raises(RegistrationError, match="2, 2, 1 subjects, 2 in whole groups held out"):
        train._split(found[:5], 2)


def test_a_subject_without_a_group_stays_with_its_like(tmp_path, subjects):
    found = grouped(tmp_path, subjects, [(0, ""), (1, ""), (2, "a"), (3, "a")])
    for seed in range(8):
        first, second = _two(found, torch.Generator().manual_seed(seed))
        assert found[first].group == found[second].group


def test_a_network_is_not_trained_on_voxels_coarser_than_its_own(tmp_path, pack, subjects):
    with pytest.raises(RegistrationError, match="sees 1 mm, but its pack has voxels of 2 mm: make a finer one"):
        train.train(config(pack, tmp_path / "coarse", spacing=1.0))
    settings = config(subjects, tmp_path / "fine", spacing=1.5, packing=Packing(2.0, align=False))
    train.train(settings, hours=0.0)
    packed = data.Pack.load(tmp_path / "fine" / train.PACK).subjects
    np.testing.assert_allclose([s.grid.spacing for s in packed], 1.5, rtol=0.05)

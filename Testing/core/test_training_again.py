"""A training that is called again: after its data have changed, and after its disk was full."""

import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from neuralreg import train
from neuralreg.cli import main
from neuralreg.job import RegistrationError
from neuralreg.training.packing import Packing
from training_setup import config, pack_of, write_subjects


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "brains").mkdir()
    write_subjects(tmp_path / "brains")
    return tmp_path / "brains"


def begun(data, output, **changes) -> list[str]:
    """What is said of packing when a training of no time is called; its checkpoint is taken away."""
    rows = []
    train.train(config(data, output, packing=Packing(2.0, align=False), **changes), rows.append, hours=0.0)
    (output / train.CHECKPOINT).unlink(missing_ok=True)
    return [row["pack"] for row in rows if "pack" in row]


def test_what_is_trained_on_is_what_the_data_are_now(folder, tmp_path):
    """After a correction that an error asked for, the next start must not take the faulty data out of the old pack."""
    output = tmp_path / "model"
    assert len(begun(folder, output)) == 5 and begun(folder, output) == [], "packed once"
    with pytest.raises(RegistrationError, match="holds \\[7\\]"):
        begun(folder, output, labels=(7,))
    for path in sorted(folder.glob("*labels*")):
        labels = sitk.ReadImage(str(path))
        sitk.WriteImage(labels * 7, str(path))
    assert len(begun(folder, output, labels=(7,))) == 5
    with np.load(output / train.PACK) as pack:
        assert set(np.unique(pack["labels/s0_T1w"])) == {0, 7}
    shutil.copy(folder / "s0_T1w.nii.gz", folder / "s9_T1w.nii.gz")
    assert len(begun(folder, output)) == 6


def test_data_of_another_folder_are_not_taken_for_those_packed_before(folder, tmp_path):
    (tmp_path / "others").mkdir()
    write_subjects(tmp_path / "others", 4)
    begun(folder, tmp_path / "model")
    assert len(begun(tmp_path / "others", tmp_path / "model")) == 4


def test_a_training_goes_on_with_the_images_that_it_began_with(folder, tmp_path):
    """Also without them: its pack holds them all."""
    settings = config(folder, tmp_path / "model", packing=Packing(2.0, align=False))
    train.train(settings)
    shutil.rmtree(folder)
    rows = []
    end = settings.schedule.iterations + 2
    train.train(replace(settings, schedule=replace(settings.schedule, iterations=end)), rows.append)
    assert rows[-1]["iteration"] == end


def test_a_training_does_not_go_on_with_other_images(folder, pack, tmp_path):
    """Those held out might be among those that it was trained on; where the pack lies may change."""
    settings = config(pack, tmp_path / "model")
    trained = train.train(settings).read_bytes()
    longer = replace(settings.schedule, iterations=settings.schedule.iterations + 1)
    for path in folder.glob("s0_*"):
        path.unlink()
    other = pack_of(folder, tmp_path / "other.npz")
    with pytest.raises(RegistrationError, match="holds a training on other images"):
        train.train(replace(settings, data=str(other), schedule=longer))
    assert (tmp_path / "model" / train.MODEL).read_bytes() == trained
    rows = []
    train.train(replace(settings, data=str(shutil.copy(pack, tmp_path / "moved.npz")), schedule=longer), rows.append)
    assert rows[-1]["iteration"] == longer.iterations


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
@pytest.mark.parametrize("name", [train.MODEL, train.CHECKPOINT])
def test_a_full_disk_is_a_sentence_and_leaves_what_is_whole(pack, tmp_path, name, monkeypatch, capsys):
    import resource

    output, save, before = tmp_path / "model", torch.save, resource.getrlimit(resource.RLIMIT_FSIZE)
    toml = f'data = "{pack}"\noutput = "{output}"\nspacing = 2.0\nlattice = [17, 17, 17]\nvalidation_subjects = 2\n'
    toml += "[network]\nwidth = 0.5\n[objective]\nscales = 1\n[schedule]\niterations = 2\nvalidate_every = 1\n"
    (tmp_path / "my.toml").write_text(toml)
    assert main(["train", str(tmp_path / "my.toml")]) == 0
    whole = {path.name: path.read_bytes() for path in output.iterdir()}

    def full(content, path):
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]) if name in path.name else before)
        save(content, path)

    monkeypatch.setattr(torch, "save", full)
    (tmp_path / "my.toml").write_text(toml.replace("iterations = 2", "iterations = 9\nrate = 1e-2"))
    capsys.readouterr()
    try:
        assert main(["train", str(tmp_path / "my.toml")]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    said = capsys.readouterr().err
    assert f"{name} cannot be written" in said and "Traceback" not in said
    assert (output / name).read_bytes() == whole[name] and not list(output.glob("*.partial"))

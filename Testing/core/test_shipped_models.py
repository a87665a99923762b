"""The weights that come along: listed, described, small, from data that allow it; they say what they do not know."""

import errno
import json
import os
import sys

import pytest
import torch
from locked import lock
from neuralreg import pipeline, weights
from neuralreg.cli import main
from neuralreg.image import Grid, Image
from neuralreg.job import RegistrationError
from neuralreg.methods import start
from neuralreg.phantom import make_phantom
from neuralreg.portable import with_model
from neuralreg.training.config import CONFIGS, load_config

SHIPPED = sorted(start.SHIPPED.glob("*.pt"))
ONLY_FOR_TESTS = ("brain_labelled", "OASIS", "hippocampus", "multimodal", "lung_ct")


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_model_has_a_card_a_licence_and_a_configuration_that_makes_it(path):
    """The card beside the weights is their manifest; the configuration of that name makes the same network."""
    manifest = weights.load(path).manifest
    card = json.loads(path.with_suffix(".json").read_text())
    assert {"name": path.stem, **json.loads(torch.load(path, weights_only=True)["manifest"])} == card
    assert not any(name in manifest.data for name in ONLY_FOR_TESTS)
    assert manifest.licence and manifest.anatomy and manifest.contrast
    assert manifest.training["iterations"] > 0 and manifest.training["validation"]["folds %"] == 0.0
    text = path.with_suffix(".md").read_text(encoding="utf-8")
    for words in (f"{path.stem}.toml", "trained on", "eld-out", "Not for"):
        assert words in text
    config = load_config(CONFIGS / f"{path.stem}.toml")
    assert (config.method, config.network) == (manifest.method, manifest.network)
    assert (config.spacing, config.lattice) == (manifest.spacing, manifest.lattice)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_figures_on_a_card_are_those_of_the_file(path):
    checkpoint, text = weights.load(path), path.with_suffix(".md").read_text(encoding="utf-8")
    count, training = sum(value.numel() for value in checkpoint.state.values()), checkpoint.manifest.training
    validation = training["validation"]
    assert f"{count:,} parameters" in text or f"{count / 1e6:.1f} million parameters" in text
    assert f"{path.stat().st_size / 1e6:.1f} MB" in text
    assert f"{validation['lncc before']:.3f} → {validation['lncc']:.3f}" in " ".join(text.split())
    assert f"{training['seconds'] / 60:.0f} min" in text
    assert f"{training['iterations']:,}" in text


def test_all_models_together_are_small():
    assert len(SHIPPED) >= 3
    assert sum(path.stat().st_size for path in SHIPPED) <= 40e6


def test_the_list_names_every_model_and_what_it_is_for(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert main(["models"]) == 0
    text = capsys.readouterr().out
    for path in SHIPPED:
        manifest = weights.load(path).manifest
        line = next(line for line in text.splitlines() if line.startswith(f"{path.stem}:"))
        assert all(word in line for word in (manifest.method, manifest.anatomy, manifest.contrast, "diffeomorphic"))
        assert str(path) in text and manifest.licence in text
    assert main(["models", "--json"]) == 0
    assert json.loads(capsys.readouterr().out).keys() == {str(path) for path in SHIPPED}


def test_a_file_that_is_no_model_is_not_listed(tmp_path, capsys):
    (tmp_path / "bad.pt").write_bytes(b"PK\x03\x04 no model")
    assert main(["models", str(SHIPPED[0]), str(tmp_path / "bad.pt")]) == 2
    said = capsys.readouterr()
    assert not said.out and "is not a model" in said.err and said.err.count("\n") == 1


def test_a_broken_file_of_ones_own_does_not_hide_the_others(tmp_path, capsys, monkeypatch):
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    (tmp_path / ".neuralreg" / "models").mkdir(parents=True)
    (tmp_path / ".neuralreg" / "models" / "mine.pt").write_bytes(b"PK\x03\x04 no model")
    assert main(["models"]) == 0
    said = capsys.readouterr()
    assert all(f"{path.stem}:" in said.out for path in SHIPPED) and "mine.pt" in said.err


def test_a_home_that_may_not_be_entered_hides_no_shipped_model(tmp_path, monkeypatch):
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    lock(tmp_path / ".neuralreg", monkeypatch)
    assert start.model("auto", "VoxelMorph").manifest.contrast.startswith("T1")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows always knows a home")
def test_without_a_home_there_are_the_shipped_models(monkeypatch):
    """As in a container whose user has no name."""
    import pwd

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    assert {path.stem for path in start.known_models()} == {path.stem for path in SHIPPED}
    with pytest.raises(RegistrationError, match=r"There is no model at ~nobody-here/m\.pt"):
        start.model(with_model({"model": "~nobody-here/m.pt"}, str)["model"], "VoxelMorph")


def test_a_model_that_may_not_be_read_is_not_called_damaged(monkeypatch):
    def refused(path, **_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(torch, "load", refused)
    with pytest.raises(RegistrationError, match=r"You may not read .*voxelmorph_t1\.pt"):
        start.model("voxelmorph_t1", "VoxelMorph")


@pytest.mark.parametrize(("spacing", "words"), [(4.7, "ml of tissue"), (6.8, "contrast of the fixed image")])
@pytest.mark.parametrize("method", ["VoxelMorph", "FNOReg"])
def test_outside_its_domain_a_model_warns_and_names_the_better_choice(method, spacing, words):
    """A phantom smaller than any brain, and one of a brain's size whose intensities are turned over."""
    phantom = make_phantom(Grid.from_parts((24, 24, 24), spacing=(spacing,) * 3), amplitude_mm=5.0)
    top = 1.1 * phantom.fixed.data.float().max()
    fixed, moving = (
        Image(torch.where(image.data > 100, top - image.data, 0.0), image.grid)
        for image in (phantom.fixed, phantom.moving)
    )
    found = pipeline.register(fixed, moving, method, affine="none", similarity="lncc", device="cpu")
    assert any(words in warning and "DNVF" in warning for warning in found.warnings), found.warnings


def test_a_model_of_another_method_is_refused():
    with pytest.raises(RegistrationError, match=r"of FNOReg; choose that method \(with Cas-DNVF.*network=FNOReg"):
        start.model("fnoreg_t1", "VoxelMorph")

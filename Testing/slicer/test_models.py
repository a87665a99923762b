"""The list of installed weights, and adding one."""

import errno
import functools
import json
import os

import pytest
from neuralreg.job import RegistrationError
from NeuralRegistrationLib import models


@pytest.fixture
def home(monkeypatch, tmp_path):
    monkeypatch.setattr(models, "SHIPPED", tmp_path / "shipped")
    monkeypatch.setattr(models, "user_folder", lambda: tmp_path / "home" / "models")
    (tmp_path / "mine.pt").write_bytes(b"weights")
    (tmp_path / "mine.json").write_text(json.dumps({"name": "mine", "method": "VoxelMorph", "anatomy": "brain"}))
    return tmp_path


def test_added_model_is_listed_with_its_purpose(home):
    assert models.installed() == []
    models.add(home / "mine.pt")
    assert [(m.name, m.purpose) for m in models.installed()] == [("mine", "VoxelMorph, brain")]
    with pytest.raises(RegistrationError, match="already"):
        models.add(home / "mine.pt")


def test_a_model_goes_by_the_name_of_its_file(home):
    """As the option "model" does, where a shipped model would be taken for one of the same name."""
    (home / "renamed.pt").write_bytes(b"weights")
    (home / "renamed.json").write_text(json.dumps({"name": "another", "method": "FNOReg"}))
    models.SHIPPED.mkdir()
    (models.SHIPPED / "mine.pt").write_bytes(b"shipped")
    assert models.add(home / "renamed.pt").name == "renamed"
    with pytest.raises(RegistrationError, match=r"model mine\.pt already"):
        models.add(home / "mine.pt")


@pytest.mark.parametrize("card", [b"[]", b"3", b"{", b"\xff\xfe\xff"])
def test_a_card_that_is_none_does_not_hide_the_list(home, card):
    (home / "mine.json").write_bytes(card)
    models.add(home / "mine.pt")
    assert [(m.name, m.purpose) for m in models.installed()] == [("mine", "no card beside the file")]


def test_a_folder_of_ones_own_that_may_not_be_entered_hides_no_shipped_model(home, monkeypatch):
    models.SHIPPED.mkdir()
    (models.SHIPPED / "theirs.pt").write_bytes(b"shipped")
    locked, functions = str(home / "home"), {name: getattr(os, name) for name in ("stat", "mkdir", "unlink")}

    def refuse(name, path, *arguments, **named):
        if str(path).startswith(locked):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return functions[name](path, *arguments, **named)

    for name in functions:
        monkeypatch.setattr(os, name, functools.partial(refuse, name))
    assert [model.name for model in models.installed()] == ["theirs"]
    with pytest.raises(RegistrationError, match="cannot be copied"):
        models.add(home / "mine.pt")


def test_what_is_no_model_is_refused(home):
    (home / "notes.txt").write_text("x")
    for name in ("notes.txt", "missing.pt"):
        with pytest.raises(RegistrationError, match="no file of weights"):
            models.add(home / name)
    assert models.installed() == []


def test_panel_adds_a_model(home, fake_worker, module):
    module.ui.modelPath.setCurrentPath(str(home / "mine.pt"))
    module.ui.addModelButton.click()
    assert "Added mine" in module.ui.statusLabel.text and module.ui.modelsTable.rowCount == 1

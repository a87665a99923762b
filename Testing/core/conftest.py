"""What several files of tests share: a small pair, a job that costs nothing, subjects to train on."""

from types import SimpleNamespace

import numpy as np
import pytest
from geometry import image_on
from neuralreg import io, pipeline
from neuralreg.image import Grid
from neuralreg.job import RegistrationJob
from neuralreg.phantom import make_phantom
from stand_in import FIXED, MOVING, stand_in
from training_setup import pack_of, write_subjects


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> SimpleNamespace:
    """A phantom in a folder of its own, and its truth."""
    folder = tmp_path_factory.mktemp("pair")
    phantom = make_phantom(Grid.from_parts((32, 32, 32), (-70, -80, -60), (4.5, 5.0, 4.0)), noise=2.0)
    io.write_image(phantom.fixed, folder / "fixed.nii.gz")
    io.write_image(phantom.moving, folder / "moving.nrrd")
    io.write_image(phantom.fixed_labels, folder / "fixed_labels.nii.gz", np.uint16)
    io.write_image(phantom.moving_labels, folder / "moving_labels.nii.gz", np.uint16)
    return SimpleNamespace(folder=folder, phantom=phantom)


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Makes jobs on two small volumes; the registration is the stand-in."""
    monkeypatch.setattr(pipeline, "register", stand_in)
    io.write_image(image_on(FIXED), tmp_path / "f.nii.gz")
    io.write_image(image_on(MOVING, 1), tmp_path / "m.nrrd")
    names = {"fixed": "f.nii.gz", "moving": "m.nrrd", "output": "out"}
    paths = {name: str(tmp_path / value) for name, value in names.items()}
    return lambda **changes: RegistrationJob(**{**paths, **changes})


@pytest.fixture(scope="session")
def subjects(tmp_path_factory):
    """A folder with five small images and their label maps."""
    folder = tmp_path_factory.mktemp("subjects")
    write_subjects(folder)
    return folder


@pytest.fixture(scope="session")
def pack(subjects, tmp_path_factory):
    """The training pack of them."""
    return pack_of(subjects, tmp_path_factory.mktemp("pack") / "pack.npz")

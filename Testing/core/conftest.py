"""What several files of tests share: subjects to train on."""

import pytest


@pytest.fixture(scope="session")
def subjects(tmp_path_factory):
    """A folder with five small images and their label maps."""
    from training_setup import write_subjects

    folder = tmp_path_factory.mktemp("subjects")
    write_subjects(folder)
    return folder


@pytest.fixture(scope="session")
def pack(subjects, tmp_path_factory):
    """The training pack of them."""
    from training_setup import pack_of

    return pack_of(subjects, tmp_path_factory.mktemp("pack") / "pack.npz")

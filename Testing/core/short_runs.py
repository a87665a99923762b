"""Registrations of one short stage: what is tested with them is the way from files to files."""

import pytest
from neuralreg import cli

OPTIONS = {"image_factors": "1", "velocity_factors": "2", "iterations": "40", "windows": "5", "strides": "1"}
LISTS = {name: [int(value)] for name, value in OPTIONS.items()}


def settings(**changes: str) -> list[str]:
    options = [word for name, value in {**OPTIONS, **changes}.items() for word in ("--option", f"{name}={value}")]
    return [*options, "--threads", "1", "--affine", "none"]


SHORT, ENDLESS = settings(), settings(iterations="10000")


def call(*arguments, at) -> int:
    """The exit code of a command in the folder `at`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(at)
        return cli.main([str(a) for a in arguments])

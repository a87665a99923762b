"""The weights that are installed: those of the extension and the user's own, each with a card (JSON) beside it."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from neuralreg.job import RegistrationError, read_json

SHIPPED = Path(__file__).resolve().parents[1] / "Resources" / "Models"
SUFFIX = ".pt"


@dataclass(frozen=True)
class Model:
    name: str
    purpose: str
    path: Path


def user_folder() -> Path:
    """Where the user's own models lie: the home folder, so that they outlive an update of Slicer."""
    return Path.home() / ".neuralreg" / "models"


def installed() -> list[Model]:
    """Every file of weights, with what its card says."""
    found = []
    for folder in (SHIPPED, user_folder()):
        with contextlib.suppress(OSError):  # a home that may not be entered must not hide the shipped ones
            found += [_described(path) for path in sorted(folder.glob(f"*{SUFFIX}"))]
    return found


def _described(path: Path) -> Model:
    try:
        values = read_json(path.with_suffix(".json"), "card")
    except RegistrationError:
        return Model(path.stem, "no card beside the file", path)
    parts = [str(values[key]) for key in ("method", "anatomy", "contrast") if values.get(key)]
    return Model(path.stem, ", ".join(parts) or "see its card", path)  # the name by which the option "model" finds it


def add(path: Path) -> Model:
    """Copy a file of weights, and its card if there is one, to the user's models.

    Raises RegistrationError when the file is missing, of another kind, or there already.
    """
    if path.suffix != SUFFIX or not path.is_file():
        raise RegistrationError(f"{path} is no file of weights; choose a file that ends in .pt.")
    target = user_folder() / path.name
    if any(model.name == target.stem for model in installed()):  # a shipped one would be taken for it, too
        raise RegistrationError(f"There is a model {path.name} already; rename the file and add it again.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        if path.with_suffix(".json").is_file():
            shutil.copyfile(path.with_suffix(".json"), target.with_suffix(".json"))
    except OSError as error:
        with contextlib.suppress(OSError):
            target.unlink(missing_ok=True)
        raise RegistrationError(f"The model cannot be copied to {target.parent} ({error.strerror}).") from error
    return _described(target)

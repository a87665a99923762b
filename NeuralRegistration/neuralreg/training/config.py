"""The settings of a training, and how they are read from TOML.

The configurations in `configs` are those of the models that ship; they live in the package, so that an installed
`neuralreg train fnoreg_t1.toml` finds what a checkout finds.
"""

from __future__ import annotations

import dataclasses
import tomllib
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..feedforward import NETWORKS
from ..files import reading
from ..job import KINDS, RegistrationError, choose, whole_number
from .augment import Augmentation
from .loop import Schedule
from .objective import Objective
from .packing import Packing

LAST_SEED = 10**12  # times a million and more, a seed of each iteration must be a number of 64 bits
ABOUT = ("contrast", "anatomy", "data", "licence")
CONFIGS = Path(__file__).parent / "configs"


@dataclass(frozen=True)
class TrainingConfig:
    """One training. Paths are relative to the current folder.

    data: folder of images, CSV table (columns image, labels) or pack. output: folder of checkpoint, model and log.
    method: name in feedforward.NETWORKS; network: its options. initial: model whose weights to start from.
    spacing (mm) and lattice (D, H, W) are those of the network's input; scales: what the model will be used at, a pass
    each, in multiples of the spacing. training_resolution "half": in training it sees every second voxel only, where an
    iteration costs an eighth; the model works at full resolution all the same.
    known, painted: shares of the examples, see examples.Source. labels: those that "dice" compares. precision: float32
    or bfloat16. about: what the model's card shall say of contrast, anatomy, data and licence.
    validation_subjects: how many, from the end of the list (of each group, where there are groups), are held out; where
    groups are small, pairs say, whole groups are, until there are so many.
    """

    data: str
    output: str
    method: str = "VoxelMorph"
    network: dict[str, Any] = field(default_factory=dict)
    initial: str = ""
    spacing: float = 2.0
    scales: tuple[float, ...] = (1.0,)
    lattice: tuple[int, int, int] = (81, 97, 81)
    training_resolution: str = "full"
    objective: Objective = field(default_factory=Objective)
    augmentation: Augmentation = field(default_factory=Augmentation)
    schedule: Schedule = field(default_factory=Schedule)
    known: float = 0.0
    painted: float = 0.0
    labels: tuple[int, ...] = ()
    validation_subjects: int = 8
    validation_pairs: int = 8
    packing: Packing = field(default_factory=Packing)
    seed: int = 0
    device: str = "cpu"
    precision: str = "float32"
    threads: int = 0
    about: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        method = choose("method to train", self.method, list(NETWORKS))
        object.__setattr__(self, "method", method)
        object.__setattr__(self, "precision", choose("precision", self.precision, ("float32", "bfloat16")))
        resolution = choose("training resolution", self.training_resolution, ("full", "half"))
        object.__setattr__(self, "training_resolution", resolution)
        about = {choose("entry in [about]", name, ABOUT): text for name, text in self.about.items()}
        object.__setattr__(self, "about", about)
        self._check_sizes()
        self._check_terms()

    def _check_sizes(self) -> None:
        for name in ("seed", "threads"):
            whole_number(name, getattr(self, name))
        if self.seed > LAST_SEED:
            raise RegistrationError(f"The seed of a training is at most {LAST_SEED}; choose a smaller one.")
        if len(self.lattice) != 3 or min(self.lattice) < 8 or not 0.1 <= self.spacing <= 20:
            raise RegistrationError("The lattice is three sizes of at least 8, the spacing 0.1 to 20 mm; correct them.")
        if 2**self.objective.scales > min(self.seen[0]):
            raise RegistrationError(f"{self.objective.scales} scales are too many for the lattice; choose fewer.")
        if not self.scales or not all(0.1 <= scale <= 8 for scale in self.scales):
            raise RegistrationError("scales are one or more numbers between 0.1 and 8; correct them.")
        if self.validation_pairs < 1:
            raise RegistrationError("validation_pairs must be 1 or more: the best model is chosen by validation.")
        if not (0 <= self.known <= 1 and 0 <= self.painted <= 1):
            raise RegistrationError("known and painted are shares of the examples; choose them between 0 and 1.")

    def _check_terms(self) -> None:
        """A term without what it compares would silently not count."""
        if "dice" in self.objective.terms and not self.labels:
            raise RegistrationError('The term "dice" compares labels; list them, such as labels = [1, 2].')
        if "known" in self.objective.terms and not self.known:
            raise RegistrationError('The term "known" needs synthetic fields; say for how many, such as known = 0.5.')

    @property
    def seen(self) -> tuple[tuple[int, int, int], float]:
        """Lattice and spacing of what the network sees in training."""
        if self.training_resolution == "full":
            return self.lattice, self.spacing
        return tuple((n + 1) // 2 for n in self.lattice), 2 * self.spacing


@reading()
def load_config(path: str | Path, **changes: Any) -> TrainingConfig:
    """A configuration from a TOML file (or the name of one that comes with the package), with `changes` on top.

    Raises RegistrationError with the nearest valid name for an entry that does not exist.
    """
    path = Path(path)
    if not path.exists() and (CONFIGS / path.name).exists():
        path = CONFIGS / path.name
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        known = ", ".join(sorted(p.name for p in CONFIGS.glob("*.toml")))
        raise RegistrationError(f"There is no configuration {path}; write one or use one of {known}.") from error
    except (OSError, ValueError) as error:
        raise RegistrationError(f"The configuration {path} cannot be read ({error}); correct it.") from error
    return _build(TrainingConfig, values | changes, "the configuration")


def _build(cls: type, values: dict[str, Any], what: str) -> Any:
    """A (nested) dataclass from a table of values."""
    hints = typing.get_type_hints(cls)
    values = {choose(f"entry in {what}", name, list(hints)): value for name, value in values.items()}
    values = {name: _of_type(value, hints[name], name) for name, value in values.items()}
    try:
        return cls(**values)
    except TypeError as error:
        raise RegistrationError(f"Something is missing in {what} ({error}); add it.") from error


def _of_type(value: Any, hint: Any, name: str) -> Any:
    """`value` as the type of the entry `name`. Raises RegistrationError when it is of another."""
    if hint is Any:
        return value
    kind, inner = typing.get_origin(hint) or hint, typing.get_args(hint)
    table = kind is dict or dataclasses.is_dataclass(kind)
    expected = dict if table else list | tuple if kind is tuple else int | float if kind is float else kind
    if not isinstance(value, expected) or (isinstance(value, bool) and kind is not bool):
        count = f" of {len(inner)}" if kind is tuple and inner[-1] is not Ellipsis else ""
        sort = "a table" if table else f"a list{count}" if kind is tuple else KINDS[kind]
        raise RegistrationError(f'The entry "{name}" of the configuration must be {sort}; got {value!r}.')
    if dataclasses.is_dataclass(kind):
        return _build(kind, value, f"[{name}]")
    if kind is dict:
        return {key: _of_type(item, inner[1], f"{name}.{key}") for key, item in value.items()} if inner else value
    if kind is not tuple:
        return value
    if inner[-1] is not Ellipsis and len(value) != len(inner):
        raise RegistrationError(
            f'The entry "{name}" of the configuration must hold {len(inner)} values; got {value!r}.'
        )
    return tuple(_of_type(item, inner[0], name) for item in value)

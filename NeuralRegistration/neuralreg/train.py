"""`train(config)`: from a folder of images to a checkpoint that the feed-forward methods load.

The configurations in `training/configs` are those of the models that ship; they live in the package, so that an
installed `neuralreg train fnoreg_t1.toml` finds what a checkout finds.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from . import feedforward, weights
from .job import RegistrationError, choose
from .training import data, loop, packing
from .training.augment import Augmentation
from .training.crew import Crew
from .training.examples import Source
from .training.objective import Objective
from .training.packing import Packing

PACK, CHECKPOINT, MODEL, LOG = "pack.npz", "checkpoint.pt", "model.pt", "log.jsonl"
CONFIGS = Path(__file__).parent / "training" / "configs"


@dataclass(frozen=True)
class TrainingConfig:
    """One training. Paths are relative to the current folder.

    data: folder of images, CSV table (columns image, labels) or pack. output: folder of checkpoint, model and log.
    method: name in feedforward.NETWORKS; network: its options. initial: model whose weights to start from.
    spacing (mm) and lattice (D, H, W) are those of the network's input. training_resolution "half": in training it sees
    every second voxel only, where an iteration costs an eighth; the model works at full resolution all the same.
    validation_subjects: how many, from the end of the list (of each group, where there are groups), are held out; where
    groups are small, pairs say, whole groups are, until there are so many.
    """

    data: str
    output: str
    method: str = "VoxelMorph"
    network: dict[str, Any] = field(default_factory=dict)
    initial: str = ""
    spacing: float = 2.0
    lattice: tuple[int, int, int] = (81, 97, 81)
    training_resolution: str = "full"
    objective: Objective = field(default_factory=Objective)
    augmentation: Augmentation = field(default_factory=Augmentation)
    schedule: loop.Schedule = field(default_factory=loop.Schedule)
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
        method = choose("method to train", self.method, list(feedforward.NETWORKS))
        object.__setattr__(self, "method", method)
        object.__setattr__(self, "precision", choose("precision", self.precision, ("float32", "bfloat16")))
        resolution = choose("training resolution", self.training_resolution, ("full", "half"))
        object.__setattr__(self, "training_resolution", resolution)
        self._check_sizes()
        self._check_terms()

    def _check_sizes(self) -> None:
        if len(self.lattice) != 3 or min(self.lattice) < 8 or not 0.1 <= self.spacing <= 20:
            raise RegistrationError("The lattice is three sizes of at least 8, the spacing 0.1 to 20 mm; correct them.")
        if 2**self.objective.scales > min(self.seen[0]):
            raise RegistrationError(f"{self.objective.scales} scales are too many for the lattice; choose fewer.")
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


def load_config(path: str | Path, **changes: Any) -> TrainingConfig:
    """A configuration from a TOML file (or the name of one that comes with the package), with `changes` on top.

    Raises RegistrationError with the nearest valid name for an entry that does not exist.
    """
    try:
        import tomllib
    except ModuleNotFoundError as error:
        raise RegistrationError("Training configurations need Python 3.11 or newer; use one.") from error
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
        sort = "table" if table else "list" if kind is tuple else kind.__name__
        raise RegistrationError(f'The entry "{name}" of the configuration must be of type {sort}; got {value!r}.')
    if dataclasses.is_dataclass(kind):
        return _build(kind, value, f"[{name}]")
    if kind is dict:
        return {key: _of_type(item, inner[1], f"{name}.{key}") for key, item in value.items()} if inner else value
    return tuple(_of_type(item, inner[0], name) for item in value) if kind is tuple else value


def train(
    config: TrainingConfig,
    report: Callable[[dict], None] = lambda row: None,
    hours: float = math.inf,
    tick: Callable[[int], None] = lambda iteration: None,
) -> Path:
    """Train, or go on where an earlier call stopped -> path of the model with the best validation so far.

    report takes one row of values per validation (also in log.jsonl), tick the number of each iteration done. Stops
    after `hours`; call again to go on.
    """
    started = time.time()
    if config.threads:
        torch.set_num_threads(config.threads)
    output = Path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    pack = data.Pack.load(_pack_of(config, output, report), config.seen[1])
    trainer = trainer_of(config, pack)

    def note(row: dict) -> None:
        # Whole, not appended: what is done again after an interruption would stand in it twice.
        (output / LOG).write_text("".join(json.dumps(row) + "\n" for row in trainer.history), encoding="utf-8")
        report(row)

    domain = trainer.domain()

    def keep(trainer: loop.Trainer, row: dict) -> None:
        weights.save(output / MODEL, trainer.average, _manifest(config, trainer, row, domain))

    loop.run(trainer, output / CHECKPOINT, note, keep, tick, started + 3600 * hours)
    trainer.crew.leave()
    return output / MODEL


def _pack_of(config: TrainingConfig, output: Path, report: Callable[[dict], None]) -> Path:
    """The pack that the data are, or the one made of them, once, in the output folder."""
    source = Path(config.data)
    if source.suffix == ".npz":
        return source
    if not (output / PACK).exists():
        found = packing.find_subjects(source)
        _split(found, config.validation_subjects)  # raises before the work
        fine_enough = replace(config.packing, spacing=min(config.packing.spacing, config.seen[1]))
        arrays = packing.build_pack(found, fine_enough, lambda text: report({"pack": text}))
        packing.save_pack(output / PACK, arrays)
    return output / PACK


def trainer_of(config: TrainingConfig, pack: data.Pack) -> loop.Trainer:
    """Network, data and objective of a configuration, before the first iteration."""
    training, validation = _split(pack.subjects, config.validation_subjects)
    crew = Crew.join(config.device)
    torch.manual_seed(config.seed)
    network = feedforward.build(config.method, config.network)
    if config.initial:
        _begin_with(network, config.initial)
    if (config.painted or "dice" in config.objective.terms) and all(s.labels is None for s in training):
        raise RegistrationError('There are no label maps in the data; give some, or do without "painted" and "dice".')
    source = Source(pack, *config.seen, config.augmentation, config.known, config.painted, config.labels)
    return loop.Trainer(
        network=network,
        source=source,
        objective=config.objective,
        schedule=config.schedule,
        training=training,
        validation=validation,
        validation_pairs=config.validation_pairs,
        seed=config.seed,
        device=crew.device(config.device),
        precision=config.precision,
        crew=crew,
    )


def _begin_with(network: torch.nn.Module, initial: str) -> None:
    try:
        network.load_state_dict(weights.load(initial).state)
    except RuntimeError as error:
        raise RegistrationError(
            f"The weights in {initial} are of another network; start from one of the same method and [network] options."
        ) from error


def _split(subjects: Sequence[Any], held_out: int) -> tuple[tuple[Any, ...], ...]:
    """Subjects to train on and subjects to validate with: the last `held_out` ones of each group.

    Groups of less than four have nobody to spare: then the last groups are held out whole, `held_out` subjects or a few
    more. Raises RegistrationError where somebody would be left without a partner.
    """
    groups = [[s for s in subjects if s.group == name] for name in dict.fromkeys(s.group for s in subjects)]
    whole = len(groups) > 1 and min(map(len, groups)) < 4
    if whole:
        count = next((n for n in range(1, len(groups)) if sum(map(len, groups[-n:])) >= held_out), len(groups))
        training, validation = groups[:-count], groups[-count:]
    else:
        training, validation = ([g[part] for g in groups] for part in (slice(-held_out), slice(-held_out, None)))
    if held_out < 2 or not training or any(len(group) < 2 for group in training + validation):
        sizes, how = ", ".join(str(len(group)) for group in groups), "in whole groups" if whole else "of each group"
        raise RegistrationError(
            f"{sizes} subjects, {held_out} {how} held out: training, validation and every group need two each."
        )
    return tuple(s for g in training for s in g), tuple(s for g in validation for s in g)


def _manifest(config: TrainingConfig, trainer: loop.Trainer, row: dict, domain: dict) -> weights.Manifest:
    return weights.Manifest(
        method=config.method,
        network=config.network,
        spacing=config.spacing,
        lattice=config.lattice,
        diffeomorphic=config.objective.diffeomorphic,
        squarings=config.objective.squarings,
        contrast=config.about.get("contrast", "unknown"),
        anatomy=config.about.get("anatomy", "unknown"),
        data=config.about.get("data", "unknown"),
        licence=config.about.get("licence", "unknown"),
        domain=domain,
        training={
            "iterations": trainer.iteration,
            "seconds": round(trainer.seconds),
            "spacing": config.seen[1],
            "validation": row,
        },
    )

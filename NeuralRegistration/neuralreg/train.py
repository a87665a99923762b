"""`train(config)`: from a folder of images to a checkpoint that the feed-forward methods load."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from . import feedforward, weights
from .files import replacing
from .job import Progress, RegistrationError, read_json, write_json
from .training import data, loop, packing
from .training.config import TrainingConfig
from .training.crew import Crew
from .training.examples import Source

PACK, CONFIG, CHECKPOINT, MODEL, LOG = "pack.npz", "config.json", "checkpoint.pt", "model.pt", "log.jsonl"
# What may change when a training goes on: where it runs, how fast, how long. All else would make it another training.
CHANGEABLE = ("data", "output", "packing", "schedule", "device", "precision", "threads", "about", "scales")


def train(
    config: TrainingConfig,
    report: Callable[[dict], None] = lambda row: None,
    hours: float = math.inf,
    tick: Callable[[Progress], None] = lambda progress: None,
) -> Path:
    """Train, or go on where an earlier call stopped -> path of the model with the best validation so far.

    report takes one row of values per validation (also in log.jsonl), tick the progress after each iteration. Stops
    after `hours`; call again to go on.
    """
    started = time.time()
    if config.threads:
        torch.set_num_threads(config.threads)
    output = Path(config.output)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RegistrationError(f"The output {output} cannot be a folder ({error.strerror}); name another.") from error
    pack = data.Pack.load(_pack_of(config, output, report), config.seen[1])
    settings = json.loads(json.dumps(asdict(config) | {"images": pack.digest()}))
    _check_same_training(settings, output)
    trainer = trainer_of(config, pack)
    if trainer.crew.leads:
        with replacing(output / CONFIG) as partial:
            write_json(settings, partial)

    def note(row: dict) -> None:
        # Whole, not appended: what is done again after an interruption would stand in it twice.
        (output / LOG).write_text("".join(json.dumps(row) + "\n" for row in trainer.history), encoding="utf-8")
        report(row)

    domain = trainer.domain()

    def keep(trainer: loop.Trainer, row: dict) -> None:
        weights.save(output / MODEL, trainer.average, _manifest(config, trainer, row, domain))

    loop.run(trainer, output / CHECKPOINT, note, keep, tick, started + 3600 * hours)
    if trainer.crew.leads and (output / MODEL).exists():
        weights.describe(output / MODEL, scales=config.scales, **config.about)  # corrected since it was saved, perhaps
    trainer.crew.leave()
    return output / MODEL


def _check_same_training(wanted: dict[str, Any], output: Path) -> None:
    """Raise RegistrationError when the output holds the checkpoint of a training with other settings or images."""
    if not (output / CONFIG).exists() or not (output / CHECKPOINT).exists():
        return
    there = read_json(output / CONFIG, "configuration")
    if there.get("images", wanted["images"]) != wanted["images"]:
        raise RegistrationError(f"{output} holds a training on other images; give those, or choose another output.")
    for name in sorted(wanted.keys() - {*CHANGEABLE, "images"}):
        if there.get(name) != wanted[name]:
            raise RegistrationError(
                f'{output} holds a training with another {name}; choose another output, or set "{name}" back.'
            )


def _pack_of(config: TrainingConfig, output: Path, report: Callable[[dict], None]) -> Path:
    """The pack that the data are, or the one made of them in the output folder; a training goes on with its own."""
    source, pack = Path(config.data), output / PACK
    if source.suffix == ".npz":
        return source
    if pack.exists() and (output / CHECKPOINT).exists():
        return pack
    found = packing.find_subjects(source)
    _split(found, config.validation_subjects)  # raises before the work
    fine_enough = replace(config.packing, spacing=min(config.packing.spacing, config.seen[1]))
    if packing.made_of(pack) != packing.state_of(found, fine_enough):
        packing.save_pack(pack, packing.build_pack(found, fine_enough, lambda text: report({"pack": text})))
    return pack


def trainer_of(config: TrainingConfig, pack: data.Pack) -> loop.Trainer:
    """Network, data and objective of a configuration, before the first iteration."""
    training, validation = _split(pack.subjects, config.validation_subjects)
    crew = Crew.join(config.device)
    torch.manual_seed(config.seed)
    network = feedforward.build(config.method, config.network)
    if config.initial:
        _begin_with(network, config.initial)
    _check_labels(config, training)
    source = Source(pack, *config.seen, config.augmentation, config.known, config.painted, config.labels)
    with _fitting():
        trainer = loop.Trainer(
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
        _try(trainer)
    return trainer


def _check_labels(config: TrainingConfig, training: Sequence[data.Subject]) -> None:
    """Labels that are asked for must be there: those of nobody would silently not count."""
    maps = [s.labels for s in training if s.labels is not None]
    if (config.painted or "dice" in config.objective.terms) and not maps:
        raise RegistrationError('There are no label maps in the data; give some, or do without "painted" and "dice".')
    absent = sorted(set(config.labels).difference(*(labels.unique().tolist() for labels in maps)))
    if maps and absent:
        raise RegistrationError(f'No label map of the training data holds {absent}; correct the entry "labels".')


@torch.no_grad()
def _try(trainer: loop.Trainer) -> None:
    """One example through network and objective, where options that do not fit together show themselves."""
    example = trainer.source.example(trainer.training, torch.Generator().manual_seed(0), trainer.device)
    trainer.objective(example, trainer.predict(trainer.network, example.fixed_seen, example.moving_seen))


@contextmanager
def _fitting() -> Iterator[None]:
    try:
        yield
    except (ArithmeticError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise RegistrationError(
            f"Network, lattice and objective do not fit together ({reason}); correct the configuration."
        ) from error


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
            f"{sizes} subjects, {held_out} {how} held out: training, validation and every group need two each; add "
            'subjects, or change "validation_subjects".'
        )
    return tuple(s for g in training for s in g), tuple(s for g in validation for s in g)


def _manifest(config: TrainingConfig, trainer: loop.Trainer, row: dict, domain: dict) -> weights.Manifest:
    return weights.Manifest(
        method=config.method,
        network=config.network,
        spacing=config.spacing,
        scales=config.scales,
        lattice=config.lattice,
        diffeomorphic=config.objective.diffeomorphic,
        squarings=config.objective.squarings,
        **config.about,
        domain=domain,
        training={
            "subjects": len(trainer.training),
            "iterations": trainer.iteration,
            "seconds": round(trainer.seconds),
            "spacing": config.seen[1],
            "validation": row,
        },
    )

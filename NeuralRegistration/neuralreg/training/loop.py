"""The loop: one random example per iteration, drawn from the seed and the iteration's number alone.

So a training that was interrupted and resumes from its checkpoint sees the same pairs, poses and noise, and ends bit
for bit where an uninterrupted one ends.
"""

from __future__ import annotations

import copy
import math
import pickle
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor, nn

from .. import weights
from ..domain import appearance, domain_of
from ..job import Progress, RegistrationError
from .crew import Crew
from .data import Subject
from .examples import Source
from .objective import Objective, measure

VALIDATION_SEED = 7_919
COUNTED = ("iteration", "seconds", "best", "since_best", "history", "terms", "seed")  # of a Trainer, for its checkpoint


@dataclass(frozen=True)
class Schedule:
    """iterations: end of the training. rate: Adam's, reached after `warmup` iterations; it ends at `last_rate` · rate
    along a half cosine. average: decay of the running mean of the weights, which is what validation and the result use.
    clip: longest gradient. validate_every: in iterations. checkpoint_minutes: longest time between two checkpoints.
    patience: validations without a better similarity before the training stops, 0 for never.
    """

    iterations: int = 10_000
    rate: float = 4e-4
    warmup: int = 100
    last_rate: float = 0.1
    average: float = 0.998
    clip: float = 0.3
    validate_every: int = 250
    checkpoint_minutes: float = 1.0
    patience: int = 0

    def __post_init__(self):
        for name in ("iterations", "validate_every"):
            if getattr(self, name) < 1:
                raise RegistrationError(f"{name} must be 1 or more: the best model is chosen by validation.")
        if not (0 <= self.rate < math.inf and self.clip > 0 and 0 <= self.average < 1 and 0 <= self.last_rate <= 1):
            raise RegistrationError(
                "rate must be 0 or larger, clip above 0, average and last_rate between 0 and 1; correct [schedule]."
            )

    def rate_at(self, iteration: int) -> float:
        """The rate of an iteration, counted from 0."""
        rise = min(1.0, (iteration + 1) / max(self.warmup, 1))
        fall = 0.5 * (1 + math.cos(math.pi * min(1.0, iteration / max(self.iterations, 1))))
        return self.rate * rise * (self.last_rate + (1 - self.last_rate) * fall)


@dataclass
class Trainer:
    """Everything that changes during a training; `state` and `restore` are its checkpoint."""

    network: nn.Module
    source: Source
    objective: Objective
    schedule: Schedule
    training: tuple[Subject, ...]
    validation: tuple[Subject, ...]
    validation_pairs: int = 8
    seed: int = 0
    device: str = "cpu"
    precision: str = "float32"
    crew: Crew = field(default_factory=Crew)
    iteration: int = 0
    seconds: float = 0.0
    best: float = -math.inf
    since_best: int = 0
    history: list[dict] = field(default_factory=list)
    terms: dict[str, list[float]] = field(default_factory=dict)  # of the iterations since the last validation

    def __post_init__(self):
        self.network.to(self.device, memory_format=torch.channels_last_3d)  # convolutions are a fifth faster
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=self.schedule.rate)

    def state(self) -> dict:
        """Tensors and plain values, as `torch.load` reads them without executing anything."""
        return {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            **{name: getattr(self, name) for name in COUNTED},
        }

    def restore(self, state: dict) -> None:
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        for name in COUNTED:
            setattr(self, name, state[name])

    def finished(self) -> bool:
        """Whether the schedule is over, or validation has not improved for its patience."""
        impatient = 0 < self.schedule.patience <= self.since_best
        return impatient or self.iteration >= self.schedule.iterations

    def progress(self) -> Progress:
        done = self.iteration / self.schedule.iterations
        return Progress("train", done, seconds_left=self.seconds * (1 / done - 1))

    def domain(self) -> dict:
        """What the training images look like, for warnings at inference."""
        looks = [appearance(s.image / 255, tuple(s.grid.spacing)) for s in self.training]
        return domain_of(looks, any_contrast=self.source.augmentation.tone > 0 or self.source.painted > 0)

    def step(self) -> dict[str, float]:
        """One iteration -> the values of the terms."""
        generator = torch.Generator().manual_seed(
            self.seed * 1_000_003 + self.iteration * self.crew.size + self.crew.rank
        )
        example = self.source.example(self.training, generator, self.device)
        self.network.train()
        for group in self.optimiser.param_groups:
            group["lr"] = self.schedule.rate_at(self.iteration)
        total, values = self.objective(example, self.predict(self.network, example.fixed_seen, example.moving_seen))
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()
        self.crew.average_gradients(self.network)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.schedule.clip)
        if not math.isfinite(float(norm)):
            raise RegistrationError(
                f"The training diverged at iteration {self.iteration}; lower the rate, then resume from the checkpoint."
            )
        self.optimiser.step()
        self._update_average()
        self.iteration += 1
        return values

    def predict(self, network: nn.Module, fixed: Tensor, moving: Tensor) -> Tensor:
        mixed = self.precision == "bfloat16"
        with torch.autocast(torch.device(self.device).type, dtype=torch.bfloat16, enabled=mixed):
            return network(fixed, moving).float()

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Means over the same held-out pairs every time, without augmentation of appearance."""
        self.average.eval()
        rows = []
        for number in range(self.validation_pairs):
            generator = torch.Generator().manual_seed(VALIDATION_SEED + number)
            example = self.source.plain().example(self.validation, generator, self.device)
            found = self.predict(self.average, example.fixed_seen, example.moving_seen)
            rows.append(measure(self.objective, example, found))
        names = dict.fromkeys(name for row in rows for name in row)  # a pair without labels has no Dice
        return {name: mean(row[name] for row in rows if name in row) for name in names}

    def _update_average(self) -> None:
        """Running mean, fast at first: its memory never reaches behind a tenth of the iterations so far."""
        decay = min(self.schedule.average, (1 + self.iteration) / (10 + self.iteration))
        with torch.no_grad():
            old, new = self.average.state_dict(), self.network.state_dict()
            for name, value in old.items():
                if value.is_floating_point():
                    value.lerp_(new[name], 1 - decay)
                else:
                    value.copy_(new[name])


def run(
    trainer: Trainer,
    checkpoint: Path,
    report: Callable[[dict], None],
    improved: Callable[[Trainer, dict], None],
    tick: Callable[[Progress], None],
    deadline: float = math.inf,
) -> bool:
    """Train to the end of the schedule -> True, or until `deadline` (seconds since 1970) -> False.

    report takes a row of values after each validation; improved is called when the validation got better; tick with the
    progress after each iteration.
    """
    if checkpoint.exists():
        _resume(trainer, checkpoint)
    begun, saved = time.time() - trainer.seconds, time.time()
    while trainer.crew.agreed(not trainer.finished() and time.time() < deadline, trainer.device):
        for name, value in trainer.step().items():
            trainer.terms.setdefault(name, []).append(value)
        trainer.seconds = time.time() - begun
        if not trainer.crew.leads:
            continue
        tick(trainer.progress())
        if trainer.iteration % trainer.schedule.validate_every == 0 or trainer.iteration == trainer.schedule.iterations:
            row = _validated(trainer)
            report(row)
            if trainer.since_best == 0:
                improved(trainer, row)
        if time.time() - saved > 60 * trainer.schedule.checkpoint_minutes:
            weights.write(trainer.state(), checkpoint)
            saved = time.time()
    if trainer.crew.leads:
        weights.write(trainer.state(), checkpoint)
    return trainer.finished()


def _resume(trainer: Trainer, checkpoint: Path) -> None:
    try:
        trainer.restore(torch.load(checkpoint, map_location=trainer.device, weights_only=True))
    except (RuntimeError, KeyError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise RegistrationError(
            f"{checkpoint} is damaged or belongs to a training of another network; choose another output folder."
        ) from error


def _validated(trainer: Trainer) -> dict:
    row = {"iteration": trainer.iteration, "seconds": round(trainer.seconds)}
    row["iterations per second"] = round(trainer.iteration / max(trainer.seconds, 1e-6), 3)
    row |= {f"train {name}": round(mean(values), 5) for name, values in trainer.terms.items()}
    trainer.terms = {}
    values = trainer.validate()
    row |= {name: round(value, 5) for name, value in values.items()}
    score = values["lncc"] + values.get("dice", 0.0)
    trainer.since_best = 0 if score > trainer.best else trainer.since_best + 1
    trainer.best = max(score, trainer.best)
    trainer.history.append(row)
    return row

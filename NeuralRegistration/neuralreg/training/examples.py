"""Examples for training: two views of two subjects, what the network sees of them, and what the losses compare."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from ..image import Grid
from .augment import Augmentation, random_appearance, random_poses
from .data import Pack, Subject
from .synth import known_pair, painted, random_velocity


@dataclass(frozen=True, eq=False)
class Example:
    """What the network sees and what the losses compare; labels one-hot, of both images or of none; `velocity` is the
    answer where it is known."""

    fixed_seen: Tensor
    moving_seen: Tensor
    fixed: Tensor
    moving: Tensor
    fixed_labels: Tensor | None = None
    moving_labels: Tensor | None = None
    velocity: Tensor | None = None


@dataclass(frozen=True)
class Source:
    """How examples are made. known: share with a synthetic field; painted: share with random contrasts from labels."""

    pack: Pack
    lattice: tuple[int, int, int]
    spacing: float
    augmentation: Augmentation
    known: float = 0.0
    painted: float = 0.0
    label_values: tuple[int, ...] = ()

    def example(self, subjects: tuple[Subject, ...], generator: torch.Generator, device: str = "cpu") -> Example:
        """A random example of two different subjects (one, where the field is synthetic)."""
        chance = torch.rand(2, generator=generator).tolist()
        order = _two(subjects, generator)
        poses = random_poses(self.augmentation, generator)
        grid = self.pack.lattice(self.lattice, self.spacing)
        paint = chance[1] < self.painted
        views = [self._view(subjects[i], pose, grid, device) for i, pose in zip(order, poses, strict=True)]
        velocity = None
        if chance[0] < self.known:
            velocity = random_velocity(tuple((n + 1) // 2 for n in self.lattice), self.spacing, generator).to(device)
            image, labels = views[0]
            views[1] = known_pair(image, velocity), None if labels is None else known_pair(labels, velocity, "nearest")
        seen = [self._appearance(image, labels, paint, generator) for image, labels in views]
        compared = self.label_values and all(labels is not None for _, labels in views)
        onehot = [self._one_hot(labels) if compared else None for _, labels in views]
        return Example(*seen, views[0][0], views[1][0], *onehot, velocity)

    def plain(self) -> Source:
        """The same source without synthetic fields, in the mean pose and with the scans' own bias: for validation.

        Random contrasts stay: they are what is to be validated.
        """
        still = {f.name: (0.0,) * 3 if f.name == "rotation" else 0.0 for f in fields(Augmentation)}
        return replace(self, augmentation=Augmentation(**still | {"tone": self.augmentation.tone}), known=0.0)

    def _view(self, subject: Subject, pose: Tensor, grid: Grid, device: str) -> tuple[Tensor, Tensor | None]:
        image = self.pack.view(subject.image.to(device), subject, pose, grid) / 255
        if subject.labels is None:
            return image, None
        return image, self.pack.view(subject.labels.to(device), subject, pose, grid, "nearest")

    def _appearance(self, image: Tensor, labels: Tensor | None, paint: bool, generator: torch.Generator) -> Tensor:
        if paint and labels is not None:
            image = painted(labels.round(), generator)
        return random_appearance(image, self.augmentation, generator)

    def _one_hot(self, labels: Tensor) -> Tensor:
        return torch.cat([(labels.round() == value).float() for value in self.label_values], dim=1)


def _two(subjects: tuple[Subject, ...], generator: torch.Generator) -> list[int]:
    """Two different subjects of one group; those without a group are one, too."""
    order = torch.randperm(len(subjects), generator=generator).tolist()
    return [order[0], next(i for i in order[1:] if subjects[i].group == subjects[order[0]].group)]

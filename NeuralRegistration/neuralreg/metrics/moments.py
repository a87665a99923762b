"""Statistics of numbers that come in portions: large volumes are measured slab by slab."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass
class Moments:
    """Mean, deviation and range of numbers that come in portions; all 0 where there are none."""

    count: int = 0
    total: float = 0.0
    squares: float = 0.0
    smallest: float = 0.0
    largest: float = 0.0

    def add(self, values: Tensor) -> None:
        if not values.numel():
            return
        values, low, high = values.double(), float(values.min()), float(values.max())
        self.smallest = min(self.smallest, low) if self.count else low
        self.largest = max(self.largest, high) if self.count else high
        self.count += values.numel()
        self.total += float(values.sum())
        self.squares += float(values.square().sum())

    @property
    def mean(self) -> float:
        return self.total / max(self.count, 1)

    @property
    def deviation(self) -> float:
        return max(self.squares / max(self.count, 1) - self.mean**2, 0.0) ** 0.5

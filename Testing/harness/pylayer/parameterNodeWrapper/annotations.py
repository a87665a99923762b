"""What may stand in `Annotated[type, …]`: bounds and choices that writing checks, and hints for the widgets."""

import dataclasses


@dataclasses.dataclass
class WithinRange:
    minimum: float
    maximum: float

    def check(self, value):
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"{value} is not within [{self.minimum}, {self.maximum}]")


@dataclasses.dataclass
class Minimum:
    minimum: float

    def check(self, value):
        if value < self.minimum:
            raise ValueError(f"{value} is less than {self.minimum}")


@dataclasses.dataclass
class Maximum:
    maximum: float

    def check(self, value):
        if value > self.maximum:
            raise ValueError(f"{value} is more than {self.maximum}")


class Choice:
    def __init__(self, choices):
        self.choices = list(choices)

    def check(self, value):
        if value not in self.choices:
            raise ValueError(f"{value!r} is not one of {self.choices}")


@dataclasses.dataclass
class Default:
    value: object


@dataclasses.dataclass
class Decimals:
    value: int


@dataclasses.dataclass
class SingleStep:
    value: float

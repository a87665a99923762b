"""The table of methods. Nothing here imports torch: Slicer's process draws its panel from it.

A method is one file: a frozen dataclass whose fields are its options, called as `method(pair, similarity, device,
monitor)`. Its `presets` give field values for "fast", "balanced" and "best"; what a field means stands in its metadata.
One that fits nothing behind the affine stage says `deforms = False`.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
import typing
from collections.abc import Sequence
from typing import Any

from ..job import KINDS, PRESETS, RegistrationError, choose

METHODS = {
    "DNVF": "neuralreg.methods.dnvf:DNVF",
    "VoxelMorph": "neuralreg.methods.voxelmorph:VoxelMorph",
    "FNOReg": "neuralreg.methods.fnoreg:FNOReg",
    "Cas-DNVF": "neuralreg.methods.cas_dnvf:CasDNVF",
    "Linear": "neuralreg.methods.linear:Linear",
}

SMALL_VOXELS = 300_000  # of the working grid: there is time for more than a head's share of iterations
# What one voxel of a SIREN's lattice costs, in voxels of an image: measured on 60 iterations of a coarse stage, 115 s
# instead of 2.8.
SIREN_VOXELS = 370.0
KNOTS = 1.5  # spacing of a velocity's B-spline coefficients, in voxels of its lattice, unless a method has its own

STAGES = ("image_factors", "velocity_factors", "iterations", "windows", "strides")  # lists with one entry per stage
Directions = typing.Literal["both", "alternate", "forward"]
DIRECTIONS = "comparison in each stage: both (moving on fixed and back), alternate, or forward (the last entry repeats)"


def option(default: Any, text: str, minimum: float | None = None, maximum: float | None = None) -> Any:
    """A dataclass field with what the panel and the command line need to show and check it. A list may be empty where
    it is by default."""
    limits = {"minimum": minimum, "maximum": maximum, "may_be_empty": default == ()}
    return dataclasses.field(default=default, metadata={"help": text, **limits})


def stages_of(method: Any) -> list[tuple]:
    """The entries of STAGES and the direction, stage by stage: what an `optimise.Level` is made of.

    Raises RegistrationError where the lists are not of one length.
    """
    lists = [getattr(method, name) for name in STAGES]
    if len(set(map(len, lists))) != 1:
        raise RegistrationError(f"{', '.join(STAGES)} need one entry per stage each; give lists of one length.")
    return [(*row, at_stage(method.directions, index)) for index, row in enumerate(zip(*lists, strict=True))]


def at_stage(values: tuple, index: int) -> Any:
    """The value of one stage in a list whose last entry repeats."""
    return values[min(index, len(values) - 1)]


def method_class(name: str) -> type:
    """The class of a method. Raises RegistrationError with the nearest name for an unknown one."""
    module, attribute = METHODS[choose("method", name, list(METHODS))].split(":")
    return getattr(importlib.import_module(module), attribute)


def make_method(name: str, preset: str, options: dict[str, Any] | None = None) -> Any:
    """A method with the values of a preset, then `options`. Raises RegistrationError for unknown or wrong options."""
    cls = method_class(name)
    values = dict(cls.presets[choose("preset", preset, PRESETS)])
    fields = {f.name: f for f in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    for given, value in (options or {}).items():
        key = choose(f"option of {name}", given, list(fields))
        values[key] = _checked(f'The option "{key}" of {name}', value, hints[key], fields[key].metadata)
    return cls(**values)


def suited(name: str, preset: str, options: dict[str, Any] | None, kind: str) -> dict[str, Any]:
    """Option values that a preset takes for pairs of a `kind` (see `DNVF.suits`); none that the user has set, and none
    at all where that is a list: the lists of the stages belong together."""
    changes = getattr(method_class(name), "suits", {}).get(kind, {}).get(choose("preset", preset, PRESETS), {})
    given = options or {}
    if any(isinstance(value, tuple) and key in given for key, value in changes.items()):
        return {}
    return {key: value for key, value in changes.items() if key not in given}


def kind_of(voxels: int, both_ct: bool) -> str:
    """The kind of pair that settings may suit, by the voxels of the working grid: "small", "ct" or neither ("")."""
    return "small" if voxels <= SMALL_VOXELS else "ct" if both_ct else ""


def work(
    name: str, preset: str, options: dict[str, Any] | None = None, kind: str = "", spacing: Sequence[float] = (1, 1, 1)
) -> float:
    """What the iterations of a method cost, in image voxels for each voxel of a working grid of `spacing` mm: the
    notion of `optimise.Fit.cost`, before there is a pair. 0 where nothing is optimised."""
    chosen = make_method(name, preset, {**(options or {}), **suited(name, preset, options, kind)})
    if hasattr(chosen, "refine"):
        factor = chosen.refine_spacing / min(spacing)
        return 2 * chosen.refine * (_voxels(factor, spacing) + 3 * _voxels(2 * factor, spacing))
    if not hasattr(chosen, "iterations"):
        return 0.0
    total, networks = 0.0, getattr(chosen, "networks", ()) or (chosen.residual,)
    knots = getattr(chosen, "knots", KNOTS)
    for index, (image, velocity, iterations, _, _, directions) in enumerate(stages_of(chosen)):
        turns = 2 if directions == "both" else 1
        cost = turns * (_voxels(image, spacing) + 3 * _voxels(velocity, spacing))
        siren = at_stage(networks, index) == "siren"
        total += iterations * (cost + (SIREN_VOXELS * _voxels(velocity * knots, spacing) if siren else 0.0))
    return total


def _voxels(factor: float, spacing: Sequence[float]) -> float:
    """Voxels of a lattice of `factor` times the smallest spacing for each voxel of the grid; thick slices stay."""
    return math.prod(s / max(s, factor * min(spacing)) for s in spacing)


def describe() -> list[dict[str, Any]]:
    """Every method with its one sentence, presets and options, for help texts and the panel."""
    found = []
    for name, cls in ((name, method_class(name)) for name in METHODS):
        hints = typing.get_type_hints(cls)
        options = [_describe(field, hints[field.name]) for field in dataclasses.fields(cls)]
        found.append({"name": name, "summary": cls.summary, "presets": cls.presets, "options": options})
    return found


def _describe(field: dataclasses.Field, hint: Any) -> dict[str, Any]:
    kind = {tuple: "tuple", typing.Literal: "choice"}.get(typing.get_origin(hint)) or hint.__name__
    extra = {"choices": list(typing.get_args(hint))} if kind == "choice" else {}
    return {"name": field.name, "type": kind, "default": field.default, **extra, **field.metadata}


def _checked(what: str, value: Any, hint: Any, metadata: Any) -> Any:
    """`value` as the type of the field, within its limits; JSON has no tuples, so lists are taken for them."""
    if typing.get_origin(hint) is typing.Literal:
        return choose(what[4:], value, list(typing.get_args(hint)))
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list | tuple) or (not value and not metadata["may_be_empty"]):
            raise RegistrationError(f"{what} is a list of values; got {value!r}.")
        return tuple(_checked(what, item, typing.get_args(hint)[0], metadata) for item in value)
    whole = isinstance(value, int) and not isinstance(value, bool)
    fits = {
        bool: isinstance(value, bool),
        int: whole,
        float: whole or isinstance(value, float),
        str: isinstance(value, str),
    }
    if not fits.get(hint, False):
        raise RegistrationError(f"{what} must be {KINDS[hint]}; got {value!r}.")
    low, high = metadata.get("minimum"), metadata.get("maximum")
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        raise RegistrationError(
            f"{what} must lie between {low} and {high if high is not None else 'any larger number'}; got {value!r}."
        )
    return hint(value)

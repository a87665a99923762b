"""The options of a method as fields to fill in, whatever draws them; what differs from the preset is kept as JSON.

The JSON is {method: {option: value}}, so that a method finds its own values again when the user comes back to it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from neuralreg.job import RegistrationError
from neuralreg.methods import describe, make_method
from slicer.i18n import tr as _


@dataclass(frozen=True)
class Field:
    """One option: kind is "bool" (value True or False), "choice" (value one of `choices`) or "text"."""

    name: str
    label: str
    kind: str
    value: bool | str
    help: str
    choices: tuple[str, ...] = ()


def fields(method: str, preset: str, stored: str) -> list[Field]:
    """The options of a method with the values that a run would take."""
    values = {**_values(method, preset), **chosen(stored, method)}
    return [_field(option, values[option["name"]]) for option in _entry(method)["options"]]


def chosen(stored: str, method: str) -> dict[str, Any]:
    """The options of a method that differ from its preset."""
    return json.loads(stored).get(method, {})


def changed(stored: str, method: str, preset: str, values: dict[str, bool | str]) -> tuple[str, dict[str, str]]:
    """What is kept once fields have new values, and by field what is wrong with those that the method refuses.

    Some suit only together: the lists of the stages, which are of one length.
    """
    try:
        return _with(stored, method, preset, values), {}
    except RegistrationError:
        wrong = {}
    for name, value in values.items():
        try:
            stored = _with(stored, method, preset, {name: value})
        except RegistrationError as error:
            wrong[name] = str(error)
    return stored, wrong


def _with(stored: str, method: str, preset: str, values: dict[str, bool | str]) -> str:
    known = {option["name"]: option for option in _entry(method)["options"]}
    typed = {name: value if isinstance(value, bool) else _value(value, known[name]) for name, value in values.items()}
    kept = {**chosen(stored, method), **typed}
    make_method(method, preset, kept)
    same = _values(method, preset)  # a field that was only passed through says that its typing is finished, too
    kept = {name: value for name, value in kept.items() if value != same.get(name)}
    return json.dumps({**json.loads(stored), method: kept})


def forgotten(stored: str, method: str) -> str:
    """What is kept once a method has the values of its preset again."""
    return json.dumps({name: values for name, values in json.loads(stored).items() if name != method})


def _values(method: str, preset: str) -> dict[str, Any]:
    """The values of a preset, tuples as lists."""
    entry = _entry(method)
    values = {**{option["name"]: option["default"] for option in entry["options"]}, **entry["presets"].get(preset, {})}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _entry(method: str) -> dict[str, Any]:
    return next(entry for entry in describe() if entry["name"] == method)


def _field(option: dict[str, Any], value: Any) -> Field:
    kind = option["type"] if option["type"] in ("bool", "choice") else "text"
    return Field(
        option["name"],
        option["name"].replace("_", " ").capitalize(),
        kind,
        value if kind == "bool" else as_text(value),
        option["help"] or "",
        tuple(str(choice) for choice in option.get("choices", ())),
    )


def as_text(value: Any) -> str:
    """A value as the user types it."""
    if isinstance(value, (tuple, list)):
        return ", ".join(map(as_text, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _value(text: str, option: dict[str, Any]) -> Any:
    """A value typed or chosen by the user, of the option's type. Raises RegistrationError when it is none."""
    try:
        if option["type"] == "tuple":
            return [_number(part.strip()) for part in text.split(",") if part.strip()]
        return {"int": int, "float": float, "str": str, "choice": str}[option["type"]](text)
    except ValueError as error:
        raise RegistrationError(
            _('"{text}" is no value for "{name}"; {help}.').format(text=text, name=option["name"], help=option["help"])
        ) from error


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text

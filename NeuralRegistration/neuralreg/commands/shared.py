"""What several commands share: help with examples, and options of a method given as `key=value`."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import sys
import textwrap
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from shutil import get_terminal_size
from typing import Any

from ..files import check_folder, split_number
from ..job import AFFINE_STAGES, DEVICES, PRESETS, SIMILARITIES, RegistrationError, choose
from ..monitor import Show, bar, json_lines

PROGRESS = ("json", "bar", "none")
BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """What goes wrong when a file is written, as a sentence."""
    try:
        yield
    except BrokenPipeError:  # of the reader, who is gone: no file is to blame
        raise
    except OSError as error:
        place = error.filename2 or error.filename or "The output"
        raise RegistrationError(
            f"{place} cannot be written ({error.strerror or error}); choose another place."
        ) from error


def say(text: str) -> None:
    """Tell what was done. That nobody reads it any more, or that it finds no room, undoes nothing."""
    with contextlib.suppress(OSError):
        print(text, flush=True)


def shower(progress: str | None) -> Show:
    """What shows progress in one of the ways of PROGRESS; None: a bar on a terminal, else nothing."""
    if progress == "json":
        return json_lines()
    if progress == "bar" or (progress is None and sys.stderr.isatty()):
        return bar()
    return lambda _: None


def output_file(name: str, *inputs: str | None) -> Path:
    """The path of a file to write. Raises RegistrationError for a folder, when its own is not there, and for one of the
    inputs, before any work is done."""
    path = Path(name)
    if any(_same_file(path, split_number(given)[0]) for given in inputs if given):
        raise RegistrationError(f"{path} is an input, which would be lost; name another file for the output.")
    if path.is_dir():
        raise RegistrationError(f"{path} is a folder; name a file in it.")
    check_folder(path)
    return path


def _same_file(path: Path, other: Path) -> bool:
    with contextlib.suppress(OSError, ValueError):  # one is not there, or has a name that no file can have
        return path.samefile(other)
    return False


def add_command(commands: Any, name: str, function: Callable, summary: str, text: str = "", examples: str = "") -> Any:
    """A command that calls `function(options)`; returns its parser. Every help ends with examples."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=textwrap.fill(
            f"{summary[0].upper()}{summary[1:]}. {text}".strip(), get_terminal_size().columns - 2
        ),
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(function=function)
    return parser


def has_display() -> bool:
    """Without one, Python would open a page in a text browser and wait for its end."""
    return sys.platform in ("win32", "darwin") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def add_settings(parser: argparse.ArgumentParser) -> None:
    """The arguments that say how to register, whatever the images."""
    add = parser.add_argument
    add("--method", default="DNVF", help="see `neuralreg methods` (default: DNVF)")
    add("--preset", default="balanced", metavar="|".join(PRESETS), help="speed or accuracy (default: balanced)")
    add("--similarity", default="auto", metavar="|".join(SIMILARITIES), help="default: chosen from the images")
    add("--affine", default="affine", metavar="|".join(AFFINE_STAGES), help="linear stage (default: affine)")
    add("--device", default="auto", metavar="|".join(DEVICES), help="default: the GPU where there is a usable one")
    add("--seed", type=int, default=0, metavar="N", help="same seed, same CPU: the same bytes (default: 0)")
    add("--threads", type=int, default=0, metavar="N", help="processor cores to use (default: all)")
    add("--option", action="append", default=[], metavar="KEY=VALUE", help="an option of the method; may be repeated")
    add("--refine", type=int, metavar="N", help="iterations on the pair behind a trained network (20 are a good start)")


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """The fields of a RegistrationJob that `add_settings` asks for. Raises RegistrationError for a wrong one."""
    names = ("method", "preset", "similarity", "affine", "device", "seed", "threads")
    settings = {name: getattr(options, name) for name in names}
    given = [*options.option, *([] if options.refine is None else [f"refine={options.refine}"])]
    if given:
        from ..methods import method_class

        method = method_class(options.method)
        if options.refine is not None and not hasattr(method, "refine"):
            raise RegistrationError(f"--refine goes behind VoxelMorph and FNOReg, not behind {options.method}.")
        settings["options"] = parse_options(given, method)
    return settings


def parse_options(pairs: Sequence[str], method: type) -> dict[str, Any]:
    """`key=value` texts typed by the fields of a method. Raises RegistrationError with the nearest valid name."""
    fields = [f.name for f in dataclasses.fields(method)]
    hints = typing.get_type_hints(method)
    options = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise RegistrationError(f'The option "{pair}" has no value; write --option {pair}=VALUE.')
        name = choose(f"option of {method.__name__}", name.strip().replace("-", "_"), fields)
        options[name] = _typed(text.strip(), hints[name], f'The option "{name}" of {method.__name__}')
    return options


def _typed(text: str, hint: Any, what: str) -> Any:
    """`text` as a value of a type hint, one of those that `methods.make_method` knows."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return choose(what.lower(), text, [str(part) for part in parts])
    if origin is tuple:
        return tuple(_typed(item.strip(), parts[0], what) for item in text.strip("()[]").split(",") if item.strip())
    if hint is bool:
        if text.lower() not in BOOLEANS:
            raise RegistrationError(f'{what} is true or false; got "{text}".')
        return BOOLEANS[text.lower()]
    if hint in (int, float):
        try:
            return hint(text)
        except ValueError as error:
            raise RegistrationError(f'{what} is a {"whole " if hint is int else ""}number; got "{text}".') from error
    return text

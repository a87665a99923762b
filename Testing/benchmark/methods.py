"""What is compared: a table of functions (pair, folder, threads) → command line.

The command must leave `transform.h5` and may leave `inverse.h5` in the (empty) folder. Peers are the files in `peers`.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from . import peers
from .pairs import Pair

Command = Callable[[Pair, Path, int], list[str]]

CHOICES = ("both", "alternate", "forward", "encoded", "siren")  # entries of lists that are no numbers
OURS = ("DNVF:fast", "DNVF:balanced", "DNVF:best")
PYTHON = "NEURALREG_PEERS_PYTHON"  # interpreter of the peers, which want other versions of packages than we do


def peer(name: str) -> Command:
    """A peer, in a process of its own."""

    def command(pair: Pair, folder: Path, threads: int) -> list[str]:
        lung = ["--lung"] if pair.dataset.startswith("lung_ct") else []
        return [
            os.environ.get(PYTHON, sys.executable), "-m", "benchmark.peers", name, str(pair.fixed), str(pair.moving),
            str(folder), "--threads", str(threads), *_masks(pair), *lung,
        ]  # fmt: skip

    return command


def _masks(pair: Pair) -> list[str]:
    if not (pair.fixed_mask and pair.moving_mask):
        return []
    return ["--fixed-mask", str(pair.fixed_mask), "--moving-mask", str(pair.moving_mask)]


PEERS: dict[str, Command] = {name: peer(name) for name in peers.PEERS}


def commands(names: str) -> dict[str, Command]:
    """`ours,DNVF:balanced:smoothness=2;iterations=80,60,40,greedy` → {name: command}. Raises SystemExit for an unknown
    name."""
    chosen: dict[str, Command] = {}
    for name in _separated(names):
        if name == "ours":
            chosen |= {own: neuralreg(own) for own in OURS}
        elif name in PEERS:
            chosen[name] = PEERS[name]
        elif ":" in name:
            chosen[name] = neuralreg(name)
        else:
            known = ", ".join(("ours", *PEERS))
            raise SystemExit(f"There is no method {name}; choose among {known}, or METHOD:PRESET of neuralreg.")
    return chosen


def _separated(names: str) -> list[str]:
    """The names between commas; a number or a choice behind an option is the next entry of its list."""
    found: list[str] = []
    for part in (p.strip() for p in names.split(",") if p.strip()):
        is_entry = re.match(r"[-+.\d]", part) or part.split(";")[0] in CHOICES
        if found and "=" in found[-1] and is_entry:
            found[-1] += f",{part}"
        else:
            found.append(part)
    return found


def neuralreg(name: str) -> Command:
    """METHOD:PRESET, or METHOD:PRESET:option=value;option=value, through the command line that users type."""
    method, preset, *rest = name.split(":")
    options = [f"--option={pair}" for pair in (rest[0].split(";") if rest else [])]

    def command(pair: Pair, folder: Path, threads: int) -> list[str]:
        return [
            sys.executable, "-m", "neuralreg", "register", str(pair.fixed), str(pair.moving), "-o", str(folder),
            "--method", method, "--preset", preset, "--threads", str(threads), "--progress", "none",
            *_masks(pair), *options,
        ]  # fmt: skip

    return command

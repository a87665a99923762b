"""What is compared: a table of functions (pair, folder, threads) → command line.

The command must leave `transform.h5` and may leave `inverse.h5` in the (empty) folder. A peer is one entry in PEERS;
its command is a small script that calls the peer and writes its transform with SimpleITK.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from .pairs import Pair

Command = Callable[[Pair, Path, int], list[str]]

OURS = ("DNVF:fast", "DNVF:balanced", "DNVF:best")
PEERS: dict[str, Command] = {}


def commands(names: str) -> dict[str, Command]:
    """`ours,DNVF:balanced:smoothness=2;iterations=80,…` → {name: command}. Raises SystemExit for an unknown name."""
    chosen: dict[str, Command] = {}
    for name in (n.strip() for n in names.split(",") if n.strip()):
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


def neuralreg(name: str) -> Command:
    """METHOD:PRESET, or METHOD:PRESET:option=value;option=value, through the command line that users type."""
    method, preset, *rest = name.split(":")
    options = [f"--option={pair}" for pair in (rest[0].split(";") if rest else [])]

    def command(pair: Pair, folder: Path, threads: int) -> list[str]:
        masks = []
        if pair.fixed_mask and pair.moving_mask:
            masks = ["--fixed-mask", str(pair.fixed_mask), "--moving-mask", str(pair.moving_mask)]
        return [
            sys.executable, "-m", "neuralreg", "register", str(pair.fixed), str(pair.moving), "-o", str(folder),
            "--method", method, "--preset", preset, "--threads", str(threads), "--progress", "none", *masks, *options,
        ]  # fmt: skip

    return command

"""Runs that are struck by SIGTERM, each a process of its own: `python strikes.py SEED RUNS neuralreg-arguments…`.

Importing torch takes longer than such a run: they are forks of one process that has done it. Every run says what it is
at, and is struck a random share of that stage's usual time later; the first one is left to its end. Prints a JSON list
per run: its number, the stage in which it was struck, its exit code.
"""

import json
import os
import random
import signal
import sys
import time
from typing import TextIO

from neuralreg import cli, run  # noqa: F401
from neuralreg.methods import method_class


def start(output: str, arguments: list[str]) -> tuple[int, TextIO]:
    """The process id of a run and what it says."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(write, sys.stdout.fileno())
        os._exit(cli.main([*arguments, "-o", output, "--progress", "json"]))
    os.close(write)
    return child, os.fdopen(read)


def usual_times(arguments: list[str]) -> dict[str, float]:
    """Seconds that each stage of an undisturbed run takes; "" is the time before the first."""
    began = {"": time.perf_counter()}
    child, lines = start("whole", arguments)
    for line in lines:
        began.setdefault(json.loads(line)["stage"], time.perf_counter())
    assert os.waitpid(child, 0)[1] == 0
    ends = [*list(began.values())[1:], time.perf_counter()]
    return {stage: end - began[stage] for stage, end in zip(began, ends, strict=True)}


def strike(output: str, arguments: list[str], stage: str, delay: float) -> int:
    """The exit code of a run that gets SIGTERM `delay` seconds after it has said that it is at `stage`."""
    child, lines = start(output, arguments)
    while stage and json.loads(lines.readline())["stage"] != stage:
        pass
    time.sleep(delay)
    os.kill(child, signal.SIGTERM)
    lines.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(seed: str, runs: str, *arguments: str) -> None:
    method_class("DNVF")
    times, chance = usual_times([*arguments]), random.Random(int(seed))
    for number in range(int(runs)):
        stage = list(times)[number % len(times)]
        # The first one at once: however fast the computer has become meanwhile, one run is struck before its end.
        code = strike(f"struck {number}", [*arguments], stage, chance.random() * times[stage] if number else 0.0)
        print(json.dumps([f"struck {number}", stage, code]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

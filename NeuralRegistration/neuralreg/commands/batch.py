"""`batch`: a table of pairs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..job import Cancelled, Progress, RegistrationError
from ..workspace import claimed
from .shared import PROGRESS, add_command, add_settings, say, settings_of, shower, writing


def add_batch(commands: Any) -> None:
    parser = add_command(
        commands,
        "batch",
        _batch,
        "register many pairs, from a table",
        "PAIRS.csv has a heading and a line for each pair: fixed, moving and, where there are any, fixed_mask, "
        "moving_mask, fixed_labels, moving_labels, name. Relative paths count from its folder. Each pair gets a folder "
        "of its own in DIR; summary.csv there has the numbers of all. Pairs that are done are not done again, unless "
        "their images have changed: call the same command to go on. A pair that fails does not end the others.",
        "  neuralreg batch pairs.csv -o study\n"
        "  neuralreg batch pairs.csv -o study --preset fast --jobs 4\n"
        "  neuralreg batch pairs.csv -o study --dask tcp://10.0.0.5:8786\n",
    )
    parser.add_argument("pairs", metavar="PAIRS.csv", help="the table")
    parser.add_argument("-o", "--output", required=True, metavar="DIR", help="folder for the folders of the pairs")
    add_settings(parser)
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="pairs at a time: on each GPU, or on the CPU (default: 1)"
    )
    parser.add_argument(
        "--dask", metavar="ADDRESS", help="run on the workers of this Dask scheduler (same files, neuralreg installed)"
    )
    parser.add_argument("--overwrite", action="store_true", help="do all pairs again")
    parser.add_argument("--progress", choices=PROGRESS, default="bar", help="default: bar")


def _batch(options: argparse.Namespace) -> None:
    from .. import batch, workers

    if options.jobs < 1:
        raise RegistrationError("--jobs must be at least 1.")
    table, output = Path(options.pairs), Path(options.output)
    if options.dask:  # whose workers may have started in another folder
        table, output = table.absolute(), output.absolute()
    pairs = batch.read_pairs(table)
    slots = [{}] if options.dask else _slots(options.device, options.jobs)
    settings = settings_of(options)
    if not options.dask and not settings["threads"]:
        settings["threads"] = _share(len(slots))
    jobs = batch.jobs_of(pairs, output, settings)
    with claimed(output):
        tasks = batch.tasks_of(pairs, jobs, options.overwrite)
        follow = _Follower(len(pairs), len(pairs) - len(tasks), options.progress)
        try:
            if options.dask and tasks:
                workers.on_cluster(tasks, options.dask, follow)
            elif tasks:
                workers.on_this_computer(tasks, slots, follow)
        except (Cancelled, KeyboardInterrupt) as error:
            raise Cancelled(f"cancelled; what was finished stays in {output}, and the same command goes on.") from error
        finally:
            batch.tidy(jobs.values())
            rows = batch.summary(jobs, follow.errors, {task.name for task in tasks} - follow.ended)
            with writing():
                batch.write_summary(rows, output)
            if options.progress != "json":
                say(batch.format_summary(rows))
    if follow.errors:
        raise RegistrationError(
            f"{len(follow.errors)} of {len(pairs)} pairs failed; {output / batch.SUMMARY} says why, and the same"
            " command tries them again."
        )


def _slots(device: str, jobs: int) -> list[dict[str, str]]:
    """One for each process that may run at a time: what it adds to the environment."""
    from ..devices import gpus

    found = gpus() if device in ("auto", "cuda") else []
    return ([{"CUDA_VISIBLE_DEVICES": gpu} for gpu in found] or [{}]) * jobs


def _share(processes: int) -> int:
    from ..devices import cores

    return max(1, cores() // processes)


class _Follower:
    """Turns what the tasks print into progress of the whole, and keeps the reasons of failures."""

    def __init__(self, total: int, finished: int, progress: str):
        self.total, self.finished = total, finished
        self.errors: dict[str, str] = {}
        self.ended: set[str] = set()
        self.fractions: dict[str, float] = {}
        self.show = shower(progress)

    def __call__(self, event: Any) -> None:
        if event.finished:
            self.finished += 1
            self.ended.add(event.name)
            self.fractions.pop(event.name, None)
            if event.error:
                self.errors[event.name] = event.error
            said = f"{event.name}: {event.error or 'done'}"
        elif (part := Progress.from_line(event.line)) is not None:
            self.fractions[event.name] = part.fraction
            said = f"{event.name}: {part.stage}"
        else:
            return  # a line of a log
        fraction = (self.finished + sum(self.fractions.values())) / self.total
        self.show(Progress(f"{self.finished} of {self.total}", min(fraction, 1.0), said))

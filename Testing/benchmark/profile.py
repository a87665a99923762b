"""Where the time of one registration goes: its stages, and the operators of torch that cost most.

    python -m benchmark.profile FIXED MOVING --preset balanced --threads 1            (from the folder Testing)
    python -m benchmark.profile --size 96                                               a phantom

The stages are those of an undisturbed run, from files to files; the operators are counted in a second run under
torch.profiler, which takes several times as long with its averages: use a small pair for them. Peak memory is told
apart by stage on Linux only.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "NeuralRegistration"))

import torch
from neuralreg import allocator, optimise, overlap, pipeline, run
from neuralreg.job import RegistrationJob
from neuralreg.usage import peak_memory_mb

from .measure import busy
from .scale import make_pair, shape_of
from .table import line

STAGES = (  # what is called once or a few times, one after the other
    (run, "_read", "reading"),
    (pipeline, "register_affine", "affine stage"),
    (pipeline, "_prepared", "working grid"),
    (pipeline, "_similarity", "choice of similarity"),
    (optimise.Fit, "_stage", "deformable, images at {}"),
    (pipeline, "with_inverse", "folds and inverse"),
    (pipeline, "_outputs", "warped volume, Jacobian"),
    (pipeline, "_measured", "measures"),
    (overlap.Writer, "wait", "waiting for the writing"),
)
WHOLE = "all of it"
FORGET_PEAK = Path("/proc/self/clear_refs")  # Linux: writing 5 makes the peak so far today's memory


@dataclass(frozen=True)
class Stage:
    name: str
    wall_s: float
    cpu_s: float
    peak_mb: float | None  # None where the system does not tell it by stage


@dataclass
class Stages:
    """Wall and CPU seconds and peak memory of what runs inside `with stages(name)`."""

    done: list[Stage] = field(default_factory=list)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        known, wall, cpu = _forget_peak(), time.perf_counter(), time.process_time()
        yield
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        self.done.append(Stage(name, wall, cpu, peak_memory_mb() if known else None))

    def watching(self, name: str, function: Callable) -> Callable:
        def watched(*arguments: Any, **named: Any) -> Any:
            with self(name.format(_resolution(arguments))):
                return function(*arguments, **named)

        return watched


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", metavar="FIXED MOVING", help="default: a phantom")
    parser.add_argument("--size", default="64", help="of the phantom, voxels: N for a cube, or XxYxZ (default: 64)")
    parser.add_argument("--preset", default="balanced")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--operators", type=int, default=10, metavar="N", help="rows of their table; 0: no second run")
    options = parser.parse_args(arguments)
    if len(options.files) not in (0, 2):
        parser.error("give FIXED and MOVING, or neither")
    allocator.keep_memory()  # as the command does
    started = time.process_time()
    with tempfile.TemporaryDirectory(prefix="profile-") as folder:
        job = _job(options, Path(folder))
        print(f"Load of the machine: {busy()}. Python and torch: {started:.1f} CPU s before the first stage.\n")
        print(stages_table(staged(job)), flush=True)
        if options.operators:
            print(f"\n{operators_table(profiled(job), options.operators)}")


def _job(options: argparse.Namespace, folder: Path) -> RegistrationJob:
    if not options.files:
        make_pair(shape_of(options.size), folder)
    fixed, moving = options.files or (folder / "fixed.nii.gz", folder / "moving.nii.gz")
    settings = {name: getattr(options, name) for name in ("preset", "threads", "device")}
    return RegistrationJob(str(fixed), str(moving), str(folder / "run"), **settings)


def staged(job: RegistrationJob) -> list[Stage]:
    """The stages of one run in their order; the last one is the whole, whose peak is the largest of theirs."""
    stages = Stages()
    with ExitStack() as stack:
        for owner, function, name in STAGES:
            stack.enter_context(patch.object(owner, function, stages.watching(name, getattr(owner, function))))
        with stages(WHOLE):
            run.run(job, overwrite=True)
    *parts, whole = stages.done
    peaks = [part.peak_mb for part in parts if part.peak_mb is not None]
    return [*parts, Stage(WHOLE, whole.wall_s, whole.cpu_s, max(peaks, default=peak_memory_mb()))]


def profiled(job: RegistrationJob) -> list[Any]:
    """torch's averages of every operator in one run, the dearest first."""
    from torch.profiler import ProfilerActivity, profile

    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    with profile(activities=kinds) as profiler:
        run.run(job, overwrite=True)
    return sorted(profiler.key_averages(), key=own_seconds, reverse=True)


def own_seconds(average: Any) -> float:
    """What an operator takes itself, without those that it calls: on the GPU where there is one."""
    return (average.self_device_time_total or average.self_cpu_time_total) / 1e6


def stages_table(stages: list[Stage]) -> str:
    rows = [line(["stage", "wall s", "CPU s", "peak memory, MB"]), line(["---", "---:", "---:", "---:"])]
    for stage in stages:
        peak = "–" if stage.peak_mb is None else f"{stage.peak_mb:.0f}"
        rows.append(line([stage.name, f"{stage.wall_s:.2f}", f"{stage.cpu_s:.2f}", peak]))
    return "\n".join(rows)


def operators_table(averages: list[Any], count: int) -> str:
    whole = sum(own_seconds(average) for average in averages)
    rows = [line(["operator", "calls", "wall s of its own", "share"]), line(["---", "---:", "---:", "---:"])]
    for average in averages[:count]:
        seconds = own_seconds(average)
        share = f"{100 * seconds / max(whole, 1e-9):.0f} %"
        rows.append(line([f"`{average.key}`", str(average.count), f"{seconds:.2f}", share]))
    return "\n".join(rows)


def _resolution(arguments: tuple[Any, ...]) -> str:
    """For a deformable stage, the spacings of its images in working voxels."""
    stages = [a for a in arguments if isinstance(a, optimise.Stage)]
    return ", ".join(f"{level.image:g}" for stage in stages for level in stage.levels)


def _forget_peak() -> bool:
    """Let the peak memory count from now on; whether that is possible here."""
    try:
        FORGET_PEAK.write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main()

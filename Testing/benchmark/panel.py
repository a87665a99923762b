"""How the panel feels: longest time without reaction, overhead over the core, and how fast Cancel is.

    python Testing/benchmark/panel.py FIXED MOVING [--preset fast] [--short] [--profile]

Runs the real panel and the real worker in the harness (slicer-core and PySide6-Essentials must be installed), on two
volumes that ITK reads. "CPU" beside a time without reaction is what this process itself needed of it: on a busy
computer the rest went to other programs.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# In place of this folder: its profile.py would be taken for Python's.
sys.path[:1] = [str(ROOT / "Testing" / "slicer"), str(ROOT / "NeuralRegistration")]

import cProfile  # noqa: E402
import pstats  # noqa: E402

import conftest  # noqa: E402  (starts the harness)
import slicer  # noqa: E402
from harness.start import load_module  # noqa: E402
from NeuralRegistrationLib.results import runs  # noqa: E402

TURN = 0.002  # seconds between two turns of the event loop, in which the worker may have the processor


@dataclass
class Gap:
    """One turn of the event loop, in seconds."""

    wall: float = 0.0
    cpu: float = 0.0
    stage: str = ""
    profile: cProfile.Profile | None = None


@dataclass
class EventLoop:
    """Turns the event loop and remembers the longest turns."""

    profiled: bool
    longest: list[Gap] = field(default_factory=list)

    def until(self, condition, stage) -> None:
        while not condition():
            self.turn(slicer.app.processEvents, stage())
            time.sleep(TURN)

    def turn(self, call, stage: str) -> None:
        """Do something that the window waits for."""
        profile = cProfile.Profile() if self.profiled else None
        wall, cpu = time.perf_counter(), time.thread_time()
        if profile is None:
            call()
        else:
            profile.runcall(call)
        gap = Gap(time.perf_counter() - wall, time.thread_time() - cpu, stage, profile)
        self.longest = sorted([*self.longest, gap], key=lambda one: -one.wall)[:5]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fixed", type=Path)
    parser.add_argument("moving", type=Path)
    parser.add_argument("--preset", default="Fast", type=str.capitalize)
    parser.add_argument("--short", action="store_true", help="one iteration a stage: the panel's share stays the same")
    parser.add_argument("--profile", action="store_true", help="also print what the longest times were spent on")
    options = parser.parse_args()
    panel = load_module(conftest.MODULE_FILE)[2]
    panel.ui.fixedSelector.setCurrentNode(slicer.util.loadVolume(str(options.fixed), {}))
    panel.ui.movingSelector.setCurrentNode(slicer.util.loadVolume(str(options.moving), {}))
    panel.ui.presetComboBox.setCurrentText(options.preset)
    if options.short:
        panel.parameters.options = json.dumps({"DNVF": {"iterations": [1, 1]}})
    loop = EventLoop(options.profile)
    begun = time.perf_counter()
    loop.until(lambda: panel.logic.worker.ready, lambda: "start of the worker")
    print(f"worker ready after {time.perf_counter() - begun:.1f} s")
    measure_run(panel, loop)
    measure_cancel(panel)
    for gap in loop.longest:
        print(f"no reaction for {1000 * gap.wall:.0f} ms (CPU {1000 * gap.cpu:.0f} ms), {gap.stage}")
        if gap.profile is not None:
            pstats.Stats(gap.profile).sort_stats("tottime").print_stats(6)
    panel.cleanup()


def measure_run(panel, loop: EventLoop) -> None:
    """A whole run, from the click to the overlay on the slice views."""
    begun, cpu = time.perf_counter(), time.process_time()
    loop.turn(panel.ui.applyButton.click, "Apply")
    loop.until(
        lambda: not panel.logic.running,
        lambda: "loading" if panel.logic._loading is not None else panel.ui.stageLabel.text,
    )
    whole, cpu = time.perf_counter() - begun, time.process_time() - cpu
    print(panel.ui.statusLabel.text)
    core = runs()[0].measurements["seconds total"]
    print(f"Apply to overlay {whole:.2f} s, of which the core {core:.2f} s: overhead {whole - core:.2f} s")
    print(f"CPU of the panel's process meanwhile {cpu:.2f} s")


def measure_cancel(panel) -> None:
    """Cancel in the middle of the optimisation, until the process is gone and Register can be clicked again."""
    panel.ui.applyButton.click()
    while not panel.runSection().progress.curve.stages:
        slicer.app.processEvents()
        time.sleep(TURN)
    process = panel.logic.worker._process
    begun = time.perf_counter()
    panel.ui.cancelButton.click()
    while process.poll() is None or not panel.ui.applyButton.enabled:
        slicer.app.processEvents()
    print(f"Cancel to process gone and panel usable {time.perf_counter() - begun:.2f} s")


if __name__ == "__main__":
    main()

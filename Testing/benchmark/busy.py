"""How long a registration takes beside other work: once with GNU OpenMP's own spinning, once with the program's.

    python Testing/benchmark/busy.py FIXED MOVING [--others 2] [--repeats 2] [--preset fast]

`others` processes compute all the time; 0 measures the quiet computer. The two settings take turns.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
USUAL = "300000"  # GNU OpenMP's own, where there are as many processors as threads
COMPUTE = "while True: pass"


def seconds(fixed: str, moving: str, preset: str, spins: str | None) -> float:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "NeuralRegistration")}
    environment.pop("GOMP_SPINCOUNT", None)
    if spins is not None:
        environment["GOMP_SPINCOUNT"] = spins
    with tempfile.TemporaryDirectory(prefix="busy-") as folder:
        command = [sys.executable, "-m", "neuralreg", "register", fixed, moving, "-o", f"{folder}/run",
                   "--preset", preset]  # fmt: skip
        begin = time.monotonic()
        subprocess.run(command, env=environment, check=True, capture_output=True)
        return time.monotonic() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fixed")
    parser.add_argument("moving")
    parser.add_argument("--others", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--preset", default="fast")
    options = parser.parse_args()
    others = [subprocess.Popen([sys.executable, "-c", COMPUTE]) for _ in range(options.others)]
    try:
        for _ in range(options.repeats):
            for name, spins in (("usual", USUAL), ("neuralreg", None)):
                taken = seconds(options.fixed, options.moving, options.preset, spins)
                print(f"{options.others} others, {name}: {taken:.1f} s", flush=True)
    finally:
        for other in others:
            other.kill()


if __name__ == "__main__":
    main()

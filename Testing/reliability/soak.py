"""Many registrations in one process: does its memory grow? From files to files, every similarity and method in turn.

    python Testing/reliability/soak.py [--runs 200]

Prints resident memory every ten runs and ends with code 1 when the last quarter needs GROWTH_MB more than the second.
"""

from __future__ import annotations

import argparse
import gc
import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "NeuralRegistration"))

import torch
from neuralreg import io, run
from neuralreg.image import Grid
from neuralreg.job import RegistrationJob
from neuralreg.phantom import make_phantom

GROWTH_MB = 30.0
SIMILARITIES = ("auto", "lncc", "mind", "nmi", "mi", "local_gradient", "mse")
STAGES = {"image_factors": [1], "velocity_factors": [2], "iterations": [8], "windows": [5], "strides": [1]}
METHODS = {
    "DNVF": STAGES,
    "Cas-DNVF": STAGES,
    "VoxelMorph": {"refine": 5, "refine_spacing": 8.0},
    "FNOReg": {"refine": 5, "refine_spacing": 8.0},
}


def resident_mb() -> float:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def jobs(folder: Path, count: int):
    """Jobs on one small pair that differ in method, similarity and seed."""
    phantom = make_phantom(Grid.from_parts((24, 26, 22), (-70, -85, -60), (5.8, 6.5, 5.4)), amplitude_mm=10.0)
    for name in ("fixed", "moving"):
        io.write_image(getattr(phantom, name), folder / f"{name}.nii.gz")
    paths = {name: str(folder / f"{name}.nii.gz") for name in ("fixed", "moving")} | {"output": str(folder / "out")}
    for number in range(count):
        method, similarity = list(METHODS)[number % 4], SIMILARITIES[number % 7]
        affine = "none" if number % 5 else "affine"
        yield RegistrationJob(
            **paths, method=method, similarity=similarity, affine=affine, seed=number, threads=1,
            options=METHODS[method],
        )  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    count = parser.parse_args().runs
    torch.set_num_threads(1)
    started, seen = time.perf_counter(), []
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        for number, job in enumerate(jobs(Path(folder), count), 1):
            run.run(job, overwrite=True)
            seen.append(resident_mb())
            if number % 10 == 0:
                print(f"{number} runs: {seen[-1]:.0f} MB, {time.perf_counter() - started:.0f} s", flush=True)
    quarter = max(count // 4, 1)
    second, last = (max(part) for part in (seen[quarter : 2 * quarter] or seen, seen[-quarter:]))
    print(f"{count} registrations; resident {seen[0]:.0f} MB after the first, at most {second:.0f} MB in the second")
    print(f"quarter and {last:.0f} MB in the last: growth {last - second:+.1f} MB")
    return int(last - second > GROWTH_MB)


if __name__ == "__main__":
    sys.exit(main())

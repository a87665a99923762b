"""Parameters, forward time and peak memory of every network: `python -m benchmark.networks`, from the folder Testing.

Needs neuralreg on the path (installed, or PYTHONPATH=../NeuralRegistration). Each network runs in a process of its own,
whose memory is its peak; the figure without a network is that of torch alone.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

NETWORKS = {
    "none": None,
    "VoxelMorph-1": ("VoxelMorph", {"size": "voxelmorph-1"}),
    "VoxelMorph-2": ("VoxelMorph", {"size": "voxelmorph-2"}),
    "VoxelMorph-2, half-resolution velocity": ("VoxelMorph", {"size": "voxelmorph-2", "half_resolution": True}),
    "FNOReg compact": ("FNOReg", "compact"),
    "FNOReg compact, half-resolution velocity": ("FNOReg", "compact", {"half_resolution": True}),
    "FNOReg paper": ("FNOReg", "paper"),
}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmark.networks", description=__doc__.splitlines()[0])
    parser.add_argument("--shape", default="160,192,224", help="depth, height, width (default: 160,192,224)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=3, help="forward passes; the fastest counts")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=list(NETWORKS), help="this network, in this process")
    options = parser.parse_args(arguments)
    if options.only:
        print(measured(options.only, tuple(map(int, options.shape.split(","))), options))
        return
    print("| network | parameters | forward s | CPU s | peak memory MB |\n|---|---|---|---|---|", flush=True)
    given = sys.argv[1:] if arguments is None else arguments
    for name in NETWORKS:
        subprocess.run([sys.executable, "-m", "benchmark.networks", *given, "--only", name], check=True)


def measured(name: str, shape: tuple[int, int, int], options: argparse.Namespace) -> str:
    """A row of the table."""
    import torch
    from neuralreg.feedforward import build, placed
    from neuralreg.networks.fno import SIZES
    from neuralreg.usage import peak_memory_mb

    torch.set_num_threads(options.threads)
    count, seconds, cpu = 0, 0.0, 0.0
    if NETWORKS[name]:
        method, size, *changes = NETWORKS[name]
        settings = SIZES[size] if isinstance(size, str) else size
        network = placed(build(method, settings | (changes[0] if changes else {})).eval(), options.device)
        count = sum(p.numel() for p in network.parameters())
        fixed, moving = (torch.rand(1, 1, *shape, device=options.device) for _ in range(2))
        with torch.inference_mode():
            times = [timed(network, fixed, moving) for _ in range(options.repeats)]
            seconds, cpu = (min(column) for column in zip(*times, strict=True))
    on_gpu = options.device.startswith("cuda")
    memory = torch.cuda.max_memory_allocated() / 1e6 if on_gpu else peak_memory_mb()
    return f"| {name} | {count:,} | {seconds:.2f} | {cpu:.2f} | {memory:.0f} |"


def timed(network, fixed, moving) -> tuple[float, float]:
    """Wall and CPU seconds of one forward pass; a number is read from the field: a GPU has to be done with it."""
    start, used = time.perf_counter(), time.process_time()
    float(network(fixed, moving).sum())
    return time.perf_counter() - start, time.process_time() - used


if __name__ == "__main__":
    main()

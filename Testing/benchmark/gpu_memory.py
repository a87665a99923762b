"""The memory that a registration would hold on a GPU: the most bytes of tensors at once, on a simulated one.

    python -m benchmark.gpu_memory FIXED MOVING [--methods DNVF:balanced,VoxelMorph:balanced]   (from Testing)

The simulated GPU (Testing/core/simulated_gpu.py) computes on the CPU, with the choices that the code makes for a GPU.
It counts the tensors that PyTorch hands out; what kernels and libraries need for themselves, and gaps between tensors,
come on top.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "NeuralRegistration"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "core"))

from neuralreg import io, pipeline
from neuralreg.methods import make_method
from simulated_gpu import DEVICE, SimulatedGpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fixed", type=Path, metavar="FIXED")
    parser.add_argument("moving", type=Path, metavar="MOVING")
    parser.add_argument("--methods", default="DNVF:balanced", metavar="LIST", help="METHOD:PRESET, comma-separated")
    parser.add_argument("--iterations", type=int, help="of every stage of DNVF (the peak is that of any number)")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    fixed, moving = io.read_image(options.fixed), io.read_image(options.moving)
    print("| method | voxels | peak of tensors, MB | waits for the host |\n|---|---|---|---|")
    for name in options.methods.split(","):
        method, _, preset = name.partition(":")
        gpu, chosen = SimulatedGpu(), (str(DEVICE), "It is simulated.")
        preset = preset or "balanced"
        few = _few(method, preset, options.iterations) if options.iterations else {}
        with patch.object(pipeline, "choose_device", lambda wanted, chosen=chosen: chosen), gpu:
            found = pipeline.register(fixed, moving, method, preset=preset, options=few, threads=options.threads)
        voxels = found.grid.shape[0] * found.grid.shape[1] * found.grid.shape[2]
        print(f"| {name} | {voxels / 1e6:.1f} million | {gpu.peak / 1e6:.0f} | {gpu.waits} |", flush=True)


def _few(method: str, preset: str, iterations: int) -> dict:
    stages = getattr(make_method(method, preset), "iterations", ())
    return {"iterations": [iterations] * len(stages)} if stages else {}


if __name__ == "__main__":
    main()

"""How cost and memory grow: with the size of the volume, up to a whole-body CT, and with the number of pairs.

    python -m benchmark.scale --sizes 64,128,256,512x512x600 --pairs 1,10,100          (from the folder Testing)

The pairs are CT-like phantoms (int16, Hounsfield units) made in a process of their own; what is measured is the whole
command, files to files. Every row is written at once, and what the file holds already is not repeated.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "NeuralRegistration"))

from neuralreg.job import RESULT, Result

from .measure import busy, timed
from .table import append, read

COLUMNS = ("kind", "size", "million_voxels", "pairs", "wall_s", "cpu_s", "memory_mb", "core_s", "preset", "threads")
COLUMNS += ("load", "folds_percent", "warning")
EXTENT = 300.0  # mm along the longest axis
COARSE = 96  # the phantom is made with at most so many voxels along an axis and resampled from there
SMALL = "32"  # voxels of the pairs in a batch
COLORS = {"fast": "#4a6a8a", "balanced": "#c44e17", "best": "#3a7d44"}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="64,96,128,192,256,512x512x600", help="voxels: N for a cube, or XxYxZ")
    parser.add_argument("--pairs", default="1,10,100", help="numbers of small pairs for `neuralreg batch`")
    parser.add_argument("--preset", default="balanced")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory", type=float, metavar="GB", help="address space that a run may have (Linux)")
    parser.add_argument("--phantoms", type=Path, metavar="DIR", help="keep them there: made once for several presets")
    parser.add_argument("--out", type=Path, default=Path("scale.csv"))
    parser.add_argument("--plot", type=Path, metavar="F.png", help="draw what the file holds")
    parser.add_argument("--make", nargs=2, metavar=("SIZE", "DIR"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.make:
        make_pair(shape_of(options.make[0]), Path(options.make[1]))
        return
    for size in filter(None, options.sizes.split(",")):
        _once(options, "volume", size, 1, _measured_volume)
    for count in filter(None, options.pairs.split(",")):
        _once(options, "batch", SMALL, int(count), _measured_batch)
    if options.plot:
        plot(read(options.out), options.plot)


def make_pair(shape: tuple[int, int, int], folder: Path) -> None:
    """fixed.nii.gz and moving.nii.gz of so many voxels (x, y, z): a phantom in Hounsfield units with a known warp."""
    import numpy as np
    import SimpleITK as sitk
    from neuralreg import io
    from neuralreg.image import Grid
    from neuralreg.phantom import make_phantom

    spacing = EXTENT / max(shape)
    factor = max(1.0, max(shape) / COARSE)
    coarse = [max(8, round(n / factor)) for n in shape]
    fine_mm, coarse_mm = (np.array(shape) * spacing, np.array(shape) * spacing / coarse)
    grid = Grid.from_parts(tuple(reversed(coarse)), tuple(-fine_mm / 2), tuple(coarse_mm))
    phantom = make_phantom(grid, noise=2.0)
    for name in ("fixed", "moving"):
        small = io.to_sitk(getattr(phantom, name))
        low, high = sitk.GetArrayViewFromImage(small).min(), sitk.GetArrayViewFromImage(small).max()
        small = sitk.ShiftScale(small, -float(low), 2000.0 / float(high - low)) - 1000.0
        large = sitk.Resample(
            small, shape, sitk.Transform(), sitk.sitkLinear, tuple(-fine_mm / 2), (spacing,) * 3, small.GetDirection(),
            -1000.0, sitk.sitkInt16,
        )  # fmt: skip
        sitk.WriteImage(large, str(folder / f"{name}.nii.gz"), useCompression=True, compressionLevel=1)


def _once(options: argparse.Namespace, kind: str, size: str, pairs: int, measure) -> None:
    settings = {"kind": kind, "size": size, "pairs": str(pairs), "preset": options.preset}
    settings["threads"] = str(options.threads)
    if any(all(row[name] == value for name, value in settings.items()) for row in read(options.out)):
        return
    row = dict.fromkeys(COLUMNS, "") | settings
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        phantoms = (options.phantoms or Path(folder)) / size
        if not (phantoms / "moving.nii.gz").is_file():
            phantoms.mkdir(parents=True, exist_ok=True)
            timed([sys.executable, "-m", "benchmark.scale", "--make", size, str(phantoms)], options.threads)
        row |= {"load": busy(), "million_voxels": round(_voxels(size) / 1e6, 2)}
        row |= measure(phantoms.resolve(), Path(folder), options, pairs)
    append(options.out, row, COLUMNS)
    print(f"{kind} {size} × {pairs}: {row['cpu_s']} CPU s, {row['memory_mb']} MB", flush=True)


def _measured_volume(phantoms: Path, folder: Path, options: argparse.Namespace, _pairs: int) -> dict[str, object]:
    files = (str(phantoms / "fixed.nii.gz"), str(phantoms / "moving.nii.gz"), "-o", str(folder / "run"))
    row = timed([*_neuralreg("register", options), *files], options.threads)
    result = Result.load(folder / "run" / RESULT)
    return row | {
        "core_s": round(result.timings["total"], 2),
        "folds_percent": result.metrics["folds_percent"],
        "warning": " ".join(result.warnings)[:200],
    }


def _measured_batch(phantoms: Path, folder: Path, options: argparse.Namespace, pairs: int) -> dict[str, object]:
    table = folder / "pairs.csv"
    files = f"{phantoms / 'fixed.nii.gz'},{phantoms / 'moving.nii.gz'}"
    rows = "".join(f"pair{number},{files}\n" for number in range(pairs))
    table.write_text("name,fixed,moving\n" + rows, encoding="utf-8")
    return timed([*_neuralreg("batch", options), str(table), "-o", str(folder / "runs")], options.threads)


def _neuralreg(command: str, options: argparse.Namespace) -> list[str]:
    settings = ["--preset", options.preset, "--threads", str(options.threads), "--progress", "none"]
    limit = ["prlimit", f"--as={round(options.memory * 1e9)}"] if options.memory else []
    return [*limit, sys.executable, "-m", "neuralreg", command, *settings]


def shape_of(size: str) -> tuple[int, int, int]:
    numbers = tuple(int(n) for n in size.split("x"))
    return numbers * 3 if len(numbers) == 1 else numbers


def _voxels(size: str) -> int:
    x, y, z = shape_of(size)
    return x * y * z


def plot(rows: list[dict[str, str]], path: Path) -> None:
    """CPU time and peak memory against voxels, and CPU time against pairs, on logarithmic axes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = (
        ("volume", "million_voxels", "cpu_s", "million voxels of each volume", "CPU seconds"),
        ("volume", "million_voxels", "memory_mb", "million voxels of each volume", "peak memory, MB"),
        ("batch", "pairs", "cpu_s", "pairs", "CPU seconds"),
    )
    panels = [panel for panel in panels if any(row["kind"] == panel[0] for row in rows)]
    size = (4.2 * len(panels), 3.6)
    figure, axes = pyplot.subplots(1, len(panels), figsize=size, squeeze=False, layout="constrained")
    for axis, (kind, across, up, label, title) in zip(axes[0], panels, strict=True):
        for preset in dict.fromkeys(row["preset"] for row in rows if row["kind"] == kind):
            shown = [row for row in rows if (row["kind"], row["preset"]) == (kind, preset)]
            points = sorted((float(row[across]), float(row[up])) for row in shown)
            axis.plot(*zip(*points, strict=True), "o-", color=COLORS.get(preset), label=preset)
        axis.set(xscale="log", yscale="log", xlabel=label, title=title)
        for line in (axis.xaxis, axis.yaxis):
            line.set_major_formatter("{x:g}")
        axis.grid(alpha=0.25, which="both")
        axis.legend()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()

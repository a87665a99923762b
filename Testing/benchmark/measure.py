"""One pair and method: run the command as users would, then measure what it left behind. Accuracy is measured apart."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import neuralreg
from neuralreg import evaluate, io, metrics
from neuralreg.body import body_mask
from neuralreg.job import INVERSE, RESULT, TRANSFORM, RegistrationError, Result
from neuralreg.transform import jacobian_determinant

from .methods import Command
from .pairs import Pair

COLUMNS = (
    "dataset", "pair", "method", "dice", "dice_before", "hd95_mm", "tre_mm", "tre_before_mm", "folds_percent",
    "ndv_percent", "sdlogj", "inverse_mean_mm", "inverse_max_mm", "wall_s", "cpu_s", "core_s", "memory_mb", "threads",
    "load", "device", "version", "date", "error",
)  # fmt: skip
NOTES = "peer.json"  # what a peer says of itself: version, device
HOME = Path(__file__).resolve().parents[1]


def measured(pair: Pair, name: str, command: Command, folder: Path, threads: int) -> dict[str, object]:
    """A row of the table; `load` is the machine's when the command starts. What goes wrong is the row's `error`."""
    row: dict[str, object] = dict.fromkeys(COLUMNS, "")
    row |= {"dataset": pair.dataset, "pair": pair.name, "method": name, "threads": threads}
    row |= {"version": f"neuralreg {neuralreg.__version__}", "date": date.today().isoformat(), "load": busy()}
    folder.mkdir(parents=True, exist_ok=True)
    try:
        row |= timed(command(pair, folder, threads), threads)
        row |= accuracy(pair, folder)
        if (folder / NOTES).is_file():
            row |= json.loads((folder / NOTES).read_text(encoding="utf-8"))
    except (OSError, RuntimeError, RegistrationError) as error:
        row["error"] = " ".join(str(error).split())[-300:]
    return row


def busy() -> float | str:
    """Processes that wanted a processor in the last minute: above about 0.2 the machine was shared with others."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else ""


def timed(arguments: list[str], threads: int) -> dict[str, float]:
    """Run a command; wall and CPU seconds and peak memory, all counted. Raises RuntimeError with its last words."""
    source = str(Path(neuralreg.__file__).parents[1])
    limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"), str(threads))
    paths = os.pathsep.join(filter(None, (source, str(HOME), os.environ.get("PYTHONPATH"))))
    with tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        process = subprocess.Popen(
            arguments, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **limits, "PYTHONPATH": paths}
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read().decode(errors="replace")
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode}: {text.strip()[-250:]}")
    kilobytes = usage.ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    cpu = usage.ru_utime + usage.ru_stime
    return {"wall_s": round(wall, 2), "cpu_s": round(cpu, 2), "memory_mb": round(kilobytes / 1024)}


def accuracy(pair: Pair, folder: Path) -> dict[str, object]:
    """Overlap, landmarks, regularity and consistency of the transform in a folder, on the fixed image's grid."""
    transform = io.read_transform(folder / TRANSFORM)
    fixed = io.read_image(pair.fixed)
    mask = body_mask(fixed) if pair.fixed_mask is None else io.read_mask(pair.fixed_mask, fixed.grid).data[0] > 0
    regularity = metrics.regularity(transform, jacobian_determinant(transform, fixed.grid), mask)
    row: dict[str, object] = {
        "folds_percent": regularity["folds_percent"],
        "ndv_percent": regularity["non_diffeomorphic_volume_percent"],
        "sdlogj": round(regularity["sdlogj"], 4),
    }
    if (folder / INVERSE).is_file():
        inverse = io.read_transform(folder / INVERSE)
        mean, largest = metrics.inverse_consistency_mm(transform, inverse, fixed.grid, mask)
        row |= {"inverse_mean_mm": round(mean, 4), "inverse_max_mm": round(largest, 3)}
    if (folder / RESULT).is_file():
        result = Result.load(folder / RESULT)
        row |= {"core_s": round(result.timings.get("total", 0.0), 2), "device": result.device}
    if pair.fixed_labels and pair.moving_labels:
        labels = io.read_labels(pair.fixed_labels), io.read_labels(pair.moving_labels)
        means = evaluate.with_means(evaluate.label_measurements(*labels, transform))["means"]
        names = (("dice", "dice_mean"), ("dice_before", "dice_before_mean"), ("hd95_mm", "hd95_mean_mm"))
        row |= {column: round(means[name], 4) for column, name in names if name in means}
    if pair.landmarks:
        means = evaluate.landmark_errors(pair.landmarks, transform)["means"]
        row |= {"tre_mm": round(means["tre_mean_mm"], 3), "tre_before_mm": round(means["tre_before_mean_mm"], 3)}
    return row

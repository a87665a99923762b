"""The page itself: measurements, pictures and settings as HTML. Everything that came from a user is escaped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from .. import qa
from ..job import RegistrationJob
from . import charts
from .style import CSS

LIGHTS = {qa.GREEN: "within limits", qa.AMBER: "look closer", qa.RED: "outside limits"}
VERDICTS = {
    qa.GREEN: "All measurements lie within their limits.",
    qa.AMBER: "Some measurements deserve a closer look.",
    qa.RED: "At least one measurement lies outside its limits.",
}
OVERLAY = (
    "“Before” is the moving volume where its file header puts it; “after” is the moving volume warped onto the fixed "
    "one. Fixed in green, moving in magenta: grey means that they agree."
)
TILES = "Tiles of the fixed and the moving volume in turn: where they agree, edges run on across the tiles."
DEFORMATION = (
    "The grid is a square grid of the moving volume, bent with it (without the tilt, shift and scaling of the affine "
    "stage); lines that cross or bunch up deserve a look. The Jacobian determinant says how many times larger a place "
    "is in the moving volume than in the fixed one: 1 is unchanged, 0 and below is folded and cannot be anatomy."
)
WHERE = "Inside the body or the fixed mask; the similarities where the moving volume is seen both before and after."
NAMES = {
    "ncc_before": ("Correlation before", ""), "ncc_after": ("Correlation after", ""),
    "mutual_information_before": ("Mutual information before", "nats"),
    "mutual_information_after": ("Mutual information after", "nats"),
    "linear_correlation": ("Squared local correlation after the linear stage", ""),
    "displacement_mean_mm": ("Displacement, mean", "mm"), "displacement_max_mm": ("Displacement, largest", "mm"),
    "jacobian_min": ("Jacobian determinant, smallest", ""), "jacobian_max": ("Jacobian determinant, largest", ""),
    "sdlogj": ("Spread of log Jacobian (SDlogJ)", ""),
    "folds_percent": ("Folded voxels", "%"), "folds_in_view": ("Folded voxels in the whole view", ""),
    "non_diffeomorphic_volume_percent": ("Volume turned inside out", "%"),
    "inverse_consistency_mean_mm": ("Forth and back, mean error", "mm"),
    "inverse_consistency_max_mm": ("Forth and back, largest error", "mm"),
    "dice_before_mean": ("Dice before, mean", ""), "dice_mean": ("Dice after, mean", ""),
    "labels": ("Labels compared", ""),
    "hd95_mean_mm": ("Hausdorff distance 95 %, mean", "mm"),
    "tre_before_mean_mm": ("Landmark error before, mean", "mm"), "tre_mean_mm": ("Landmark error, mean", "mm"),
    "tre_sd_mm": ("Landmark error, standard deviation", "mm"), "tre_max_mm": ("Landmark error, largest", "mm"),
    "landmarks": ("Landmarks", ""),
}  # fmt: skip


def render(
    run_dir: Path,
    job: RegistrationJob,
    result: Mapping[str, Any],
    values: Mapping[str, Any],
    checks: Sequence[qa.Check],
    planes: Sequence[Mapping[str, Any]],
    largest: float,
) -> str:
    """The whole page. planes: as `report._pictures` makes them; largest: upper end of the Jacobian's colours."""
    parts = [_head(run_dir, job, result, checks), _comparison(planes), _deformation(planes, largest)]
    parts += [_quality(checks), _measurements(values), _course(result), _settings(job, result)]
    title = f"Registration of {_short(job, 'moving')} to {_short(job, 'fixed')}"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{CSS}</style></head>'
        f"<body><main>{''.join(parts)}{_foot(result)}</main></body></html>\n"
    )


def _head(run_dir: Path, job: RegistrationJob, result: Mapping[str, Any], checks: Sequence[qa.Check]) -> str:
    light = qa.worst(checks)
    seconds = result["timings"].get("total")
    how = f"{result['method']}, preset {job.preset}, {result['device']}" + (f", {seconds:.0f} s" if seconds else "")
    verdict = (
        f'<div class="verdict {light}"><span class="light">{LIGHTS[light]}</span>'
        f"<span>{VERDICTS[light]} {qa.caution(checks)} "
        '<span class="quiet">Judge by the pictures first; the numbers support your eyes.</span></span></div>'
    )
    pair = ("Fixed", _short(job, "fixed")), ("Moving", _short(job, "moving"))
    names = (*pair, ("Method", how), ("Folder", run_dir.resolve().name))
    rows = "".join(f"<dt>{name}</dt><dd>{escape(str(value))}</dd>" for name, value in names)
    return f'<h1>Registration report</h1><dl class="pair">{rows}</dl>{verdict if checks else ""}{_warnings(result)}'


def _called(job: RegistrationJob, name: str) -> str | None:
    """An input as the user knows it: by its name, else its path; None where there is none."""
    return job.names.get(name) or getattr(job, name)


def _short(job: RegistrationJob, name: str) -> str:
    return job.names.get(name) or Path(getattr(job, name)).name


def _warnings(result: Mapping[str, Any]) -> str:
    notes = list(result["warnings"])
    if result["stopped_early"]:
        notes.append("The optimisation was stopped by the user; the result is the best one until then.")
    lines = "".join(f"<li>{escape(str(note))}</li>" for note in notes)
    return f"<h2>Notes from the run</h2><ul>{lines}</ul>" if notes else ""


def _comparison(planes: Sequence[Mapping[str, Any]]) -> str:
    return (
        _heading("Before and after", OVERLAY)
        + _titles(planes)
        + _row(planes, "overlay_before", "Before", "overlay")
        + _row(planes, "overlay_after", "After", "overlay")
        + _heading("Checkerboard", TILES)
        + _row(planes, "tiles_before", "Before", "checkerboard")
        + _row(planes, "tiles_after", "After", "checkerboard")
        + _heading("The three volumes")
        + _row(planes, "fixed", "Fixed", "")
        + _row(planes, "before", "Moving", "before")
        + _row(planes, "after", "Warped", "moving, after")
    )


def _deformation(planes: Sequence[Mapping[str, Any]], largest: float) -> str:
    return (
        _heading("Deformation", DEFORMATION)
        + _row(planes, "grid", "Grid", "on the warped volume")
        + _row(planes, "jacobian", "Jacobian", "determinant")
        + f'<div class="legend">{charts.jacobian_bar(largest)}</div>'
    )


def _heading(title: str, text: str = "") -> str:
    return f"<h2>{title}</h2>" + (f'<p class="quiet">{escape(text)}</p>' if text else "")


def _titles(planes: Sequence[Mapping[str, Any]]) -> str:
    names = "".join(f"<div>{plane['name']}</div>" for plane in planes)
    return f'<div class="row titles"><div class="name"></div>{names}</div>'


def _row(planes: Sequence[Mapping[str, Any]], picture: str, name: str, detail: str) -> str:
    figures = []
    for plane in planes:
        marks = "".join(f'<span class="{s}">{letter}</span>' for s, letter in zip("wens", plane["sides"], strict=True))
        alt = f"{plane['name']} slice: {name} {detail}".strip()
        figures.append(f'<figure class="slice"><img alt="{alt}" src="{plane["pictures"][picture]}">{marks}</figure>')
    return f'<div class="row"><div class="name"><b>{name}</b>{detail}</div>{"".join(figures)}</div>'


def _quality(checks: Sequence[qa.Check]) -> str:
    if not checks:
        return ""
    rows = "".join(
        f'<tr class="{c.light}"><td>{escape(c.name)}</td><td>{escape(c.value)}</td>'
        f'<td class="light">{LIGHTS[c.light]}</td><td class="rule">{escape(c.rule)}</td></tr>'
        for c in checks
    )
    heading = "<tr><th>What</th><th>Measured</th><th>Reading</th><th>Rule</th></tr>"
    return f'{_heading("Quality check", qa.NOTE)}<table class="checks">{heading}{rows}</table>'


def _measurements(values: Mapping[str, Any]) -> str:
    known = [(*NAMES[name], values[name]) for name in NAMES if isinstance(values.get(name), int | float)]
    rows = [f'<tr><td>{escape(name)}</td><td class="number">{_number(v, unit)}</td></tr>' for name, unit, v in known]
    if not rows:
        return ""
    half = (len(rows) + 1) // 2
    tables = "".join(f"<table>{''.join(part)}</table>" for part in (rows[:half], rows[half:]) if part)
    return f'{_heading("Measurements", WHERE)}<div class="columns">{tables}</div>'


def _course(result: Mapping[str, Any]) -> str:
    curve, bars = charts.loss_curve(result["loss"]), charts.timing_bars(result["timings"])
    total = result["timings"].get("total")
    memory = f"{result['peak_memory_mb']:.0f} MB of memory at most"
    if result["peak_gpu_memory_mb"]:
        memory += f", {result['peak_gpu_memory_mb']:.0f} MB on the GPU"
    time = f"{total:.1f} s in all, " if total else ""
    parts = _heading("Course of the optimisation", "The loss: lower is better.") + curve if curve else ""
    return parts + _heading("Time and memory", f"{time}{memory}; {result['device_reason']}") + bars


def _settings(job: RegistrationJob, result: Mapping[str, Any]) -> str:
    settings = {
        "Fixed": _called(job, "fixed"), "Moving": _called(job, "moving"),
        "Method": result["method"], "Preset": job.preset,
        "Similarity": result["similarity"] or None, "Why this similarity": result["similarity_reason"] or None,
        "Affine stage": job.affine, "Initial transform": _called(job, "initial_transform"),
        "Fixed mask": _called(job, "fixed_mask"), "Moving mask": _called(job, "moving_mask"),
        "Device": result["device"], "Seed": result["seed"],
        **{f"Option {name}": json.dumps(value) for name, value in result["options"].items()},
        **{f"Version of {name}": value for name, value in result["versions"].items()},
    }  # fmt: skip
    shown = [(name, value) for name, value in settings.items() if value is not None]
    rows = [f"<tr><td>{escape(name)}</td><td><code>{escape(str(value))}</code></td></tr>" for name, value in shown]
    half = (len(rows) + 1) // 2
    tables = "".join(f"<table>{''.join(part)}</table>" for part in (rows[:half], rows[half:]))
    return f'<h2>Settings and versions</h2><div class="columns">{tables}</div>{_files()}'


def _files() -> str:
    files = (
        (
            "transform.h5",
            "Maps points of the fixed volume to the moving one, in mm (LPS): what resamples the moving volume.",
        ),
        ("inverse.h5", "The way back: brings points of the moving volume to the fixed one."),
        ("warped.nii.gz", "The moving volume on the grid of the fixed one."),
        ("jacobian.nii.gz", "The Jacobian determinant of transform.h5 on the same grid."),
        ("job.json", "Everything needed to repeat the run: neuralreg run job.json"),
    )
    rows = "".join(f"<tr><td><code>{name}</code></td><td>{text}</td></tr>" for name, text in files)
    return f"<h2>Files beside this page</h2><table>{rows}</table>"


def _foot(result: Mapping[str, Any]) -> str:
    version = escape(str(result["versions"].get("neuralreg", "")))
    return f"<footer>Made by neuralreg {version}. For research; not a medical device.</footer>"


def _number(value: float, unit: str) -> str:
    text = str(value) if isinstance(value, int) else f"{value:.3g}" if unit == "%" else f"{value:.3f}"
    return f"{text} {unit}".strip().replace("-", "−")

"""The results: a CSV file that grows by a row per pair and method, and a Markdown table of it."""

from __future__ import annotations

import csv
import statistics
from pathlib import Path

from .measure import COLUMNS

# column of the CSV, heading, format
SHOWN = (
    ("dice", "Dice", ".3f"), ("hd95_mm", "HD95 mm", ".2f"), ("tre_mm", "TRE mm", ".2f"),
    ("folds_percent", "folds %", ".3g"),    ("ndv_percent", "NDV %", ".2g"),
    ("sdlogj", "SDlogJ", ".3f"), ("inverse_mean_mm", "inverse mm", ".3f"),
    ("wall_s", "wall s", ".1f"), ("cpu_s", "CPU s", ".1f"), ("core_s", "core s", ".1f"), ("memory_mb", "MB", ".0f"),
)  # fmt: skip


def read(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def append(path: Path, row: dict[str, object]) -> None:
    """One row more, written at once: what is in the file is done."""
    new = not path.is_file() or not path.stat().st_size
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if new:
            writer.writeheader()
        writer.writerow(row)


def done(rows: list[dict[str, str]]) -> set[tuple[str, str, str]]:
    """(data set, pair, method) of the rows that hold a result; failures are tried again."""
    return {(row["dataset"], row["pair"], row["method"]) for row in rows if not row["error"]}


def markdown(rows: list[dict[str, str]], reference: str | None = None) -> str:
    """A table for each data set: means over the pairs; with `reference`, its method's time over each method's time."""
    sections = []
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        within = [row for row in rows if row["dataset"] == dataset]
        methods = dict.fromkeys(row["method"] for row in within)
        table = {method: _latest([row for row in within if row["method"] == method]) for method in methods}
        shown = [item for item in SHOWN if any(row[item[0]] for latest in table.values() for row in latest)]
        base = _mean([row["wall_s"] for row in table.get(reference, [])]) if reference else None
        heading = ["method", "pairs", *(name for _, name, _ in shown), *([f"speed vs {reference}"] if base else [])]
        lines = [f"### {dataset}", "", _line(heading), _line(["---", *["---:"] * (len(heading) - 1)])]
        lines += [_line(_cells(method, latest, shown, base)) for method, latest in table.items()]
        errors = {method: next((r["error"] for r in latest if r["error"]), "") for method, latest in table.items()}
        lines += ["", *(f"- {method}: {error}" for method, error in errors.items() if error)]
        sections.append("\n".join(lines).rstrip())
    return "\n\n".join(sections) + "\n"


def _latest(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """The last row of each pair: a failure that was tried again is replaced by what came after."""
    return list({row["pair"]: row for row in rows}.values())


def _cells(method: str, rows: list[dict[str, str]], shown, base: float | None) -> list[str]:
    good = [row for row in rows if not row["error"]]
    count = f"{len(good)}" if len(good) == len(rows) else f"{len(good)} of {len(rows)}"
    means = [_mean([row[column] for row in good]) for column, _, _ in shown]
    cells = ["–" if mean is None else format(mean, layout) for mean, (_, _, layout) in zip(means, shown, strict=True)]
    own = _mean([row["wall_s"] for row in good])
    return [method, count, *cells, *([f"{base / own:.1f} ×" if own else "–"] if base else [])]


def _mean(values: list[str]) -> float | None:
    numbers = [float(value) for value in values if value]
    return statistics.fmean(numbers) if numbers else None


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"

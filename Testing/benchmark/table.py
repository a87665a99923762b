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


def append(path: Path, row: dict[str, object], columns: tuple[str, ...] = COLUMNS) -> None:
    """One row more, written at once: what is in the file is done. Raises SystemExit for a file with other columns."""
    new = not path.is_file() or not path.stat().st_size
    if not new and tuple(path.read_text(encoding="utf-8").splitlines()[0].split(",")) != columns:
        raise SystemExit(f"{path} has the columns of another version of the benchmark; name a new file with --out.")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        if new:
            writer.writeheader()
        writer.writerow(row)


def done(rows: list[dict[str, str]]) -> set[tuple[str, str, str]]:
    """(data set, pair, method) of the rows that hold a result; failures are tried again."""
    return {(row["dataset"], row["pair"], row["method"]) for row in rows if not row["error"]}


def markdown(rows: list[dict[str, str]], reference: str | None = None) -> str:
    """A table for each data set: means over the pairs, and against `reference` on the pairs that both have."""
    sections = []
    for dataset, table in by_method(rows).items():
        shown = [item for item in SHOWN if any(row[item[0]] for latest in table.values() for row in latest)]
        base = table.get(reference, []) if reference else []
        heading = ["method", "pairs", *(name for _, name, _ in shown)]
        heading += [f"Dice − {reference}", f"CPU speed vs {reference}"] if base else []
        lines = [f"### {dataset}", "", line(heading), line(["---", *["---:"] * (len(heading) - 1)])]
        lines += [line(_cells(method, latest, shown, base)) for method, latest in table.items()]
        errors = {method: next((r["error"] for r in latest if r["error"]), "") for method, latest in table.items()}
        lines += ["", *(f"- {method}: {error}" for method, error in errors.items() if error)]
        sections.append("\n".join(lines).rstrip())
    return "\n\n".join(sections) + "\n"


def by_method(rows: list[dict[str, str]]) -> dict[str, dict[str, list[dict[str, str]]]]:
    """data set → method → its rows, the last one of each pair: a failure that was tried again is replaced."""
    tables: dict[str, dict[str, dict[str, dict[str, str]]]] = {}
    for row in rows:
        tables.setdefault(row["dataset"], {}).setdefault(row["method"], {})[row["pair"]] = row
    return {
        dataset: {name: list(latest.values()) for name, latest in table.items()} for dataset, table in tables.items()
    }


def _cells(method: str, rows: list[dict[str, str]], shown, base: list[dict[str, str]]) -> list[str]:
    good = [row for row in rows if not row["error"]]
    count = f"{len(good)}" if len(good) == len(rows) else f"{len(good)} of {len(rows)}"
    means = [mean([row[column] for row in good]) for column, _, _ in shown]
    cells = [
        "–" if value is None else format(value, layout) for value, (_, _, layout) in zip(means, shown, strict=True)
    ]
    return [method, count, *cells, *(_against(good, base) if base else [])]


def _against(rows: list[dict[str, str]], base: list[dict[str, str]]) -> list[str]:
    """Difference of Dice and ratio of CPU time on the pairs that both methods have."""
    theirs = {row["pair"]: row for row in base if not row["error"]}
    both = [(row, theirs[row["pair"]]) for row in rows if row["pair"] in theirs]
    gains = [float(own["dice"]) - float(other["dice"]) for own, other in both if own["dice"] and other["dice"]]
    own, other = (sum(float(row["cpu_s"]) for row in side) for side in zip(*both, strict=True)) if both else (0, 0)
    return [f"{statistics.fmean(gains):+.3f}" if gains else "–", f"{other / own:.1f} ×" if own else "–"]


def mean(values: list[str]) -> float | None:
    numbers = [float(value) for value in values if value]
    return statistics.fmean(numbers) if numbers else None


def line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"

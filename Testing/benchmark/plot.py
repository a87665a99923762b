"""The plot of accuracy against time: a panel for each data set, a dot for each method."""

from __future__ import annotations

from pathlib import Path

from .table import by_method, mean

MEASURES = (("dice", "mean Dice"), ("tre_mm", "TRE, mm (lower is better)"))
OURS, THEIRS = "#c44e17", "#4a6a8a"


def plot(rows: list[dict[str, str]], path: Path) -> None:
    """Mean accuracy against mean CPU seconds of the whole command, as a picture file."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = [panel for dataset, table in by_method(rows).items() if (panel := _panel(dataset, table))]
    if not panels:
        raise SystemExit("There is no row with Dice or TRE to draw; run the benchmark first.")
    figure, axes = pyplot.subplots(
        1, len(panels), figsize=(5.5 * len(panels), 4.2), squeeze=False, layout="constrained"
    )
    for axis, (title, label, dots) in zip(axes[0], panels, strict=True):
        for name, seconds, value in dots:
            color = OURS if ":" in name else THEIRS
            axis.plot(seconds, value, "o", color=color, markersize=7)
            axis.annotate(name, (seconds, value), (6, 5), textcoords="offset points", fontsize=9, color=color)
        axis.set(title=title, xlabel="CPU seconds, everything included", ylabel=label, xscale="log")
        axis.margins(x=0.25, y=0.15)
        axis.grid(alpha=0.25, which="both")
    figure.savefig(path, dpi=110)


def _panel(dataset: str, table: dict[str, list[dict[str, str]]]):
    """(title, label, [(method, seconds, value)]) with the first measure that the data set has, or None."""
    for column, label in MEASURES:
        dots = []
        for name, rows in table.items():
            good = [row for row in rows if not row["error"] and row[column]]
            if good:
                dots.append((name, mean([row["cpu_s"] for row in good]), mean([row[column] for row in good])))
        if dots:
            return dataset, label, dots
    return None

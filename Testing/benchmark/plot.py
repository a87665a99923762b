"""The plot of accuracy against time: a panel for each data set, a dot for each method and a faint one for each pair."""

from __future__ import annotations

from pathlib import Path

from .table import by_method

MEASURES = (("dice", "mean Dice"), ("tre_mm", "TRE, mm (lower is better)"))
OURS, THEIRS = "#c44e17", "#4a6a8a"
TITLES = {
    "ants": "ANTs SyN", "ants-mi": "ANTs SyN, mutual information", "convexadam": "ConvexAdam", "fireants": "FireANTs",
    "voxelmorph": "VoxelMorph, its authors'",
}  # fmt: skip
Dots = list[tuple[float, float]]  # CPU seconds and value of each pair


def plot(rows: list[dict[str, str]], path: Path) -> None:
    """Accuracy against CPU seconds of the whole command, as a picture file. Raises SystemExit without a row for it."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = [panel for dataset, table in by_method(rows).items() if (panel := _panel(dataset, table))]
    if not panels:
        raise SystemExit("There is no row with Dice or TRE to draw; run the benchmark first.")
    figure, axes = pyplot.subplots(
        1, len(panels), figsize=(6.4 * len(panels), 4.2), squeeze=False, layout="constrained"
    )
    for axis, (title, label, methods) in zip(axes[0], panels, strict=True):
        most = max(map(len, methods.values()))
        for name, dots in methods.items():
            _draw(axis, name, dots, most)
        axis.set(title=f"{title}, {most} pair{'s' * (most > 1)}", xlabel="CPU seconds, everything included")
        axis.set(ylabel=label, xscale="log")
        axis.margins(x=0.1, y=0.12)
        axis.set_xlim(right=3 * axis.get_xlim()[1])  # room for the names
        axis.grid(alpha=0.25, which="both")
    figure.savefig(path, dpi=100)


def _draw(axis, name: str, dots: Dots, most: int) -> None:
    """The mean of a method with its name, and its pairs; how many, where others have more."""
    color = OURS if ":" in name else THEIRS
    center = tuple(sum(values) / len(dots) for values in zip(*dots, strict=True))
    axis.plot(*zip(*dots, strict=True), "o", color=color, markersize=4, alpha=0.35, markeredgewidth=0)
    axis.plot(*center, "o", color=color, markersize=8)
    title = TITLES.get(name, name.replace(":", " "))
    if len(dots) == most:
        text, offset, side = title, (8, 4), "left"
    else:  # on the other side of the dot, where fewer names are in the way
        text, offset, side = f"{title} ({len(dots)} of {most})", (-8, -11), "right"
    axis.annotate(text, center, offset, textcoords="offset points", fontsize=9, color=color, ha=side)


def _panel(dataset: str, table: dict[str, list[dict[str, str]]]) -> tuple[str, str, dict[str, Dots]] | None:
    """(title, label, method → dots) with the first measure that the data set has, or None."""
    for column, label in MEASURES:
        methods = {}
        for name, rows in table.items():
            good = [row for row in rows if not row["error"] and row[column]]
            if good:
                methods[name] = [(float(row["cpu_s"]), float(row[column])) for row in good]
        if methods:
            return dataset, label, methods
    return None

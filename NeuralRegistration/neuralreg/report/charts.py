"""Inline SVG: the loss curve, the bars of the timings, the colour bar of the Jacobian. The page's CSS colours them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from .pictures import DIVERGING, FOLD_COLOR

WIDTH, HEIGHT = 640, 220
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 24, 30


def loss_curve(loss: Sequence[Sequence[float]]) -> str:
    """The loss over all iterations, stages marked at their beginning. `loss`: lists of [stage, iteration, loss]."""
    points = [(i, float(value), stage) for i, (stage, _, value) in enumerate(loss) if math.isfinite(float(value))]
    if len(points) < 2:
        return ""
    low, high = min(p[1] for p in points), max(p[1] for p in points)
    low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
    width, height, last = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM, points[-1][0]
    placed = [
        (LEFT + width * i / last, TOP + height * (high - value) / (high - low), stage) for i, value, stage in points
    ]
    parts = []
    for value in _ticks(low, high):
        y = TOP + height * (high - value) / (high - low)
        parts += [_line(LEFT, y, WIDTH - RIGHT, y, "rule"), _text(LEFT - 8, y + 4, _short(value), "end")]
    stages = list(dict.fromkeys(stage for _, _, stage in placed))
    for number, stage in enumerate(stages, start=1):
        line = [(x, y) for x, y, of in placed if of == stage]
        if len(stages) > 1:
            parts.append(_line(line[0][0], TOP, line[0][0], HEIGHT - BOTTOM, "stage"))
            parts.append(_text(line[0][0], TOP - 8, f"stage {number}", "start"))
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in line)
        parts.append(f'<polyline class="curve" points="{path}"/>')
    parts.append(_text((LEFT + WIDTH) / 2, HEIGHT - 8, f"{len(points)} iterations", "middle"))
    return _svg(HEIGHT, "Loss over the iterations, lower is better", parts)


def timing_bars(timings: Mapping[str, float]) -> str:
    """A horizontal bar for each stage, in seconds; `total` is left to the text."""
    stages = [(name, float(seconds)) for name, seconds in timings.items() if name != "total"]
    if not stages:
        return ""
    longest = max([seconds for _, seconds in stages] + [1e-9])
    parts = []
    for row, (name, seconds) in enumerate(stages):
        y = 8 + row * 26
        parts.append(_text(118, y + 13, name, "end"))
        parts.append(
            f'<rect class="bar" x="128" y="{y}" width="{max(1.5, 420 * seconds / longest):.1f}" height="17" rx="2"/>'
        )
        parts.append(_text(136 + 420 * seconds / longest, y + 13, f"{seconds:.1f} s", "start"))
    return _svg(16 + 26 * len(stages), "Seconds spent in each stage", parts)


def jacobian_bar(largest: float) -> str:
    """The colour bar of the Jacobian map: 1 / largest … largest on a logarithmic scale, and the colour of folds."""
    stops = "".join(
        f'<stop offset="{100 * i / (len(DIVERGING) - 1):.0f}%" stop-color="rgb{color}"/>'
        for i, color in enumerate(DIVERGING)
    )
    parts = [f'<defs><linearGradient id="jacobian">{stops}</linearGradient></defs>']
    parts.append('<rect x="20" y="4" width="420" height="14" rx="2" fill="url(#jacobian)"/>')
    root = math.sqrt(largest)
    for value in (1 / largest, 1 / root, 1.0, root, largest):
        x = 20 + 420 * (math.log(value) / math.log(largest) / 2 + 0.5)
        parts.append(_line(x, 18, x, 23, "stage") + _text(x, 36, f"{value:.2g}", "middle"))
    parts.append(
        f'<rect x="500" y="4" width="22" height="14" rx="2" fill="rgb{FOLD_COLOR}"/>'
        + _text(530, 16, "fold (J ≤ 0)", "start")
    )
    parts.append(_text(20, 54, "smaller in moving", "start") + _text(440, 54, "larger in moving", "end"))
    return _svg(60, "Colours of the Jacobian determinant", parts)


def _ticks(low: float, high: float) -> list[float]:
    """Three to nine round values within a range."""
    raw = (high - low) / 8
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * f for f in (1, 2, 2.5, 5, 10) if power * f >= raw)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _short(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, words: str, anchor: str) -> str:
    escaped = words.replace("&", "&amp;").replace("<", "&lt;")
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escaped}</text>'


def _svg(height: float, title: str, parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{title}">{"".join(parts)}</svg>'

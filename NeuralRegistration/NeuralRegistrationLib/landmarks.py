"""Landmark pairs: points of two lists that belong together, to guide a registration or to measure it."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from neuralreg.job import RegistrationError
from neuralreg.methods import make_method
from slicer.i18n import tr as _

AXES = "xyz"


def pairs(fixed, moving) -> tuple[np.ndarray, np.ndarray]:
    """(n, 3) ×2 LPS mm in world space: paired by label where both lists have the same labels, else in their order.

    Raises RegistrationError for a list alone, an empty one, a point that is not placed, different numbers, and an order
    that contradicts the labels.
    """
    if (fixed is None) != (moving is None):
        raise RegistrationError("Landmarks are pairs; choose the point list of the other volume too, or none.")
    if fixed is moving:
        raise RegistrationError("Both landmark lists are the same; choose one list of each volume.")
    counts = [markups.GetNumberOfControlPoints() for markups in (fixed, moving)]
    if counts[0] != counts[1] or not counts[0]:
        raise RegistrationError(
            f"The landmark lists have {counts[0]} and {counts[1]} points; give both the same number, at least one."
        )
    labels = [[markups.GetNthControlPointLabel(i) for i in range(counts[0])] for markups in (fixed, moving)]
    orders = [list(range(counts[0]))] * 2
    if sorted(labels[0]) == sorted(labels[1]) and len(set(labels[0])) == counts[0]:
        orders[1] = [labels[1].index(label) for label in labels[0]]
    else:
        _check_order(*labels)
    return tuple(np.array([_place(m, i) for i in order]) for m, order in zip((fixed, moving), orders, strict=True))


def _check_order(fixed: list[str], moving: list[str]) -> None:
    """Raise RegistrationError where an order would part points that have the same label in both lists."""
    for label, partner in zip(fixed, moving, strict=True):
        if label != partner and (label in moving or partner in fixed):
            raise RegistrationError(
                f'The landmark lists have some labels in common, but by their order "{label}" would belong to '
                f'"{partner}"; give partners the same label in both lists.'
            )


def _place(markups, index: int) -> list[float]:
    if markups.GetNthControlPointPositionStatus(index) != markups.PositionDefined:
        raise RegistrationError(
            f'The point "{markups.GetNthControlPointLabel(index)}" of "{markups.GetName()}" is not placed; place it, '
            "or delete it and its partner."
        )
    ras = [0.0, 0.0, 0.0]
    markups.GetNthControlPointPositionWorld(index, ras)
    return [-ras[0], -ras[1], ras[2]]


def remark(fixed, moving, method: str, preset: str, options: dict) -> tuple[str, bool]:
    """What to say beside the two selectors, nothing while none is chosen; and whether it is a warning."""
    if fixed is None and moving is None:
        return "", False
    try:
        count = len(pairs(fixed, moving)[0])
        trouble = _without_effect(make_method(method, preset, options))
    except RegistrationError as error:
        trouble = str(error)
    return (trouble, True) if trouble else (_("Pairs that will guide the registration: {n}").format(n=count), False)


def _without_effect(method) -> str:
    if not getattr(method, "deforms", True):
        return _("Landmarks do not count here: this method bends nothing. Choose DNVF, or evaluate with them below.")
    if getattr(method, "refine", None) == 0:
        return _(
            "Landmarks do not count here: with these options the method optimises nothing. Set Refine under Advanced "
            "to 60, or choose DNVF."
        )
    if not method.landmark_weight:
        return _("Landmarks do not count here: their weight is 0 (Landmark weight, under Advanced).")
    return ""


def write_lists(fixed, moving, folder: Path) -> tuple[str, str]:
    """The pairs as two point files, partners in the same row; returns the paths."""
    paths = [folder / "fixed_landmarks.csv", folder / "moving_landmarks.csv"]
    for path, points in zip(paths, pairs(fixed, moving), strict=True):
        _write(path, [*AXES, "label"], [[*point, index] for index, point in enumerate(points.tolist(), 1)])
    return str(paths[0]), str(paths[1])


def write_table(fixed, moving, path: Path) -> str:
    """The pairs as one table to measure with; returns the path."""
    columns = [f"{side}_{axis}" for side in ("fixed", "moving") for axis in AXES]
    _write(path, columns, np.hstack(pairs(fixed, moving)).tolist())
    return str(path)


def _write(path: Path, columns: list[str], rows: list[list]) -> None:
    try:
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(rows)
    except OSError as error:
        raise RegistrationError(
            f"The landmarks could not be written to {path} ({error.strerror}); make room on that disk and try again."
        ) from error

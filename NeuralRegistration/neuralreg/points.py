"""Point files: .csv, Slicer's .fcsv and .mrk.json. Coordinates are LPS mm here, whatever the file says; what else a
file holds (labels, colours, further columns) is kept and written back.
"""

from __future__ import annotations

import copy
import csv
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .files import reading, replacing
from .job import RegistrationError

SYSTEMS = ("RAS", "LPS", "0", "1")  # the numbers are those of Slicer 4.10 and older
RAS_FROM_LPS = np.array([-1.0, -1.0, 1.0])  # its own inverse
FCSV_COLUMNS = "id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID"
FCSV_UNPLACED = ("0", "1", "3")  # Slicer 5 writes a point's state behind these columns: undefined, preview, missing
SHAPES = ("ROI", "Plane")  # markups with a centre and axes of their own beside their points
MARKUPS_SCHEMA = "https://raw.githubusercontent.com/slicer/slicer/master/Modules/Loadable/Markups/Resources/Schema/markups-schema-v1.0.3.json#"


@dataclass(frozen=True, eq=False)
class Table:
    """A text file of points: lines before the rows, the rows, which columns hold x, y, z, whether those are RAS, and
    which rows are of points that have not been placed."""

    head: list[str]
    rows: list[list[str]]
    columns: tuple[int, int, int]
    delimiter: str = ","
    ras: bool = False
    unplaced: frozenset[int] = frozenset()


@dataclass(frozen=True, eq=False)
class Points:
    """`lps` (N, 3) float64 mm with a label each; `source` is the rest of the file that they came from."""

    lps: np.ndarray
    labels: tuple[str, ...]
    source: Table | dict[str, Any] | None = None

    def __post_init__(self):
        if self.lps.ndim != 2 or self.lps.shape[1] != 3 or len(self.labels) != len(self.lps):
            raise ValueError(f"Points: lps must be (N, 3) with N labels, got {self.lps.shape} and {len(self.labels)}")

    @property
    def has_gaps(self) -> bool:
        """Whether the file also lists points that have not been placed."""
        if isinstance(self.source, dict):
            return len(self.lps) < sum(len(markup.get("controlPoints", [])) for markup in self.source["markups"])
        return self.source is not None and bool(self.source.unplaced)

    def moved(self, lps: np.ndarray) -> Points:
        """The same points elsewhere."""
        return Points(np.asarray(lps, dtype=np.float64), self.labels, self.source)


@reading()
def read_points(path: str | Path) -> Points:
    """The points of a .csv, .fcsv or .mrk.json file. Raises RegistrationError when there are none."""
    path = Path(path)
    kind = _kind(path)
    if not path.is_file():
        raise RegistrationError(f"There is no point file {path}; check the path.")
    try:
        text = path.read_text(encoding="utf-8-sig")
        points = {"json": _from_json, "fcsv": _from_fcsv, "csv": _from_csv}[kind](text)
    except (ValueError, OSError, csv.Error) as error:
        raise RegistrationError(
            f"{path} cannot be read as points ({error}); give x, y, z in mm in each row."
        ) from error
    except (KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise RegistrationError(
            f"{path} is not built like a file of points; give x, y, z in mm in each row, or save the markups again."
        ) from error
    if not len(points.lps):
        raise RegistrationError(f"{path} holds no points; place some and save it again.")
    if not np.isfinite(points.lps).all():
        raise RegistrationError(f"{path} has a point whose coordinates are no numbers; correct it or remove it.")
    return points


def read_pairs(fixed: str | Path, moving: str | Path) -> tuple[Tensor, Tensor]:  # (3, n) ×2 float64 LPS mm
    """Points that belong together, from two files: by their labels where both files have the same, else in order.

    Raises RegistrationError when the files do not hold equally many points, or points without a place hide the order,
    or labels contradict it.
    """
    pair = read_points(fixed), read_points(moving)
    counts = [len(points.lps) for points in pair]
    if counts[0] != counts[1]:
        raise RegistrationError(
            f"{fixed} holds {counts[0]} points and {moving} {counts[1]}, but landmarks are pairs; complete them."
        )
    orders = [sorted(range(counts[0]), key=points.labels.__getitem__) for points in pair]
    names = [[points.labels[i] for i in order] for points, order in zip(pair, orders, strict=True)]
    if names[0] != names[1] or len(set(names[0])) < counts[0]:
        for path, points in zip((fixed, moving), pair, strict=True):
            if points.has_gaps:
                raise RegistrationError(
                    f"{path} has points that are not placed, so its order does not tell which belong together; place "
                    "or remove them, or give the same labels in both files."
                )
        if astray := _elsewhere(*(points.labels for points in pair)):
            raise RegistrationError(
                f'{fixed} and {moving} both hold a point "{astray}", but at different places in their order; give each'
                " pair a label of its own, the same in both files."
            )
        orders = [range(counts[0])] * 2
    return tuple(torch.from_numpy(points.lps[list(o)].T.copy()) for points, o in zip(pair, orders, strict=True))


def _elsewhere(first: tuple[str, ...], second: tuple[str, ...]) -> str | None:
    """A label that names one point in each file, but not at the same place in their order. Counting is no naming."""
    if any([label.strip() for label in labels] in _counts(len(labels)) for labels in (first, second)):
        return None
    once = (label for label in first if first.count(label) == second.count(label) == 1)
    return next((label for label in once if first.index(label) != second.index(label)), None)


def write_points(points: Points, path: str | Path) -> None:
    """Write points; in the file type they came from, the rest of that file is kept. The file is whole or absent."""
    path = Path(path)
    text = {"json": _to_json, "fcsv": _to_fcsv, "csv": _to_csv}[_kind(path)](points)
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="")


def _kind(path: Path) -> str:
    for ending, kind in ((".mrk.json", "json"), (".json", "json"), (".fcsv", "fcsv"), (".csv", "csv")):
        if path.name.lower().endswith(ending):
            return kind
    raise RegistrationError(f"{path} is no point file; end its name with .csv, .fcsv or .mrk.json.")


def _from_csv(text: str) -> Points:
    lines = text.split("\n")  # and at no other character: a label may hold some
    notes = [line for line in lines if line.startswith("#")]
    body = [line for line in lines if line.strip() and not line.startswith("#")]
    if not body:
        return Points(np.zeros((0, 3)), ())
    delimiter = next((d for d in (";", "\t", ",") if d in body[0]), ",")
    rows = list(csv.reader(body, delimiter=delimiter))
    header = None if _numbers(rows[0]) else rows.pop(0)
    columns, system = _coordinate_columns(header, rows)
    ras = (system or _noted_system(notes)) == "RAS"
    head = notes + ([delimiter.join(header)] if header else [])
    label = _column(header, ("label", "name", "id")) if header else None
    labels = [row[label] if label is not None else str(i + 1) for i, row in enumerate(rows)]
    placed = _column(header, ("defined",)) if header else None  # as Slicer exports points
    unplaced = frozenset(i for i, row in enumerate(rows) if placed is not None and row[placed].strip() == "0")
    return _from_table(Table(head, rows, columns, delimiter, ras, unplaced), labels)


def _from_table(table: Table, labels: list[str]) -> Points:
    placed = [i for i in range(len(table.rows)) if i not in table.unplaced]
    cells = [[float(table.rows[i][c]) for c in table.columns] for i in placed]
    values = np.array(cells, dtype=np.float64).reshape(-1, 3)
    return Points(values * RAS_FROM_LPS if table.ras else values, tuple(labels[i] for i in placed), table)


def _numbers(cells: list[str]) -> bool:
    """Whether a row could be one of coordinates: three numbers in it."""
    return sum(bool(re.fullmatch(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*", cell)) for cell in cells) >= 3


def _noted_system(notes: list[str]) -> str:
    """RAS, LPS or nothing, as the lines before the rows say. Raises ValueError for both."""
    found = {word.upper() for note in notes for word in re.findall(r"\b(?:RAS|LPS)\b", note, re.IGNORECASE)}
    if len(found) > 1:
        raise ValueError("its notes name both RAS and LPS; leave the one that holds")
    return "".join(found)


def _coordinate_columns(header: list[str] | None, rows: list[list[str]]) -> tuple[tuple[int, int, int], str]:
    """Where x, y, z are, and the system that the header names: RAS, LPS or none. Raises ValueError."""
    if header is None:
        if any(len(row) < 3 for row in rows):
            raise ValueError("a row has fewer than three columns")
        if len(rows) > 1 and min(map(len, rows)) > 3 and [row[0].strip() for row in rows] in _counts(len(rows)):
            raise ValueError("its first column counts the rows; name the columns in a first line")
        return (0, 1, 2), ""
    for names, system in (("xyz", ""), ("lps", "LPS"), ("ras", "RAS")):
        found = [_column(header, (n, f"{n}_mm", f"{n} (mm)", f"{n} [mm]", f"{n}_lps", f"{n}_ras")) for n in names]
        if None not in found:
            return tuple(found), system or _said([header[c] for c in found])
    if _column(header, ("i",)) is not None and _column(header, ("j",)) is not None:
        raise ValueError("its columns i, j, k count voxels")
    if len(header) == 3:
        return (0, 1, 2), _said([" ".join(header)])
    raise ValueError("its header names no columns x, y, z")


def _said(names: list[str]) -> str:
    """The system that is a part of all names, if any."""
    return next((s for s in ("RAS", "LPS") if all(s in name.upper() for name in names)), "")


def _counts(rows: int) -> list[list[str]]:
    """What a column holds that numbers the rows, from 0 or from 1."""
    return [[str(start + row) for row in range(rows)] for start in (0, 1)]


def _column(header: list[str], names: tuple[str, ...]) -> int | None:
    cells = [cell.strip().lower() for cell in header]
    return next((cells.index(name) for name in names if name in cells), None)


def _from_fcsv(text: str) -> Points:
    lines = [line for line in text.split("\n") if line.strip()]
    head = [line for line in lines if line.startswith("#")]
    rows = list(csv.reader(line for line in lines if not line.startswith("#")))
    system = _entry(head, "CoordinateSystem")
    by_slicer = any("file version" in line for line in head)
    if by_slicer and not system:  # Slicer 5.12 takes it for LPS, but older ones wrote RAS
        raise ValueError("it does not say where its axes run: add the line # CoordinateSystem = LPS, or = RAS")
    system = system or "RAS"  # as Slicer reads a file without a head
    if system.upper() not in SYSTEMS:
        raise ValueError(f"its coordinate system {system} is not known")
    names = (_entry(head, "columns") or FCSV_COLUMNS).split(",")
    columns = tuple(names.index(n) for n in "xyz")
    label = names.index("label") if "label" in names else 0
    labels = [row[label] if label < len(row) else str(i + 1) for i, row in enumerate(rows)]
    unplaced = {i for i, row in enumerate(rows) if row[len(names) :] and row[len(names)].strip() in FCSV_UNPLACED}
    ras = system.upper() in ("RAS", "0")
    return _from_table(Table(head, rows, columns, ras=ras, unplaced=frozenset(unplaced)), labels)


def _entry(head: list[str], name: str) -> str | None:
    """The value of `# name = value`."""
    found = [line.split("=", 1)[1].strip() for line in head if re.match(rf"#\s*{name}\s*=", line, re.IGNORECASE)]
    return found[0] if found else None


def _from_json(text: str) -> Points:
    document = json.loads(text)
    positions, labels = [], []
    for markup, point in _control_points(document):
        if markup.get("type") in SHAPES:
            raise ValueError(f"it holds a {markup['type']}")
        position = np.array(point["position"], dtype=np.float64)
        if position.shape != (3,):
            raise ValueError("a position is not three numbers")
        positions.append(position * _sign(markup))
        labels.append(str(point.get("label") or point.get("id") or len(labels) + 1))
    return Points(np.array(positions).reshape(-1, 3), tuple(labels), document)


def _sign(markup: dict[str, Any]) -> np.ndarray:
    """What turns LPS into the coordinates of a markup and back. Raises ValueError for other coordinates, or not mm."""
    system, units = str(markup.get("coordinateSystem", "LPS")).upper(), markup.get("coordinateUnits", "mm")
    if system not in SYSTEMS:
        raise ValueError(f"its coordinate system {system} is not known")
    if isinstance(units, str) and units.lower() not in ("mm", ""):
        raise ValueError(f"its coordinates are in {units}")
    return RAS_FROM_LPS if system in ("RAS", "0") else np.ones(3)


def _control_points(document: dict[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """(markup, control point) for each point that has been placed."""
    return [
        (markup, point)
        for markup in document["markups"]
        for point in markup.get("controlPoints", [])
        if point.get("positionStatus", "defined") == "defined"
    ]


def _to_csv(points: Points) -> str:
    if isinstance(points.source, Table) and not _is_fcsv(points.source):
        return _table_text(points.lps, points.source)
    rows = [["", "", "", label] for label in points.labels]
    return _table_text(points.lps, Table(["x,y,z,label"], rows, (0, 1, 2)))


def _to_fcsv(points: Points) -> str:
    if isinstance(points.source, Table) and _is_fcsv(points.source):
        return _table_text(points.lps, points.source)
    head = ["# Markups fiducial file version = 5.0", "# CoordinateSystem = LPS", f"# columns = {FCSV_COLUMNS}"]
    rows = [
        [str(i), "", "", "", "0", "0", "0", "1", "1", "1", "0", label, "", ""]
        for i, label in enumerate(points.labels, 1)
    ]
    return _table_text(points.lps, Table(head, rows, (1, 2, 3)))


def _is_fcsv(table: Table) -> bool:
    return any("Markups" in line or re.match(r"#\s*columns\s*=", line) for line in table.head)


def _table_text(lps: np.ndarray, table: Table) -> str:
    out = io.StringIO()
    out.writelines(f"{line}\n" for line in table.head)
    writer = csv.writer(out, delimiter=table.delimiter, lineterminator="\n")
    points = iter(lps * RAS_FROM_LPS if table.ras else lps)
    for index, row in enumerate(table.rows):
        cells = list(row)
        if index not in table.unplaced:
            for column, value in zip(table.columns, next(points), strict=True):
                cells[column] = _number(value)
        writer.writerow(cells)
    return out.getvalue()


def _number(value: float) -> str:
    return f"{round(float(value), 6) + 0.0:.6f}"  # + 0.0: minus zero becomes zero


def _to_json(points: Points) -> str:
    document = copy.deepcopy(points.source) if isinstance(points.source, dict) else _new_document(points.labels)
    for (markup, point), lps in zip(_control_points(document), points.lps, strict=True):
        point["position"] = [round(float(value), 6) for value in lps * _sign(markup)]
        markup.pop("measurements", None)  # lengths and angles of the old positions
    return json.dumps(document, indent=2) + "\n"


def _new_document(labels: tuple[str, ...]) -> dict[str, Any]:
    points = [{"id": str(i), "label": label, "position": [0.0, 0.0, 0.0]} for i, label in enumerate(labels, 1)]
    markup = {"type": "Fiducial", "coordinateSystem": "LPS", "coordinateUnits": "mm", "controlPoints": points}
    return {"@schema": MARKUPS_SCHEMA, "markups": [markup]}

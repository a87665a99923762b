"""CSV tables with a heading, as spreadsheets write them: commas or semicolons, spaces, a mark in front."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from .job import RegistrationError, choose


def read_table(path: Path, what: str, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """(line, {column: text}) of every row that holds something; what is empty is left out.

    Raises RegistrationError for a file that is no table, and for a column that is none of `columns` or there twice.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise RegistrationError(f"There is no {what} at {path}; check the path.") from error
    except (OSError, ValueError) as error:
        raise RegistrationError(f"The {what} {path} cannot be read ({error}); save it as CSV, UTF-8.") from error
    heading = lines[0] if lines else ""
    rows = csv.DictReader(lines, delimiter=";" if ";" in heading and "," not in heading else ",", skipinitialspace=True)
    rows.fieldnames = [choose(f"column of {path}:", name.strip(), columns) for name in rows.fieldnames or ()]
    for column in columns:
        if rows.fieldnames.count(column) > 1:
            raise RegistrationError(f'{path} has two columns named "{column}"; remove one.')
    found = []
    for row in rows:
        if None in row:
            raise RegistrationError(f"Line {rows.line_num} of {path} has more entries than the heading; correct it.")
        given = {column: value.strip() for column, value in row.items() if value and value.strip()}
        if given:
            found.append((rows.line_num, given))
    return found

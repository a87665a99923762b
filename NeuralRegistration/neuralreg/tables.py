"""CSV tables with a heading, as spreadsheets write them: commas, semicolons or tabs, spaces, a mark in front, columns
without a name; and as people do: comments, which begin with #."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .job import RegistrationError, choose


def read_rows(path: Path) -> tuple[list[str], list[tuple[int, dict[str | None, Any]]]]:
    """The heading, and (line, {column: text}) of every row; under None what goes beyond the heading.

    Raises OSError, ValueError or csv.Error.
    """
    lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    lines = ["" if line.lstrip().startswith("#") else line for line in lines]
    before = next((number for number, line in enumerate(lines) if line.strip()), 0)
    delimiter = next((d for d in ";\t" if d in "".join(lines[before : before + 1])), ",")
    rows = csv.DictReader(lines[before:], delimiter=delimiter, skipinitialspace=True)
    names = [name.strip() for name in rows.fieldnames or ()]
    while names and not names[-1]:
        names.pop()
    rows.fieldnames = names
    return names, [(before + rows.line_num, row) for row in rows]


def read_table(path: Path, what: str, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """(line, {column: text}) of every row that holds something; what is empty is left out.

    Raises RegistrationError for a file that is no table, and for a column that is none of `columns` or there twice.
    """
    try:
        heading, rows = read_rows(path)
    except FileNotFoundError as error:
        raise RegistrationError(f"There is no {what} at {path}; check the path.") from error
    except (OSError, ValueError, csv.Error) as error:
        raise RegistrationError(f"The {what} {path} cannot be read ({error}); save it as CSV, UTF-8.") from error
    names = {name: choose(f"column of {path}:", name, columns) for name in heading}
    for column in columns:
        if [names[name] for name in heading].count(column) > 1:
            raise RegistrationError(f'{path} has two columns named "{column}"; remove one.')
    found = []
    for line, row in rows:
        if any(text.strip() for text in row.pop(None, ())):
            raise RegistrationError(f"Line {line} of {path} has more entries than the heading; correct it.")
        given = {names[name]: value.strip() for name, value in row.items() if value and value.strip()}
        if given:
            found.append((line, given))
    return found

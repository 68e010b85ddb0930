"""Ratings as a CSV file, the door for studies made elsewhere.

It needs the columns rater, item, origin, question and value.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..conditions.vocabulary import GROUPS
from ..errors import UserError
from ..files import shown, write_bytes
from ..ranges import number
from ..spreadsheet import csv_text, unguarded
from ..text import decoded, opened
from .design import POINT, ROLES, SCALE, TEXT, Design, usual_role
from .ratings import RatingTable, Value, table_of

COLUMNS = (
    *("rater", "item", "origin", "role", "condition", *GROUPS),
    *("repeat_of", "question", "value", "seconds"),
)
NEEDED = ("rater", "item", "origin", "question", "value")
"""Columns that a CSV made elsewhere has; the others may be missing or empty."""
_MAX_BYTES = 256 << 20
_SECONDS = number(0, 1e9)
_WHOLE = re.compile(r"(-?[0-9]{1,9})(?:\.0+)?")
"""ASCII digits alone; tables of numbers with gaps write 5.0."""
_POINT = re.compile(r"([01](?:\.[0-9]+)?) ([01](?:\.[0-9]+)?)")


def write_ratings(path: Path, table: RatingTable) -> None:
    """Write the table as CSV, UTF-8 with a byte order mark, by which spreadsheets know it.

    A point is written `x y`. A text that a spreadsheet would take for a formula begins with an apostrophe.
    """
    columns = [_column(table, name) for name in COLUMNS]
    rows = ([_written(cell) for cell in row] for row in zip(*columns, strict=True))
    text = csv_text(COLUMNS, rows, line_end="\r\n")
    write_bytes(path, text.encode("utf-8-sig", "backslashreplace"))


def read_ratings(path: Path, design: Design | None = None) -> RatingTable:
    """Read a CSV of ratings: ours, or one made elsewhere, separated by comma, semicolon or tab.

    Args:
        path: of the file.
        design: says which values are points of a scale or of the picture, and which are texts whatever they
            look like. Without it those of a question are points of a scale where all are whole numbers,
            points of the picture where all are two numbers from 0 to 1 with a space between, else texts.

    Raises:
        UserError: it is no such table; the sentence says which line and what to do.
    """
    path = Path(path)
    with opened(path, "the ratings") as handle:
        data = handle.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise UserError(f"{shown(path)} has more than {_MAX_BYTES >> 20} MB; it should be a line an answer")
    text = decoded(data, shown(path)).text
    header = next((line for line in text.splitlines() if line.strip()), "")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count), strict=True)
    rows: list[dict[str, Any]] = []
    names: list[str] = []
    start = 1
    try:
        for cells in reader:
            line, start = start, reader.line_num + 1  # a text may go over several
            if not any(cell.strip() for cell in cells):
                continue
            if not names:
                names = _names(cells, path)
                continue
            rows.append(_row(names, cells, f"line {line} of {shown(path)}"))
    except csv.Error as error:
        raise UserError(
            f"line {reader.line_num} of {shown(path)} can't be read as CSV ({error}); check its quotes"
        ) from error
    if not rows:
        raise UserError(f"{shown(path)} has no rating; it needs a line an answer with {', '.join(NEEDED)}")
    notices = _parse(rows, design)
    return replace(table_of(rows), notices=notices)


def _names(cells: Sequence[str], path: Path) -> list[str]:
    names = ["_".join(cell.strip().casefold().replace("-", " ").split()) for cell in cells]
    missing = [name for name in NEEDED if name not in names]
    if missing:
        raise UserError(
            f"{shown(path)} has no column {' and no column '.join(missing)}; its first line must name the "
            f"columns {', '.join(NEEDED)}"
        )
    twice = sorted({name for name in names if name in COLUMNS and names.count(name) > 1})
    if twice:
        raise UserError(f"{shown(path)} has the column {twice[0]} twice; keep one")
    return names


def _row(names: Sequence[str], cells: Sequence[str], where: str) -> dict[str, Any]:
    if len(cells) > len(names):
        raise UserError(f"{where} has more fields than the header; quote values that contain the separator")
    found = {name: cell.strip() for name, cell in zip(names, cells, strict=False)}
    row: dict[str, Any] = {name: unguarded(found.get(name, "")) or None for name in COLUMNS}
    row["value"] = found.get("value") or None  # read once it is known whether it is a text
    for name in NEEDED:
        if row[name] is None:
            raise UserError(f"{where} has no {name}; fill it in, or take the line out")
    row["role"] = row["role"] or usual_role(row["origin"])
    if row["role"] not in ROLES:
        raise UserError(f"{where}: role is {row['role']!r}; give {' or '.join(ROLES)}, or leave it empty")
    return row | {"seconds": _seconds(row["seconds"], where), "place": where}


def _seconds(text: str | None, where: str) -> float | None:
    if text is None:
        return None
    try:
        seconds = float(text) if text.isascii() else math.nan
    except ValueError:
        seconds = math.nan
    if not _SECONDS.holds(seconds):
        raise UserError(f"{where}: seconds is {text!r}; give {_SECONDS}, or leave it empty")
    return seconds


def _parse(rows: Sequence[dict[str, Any]], design: Design | None) -> tuple[str, ...]:
    """Turn the cells of values into answers; what was taken for texts though some of it looks otherwise."""
    kinds = {question.name: question.kind for question in design.questions} if design else {}
    by_question: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_question.setdefault(row["question"], []).append(row)
    notices = []
    for name, own in by_question.items():
        kind = kinds.get(name)
        values = [_value(row["value"], kind) for row in own]
        if design is None and len({type(value) for value in values}) > 1:
            usual, noun = (int, "a whole number") if int in map(type, values) else (list, "a place")
            other = next(row for row, value in zip(own, values, strict=True) if not isinstance(value, usual))
            notices.append(
                f"{other['place']}: {name} is {unguarded(other['value'])!r} and elsewhere {noun}, so all are "
                "taken for texts, which are not counted; correct it, or give the design with --design"
            )
            values = [_value(row["value"], TEXT) for row in own]
        for row, value in zip(own, values, strict=True):
            row["value"] = value
    return tuple(notices)


def _value(text: str, kind: str | None) -> Value:
    """A cell as an answer to a question of that kind, None for any; what is none is the text it is."""
    if kind in (SCALE, None) and (whole := _WHOLE.fullmatch(text)):
        return int(whole[1])
    if kind in (POINT, None) and (point := read_point(text)):
        return point
    return unguarded(text)


def read_point(text: str) -> list[float] | None:
    """`0.25 0.5` → [0.25, 0.5]; None for anything but two shares in ASCII digits."""
    found = _POINT.fullmatch(text)
    pair = [float(part) for part in found.groups()] if found else []
    return pair if pair and max(pair) <= 1 else None


def _written(cell: Any) -> Any:
    if isinstance(cell, list):
        return " ".join(f"{part:.4f}" for part in cell)
    if isinstance(cell, float):
        return "" if np.isnan(cell) else f"{cell:.3f}"
    return cell


def _column(table: RatingTable, name: str) -> Sequence[Any]:
    column: Sequence[Any] = (table.groups[name] if name in GROUPS else getattr(table, name)).tolist()
    return column

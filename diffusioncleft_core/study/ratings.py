"""Ratings: the answers of people to the questions on each picture, as rows, as a table, and as a CSV file.

The CSV is the door for studies made elsewhere: it needs the columns rater, item, origin, question and value.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..conditions.vocabulary import GROUPS
from ..errors import UserError
from ..files import shown, write_bytes
from ..text import decoded, opened
from .design import ROLES, usual_role
from .items import Item

COLUMNS = (
    *("rater", "item", "origin", "role", "condition", *GROUPS),
    *("repeat_of", "question", "value", "seconds"),
)
NEEDED = ("rater", "item", "origin", "question", "value")
"""Columns that a CSV made elsewhere has; the others may be missing or empty."""
_MAX_BYTES = 256 << 20
_FORMULA = ("=", "+", "@", "\t", "\r")
_POINT = re.compile(r"([01](?:\.\d+)?) ([01](?:\.\d+)?)")

Value = int | str | list[float]
Strings = npt.NDArray[np.object_]


@dataclass(frozen=True)
class Rating:
    """A rater's answer to one question on one item.

    Attributes:
        rater: an opaque id such as R1.
        item: its id.
        value: the point of a scale, the value of a choice, a text, or [x, y] as shares of width and height.
        seconds: from the picture's showing to the answer.
        at: when it was given, ISO 8601.
    """

    rater: str
    item: str
    question: str
    value: Value
    seconds: float | None = None
    at: str = ""


@dataclass(frozen=True)
class RatingTable:
    """Ratings with what is known of each picture, column by column; practice left out, one row an answer.

    Attributes:
        rater, item, origin, question: [N] texts.
        role: [N] `generated` or `real`.
        condition: [N] text or None; so each of `groups`, by the names of `GROUPS`.
        repeat_of: [N] the item whose picture is shown again, or None.
        value: [N] int, text or [x, y].
        place: [N] where each answer stands, for the sentence on a mistake in it.
        seconds: [N] float64, NaN where unknown.
    """

    rater: Strings
    item: Strings
    origin: Strings
    role: Strings
    condition: Strings
    groups: Mapping[str, Strings]
    repeat_of: Strings
    question: Strings
    value: Strings
    place: Strings
    seconds: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.value)

    def where(self, mask: npt.NDArray[np.bool_]) -> RatingTable:
        """The rows where `mask` [N] is true."""
        columns = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "groups"}
        groups = {name: column[mask] for name, column in self.groups.items()}
        return replace(self, groups=groups, **{name: column[mask] for name, column in columns.items()})

    def of(self, question: str) -> RatingTable:
        """The answers to one question, of pictures shown the first time."""
        return self.where((self.question == question) & ~self.repeated)

    def again(self, question: str) -> RatingTable:
        """The answers to one question on pictures shown once more."""
        return self.where((self.question == question) & self.repeated)

    @property
    def repeated(self) -> npt.NDArray[np.bool_]:
        """[N] whether the picture was shown before."""
        return np.array([of is not None for of in self.repeat_of], bool)

    @property
    def questions(self) -> tuple[str, ...]:
        """In the order of their first answers."""
        return tuple(dict.fromkeys(self.question))

    @property
    def scores(self) -> npt.NDArray[np.float64]:
        """[N] the answers to questions of a scale. UserError where one is no number."""
        for value, place in zip(self.value, self.place, strict=True):
            if not isinstance(value, int):
                raise UserError(f"{place}: {value!r} is no point of a scale; correct it, or take it out")
        return np.array(self.value, np.float64)


def rating_table(
    ratings: Iterable[Rating], items: Iterable[Item], roles: Mapping[str, str] | None = None
) -> RatingTable:
    """Join ratings with the items of their study; practice is left out.

    Args:
        ratings: one an answer, corrections left out.
        items: the study's.
        roles: `generated` or `real`, by origin; by default an origin `real` is real.

    Raises:
        UserError: an item is unknown, or a rater has two answers to one question on it.
    """
    known = {item.id: item for item in items}
    rows = []
    for rating in ratings:
        item = known.get(rating.item)
        if item is None:
            raise UserError(f"item {rating.item!r} was rated and is not in the study; give its own ratings")
        if item.practice:
            continue
        row = {"rater": rating.rater, "item": item.id, "origin": item.origin, "condition": item.condition}
        row |= {name: item.groups.get(name) for name in GROUPS} | {"repeat_of": item.repeat_of}
        row |= {"role": (roles or {}).get(item.origin) or usual_role(item.origin)}
        row |= {"place": f"{rating.rater} on item {item.id}"}
        rows.append(row | {"question": rating.question, "value": rating.value, "seconds": rating.seconds})
    return _table(rows)


def write_ratings(path: Path, table: RatingTable) -> None:
    """Write the table as CSV, UTF-8 with a byte order mark, by which spreadsheets know it.

    A point is written `x y`. A text that a spreadsheet would take for a formula begins with an apostrophe.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    columns = [_column(table, name) for name in COLUMNS]
    writer.writerows([_written(cell) for cell in row] for row in zip(*columns, strict=True))
    write_bytes(path, text.getvalue().encode("utf-8-sig", "backslashreplace"))


def read_ratings(path: Path) -> RatingTable:
    """Read a CSV of ratings: ours, or one made elsewhere, separated by comma, semicolon or tab.

    A value is a point of a scale where it is a whole number, a point of the picture where it is two numbers
    from 0 to 1 with a space between, else a text.

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
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if not names:
                names = _names(cells, path)
                continue
            rows.append(_row(names, cells, f"line {reader.line_num} of {shown(path)}"))
    except csv.Error as error:
        raise UserError(
            f"line {reader.line_num} of {shown(path)} can't be read as CSV ({error}); check its quotes"
        ) from error
    if not rows:
        raise UserError(f"{shown(path)} has no rating; it needs a line an answer with {', '.join(NEEDED)}")
    return _table(rows)


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
    row: dict[str, Any] = {name: found.get(name) or None for name in COLUMNS}
    for name in NEEDED:
        if row[name] is None:
            raise UserError(f"{where} has no {name}; fill it in, or take the line out")
    row["role"] = row["role"] or usual_role(row["origin"])
    if row["role"] not in ROLES:
        raise UserError(f"{where}: role is {row['role']!r}; give {' or '.join(ROLES)}, or leave it empty")
    row |= {"value": _value(row["value"]), "place": where}
    try:
        row["seconds"] = None if row["seconds"] is None else float(row["seconds"])
    except ValueError:
        raise UserError(f"{where}: seconds is {row['seconds']!r}; give a number") from None
    return row


def _value(text: str) -> Value:
    if whole := re.fullmatch(r"(-?\d{1,9})(?:\.0+)?", text):  # tables of numbers with gaps write 5.0
        return int(whole[1])
    point = _POINT.fullmatch(text)
    if point and max(map(float, point.groups())) <= 1:
        return [float(part) for part in point.groups()]
    return text[1:] if text.startswith("'") and text[1:].startswith(_FORMULA) else text


def _written(cell: Any) -> str:
    if cell is None or (isinstance(cell, float) and np.isnan(cell)):
        return ""
    if isinstance(cell, list):
        return " ".join(f"{part:.4f}" for part in cell)
    if isinstance(cell, float):
        return f"{cell:.3f}"
    text = str(cell)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _column(table: RatingTable, name: str) -> Sequence[Any]:
    column: Sequence[Any] = (table.groups[name] if name in GROUPS else getattr(table, name)).tolist()
    return column


def _table(rows: Sequence[Mapping[str, Any]]) -> RatingTable:
    answered = set()
    for row in rows:
        key = (row["rater"], row["item"], row["question"])
        if key in answered:
            raise UserError(
                f"{row['place']}: rater {key[0]!r} has a second answer to {key[2]!r} on item {key[1]!r}; "
                "keep one of them"
            )
        answered.add(key)
    names = [item.name for item in fields(RatingTable) if item.name not in ("groups", "seconds")]
    columns = {name: _objects([row[name] for row in rows]) for name in names}
    groups = {name: _objects([row[name] for row in rows]) for name in GROUPS}
    seconds = np.array([np.nan if row["seconds"] is None else row["seconds"] for row in rows], np.float64)
    return RatingTable(groups=groups, seconds=seconds, **columns)


def _objects(values: Sequence[Any]) -> Strings:
    """[N] of any values, lists too."""
    column = np.empty(len(values), object)
    for place, value in enumerate(values):
        column[place] = value
    return column

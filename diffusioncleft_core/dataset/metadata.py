"""metadata.csv: which photographs may be used, and what is known about each."""

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import UserError
from ..imageset.places import named
from ..spreadsheet import unguarded
from ..text import decoded, opened

DELIMITERS = (",", ";", "\t", "|")
CONSENT_YES, CONSENT_NO = "yes", "no"
WRITE_YES = "only yes is consent: write yes where the person, or a guardian, agreed"
RATING = "consent_rating"
"""The column of those who may be shown to the raters of a study."""
_MAX_BYTES = 64 << 20


class NoConsent(UserError):
    """Nothing gives consent for a folder of photographs. fact: the first half of the sentence."""

    def __init__(self, fact: str, advice: str) -> None:
        super().__init__(f"{fact}; {advice}")
        self.fact = fact


@dataclass(frozen=True)
class MetadataRow:
    """One line of the table: `values` by column, without empty ones; `problem` if it can't be used."""

    file: str
    line: int
    values: Mapping[str, str]
    problem: str | None = None

    @property
    def consent(self) -> bool:
        """True for `yes` alone, in any case. Empty, `y`, `1` or `true` are no consent."""
        return self.values.get("consent", "").casefold() == CONSENT_YES

    @property
    def unclear(self) -> bool:
        """Whether consent is neither `yes` nor `no`, nor left empty: it may be meant as one of them."""
        return self.values.get("consent", "").casefold() not in ("", CONSENT_YES, CONSENT_NO)

    @property
    def rating_consent(self) -> bool:
        """Whether the photograph may be shown to the raters of a study: `consent_rating` beside `consent`."""
        return self.consent and self.values.get(RATING, "").casefold() == CONSENT_YES


@dataclass(frozen=True)
class Table:
    """The whole table: rows in file order, its column names, and what the reader should be told."""

    rows: tuple[MetadataRow, ...]
    columns: tuple[str, ...]
    notices: tuple[str, ...] = field(default=())
    statement: str | None = None
    """The text that gives consent for the whole folder, where that stands in a table's place."""


def read_table(path: Path) -> Table:
    """Read metadata.csv.

    Any encoding of text.py; separated by comma, semicolon, tab or
    bar; quoted fields; column names in any case, with spaces or underscores.

    Raises:
        NoConsent: it is empty, or has no row.
        UserError: it is no such table, or the columns `file` or `consent` are missing.
    """
    path = Path(path)
    text, notices = _text(path)
    lines = text.splitlines()
    if lines and lines[0].lower().startswith("sep=") and len(lines[0]) <= 5:  # Excel's own first line
        text = "".join(text.splitlines(keepends=True)[1:])
        lines = lines[1:]
        offset = 1
    else:
        offset = 0
    header = next((line for line in lines if line.strip()), "")
    if not header:
        raise NoConsent(
            f"{path} is empty", "it needs a header line with at least the columns file and consent"
        )
    delimiter = max(DELIMITERS, key=header.count)
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True
    )
    columns: list[str] = []
    rows: list[MetadataRow] = []
    try:
        for fields in reader:
            if not any(item.strip() for item in fields):
                continue
            if not columns:
                columns = [_column(item) for item in fields]
                _check_columns(path, columns)
                continue
            rows.append(_row(columns, fields, reader.line_num + offset))
    except csv.Error as error:
        line = reader.line_num + offset
        raise UserError(f"line {line} of {path} can't be read as CSV ({error}); check its quotes") from error
    if not rows:
        raise NoConsent(f"{path} has a header but no row", "write one row a photograph")
    return Table(tuple(rows), tuple(columns), notices)


def unclear_consent(rows: Iterable[MetadataRow]) -> str:
    """A sentence on the words under `consent` that are neither `yes` nor `no`; "" without any."""
    words = [row.values["consent"] for row in rows if row.unclear]
    if not words:
        return ""
    said = named([repr(word) for word in dict.fromkeys(words)])
    return (
        f"consent is {said} in {len(words)} {'row' if len(words) == 1 else 'rows'} of the table; {WRITE_YES}"
    )


def check_values(
    row: MetadataRow, allowed: Mapping[str, tuple[str, ...]], optional: Iterable[str]
) -> tuple[dict[str, str], str | None]:
    """Return the row's attributes in the vocabulary's spelling, and a sentence on the first value that is
    wrong.

    `allowed` names the values of each column; values are compared without regard to case.
    """
    attributes: dict[str, str] = {}
    may_be_empty = set(optional)
    problem = row.problem
    for column, values in allowed.items():
        given = row.values.get(column, "")
        known = {value.casefold(): value for value in values}
        value = known.get(" ".join(given.casefold().split()))
        if value is not None:
            attributes[column] = value
        elif given or column not in may_be_empty:
            seen = f"is {given!r}" if given else "is empty"
            problem = problem or f"line {row.line}: {column} {seen}; allowed: {', '.join(values)}"
    return attributes, problem


def _text(path: Path) -> tuple[str, tuple[str, ...]]:
    with opened(path, "the metadata table") as handle:
        data = handle.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise UserError(f"{path} has more than {_MAX_BYTES >> 20} MB; it should be a line a photograph")
    if data.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise UserError(f"{path} is a workbook, not a CSV file; save it as 'CSV UTF-8' and give that file")
    text, notice = decoded(data, path)
    return text, (notice,) if notice else ()


def _column(name: str) -> str:
    return "_".join(name.strip().casefold().replace("-", " ").replace("_", " ").split())


def _check_columns(path: Path, columns: list[str]) -> None:
    missing = [name for name in ("file", "consent") if name not in columns]
    if missing:
        found = ", ".join(name for name in columns if name) or "none"
        raise UserError(
            f"{path} has no column {' and no column '.join(missing)} (found: {found}); "
            "the first line must name the columns, separated by comma, semicolon or tab"
        )
    twice = sorted({name for name in columns if name and columns.count(name) > 1})
    if twice:
        raise UserError(f"{path} has the column {', '.join(twice)} twice; keep one")


def _row(columns: list[str], fields: list[str], line: int) -> MetadataRow:
    values = {
        name: unguarded(item.strip())
        for name, item in zip(columns, fields, strict=False)
        if name and item.strip()
    }
    problem = None
    if any(item.strip() for item in fields[len(columns) :]):
        problem = f"line {line} has more fields than the header; quote values that contain the separator"
        for name in ("consent", RATING):
            values.pop(name, None)
    return MetadataRow(values.pop("file", ""), line, values, problem)

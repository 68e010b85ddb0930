"""CSV that people open in a spreadsheet: no text becomes a formula there, and each reads back as it was."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

_FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
"""How a text begins that a spreadsheet takes for a formula, apostrophes of an earlier writing before it."""
_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")


def guarded(text: str) -> str:
    """The text as a cell holds it: with an apostrophe before what would be a formula. Numbers are none."""
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def unguarded(cell: str) -> str:
    """The text that `guarded` made a cell of."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell, 1) else cell


def csv_text(
    header: Sequence[str], rows: Iterable[Iterable[Any]], *, line_end: str = "\n", separator: str = ","
) -> str:
    """A table as CSV, its texts guarded; the header is empty for rows that go below a table."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, lineterminator=line_end)
    for row in (*([header] if header else []), *rows):
        writer.writerow([guarded(cell) if isinstance(cell, str) else cell for cell in row])
    return text.getvalue()

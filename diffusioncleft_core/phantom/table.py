"""The metadata.csv of phantom photographs: written once, and extended without touching what is in it."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from ..dataset.metadata import DELIMITERS, read_table
from ..files import write_bytes
from ..spreadsheet import csv_text
from ..text import UTF16, decoded


def files_of(path: Path) -> Collection[str]:
    """The photographs that a table names; none where there is no table. UserError where it can't be read."""
    return {row.file for row in read_table(path).rows} if path.is_file() else ()


def add_rows(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Write a table of the rows, at least one, or put them below those that are there.

    What is there stays byte for byte. A table that a person saved keeps its columns, separator and encoding;
    what it has no column for is left out.
    """
    if not path.is_file():
        columns = list(rows[0])
        write_bytes(path, csv_text(columns, _cells(rows, columns)).encode())
    elif rows:
        data = path.read_bytes()
        text = decoded(data, path).text
        lines = [line for line in text.splitlines() if line.strip() and not line.lower().startswith("sep=")]
        separator = max(DELIMITERS, key=lines[0].count)
        added = csv_text((), _cells(rows, read_table(path).columns), separator=separator)
        added = added if text.endswith(("\n", "\r")) else f"\n{added}"
        marked = next((mark for mark in UTF16 if data.startswith(mark)), None)
        codec = "utf-8" if marked is None else "utf-16-le" if marked == UTF16[0] else "utf-16-be"
        write_bytes(path, data + added.encode(codec))


def _cells(rows: Sequence[Mapping[str, str]], columns: Sequence[str]) -> list[list[str]]:
    return [[row.get(name, "") for name in columns] for row in rows]

"""Consent for photographs: row by row in the table, or for a whole folder in so many words."""

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from ..conditions.vocabulary import Attribute
from ..errors import UserError
from ..files import write_bytes
from ..text import Decoded, decoded, opened
from .admission import FoundPhotographs, list_photographs
from .matching import written_name
from .metadata import CONSENT_YES, MetadataRow, Table, read_table

TABLE = "metadata.csv"
STATEMENT_FILE = "CONSENT.txt"
STATEMENT = (
    "Everyone shown in this folder, or their guardian, consented to the use of these photographs "
    "for training."
)
"""The first line of CONSENT.txt, word for word: other words might as well say the opposite."""


def usual_table(photos: Path) -> Path | None:
    """The folder's own metadata.csv; None where there is none and CONSENT.txt stands in its place."""
    table = photos / TABLE
    return None if (photos / STATEMENT_FILE).is_file() and not table.is_file() else table


def table_and_photographs(photos: Path, metadata: Path | None) -> tuple[Table, FoundPhotographs]:
    """The table, and the photographs in the folder. UserError where one is missing or can't be used.

    metadata: None takes consent for every photograph in the folder from its CONSENT.txt; what is known of
    each is then its caption alone.
    """
    if metadata == photos / TABLE and not metadata.is_file() and photos.is_dir():
        raise UserError(
            f"{photos} has neither {TABLE} nor {STATEMENT_FILE}, so nobody's consent is known; start a table "
            f"with: diffusioncleft dataset table {photos}"
        )
    if metadata is not None:
        table = read_table(metadata)
        return table, list_photographs(photos, {row.file for row in table.rows})
    listing = list_photographs(photos)
    statement, notice = read_statement(photos)
    rows = tuple(MetadataRow(name, 0, {"consent": CONSENT_YES}) for name in listing.photographs)
    return Table(rows, ("file", "consent"), (notice,) if notice else (), statement), listing


def read_statement(photos: Path) -> Decoded:
    """The text of the folder's CONSENT.txt, and how it was read.

    Raises:
        UserError: its first line is not the statement.
    """
    path = photos / STATEMENT_FILE
    with opened(path) as handle:
        text, notice = decoded(handle.read(), path)
    first = next((line for line in text.splitlines() if line.strip()), "")
    if " ".join(first.split()) != STATEMENT:
        raise UserError(
            f"{path} does not give consent; its first line must be, word for word: {STATEMENT} "
            "(if consent was withdrawn, erase the dataset: diffusioncleft dataset purge)"
        )
    return Decoded(text.strip(), notice)


def write_first_table(photos: Path, out: Path, columns: Iterable[Attribute]) -> int:
    """Write a table with a row a photograph and nothing filled in but its name; returns their number.

    It is UTF-8 with a byte order mark, by which spreadsheets know it. UserError when `out` is there already,
    or no photograph is.
    """
    if out.exists():
        raise UserError(f"{out} is there already and was left as it is; give another name with --out")
    names = list_photographs(photos).photographs
    if not names:
        raise UserError(f"{photos} holds no photograph; check the path")
    header = list(dict.fromkeys(["file", *(column.name for column in columns), "consent"]))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(header)
    writer.writerows([written_name(name), *[""] * (len(header) - 1)] for name in names)
    write_bytes(out, text.getvalue().encode("utf-8-sig", "backslashreplace"))
    return len(names)

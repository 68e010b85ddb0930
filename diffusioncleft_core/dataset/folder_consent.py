"""Consent for photographs: row by row in the table, or for a whole folder in so many words."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..conditions.vocabulary import Attribute
from ..errors import UserError
from ..files import read_json, write_bytes
from ..spreadsheet import csv_text
from ..text import Decoded, decoded, opened
from .admission import FoundPhotographs, list_photographs, require_photographs
from .folder import SETTINGS
from .matching import written_name
from .metadata import CONSENT_YES, RATING, MetadataRow, NoConsent, Table, read_table
from .settings import Photographs

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
    require_photographs(photos)
    if metadata == photos / TABLE and not metadata.is_file():
        raise NoConsent(
            f"{photos} has neither {TABLE} nor {STATEMENT_FILE}",
            f"nobody's consent is known: start a table with: diffusioncleft dataset table {photos}",
        )
    if metadata is not None:
        table = read_table(metadata)
        return table, list_photographs(photos, {row.file for row in table.rows})
    listing = list_photographs(photos)
    statement, notice = read_statement(photos)
    return replace(
        _same_for_all(listing, CONSENT_YES), notices=(notice,) if notice else (), statement=statement
    ), listing


def nobodys_consent(photos: Path) -> tuple[Table, FoundPhotographs]:
    """The photographs in the folder, and a table in which none has consent."""
    listing = list_photographs(photos)
    return _same_for_all(listing, "no"), listing


def consent_is_gone(photographs: Photographs, dataset: Path) -> bool:
    """Whether what gave consent when `dataset` was built is gone, where nothing gives it now.

    Not while the table of that time lies elsewhere: then another one was named by mistake.
    """
    given, built = photographs.metadata, built_with(dataset)
    if built is not None and built.is_file() and (given is None or given.resolve() != built.resolve()):
        return False
    if given is None or given.is_file() or given == photographs.folder / TABLE:
        return True
    return built is not None and given.resolve() == built


def built_with(dataset: Path) -> Path | None:
    """The table with which a dataset was built; None where a CONSENT.txt did, or where none is noted."""
    arguments = _described(dataset).get("arguments")
    table = arguments.get("metadata") if isinstance(arguments, dict) else None
    return Path(table) if isinstance(table, str) else None


def had_statement(dataset: Path) -> bool:
    """Whether the dataset was built on a CONSENT.txt."""
    return _described(dataset).get("consent_for_folder") is not None


def _described(dataset: Path) -> dict[str, Any]:
    found = read_json(dataset / SETTINGS) if (dataset / SETTINGS).is_file() else {}
    return found if isinstance(found, dict) else {}


def read_statement(photos: Path) -> Decoded:
    """The text of the folder's CONSENT.txt, and how it was read.

    Raises:
        NoConsent: there is none, or its first line is not the statement.
    """
    path = photos / STATEMENT_FILE
    if not path.exists():
        raise NoConsent(f"{path} does not exist", "give the table, or put the statement there")
    with opened(path) as handle:
        text, notice = decoded(handle.read(), path)
    first = next((line for line in text.splitlines() if line.strip()), "")
    if " ".join(first.split()) != STATEMENT:
        raise NoConsent(
            f"{path} does not give consent", f"its first line must be, word for word: {STATEMENT}"
        )
    return Decoded(text.strip(), notice)


def _same_for_all(listing: FoundPhotographs, consent: str) -> Table:
    rows = tuple(MetadataRow(name, 0, {"consent": consent}) for name in listing.photographs)
    return Table(rows, ("file", "consent"))


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
    header = list(dict.fromkeys(["file", *(column.name for column in columns), "consent", RATING]))
    rows = ([written_name(name), *[""] * (len(header) - 1)] for name in names)
    text = csv_text(header, rows, line_end="\r\n")
    write_bytes(out, text.encode("utf-8-sig", "backslashreplace"))
    return len(names)

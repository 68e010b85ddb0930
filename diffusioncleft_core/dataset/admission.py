"""Which photographs may enter at all: those whose row says so, before any of them is opened."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..conditions import Condition
from ..errors import UserError
from .captions import CaptionBuilder, read_sidecar
from .metadata import MetadataRow, Table, check_values, match_rows
from .photographs import Listing
from .reasons import Rejected, SetAside


@dataclass(frozen=True)
class Columns:
    """What the condition's vocabulary asks of the table.

    `allowed`: values by column, in the vocabulary's order; `required`: those of them that must not be empty;
    `admitted`: columns whose value decides whether a photograph belongs to this condition.
    """

    allowed: Mapping[str, tuple[str, ...]]
    required: tuple[str, ...]
    admitted: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Candidate:
    """A photograph with consent and usable metadata. `subject` is the table's subject id, private."""

    file: str
    attributes: Mapping[str, str]
    caption: str
    subject: str | None


def columns_of(condition: Condition) -> Columns:
    """The columns whose values the vocabulary lists, but for `consent`, which has a rule of its own."""
    checked = {name: item for name, item in condition.columns.items() if item.values and name != "consent"}
    return Columns(
        allowed={name: column.values for name, column in checked.items()},
        required=tuple(name for name, column in checked.items() if column.required),
        admitted=condition.metadata,
    )


def admit(
    photos: Path, listing: Listing, table: Table, columns: Columns, caption: CaptionBuilder
) -> tuple[list[Candidate], list[SetAside]]:
    """Sort the listed photographs into candidates and those set aside, by their rows alone.

    Reported as well: a photograph without a row, a row without a photograph. Raises UserError when a required
    column is missing and a photograph with consent has no sidecar caption to make up for it.
    """
    refused = {item.file for item in listing.set_aside}
    names = [*listing.photographs, *refused]
    matched, homeless = match_rows(names, table.rows)
    aside = list(listing.set_aside)
    for row in homeless:
        what = "no such photograph" if row.file else "the column file is empty"
        detail = f"line {row.line}: {what}"
        aside.append(SetAside(row.file or f"(line {row.line})", "row_without_photo", detail))
    candidates = []
    for name in listing.photographs:
        try:
            candidates.append(_candidate(photos, name, matched.get(name, []), columns, table, caption))
        except Rejected as rejection:
            aside.append(SetAside(name, rejection.reason, rejection.detail))
    return candidates, aside


def without_consent(listing: Listing, table: Table) -> list[str]:
    """Names of the listed photographs that have a row which does not say `consent = yes`."""
    matched, _ = match_rows(listing.photographs, table.rows)
    return [name for name, rows in matched.items() if not all(row.consent for row in rows)]


def _candidate(
    photos: Path,
    name: str,
    rows: list[MetadataRow],
    columns: Columns,
    table: Table,
    caption: CaptionBuilder,
) -> Candidate:
    if not rows:
        raise Rejected("no_row", "write a row for it into the metadata table")
    row = rows[0]
    if not all(item.consent for item in rows):
        given = next(item for item in rows if not item.consent)
        value = given.values.get("consent", "")
        raise Rejected("no_consent", given.problem or f"line {given.line}: consent is {value!r}")
    if any(item.values != row.values for item in rows):
        raise Rejected("row_conflict", f"lines {', '.join(str(item.line) for item in rows)} differ; keep one")
    sidecar = read_sidecar(photos, name)
    optional = columns.allowed if sidecar else set(columns.allowed) - set(columns.required)
    for column, values in columns.admitted.items():
        given_value = row.values.get(column, "").casefold()
        if given_value in {item.casefold() for item in columns.allowed.get(column, ())} - set(values):
            raise Rejected("other_condition", f"line {row.line}: {column} is {given_value}")
    missing = [column for column in columns.required if column not in table.columns]
    if missing and not sidecar:
        found = ", ".join(filter(None, table.columns))
        raise UserError(
            f"the metadata table has no column {', '.join(missing)} (found: {found}); "
            "add them, or write a caption into a .txt file beside every photograph"
        )
    attributes, problem = check_values(row, columns.allowed, optional)
    if problem:
        raise Rejected("metadata", problem)
    subject = " ".join(row.values.get("subject_id", "").casefold().split()) or None
    return Candidate(name, attributes, caption(attributes, sidecar), subject)

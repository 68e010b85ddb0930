"""Who may rate: a rater as the database holds one, and finding one by name."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, select

from ...errors import UserError
from . import database


@dataclass(frozen=True)
class Rater:
    """Who may rate. The name is for whoever runs the study; results say `code`."""

    id: int
    name: str
    token_hash: str
    invited_at: str
    revoked_at: str | None

    @property
    def code(self) -> str:
        return f"R{self.id}"


def rater_of(row: Row[Any]) -> Rater:
    """A row of the table of raters."""
    return Rater(row.id, row.name, row.token_hash, row.invited_at, row.revoked_at)


def raters_of(connection: Connection) -> list[Rater]:
    """All of them, in the order in which they were invited."""
    return list(map(rater_of, connection.execute(select(database.rater).order_by(database.rater.c.id))))


def rater_named(connection: Connection, name: str) -> Rater | None:
    """The rater of a name, whatever its case; the one who is written so where an earlier version has both.

    Raises:
        UserError: it may be several.
    """
    same = [one for one in raters_of(connection) if _folded(one.name) == _folded(name)]
    exact = [one for one in same if one.name == name]
    if len(same) > 1 and not exact:
        told = ", ".join(f"{one.name} ({one.code})" for one in same)
        raise UserError(f"{name} may be {told}; write the name as one of them")
    return next(iter(exact or same), None)


def checked_name(name: str) -> str:
    """A name without needless space. UserError for one that can't be."""
    cleaned = " ".join(name.split())
    if not cleaned or len(cleaned) > 200 or not cleaned.isprintable():
        raise UserError("a rater's name has 1 to 200 printable letters; give another")
    return cleaned


def _folded(name: str) -> str:
    """What all spellings of a name have in common: neither capitals nor how its letters are composed."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())

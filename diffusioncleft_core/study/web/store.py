"""What is kept of a study's raters: who is invited, what each answered, and every correction of it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import statistics
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from ...errors import UserError
from ..folder import Study
from ..ratings import Rating, RatingTable, Value, rating_table
from . import database
from .database import DatabaseAway, reading, writing
from .signin import Signatures, new_token, read_secret, token_hash

Answers = dict[str, Value]
"""Answers to an item's questions, by question; one that was left out is not there."""


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


@dataclass(frozen=True)
class Submission:
    """What a rater sent for an item, once."""

    item: str
    revision: int
    answers: Answers
    seconds: float | None
    at: str


class RaterGone(Exception):
    """The rater was revoked while they answered."""


class Store:
    """A study's database. Every method is one transaction; DatabaseAway where it did not happen."""

    def __init__(self, study: Study, url: str | None = None) -> None:
        """Open the database, bring its tables up to date, and make sure that it is this study's.

        Args:
            study: whose raters and ratings it keeps.
            url: of a database; None is the SQLite file in the study's private folder.

        Raises:
            UserError: it can't be reached, or it is another study's.
        """
        where = database.database_url(url, study.database)
        self.signatures = Signatures(read_secret(study.private))
        self.place = where.render_as_string(hide_password=True)
        try:
            self._engine = database.connect(where)
            database.migrate(self._engine)
            self._claim()
        except (DatabaseAway, OSError) as error:
            raise UserError(
                f"the study's database {self.place} can't be used ({error}); start it, or check the address"
            ) from error

    def close(self) -> None:
        """Let go of all connections."""
        self._engine.dispose()

    def _claim(self) -> None:
        own = self.signatures.derived("study").hex()
        with writing(self._engine) as connection:
            found = connection.execute(select(database.study.c.fingerprint)).scalar()
            if found is None:
                connection.execute(insert(database.study).values(fingerprint=own))
        if found not in (None, own):
            raise UserError(
                f"{self.place} holds the ratings of another study (or this one's private/secret was "
                "replaced); name another database, or restore the file"
            )

    # --- raters

    def invite(self, name: str, *, renew: bool = False) -> tuple[Rater, str]:
        """Add a rater and return the token of their link, which is kept as a hash only.

        renew: give a rater who is there a new link, which ends the old one and a revocation.

        Raises:
            UserError: the name is taken, or there is none to renew.
        """
        name = _checked_name(name)
        token = new_token()
        values = {"token_hash": token_hash(token), "invited_at": _now(), "revoked_at": None}
        with writing(self._engine) as connection:
            known = connection.execute(select(database.rater).where(database.rater.c.name == name)).first()
            if known is not None and not renew:
                raise UserError(
                    f"{name} has a link already; --renew gives a new one, and the old one ends with it"
                )
            if known is None and renew:
                raise UserError(f"there is no rater {name}; leave out --renew")
            if known is None:
                connection.execute(insert(database.rater).values(name=name, **values))
            else:
                connection.execute(
                    update(database.rater).where(database.rater.c.id == known.id).values(**values)
                )
            row = connection.execute(select(database.rater).where(database.rater.c.name == name)).one()
        return _rater(row), token

    def revoke(self, name: str) -> Rater:
        """End a rater's link and sessions; the ratings stay. UserError where there is no such rater."""
        table = database.rater
        with writing(self._engine) as connection:
            row = connection.execute(select(table).where(table.c.name == name.strip())).first()
            if row is None:
                raise UserError(f"there is no rater {name}; 'diffusioncleft study raters' lists them")
            connection.execute(update(table).where(table.c.id == row.id).values(revoked_at=_now()))
        return _rater(row)

    def raters(self) -> list[Rater]:
        """Everybody who was ever invited."""
        with reading(self._engine) as connection:
            return list(map(_rater, connection.execute(select(database.rater).order_by(database.rater.c.id))))

    def by_token(self, token: str) -> Rater | None:
        """The rater whose link ends in `token`; None for a wrong or revoked one."""
        table = database.rater
        with reading(self._engine) as connection:
            row = connection.execute(select(table).where(table.c.token_hash == token_hash(token))).first()
        return None if row is None or row.revoked_at else _rater(row)

    def rater(self, rater_id: int) -> Rater | None:
        """The rater of that number; None for one who is not there or was revoked."""
        table = database.rater
        with reading(self._engine) as connection:
            row = connection.execute(select(table).where(table.c.id == rater_id)).first()
        return None if row is None or row.revoked_at else _rater(row)

    # --- ratings

    def save(self, rater_id: int, item: str, form: str, answers: Answers, seconds: float | None) -> None:
        """Keep what a rater sent for an item; on return it is on the disk.

        A form that was kept before with these answers, and answers that count already, change nothing: a
        double click, a replayed request and a second tab leave one rating. Other answers are a correction,
        by the same form too: browsers bring back a page as it was.

        Raises:
            RaterGone: the rater was revoked.
        """
        table = database.submission
        sent = hashlib.sha256(f"{form} {json.dumps(answers, sort_keys=True)}".encode()).hexdigest()
        with writing(self._engine) as connection:
            # Locks the rater where the database has such locks, so that their forms come one after the other.
            owner = select(database.rater.c.revoked_at).where(database.rater.c.id == rater_id)
            revoked = connection.execute(owner.with_for_update()).first()
            if revoked is None or revoked[0]:
                raise RaterGone
            came = {"rater_id": rater_id, "form": sent}
            for known in (table, database.repeated):
                if connection.execute(select(known.c.form).filter_by(**came)).first() is not None:
                    return
            earlier = _submissions(connection, rater_id, item)
            if earlier and earlier[-1].answers == answers:
                connection.execute(insert(database.repeated).values(**came))
                return
            made = connection.execute(
                insert(table)
                .values(**came, item=item, revision=len(earlier) + 1, seconds=seconds, at=_now())
                .returning(table.c.id)
            ).scalar_one()
            rows = [
                {"submission_id": made, "question": question, "value": json.dumps(value)}
                for question, value in answers.items()
            ]
            if rows:
                connection.execute(insert(database.rating), rows)

    def answered(self, rater_id: int) -> dict[str, Answers]:
        """The answers that count, by item."""
        with reading(self._engine) as connection:
            return {one.item: one.answers for one in _submissions(connection, rater_id)}

    def pace(self, rater_id: int) -> float | None:
        """Median seconds that the rater took for the last pictures; None before there are three."""
        table = database.submission
        with reading(self._engine) as connection:
            query = (
                select(table.c.seconds)
                .where(table.c.rater_id == rater_id, table.c.revision == 1, table.c.seconds.is_not(None))
                .order_by(table.c.id.desc())
                .limit(15)
            )
            times = list(connection.execute(query).scalars())
        return statistics.median(times) if len(times) >= 3 else None

    def history(self, rater_id: int, item: str) -> list[Submission]:
        """All that a rater sent for an item, corrections last."""
        with reading(self._engine) as connection:
            return _submissions(connection, rater_id, item)

    def counts(self) -> dict[int, dict[str, int]]:
        """For each rater, how often each item was sent."""
        table = database.submission
        query = select(table.c.rater_id, table.c.item, func.count()).group_by(table.c.rater_id, table.c.item)
        found: dict[int, dict[str, int]] = {}
        with reading(self._engine) as connection:
            for rater_id, item, sent in connection.execute(query):
                found.setdefault(rater_id, {})[item] = sent
        return found

    def ratings(self, study: Study) -> list[Rating]:
        """Every answer that counts, of all raters; practice and what was corrected are left out.

        `seconds` are those of the first answer to the item. Revoked raters' answers stay in.
        """
        counted = {item.id for item in study.items if not item.practice}
        found = []
        for rater in self.raters():
            with reading(self._engine) as connection:
                sent = _submissions(connection, rater.id)
            first = {one.item: one.seconds for one in sent if one.revision == 1}
            last = {one.item: one for one in sent if one.item in counted}
            found += [
                Rating(rater.code, item, question, value, first[item], one.at)
                for item, one in last.items()
                for question, value in one.answers.items()
            ]
        return found


def stored_ratings(study: Study, url: str | None = None) -> RatingTable:
    """What was rated so far, as the statistics take it. UserError where the database can't be used."""
    with contextlib.closing(Store(study, url)) as store:
        return rating_table(store.ratings(study), study.items, study.design.roles)


def _submissions(connection: Connection, rater_id: int, item: str | None = None) -> list[Submission]:
    """What a rater sent, of one item or all, the last of each item behind its others."""
    sent, answer = database.submission, database.rating
    query = (
        select(sent.c.id, sent.c.item, sent.c.revision, sent.c.seconds, sent.c.at)
        .add_columns(answer.c.question, answer.c.value)
        .select_from(sent.outerjoin(answer, answer.c.submission_id == sent.c.id))
        .where(sent.c.rater_id == rater_id, *([sent.c.item == item] if item is not None else []))
        .order_by(sent.c.item, sent.c.revision)
    )
    found: dict[int, Submission] = {}
    for row in connection.execute(query):
        one = found.setdefault(row.id, Submission(row.item, row.revision, {}, row.seconds, row.at))
        if row.question is not None:
            one.answers[row.question] = json.loads(row.value)
    return list(found.values())


def _rater(row: Row[Any]) -> Rater:
    return Rater(row.id, row.name, row.token_hash, row.invited_at, row.revoked_at)


def _checked_name(name: str) -> str:
    cleaned = " ".join(name.split())
    if not cleaned or len(cleaned) > 200 or not cleaned.isprintable():
        raise UserError("a rater's name has 1 to 200 printable letters; give another")
    return cleaned


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")

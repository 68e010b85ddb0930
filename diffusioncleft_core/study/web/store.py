"""What is kept of a study's raters: who is invited, what each answered, and every correction of it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import statistics
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection, Engine, Executable, func, insert, select, update

from ...errors import UserError
from ..folder import Study
from ..ratings import Rating, RatingTable, Value, rating_table
from . import database
from .database import DatabaseAway, reading, writing
from .raters import Rater, checked_name, rater_named, rater_of, raters_of
from .signin import Signatures, new_token, read_secret, token_hash

Answers = dict[str, Value]
"""Answers to an item's questions, by question; one that was left out is not there."""


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


class AnsweredSince(Exception):
    """A form came again, though another answer followed it: a request that was repeated, or a change of mind.

    answers: those that count.
    """

    def __init__(self, answers: Answers) -> None:
        super().__init__()
        self.answers = answers


class Store:
    """A study's database. Every method is one transaction; DatabaseAway where it did not happen."""

    def __init__(self, study: Study, url: str | None = None, *, read_only: bool = False) -> None:
        """Open the database, bring its tables up to date, and make sure that it is this study's.

        Args:
            study: whose raters and ratings it keeps.
            url: of a database; None is the SQLite file in the study's private folder.
            read_only: write nothing, unless its tables have to be brought up to date.

        Raises:
            UserError: it can't be reached, or it is another study's.
        """
        self._where = database.database_url(url, study.database)
        self.signatures = Signatures(read_secret(study.private))
        self.place = self._where.render_as_string(hide_password=True)
        with self.explained((DatabaseAway, OSError)):
            if not (read_only and self._opened_to_read()):
                self._engine = database.connect(self._where)
                database.migrate(self._engine)
                self._claim(writing)

    def _opened_to_read(self) -> bool:
        """Whether it is this study's and can be read as it is."""
        self._engine = database.connect(self._where, read_only=True)
        try:
            if database.is_current(self._engine):
                self._claim(reading)
                return True
        except DatabaseAway:  # opened to write it may be repaired, or what ails it is told
            pass
        self.close()
        return False

    @contextlib.contextmanager
    def explained(self, errors: tuple[type[Exception], ...] = (DatabaseAway,)) -> Iterator[None]:
        """Turn errors of a database that is away into a UserError that says what to do about it."""
        try:
            yield
        except errors as error:
            what = database.remedy(error, self._where)
            raise UserError(f"the study's database {self.place} can't be used ({error}); {what}") from error

    def close(self) -> None:
        """Let go of all connections."""
        self._engine.dispose()

    def _claim(self, access: Callable[[Engine], AbstractContextManager[Connection]]) -> None:
        own = self.signatures.derived("study").hex()
        with access(self._engine) as connection:
            found = connection.execute(select(database.study.c.fingerprint)).scalar()
            if found is None and access is writing:
                connection.execute(insert(database.study).values(fingerprint=own))
        if found not in (None, own):
            raise UserError(
                f"{self.place} holds the ratings of another study (or this one's private/secret was "
                "replaced); name another database, or restore the file"
            )

    # --- raters

    def invite(self, name: str, *, renew: bool = False) -> tuple[Rater, str]:
        """Add a rater and return the token of their link, which is kept as a hash only.

        name: `anna` is `Anna`, who was invited before.
        renew: give a rater who is there a new link, which ends the old one and a revocation.

        Raises:
            UserError: the name is taken, or there is none to renew.
        """
        table, name = database.rater, checked_name(name)
        token = new_token()
        values = {"token_hash": token_hash(token), "invited_at": _now(), "revoked_at": None}
        with writing(self._engine) as connection:
            known = rater_named(connection, name)
            if known is not None and not renew:
                raise UserError(
                    f"{known.name} ({known.code}) has a link already; --renew gives a new one, and the old "
                    "one ends with it"
                )
            if known is None and renew:
                raise UserError(f"there is no rater {name}; leave out --renew")
            if known is None:
                change: Executable = insert(table).values(name=name, **values)
            else:
                change = update(table).where(table.c.id == known.id).values(**values)
            connection.execute(change)
            row = connection.execute(select(table).where(table.c.token_hash == values["token_hash"])).one()
        return rater_of(row), token

    def revoke(self, name: str) -> Rater:
        """End a rater's link and sessions; the ratings stay. UserError where there is no such rater."""
        table = database.rater
        with writing(self._engine) as connection:
            found = rater_named(connection, checked_name(name))
            if found is None:
                raise UserError(f"there is no rater {name}; 'diffusioncleft study raters' lists them")
            connection.execute(update(table).where(table.c.id == found.id).values(revoked_at=_now()))
        return found

    def raters(self) -> list[Rater]:
        """Everybody who was ever invited."""
        with reading(self._engine) as connection:
            return raters_of(connection)

    def by_token(self, token: str) -> Rater | None:
        """The rater whose link ends in `token`; None for a wrong or revoked one."""
        table = database.rater
        with reading(self._engine) as connection:
            row = connection.execute(select(table).where(table.c.token_hash == token_hash(token))).first()
        return None if row is None or row.revoked_at else rater_of(row)

    def rater(self, rater_id: int) -> Rater | None:
        """The rater of that number; None for one who is not there or was revoked."""
        table = database.rater
        with reading(self._engine) as connection:
            row = connection.execute(select(table).where(table.c.id == rater_id)).first()
        return None if row is None or row.revoked_at else rater_of(row)

    # --- ratings

    def save(self, rater_id: int, item: str, form: str, answers: Answers, seconds: float | None) -> None:
        """Keep what a rater sent for an item; on return it is on the disk.

        Answers that count already change nothing: a double click, a replayed request and a second tab leave
        one rating. Other answers are a correction, by the same form too: browsers bring back a page as it
        was.

        Raises:
            RaterGone: the rater was revoked.
            AnsweredSince: the form came with these answers before, and others count by now.
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
            is_known = any(
                connection.execute(select(known.c.form).filter_by(**came)).first() is not None
                for known in (table, database.repeated)
            )
            earlier = _submissions(connection, rater_id, item)
            counts_already = bool(earlier) and earlier[-1].answers == answers
            if is_known and not counts_already:
                raise AnsweredSince(earlier[-1].answers if earlier else {})
            if counts_already:
                if not is_known:
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
    if not url and not study.database.is_file():
        return rating_table([], [])
    with opened_store(study, url, read_only=True) as store:
        return rating_table(store.ratings(study), study.items, study.design.roles)


@contextlib.contextmanager
def opened_store(study: Study, url: str | None = None, *, read_only: bool = False) -> Iterator[Store]:
    """A study's database for a command: closed behind it, and what goes wrong with it is a UserError."""
    store = Store(study, url, read_only=read_only)
    try:
        with store.explained():
            yield store
    finally:
        store.close()


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


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")

"""A study's database: its tables, its engine on SQLite or PostgreSQL, and bringing its tables up to date."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sqlite3
import ssl
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Float,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from ...errors import UserError
from ...files import explained, private_dir

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATIONS = Path(__file__).resolve().parent / "migrations"
DRIVER = "postgresql+pg8000"
WAIT = 10
"""Seconds for which a request waits for a locked or silent database."""
_LITTLE = 64 << 10
"""Bytes on a disk below which SQLite can't do its work, whatever it calls that."""
_REMEDIES = {
    sqlite3.SQLITE_IOERR: "its disk fails or is full: free some space and run the same command again",
    sqlite3.SQLITE_CANTOPEN: "make its folder and the file writable for you, or check the path",
    sqlite3.SQLITE_READONLY: "make its folder and the file writable for you",
    sqlite3.SQLITE_BUSY: "another program holds it: wait for it, or end it",
    sqlite3.SQLITE_NOTADB: "it is no database of a study: restore it from a copy, or name another",
    sqlite3.SQLITE_CORRUPT: "it is damaged: restore it from a copy",
}
"""By SQLite's own code."""
LOOPBACK = {None, "", "localhost", "127.0.0.1", "::1"}

metadata = MetaData()
study = Table(
    "study",
    metadata,
    Column("fingerprint", String(64), primary_key=True),
)
"""One row: whose ratings these are, so that two studies never share a database by mistake."""
rater = Table(
    "rater",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(200), nullable=False, unique=True),
    Column("token_hash", String(64), nullable=False, unique=True),
    Column("invited_at", String(40), nullable=False),
    Column("revoked_at", String(40)),
)
submission = Table(
    "submission",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("rater_id", Integer, ForeignKey("rater.id"), nullable=False),
    Column("item", String(64), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("form", String(64), nullable=False),
    Column("seconds", Float),
    Column("at", String(40), nullable=False),
    UniqueConstraint("rater_id", "item", "revision"),
    UniqueConstraint("rater_id", "form"),
)
"""What a rater sent for an item, each time they did; the highest revision counts. Nothing is ever changed.

`form` is a hash of the form's mark and its answers, by which a request that is repeated is known."""
rating = Table(
    "rating",
    metadata,
    Column("submission_id", Integer, ForeignKey("submission.id"), primary_key=True),
    Column("question", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)
"""The answers of a submission; values are JSON."""
repeated = Table(
    "repeated",
    metadata,
    Column("rater_id", Integer, ForeignKey("rater.id"), primary_key=True),
    Column("form", String(64), primary_key=True),
)
"""Forms whose answers counted already when they came, a second tab's for instance: sent once more after a
correction, they must not undo it."""


class DatabaseAway(Exception):
    """The database can't be reached, or can't write; what was asked of it has not happened."""


@contextlib.contextmanager
def away() -> Iterator[None]:
    """Turn whatever a lost, locked or full database raises into DatabaseAway."""
    try:
        yield
    except (SQLAlchemyError, OSError, struct.error) as error:
        raise DatabaseAway(str(getattr(error, "orig", None) or error)) from error


def database_url(given: str | None, own: Path) -> URL:
    """The URL of `--database`, or of the study's own SQLite file. UserError for one that isn't served."""
    if not given:
        return URL.create("sqlite", database=str(own))
    try:
        url = make_url(given)
        backend = url.get_backend_name()
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        raise UserError(
            "--database is no URL; give sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME"
        ) from error
    if backend == "sqlite" and url.database:
        return URL.create("sqlite", database=str(Path(url.database).resolve()))
    if backend in ("postgresql", "postgres"):
        return url.set(drivername=DRIVER)
    raise UserError(
        f"--database {url.render_as_string(hide_password=True)}: a study is kept in SQLite or PostgreSQL; "
        "give sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME"
    )


def remedy(error: Exception, url: URL) -> str:
    """What to do about a database that can't be used, by what it said."""
    if url.get_backend_name() != "sqlite":
        return "start it, or check the address"
    cause = getattr(error.__cause__, "orig", None)
    code = getattr(cause, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF
    folder = Path(str(url.database)).parent
    is_full = code == sqlite3.SQLITE_FULL or (folder.is_dir() and shutil.disk_usage(folder).free < _LITTLE)
    if is_full:
        return "the disk is full: free some space and run the same command again"
    return _REMEDIES.get(code, "check its place and its rights")


def connect(url: URL, *, read_only: bool = False) -> Engine:
    """An engine for `url` whose transactions write at once and survive the process.

    SQLite is set to WAL with a synced commit; its file is made for its owner alone. PostgreSQL on another
    machine is spoken to through TLS with its certificate checked, unless the URL says `?sslmode=disable`.

    read_only: an SQLite file is not written to, nor made.
    """
    if url.get_backend_name() == "sqlite":
        return _sqlite_to_read(Path(str(url.database))) if read_only else _sqlite(url)
    try:
        return create_engine(
            url.difference_update_query(["sslmode"]),
            connect_args={"timeout": WAIT, "ssl_context": _tls(url)},
            pool_size=10,
            max_overflow=20,
            pool_timeout=WAIT,
            pool_pre_ping=True,
        )
    except ModuleNotFoundError as error:
        raise UserError("PostgreSQL needs the package pg8000; run: pip install pg8000") from error


def _tls(url: URL) -> ssl.SSLContext | bool:
    mode = url.query.get("sslmode", "disable" if url.host in LOOPBACK else "verify-full")
    if mode not in ("disable", "verify-full"):
        raise UserError(f"sslmode={mode} is not known; write sslmode=verify-full or sslmode=disable")
    return ssl.create_default_context() if mode == "verify-full" else False


def _sqlite(url: URL) -> Engine:
    path = Path(str(url.database))
    if not path.parent.is_dir():
        private_dir(path.parent)
    with explained(path), contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))
    engine = create_engine(
        url, connect_args={"timeout": WAIT}, pool_size=10, max_overflow=30, pool_timeout=WAIT
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # transactions begin where `_begin` says, not where sqlite3 guesses
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        is_writing = connection.get_execution_options().get("writing", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writing else "BEGIN")

    return engine


def _sqlite_to_read(path: Path) -> Engine:
    def open_file() -> sqlite3.Connection:
        place = path.absolute().as_uri()
        connection = sqlite3.connect(f"{place}?mode=ro", timeout=WAIT, uri=True)
        try:
            connection.execute("SELECT count(*) FROM sqlite_master")
        except sqlite3.OperationalError:  # the index of the WAL can't be made: full disk, folder of another
            connection.close()
            log = path.with_name(f"{path.name}-wal")
            if log.exists() and log.stat().st_size:
                raise
            connection = sqlite3.connect(f"{place}?immutable=1", timeout=WAIT, uri=True)
        return connection

    return create_engine("sqlite://", creator=open_file, poolclass=NullPool)


@contextlib.contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A connection to look things up with."""
    with away(), engine.begin() as connection:
        yield connection


@contextlib.contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that has happened, to the disk, once the block is left without an exception."""
    with away(), engine.execution_options(writing=True).begin() as connection:
        yield connection


def is_current(engine: Engine) -> bool:
    """Whether the tables are up to date."""
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    with reading(engine) as connection:
        made = MigrationContext.configure(connection).get_current_revision()
    return bool(made == ScriptDirectory.from_config(_migrations()).get_current_head())


def _migrations() -> Config:
    from alembic.config import Config

    logging.getLogger("alembic").setLevel(logging.WARNING)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    return config


def migrate(engine: Engine) -> None:
    """Bring the tables up to date. UserError when a newer program made them."""
    from alembic import command
    from alembic.util import CommandError

    config = _migrations()
    with writing(engine) as connection:
        if connection.dialect.name == "postgresql":  # one server at a time
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7265726)")
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise UserError(
                f"the study's database was made by a newer version ({error}); update diffusioncleft here"
            ) from error

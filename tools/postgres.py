"""A PostgreSQL of one's own, from the system's package: for tests and measurements, on this machine alone."""

import contextlib
import itertools
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

USER = "postgres"
Figures = TypeVar("Figures")


def find_postgres() -> Path | None:
    """The folder of `initdb`; None where PostgreSQL is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[4]))
    on_path = shutil.which("initdb")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


class Postgres:
    """A server in a temporary folder, run by an unprivileged user."""

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._folder = Path(tempfile.mkdtemp(prefix="study-postgres-"))
        self._numbers = itertools.count(1)
        self._as = []
        if os.name == "posix" and os.geteuid() == 0:
            shutil.chown(self._folder, USER)
            self._as = ["runuser", "-u", USER, "--"]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._run("initdb", "-D", self._data, "-A", "trust", "-U", USER, "-E", "UTF8", "--no-sync")
        self.start()

    @property
    def _data(self) -> str:
        return str(self._folder / "data")

    def _run(self, program: str, *words: str) -> None:
        command = [*self._as, str(self._programs / program), *words]
        with open(self._folder / "log", "ab") as log:
            subprocess.run(command, check=True, stdout=log, stderr=log, cwd="/")

    def start(self) -> None:
        """Start, and wait until it answers."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self._folder}"
        self._run(
            "pg_ctl", "-D", self._data, "-l", f"{self._folder}/server.log", "-o", options, "-w", "start"
        )

    def stop(self) -> None:
        """Stop at once, as after a loss of power."""
        self._run("pg_ctl", "-D", self._data, "-m", "immediate", "-w", "stop")

    def database(self) -> str:
        """The URL of a new, empty database."""
        name = f"study{next(self._numbers)}"
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", USER, name)
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{name}"

    def close(self) -> None:
        """Stop and remove everything."""
        subprocess.run(
            [*self._as, str(self._programs / "pg_ctl"), "-D", self._data, "-m", "immediate", "stop"],
            check=False,
            capture_output=True,
            cwd="/",
        )
        shutil.rmtree(self._folder, ignore_errors=True)


def on_each_database(measure: Callable[[str | None], Figures]) -> dict[str, Figures]:
    """What is measured on SQLite (None), and on a PostgreSQL of its own (its URL) where that is installed."""
    found = {"sqlite": measure(None)}
    programs = find_postgres()
    if programs is not None:
        with contextlib.closing(Postgres(programs)) as postgres:
            found["postgresql"] = measure(postgres.database())
    return found

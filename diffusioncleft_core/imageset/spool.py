"""Rows of a set that wait in a temporary file while a stage works on them: a set may have a million."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from ..files import TEMPORARY_PREFIX, encoded, explained
from .manifest import ImageRow


@contextlib.contextmanager
def row_spool(folder: Path) -> Iterator[RowSpool]:
    """No rows yet. Their file lies in `folder`, without a name where there can be such, and is gone after.

    Raises:
        UserError: the folder takes no files.
    """
    with explained(folder):
        file = tempfile.TemporaryFile(dir=folder, prefix=TEMPORARY_PREFIX)  # noqa: SIM115
    try:
        yield RowSpool(folder, file)
    finally:
        with contextlib.suppress(OSError):  # what a full disk did not take is not wanted any more
            file.close()


class RowSpool:
    """Rows by their place; memory holds 8 bytes of each. Made by `row_spool`."""

    def __init__(self, folder: Path, file: IO[bytes]) -> None:
        self._folder, self._file, self._places = folder, file, array("q")

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, place: int) -> ImageRow:
        with explained(self._folder):  # what was put in last may go to disk only now
            self._file.seek(self._places[place])
            line = self._file.readline()
        return ImageRow.from_json(json.loads(line))

    def __iter__(self) -> Iterator[ImageRow]:
        return (self[place] for place in range(len(self)))

    def append(self, row: ImageRow) -> None:
        """Add a row at the end. UserError when the disk is full."""
        self._places.append(self._written(row))

    def __setitem__(self, place: int, row: ImageRow) -> None:
        self._places[place] = self._written(row)

    def _written(self, row: ImageRow) -> int:
        """Where the row now lies; what lay elsewhere for it is left."""
        with explained(self._folder):
            place = self._file.seek(0, os.SEEK_END)
            self._file.write(encoded(json.dumps(row.to_json(), ensure_ascii=False) + "\n"))
        return place

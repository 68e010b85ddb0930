"""Feature vectors of images, found by content, in columnar shards: Parquet files of thousands of rows.

    FOLDER/KIND/NETWORK/RANDOM.parquet      columns `key` (32 bytes) and `vector` (float32, little endian)

The folder is private and lies with the set that owns the images, like everything in `cache.py`. What is new
is appended as a shard of its own, whole or not at all, and no shard is ever changed. Small ones are merged
when they are many: the merged shard is there before the others go, so that a reader or writer beside it
loses nothing; a row that is in two shards is one row. Pages carry checksums: a damaged shard is set aside
(`RANDOM.damaged`) and its rows are computed again. Erasing FOLDER erases all of it, and a store whose folder
was erased while it was open writes nothing more.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..files import atomic_path, private_dir, remove_leftovers
from ..outputs import can_write
from .cache import entry_key

SHARD_BYTES = 32 << 20
"""Of a full shard: 4,096 vectors of 2,048 numbers. As much waits in memory at most."""
LONGEST_WAIT = 30.0
"""Seconds after which what was computed is written, so that a killed process loses no more."""
MANY = 32
"""Shards of less than half the full size that may lie side by side."""
_SHARD = re.compile(r"[0-9a-f]{32}\.parquet")
_KEY_BYTES = 32
_LEFT_BEHIND = 3600.0
"""Seconds after which a half-written file is a killed process' and no longer a slow one's."""

Vectors = NDArray[np.float32]
Keys = NDArray[np.bytes_]
"""[N] of 32 bytes each."""


class _Damaged(Exception):
    """A shard that is torn, or something else than its name says."""


class VectorStore:
    """The vectors that one network gave of the images of one set.

    Args:
        folder: private, made when it is first written to; None keeps nothing, nor does one that can't be
            written.
        kind: of the vectors.
        network: all that tells the network apart from others.
        shape: of a vector.
    """

    def __init__(self, folder: Path | None, kind: str, network: str, shape: tuple[int, ...]) -> None:
        self.shape = shape
        self._folder, self._kind = folder, kind
        self._name = entry_key(network, list(shape))[:16]
        self._was_there = folder is not None and folder.is_dir()
        self._new: dict[str, Vectors] = {}
        self._oldest = 0.0
        self._seen: set[str] = set()
        self._wrote = False

    def fill(self, out: Vectors, places: Sequence[int], keys: Sequence[str]) -> NDArray[np.bool_]:
        """Read the vectors under `keys` [N] into the rows `places` [N] of `out`, in one pass over the shards.

        Args:
            out: [M, *shape] float32.
            places: which row each is read into.
            keys: as `entry_key` gives them; one may be there several times.

        Returns:
            [N]: which were there; the other rows of `out` stay as they are.
        """
        rows = np.asarray(places, np.int64)
        if not len(rows):
            return np.zeros(0, bool)
        wanted, first, which = np.unique(_packed(keys), return_index=True, return_inverse=True)
        found = np.zeros(len(wanted), bool)
        for path in self._shards():
            with contextlib.suppress(OSError):  # what can't be read is computed again
                self._fill_from(path, wanted, rows[first], found, out)
        for place in np.flatnonzero(found[which] & (first[which] != np.arange(len(rows)))).tolist():
            out[rows[place]] = out[rows[first[which[place]]]]
        return np.asarray(found[which], bool)

    def keep(self, key: str, vector: Vectors) -> None:
        """Keep a vector [*shape]; it is written with the next ones."""
        if not self._is_kept:
            return
        if not self._new:
            self._oldest = time.monotonic()
        self._new[key] = np.array(vector, "<f4").reshape(self.shape)
        full = len(self._new) * self._width >= SHARD_BYTES
        if full or time.monotonic() - self._oldest > LONGEST_WAIT:
            self.flush()

    def flush(self) -> None:
        """Write what is new as one shard, less what another process wrote in the meantime."""
        new, self._new = self._new, {}
        if not new or (place := self._made()) is None:
            return
        for path in [place / name for name in _names(place) if name not in self._seen]:
            with self._guarded(path), contextlib.suppress(OSError), _opened(path, self._schema) as file:
                for key in _keys(file):
                    new.pop(bytes(key).ljust(_KEY_BYTES, b"\0").hex(), None)
                self._seen.add(path.name)
        if new:
            rows = np.stack(list(new.values()))
            self._seen.add(_write(place, _packed(list(new)), rows, self._schema).name)
            self._wrote = True

    def close(self) -> None:
        """Write what is new, and merge small shards where this made them many."""
        self.flush()
        if self._wrote and self._place is not None:
            self._merge(self._place)

    @property
    def _width(self) -> int:
        """Bytes of a vector."""
        return int(np.prod(self.shape)) * 4

    @property
    def _place(self) -> Path | None:
        return None if self._folder is None else self._folder / self._kind / self._name

    @cached_property
    def _is_kept(self) -> bool:
        return self._folder is not None and can_write(self._folder)

    @cached_property
    def _schema(self) -> Any:
        import pyarrow

        fields = [("key", _KEY_BYTES), ("vector", self._width)]
        return pyarrow.schema(
            [pyarrow.field(name, pyarrow.binary(width), nullable=False) for name, width in fields],
            metadata={"shape": json.dumps(list(self.shape)), "dtype": "<f4"},
        )

    def _made(self) -> Path | None:
        """The folder of the shards, made if need be; None where the set's own was erased meanwhile."""
        if self._folder is None or self._place is None or (self._was_there and not self._folder.is_dir()):
            return None
        for folder in (self._folder, self._place.parent, self._place):
            private_dir(folder)
        if not self._wrote:
            _erase_earlier_versions(self._place.parent)
            remove_leftovers(self._place, older_than=_LEFT_BEHIND)
        self._was_there = True
        return self._place

    def _shards(self) -> Iterator[Path]:
        """Every shard once; what takes the place of one that goes away meanwhile comes too."""
        seen: set[str] = set()
        while self._place is not None and (names := sorted(_names(self._place).keys() - seen)):
            yield from (self._place / name for name in names)
            seen.update(names)
        self._seen |= seen

    def _fill_from(
        self, path: Path, wanted: Keys, rows: NDArray[np.int64], found: NDArray[np.bool_], out: Vectors
    ) -> None:
        """Read what of `wanted` [U], sorted, a shard holds into `rows` [U] of `out`, and mark it as found."""
        with self._guarded(path), _opened(path, self._schema) as file:
            keys = _keys(file)
            at = np.minimum(np.searchsorted(wanted, keys), len(wanted) - 1)
            hits = (wanted[at] == keys) & ~found[at]
            if hits.any():
                out[rows[at[hits]]] = _rows(file, self.shape)[hits]
                found[at[hits]] = True

    @contextlib.contextmanager
    def _guarded(self, path: Path) -> Iterator[None]:
        """Set a damaged shard aside, where that can be done."""
        try:
            yield
        except _Damaged:
            with contextlib.suppress(OSError):
                path.rename(path.with_suffix(".damaged"))

    def _merge(self, place: Path) -> None:
        """Merge the small shards into larger ones, once they are many."""
        small = [name for name, size in _names(place).items() if size < SHARD_BYTES // 2]
        if len(small) <= MANY:
            return
        waiting: dict[Path, tuple[Keys, Vectors]] = {}
        for name in sorted(small):
            path = place / name
            with contextlib.suppress(OSError), self._guarded(path), _opened(path, self._schema) as file:
                waiting[path] = _keys(file), _rows(file, self.shape)
            if sum(rows.nbytes for _, rows in waiting.values()) >= SHARD_BYTES // 2:
                self._replace(place, waiting)
                waiting = {}
        self._replace(place, waiting)

    def _replace(self, place: Path, parts: dict[Path, tuple[Keys, Vectors]]) -> None:
        """Write one shard in the place of several."""
        if len(parts) < 2:
            return
        keys, first = np.unique(np.concatenate([keys for keys, _ in parts.values()]), return_index=True)
        rows = np.concatenate([rows for _, rows in parts.values()])[first]
        merged = _write(place, keys, rows, self._schema)
        if not all(path.exists() for path in parts):
            # Another process merged them too, or they were erased for good: this one is not needed.
            merged.unlink(missing_ok=True)
            return
        self._seen.add(merged.name)
        for path in parts:
            path.unlink(missing_ok=True)


def _packed(keys: Sequence[str]) -> Keys:
    """[N] keys of 32 bytes, of 64 hexadecimal digits each."""
    return np.frombuffer(bytes.fromhex("".join(keys)), f"S{_KEY_BYTES}")


def _names(place: Path) -> dict[str, int]:
    """The shards in a folder with their sizes in bytes; none of a folder that is not there."""
    found = {}
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(place) as entries:
        for entry in entries:
            if _SHARD.fullmatch(entry.name):
                with contextlib.suppress(OSError):
                    found[entry.name] = entry.stat().st_size
    return found


def _erase_earlier_versions(folder: Path) -> None:
    """Erase the files, one an image, that lay here before there were shards."""
    for path in folder.glob("*.safetensors"):
        path.unlink(missing_ok=True)


def _write(place: Path, keys: Keys, rows: Vectors, schema: Any) -> Path:
    """A new shard of `keys` [N] and `rows` [N, ...], exactly as they are."""
    import pyarrow
    from pyarrow import parquet

    columns = [
        pyarrow.FixedSizeBinaryArray.from_buffers(
            field.type, len(keys), [None, pyarrow.py_buffer(np.ascontiguousarray(values))]
        )
        for field, values in zip(schema, (keys, rows), strict=True)
    ]
    path = place / f"{secrets.token_hex(16)}.parquet"
    with atomic_path(path) as temporary, open(temporary, "wb") as handle:
        parquet.write_table(
            pyarrow.Table.from_arrays(columns, schema=schema),
            handle,
            row_group_size=len(keys),
            compression="none",
            use_dictionary=False,
            write_statistics=False,
            write_page_checksum=True,
        )
    return path


@contextlib.contextmanager
def _opened(path: Path, schema: Any) -> Iterator[Any]:
    """A shard that has this schema; _Damaged, whatever is read of it meanwhile, where it is not sound."""
    import pyarrow
    from pyarrow import parquet

    with open(path, "rb") as handle:
        try:
            with parquet.ParquetFile(handle, page_checksum_verification=True) as file:
                if not file.metadata.num_rows or not file.schema_arrow.equals(schema, check_metadata=True):
                    raise _Damaged
                yield file
        except pyarrow.ArrowException as error:
            raise _Damaged from error
        except OSError as error:  # Arrow's own have no number
            if error.errno is None:
                raise _Damaged from error
            raise


def _keys(file: Any) -> Keys:
    return _column(file, "key").view(f"S{_KEY_BYTES}")[:, 0]


def _rows(file: Any, shape: tuple[int, ...]) -> Vectors:
    rows = _column(file, "vector").view("<f4")
    return rows.reshape(len(rows), *shape)


def _column(file: Any, name: str) -> NDArray[np.uint8]:
    """[N, W]: the bytes of a column of a shard."""
    column = file.read(columns=[name], use_threads=False)[name].combine_chunks()
    width = column.type.byte_width
    data = np.frombuffer(column.buffers()[1], np.uint8)
    start = column.offset * width
    return data[start : start + len(column) * width].reshape(len(column), width)

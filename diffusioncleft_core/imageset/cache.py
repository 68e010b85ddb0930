"""What was computed from images, kept by their content: faces, features, verdicts, latents.

A cache is a private folder that lies with the set that owns the images, so that erasing the set erases it.
An entry is found by a key of the image's content and of all else it depends on (`entry_key`), so that none is
ever out of date. What is damaged or torn is computed again. A folder that can't be written is read, and what
is new stays in memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import encoded, explained, private_dir, write_jsonl
from ..outputs import can_write

if TYPE_CHECKING:
    import torch

Tensors = dict[str, "torch.Tensor"]


def entry_key(*parts: Any) -> str:
    """SHA-256 of the parts as JSON: the image's content first, then everything that changes the entry."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


class ContentCache:
    """Entries of one kind: values as rows of `KIND.jsonl`, tensors as `KIND/KEY.safetensors`.

    Memory holds where each value lies in its file, not the values: there may be a million.

    Args:
        folder: private, made when it is first written to; None keeps values in memory, and no tensors.
        kind: of the entries.
    """

    def __init__(self, folder: Path | None, kind: str) -> None:
        self.folder, self.kind = folder, kind
        self._in_memory: dict[str, dict[str, Any]] = {}
        self._lines: dict[str, int] = {}
        self._has_been_read = False

    @cached_property
    def _is_kept(self) -> bool:
        """Whether the folder takes new entries."""
        return self.folder is not None and can_write(self.folder)

    def value(self, key: str) -> dict[str, Any] | None:
        """The JSON object kept under `key`; None when there is none."""
        self._read_once()
        if key in self._in_memory:
            return self._in_memory[key]
        return self._read_line(key) if key in self._lines else None

    def keep_value(self, key: str, value: Mapping[str, Any]) -> None:
        """Keep a JSON object, on disk as well.

        Flushed but not synced, which would cost more than many an entry: what a power cut tears is computed
        again.
        """
        self._read_once()
        if self.folder is None or not self._is_kept:
            self._in_memory[key] = dict(value)
            return
        private_dir(self.folder)
        line = encoded(json.dumps({"key": key, **value}, ensure_ascii=False, allow_nan=False) + "\n")
        with explained(self._rows), open(self._rows, "ab") as handle:
            handle.write(line)
            handle.flush()
            self._lines[key] = handle.tell() - len(line)

    def tensors(self, key: str) -> Tensors | None:
        """The tensors kept under `key`; None when there are none or the file is damaged."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        if self.folder is None or not self._file(key).is_file():
            return None
        try:
            # A copy, because a mapped file may lie at an address that sums in another order.
            return {name: tensor.clone() for name, tensor in load_file(self._file(key)).items()}
        except (SafetensorError, OSError):
            return None

    def keep_tensors(self, key: str, tensors: Tensors, *, newest: int | None = None) -> None:
        """Keep tensors, on disk alone. newest: how many entries of the kind stay, all by default."""
        from safetensors.torch import save_file

        from ..files import atomic_path

        if self.folder is None or not self._is_kept:
            return
        private_dir(self.folder)
        place = private_dir(self.folder / self.kind)
        with atomic_path(self._file(key)) as temporary:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary)
        if newest is not None:
            files = sorted(place.glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns)
            for old in files[:-newest]:
                old.unlink(missing_ok=True)

    @property
    def _rows(self) -> Path:
        assert self.folder is not None
        return self.folder / f"{self.kind}.jsonl"

    def _file(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / self.kind / f"{key}.safetensors"

    def _read_line(self, key: str) -> dict[str, Any] | None:
        """The value whose line is known; None where another process has written the file anew since."""
        with contextlib.suppress(OSError), open(self._rows, "rb") as handle:
            handle.seek(self._lines[key])
            row = _row(handle.readline())
            if row is not None and row.pop("key") == key:
                return row
        return None

    def _read_once(self) -> None:
        if not self._has_been_read:
            self._has_been_read = True
            self._find_lines()

    def _find_lines(self) -> None:
        """Find each value's line; the file is written anew without what is damaged."""
        if self.folder is None or not self._rows.is_file():
            return
        damaged, line, place = False, b"\n", 0
        with open(self._rows, "rb") as handle:
            for line in handle:
                row = _row(line)
                if row is None:
                    damaged = True
                else:
                    self._lines[row["key"]] = place
                place += len(line)
        if (damaged or not line.endswith(b"\n")) and self._is_kept:
            found = ((key, self._read_line(key)) for key in self._lines)
            write_jsonl(self._rows, ({"key": key, **value} for key, value in found if value is not None))
            self._find_lines()


def _row(line: bytes) -> dict[str, Any] | None:
    """A line of values; None for a damaged one."""
    with contextlib.suppress(ValueError):
        row = json.loads(line)
        if isinstance(row, dict) and isinstance(row.get("key"), str):
            return row
    return None

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

    Args:
        folder: private, made when it is first written to; None keeps values in memory, and no tensors.
        kind: of the entries.
    """

    def __init__(self, folder: Path | None, kind: str) -> None:
        self.folder, self.kind = folder, kind
        self._values: dict[str, dict[str, Any]] = {}
        self._has_been_read = False

    @cached_property
    def _is_kept(self) -> bool:
        """Whether the folder takes new entries."""
        return self.folder is not None and can_write(self.folder)

    def value(self, key: str) -> dict[str, Any] | None:
        """The JSON object kept under `key`; None when there is none."""
        self._read_values()
        return self._values.get(key)

    def keep_value(self, key: str, value: Mapping[str, Any]) -> None:
        """Keep a JSON object, on disk as well.

        Flushed but not synced, which would cost more than many an entry: what a power cut tears is computed
        again.
        """
        self._read_values()
        self._values[key] = dict(value)
        if self.folder is None or not self._is_kept:
            return
        path = private_dir(self.folder) / f"{self.kind}.jsonl"
        line = encoded(json.dumps({"key": key, **value}, ensure_ascii=False, allow_nan=False) + "\n")
        with explained(path), open(path, "ab") as handle:
            handle.write(line)

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

    def _file(self, key: str) -> Path:
        assert self.folder is not None
        return self.folder / self.kind / f"{key}.safetensors"

    def _read_values(self) -> None:
        """Read the rows once; a damaged one is dropped, and the file is then written anew without it."""
        if self._has_been_read or self.folder is None:
            return
        self._has_been_read = True
        path = self.folder / f"{self.kind}.jsonl"
        if not path.is_file():
            return
        data = path.read_bytes()
        damaged = not data.endswith(b"\n")
        for line in data.splitlines():
            row: Any = None
            with contextlib.suppress(ValueError):
                row = json.loads(line)
            if isinstance(row, dict) and isinstance(row.get("key"), str):
                self._values[row.pop("key")] = row
            else:
                damaged = True
        if damaged and self._is_kept:
            write_jsonl(path, ({"key": key, **value} for key, value in self._values.items()))

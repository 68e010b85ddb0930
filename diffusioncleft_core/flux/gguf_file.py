"""A transformer in a GGUF file: read by gguf, widened by diffusers."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError
from .packed import Packed, gguf_functions, widen_gguf
from .tensors import Tensors, check_file, find_prefix

_WIDE = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@contextmanager
def open_gguf(path: Path, what: str, probes: Sequence[str], prefixes: Sequence[str]) -> Iterator[GgufTensors]:
    """Open a GGUF file and find a component in it; see `open_tensors`.

    Raises:
        UserError: gguf is not installed, the file is damaged, or a type is in it that can't be widened.
    """
    check_file(path, what, gguf=True)
    try:
        import gguf
    except ImportError:
        raise UserError(
            f"{what}: {path.name} is a GGUF file, for which the package gguf is not installed; "
            "run: pip install gguf"
        ) from None
    try:
        found = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    except (ValueError, OSError, IndexError, KeyError, OverflowError, MemoryError) as error:
        raise UserError(f"{what}: {path.name} is damaged or no GGUF file; download it again") from error
    known = {*_WIDE, *(kind.name for kind in gguf_functions())}
    for name, tensor in found.items():
        if tensor.tensor_type.name not in known:
            raise UserError(
                f"{what}: {path.name} stores {name} as {tensor.tensor_type.name}, which is not supported; "
                "use the Q8_0, Q5_0, Q4_0 or a K form of the same model"
            )
    yield GgufTensors(what, path, found, find_prefix(set(found), path, what, probes, prefixes))


class GgufTensors(Tensors):
    """One component's tensors in a GGUF file."""

    def __init__(self, what: str, path: Path, found: Mapping[str, Any], prefix: str) -> None:
        self.what, self.files, self.scaled = what, [path], False
        self._found = {
            name.removeprefix(prefix): tensor for name, tensor in found.items() if name.startswith(prefix)
        }

    def __contains__(self, key: str) -> bool:
        return key in self._found

    def names(self) -> list[str]:
        return list(self._found)

    def shape(self, key: str) -> tuple[int, ...]:
        # ggml writes the fastest axis first.
        return tuple(int(side) for side in reversed(self._found[key].shape))

    def stored_dtype(self, key: str) -> str:
        return str(self._found[key].tensor_type.name)

    def get(self, key: str, dtype: torch.dtype) -> torch.Tensor:
        kind, shape = self.stored_dtype(key), self.shape(key)
        data = self._bytes(key)
        if kind in _WIDE:
            return data.view(_WIDE[kind]).reshape(shape).to(dtype)
        return widen_gguf(data.reshape(math.prod(shape[:-1]), -1), kind, shape, dtype)

    def packed(self, key: str) -> Packed | None:
        shape, kind = self.shape(key), self.stored_dtype(key)
        if len(shape) != 2 or kind in _WIDE:
            return None
        return Packed(kind, (shape[0], shape[1]), (self._bytes(key).reshape(shape[0], -1),))

    def packed_bytes(self, key: str) -> int | None:
        shape, kind = self.shape(key), self.stored_dtype(key)
        return None if len(shape) != 2 or kind in _WIDE else int(self._found[key].n_bytes)

    def _bytes(self, key: str) -> torch.Tensor:
        """A tensor's bytes, uint8, mapped from the file."""
        import numpy as np

        data = np.ascontiguousarray(self._found[key].data).reshape(-1).view(np.uint8)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*not writable.*")
            return torch.from_numpy(data)

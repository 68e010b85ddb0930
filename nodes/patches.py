"""Which LoRA files changed a model, told by the tensors that lie on it, whatever loader put them there."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from . import places

_MOST = 1 << 24
"""Larger tensors are whole weights, of models that were merged: no LoRA of FLUX.1 has such."""


@dataclass(frozen=True)
class Found:
    """LoRAs on a model: name in ComfyUI's folder and strength. whole: nothing else changed its weights."""

    loras: tuple[tuple[str, float], ...]
    whole: bool


def on_model(model: Any) -> Found | None:
    """What a MODEL's patches come from; None where nothing changed its weights.

    A file is known by content: every tensor of the patches of one strength is one of the file's.
    """
    stacks: dict[float, dict[str, torch.Tensor]] = {}
    whole = not (getattr(model, "injections", None) or getattr(model, "hook_patches", None))
    for patches in getattr(model, "patches", {}).values():
        for strength, patch, kept, *_ in patches:
            parts = list(_tensors(getattr(patch, "weights", patch)))
            if not parts or kept != 1.0 or any(each.numel() > _MOST for each in parts):
                whole = False  # a merge, or what no LoRA file holds
                continue
            stacks.setdefault(float(strength), {}).update((_digest(each), each) for each in parts)
    if not stacks:
        return None if whole else Found((), False)
    found = []
    for strength, tensors in stacks.items():
        names, left = _files_of(tensors)
        whole = whole and not left
        found += [(name, strength) for name in names]
    return Found(tuple(found), whole)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _tensors(each)


def _digest(tensor: torch.Tensor) -> str:
    data = tensor.detach().to("cpu").contiguous()
    content = data.flatten().view(torch.uint8).numpy().tobytes() if data.numel() else b""
    return f"{data.dtype} {list(data.shape)} {sha256(content).hexdigest()}"


def _files_of(tensors: dict[str, torch.Tensor]) -> tuple[list[str], set[str]]:
    """The LoRA files that hold these tensors, and what is in none of them."""
    left, names = set(tensors), []
    shapes = {tuple(each.shape) for each in tensors.values()}
    for name in places.model_files("loras"):
        held = left & _held(places.model_file("loras", name), shapes)
        if held and _telling(tensors[each] for each in held):
            names.append(name)
            left -= held
        if not left:
            break
    return names, left


def _telling(tensors: Iterable[torch.Tensor]) -> bool:
    """Whether one of them is more than zeros, which every fresh LoRA holds."""
    return any(bool(torch.count_nonzero(each)) for each in tensors)


def _held(path: Path, shapes: set[tuple[int, ...]]) -> set[str]:
    """Digests of a file's tensors of these shapes; empty where it can't be read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            wanted = [key for key in file.keys() if tuple(file.get_slice(key).get_shape()) in shapes]  # noqa: SIM118
            return {_digest(file.get_tensor(key)) for key in wanted}
    except (OSError, SafetensorError):
        return set()

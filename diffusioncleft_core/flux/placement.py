"""The transformer to draw with: whole on its device, or streamed to it where it is too big."""

from __future__ import annotations

from typing import Any

import torch

from .model_size import model_size
from .offload import has_room, stream_layers
from .packed import PLAIN
from .source import FluxSource
from .transformer import load_transformer, open_transformer

RESERVE_BYTES = 3 << 30
"""GPU memory that pictures and activations need beside the transformer's weights."""


def load_placed(
    source: FluxSource, device: torch.device, dtype: torch.dtype, free_bytes: int | None = None
) -> tuple[Any, bool]:
    """The transformer to draw with, and whether it is on `device` whole.

    What fits is read to the device tensor by tensor, and never lies in main memory as a whole.

    Args:
        source, device, dtype: see `load_transformer`.
        free_bytes: see `has_room`.
    """
    with open_transformer(source) as tensors:
        weights = model_size(tensors).weight_bytes(PLAIN, dtype.itemsize)
    whole = has_room(weights, device, free_bytes, RESERVE_BYTES)
    transformer = load_transformer(source, device if whole else torch.device("cpu"), dtype)
    if not whole:
        stream_layers(transformer, device)
    return transformer, whole


def place(transformer: Any, device: torch.device, free_bytes: int | None = None) -> bool:
    """Bring a transformer that is on the CPU to `device`, or let it be streamed; return whether it is whole.

    FLUX.1 has 24 GB of weights in bfloat16, as much as the GPU of many a user holds.
    """
    weights = sum(parameter.nbytes for parameter in transformer.parameters())
    if has_room(weights, device, free_bytes, RESERVE_BYTES):
        transformer.to(device)
        return True
    stream_layers(transformer, device)
    return False

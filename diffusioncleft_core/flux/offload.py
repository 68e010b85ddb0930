"""Models that are too big for a device: streamed to it layer by layer by diffusers."""

from __future__ import annotations

from typing import Any

import torch


def has_room(weights: int, device: torch.device, free_bytes: int | None, reserve: int) -> bool:
    """Whether weights fit on a device beside a reserve.

    Args:
        weights, reserve: bytes.
        device: where they are to be.
        free_bytes: memory on the device; None asks CUDA, and trusts any other device.
    """
    if free_bytes is None and device.type == "cuda":
        free_bytes = torch.cuda.mem_get_info(device)[0]
    return free_bytes is None or weights + reserve <= free_bytes


def stream_layers(model: Any, device: torch.device) -> None:
    """Let diffusers bring each layer to `device` when it computes: slower, with the same results."""
    from diffusers.hooks import apply_group_offloading

    apply_group_offloading(
        model, onload_device=device, offload_device=torch.device("cpu"), offload_type="leaf_level"
    )


def stream_changed(transformer: Any) -> None:
    """After a LoRA came or went: let a streamed transformer stream the layers that it has now."""
    from diffusers.hooks.group_offloading import _maybe_remove_and_reapply_group_offloading

    _maybe_remove_and_reapply_group_offloading(transformer)

"""The transformer on its device, or streamed to it where it is too big."""

from __future__ import annotations

from typing import Any

import torch

RESERVE_BYTES = 3 << 30
"""GPU memory that pictures and activations need beside the transformer's weights."""


def place(transformer: Any, device: torch.device, free_bytes: int | None = None) -> bool:
    """Bring the transformer to `device`, or let diffusers stream it layer by layer where it is too big.

    FLUX.1 has 24 GB of weights in bfloat16, as much as the GPU of many a user holds.

    Args:
        transformer: on the CPU.
        device: where it is to work.
        free_bytes: memory on the device; None asks CUDA, and trusts any other device.

    Returns:
        Whether it is there whole.
    """
    if free_bytes is None and device.type == "cuda":
        free_bytes = torch.cuda.mem_get_info(device)[0]
    weights = sum(parameter.nbytes for parameter in transformer.parameters())
    if free_bytes is None or weights + RESERVE_BYTES <= free_bytes:
        transformer.to(device)
        return True
    transformer.enable_group_offload(
        onload_device=device, offload_device=torch.device("cpu"), offload_type="leaf_level"
    )
    return False


def stream_changed(transformer: Any) -> None:
    """After a LoRA came or went: let a streamed transformer stream the layers that it has now."""
    from diffusers.hooks.group_offloading import _maybe_remove_and_reapply_group_offloading

    _maybe_remove_and_reapply_group_offloading(transformer)

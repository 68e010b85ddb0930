"""Keeping a 12-billion-parameter base in the memory there is."""

import gc
import math
import os
import sys

import torch
from torch import nn

from ..diffusioncleft_core.flux.packed import PLAIN, FrozenLinear

OUT_OF_MEMORY_HINT = (
    "try, in this order: --memory with fewer GB than the card has, so that the trainer plans for less, a "
    "smaller --resolution, --train_batch_size 1, a smaller --sample_size; and close what else uses the GPU"
)


def release() -> None:
    """Give back memory that nothing refers to any more."""
    gc.collect()
    empty_cache()


def empty_cache() -> None:
    """Give back the GPU's memory that is free, for others to use."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error says that memory ran out, on the GPU or on the processor."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


def peaks(device: torch.device) -> dict[str, int]:
    """The most memory that this process used so far, bytes: `host_peak`, and on CUDA `gpu_peak`."""
    found = {"host_peak": _host_peak()}
    if device.type == "cuda":
        found["gpu_peak"] = torch.cuda.max_memory_reserved(device)
    return found


def describe(transformer: nn.Module, device: torch.device) -> str:
    """Say in one line how the memory is used: for the start of a run."""
    layers = [module for module in transformer.modules() if isinstance(module, FrozenLinear)]
    streamed = sum(layer.packed.nbytes for layer in layers if layer.streamed)
    resident = sum(parameter.nbytes for parameter in transformer.parameters())
    resident += sum(layer.packed.nbytes for layer in layers if not layer.streamed)
    forms = sorted({layer.packed.form for layer in layers} - {PLAIN})
    text = f"{_gib(resident)} of weights on {device.type}"
    if streamed:
        text += f", {_gib(streamed)} streamed from main memory"
    if forms:
        text += f", the blocks' in {' and '.join(forms)}"
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        text += f", {_gib(free)} of {_gib(total)} free"
    return text


def _host_peak() -> int:
    import psutil

    if os.name != "nt":
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return int(psutil.Process().memory_info().peak_wset)


def _gib(size: int) -> str:
    gib = size / 2**30
    return f"{gib:.1f} GiB" if gib >= 0.1 else f"{math.ceil(size / 2**20)} MiB"

"""Keeping a 12-billion-parameter base in the memory there is."""

import gc
import math
import os
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from ..diffusioncleft_core.errors import UserError

OUT_OF_MEMORY_HINT = (
    "try, in this order: --gradient_checkpointing, --blocks_to_swap 20 (up to 56), a smaller --resolution, "
    "--train_batch_size 1, a smaller --sample_size; and close what else uses the GPU"
)


def release() -> None:
    """Give back memory that nothing refers to any more."""
    gc.collect()
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


class StreamedLinear(nn.Module):
    """A frozen linear layer whose weight stays in main memory and visits the device when it is needed.

    It gives what `nn.Linear` gives, with a copy of the weight in the forward pass and another in the backward
    pass. The weight is no parameter, so that moving the model to the device leaves it where it is.
    """

    def __init__(self, linear: nn.Linear, pin: bool) -> None:
        super().__init__()
        weight = linear.weight.detach().to("cpu")
        self.host_weight = weight.pin_memory() if pin else weight
        self.bias = linear.bias
        self.in_features, self.out_features = linear.in_features, linear.out_features

    @property
    def weight(self) -> torch.Tensor:
        return self.host_weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        product: torch.Tensor = _StreamedProduct.apply(x, self.host_weight, self.bias)
        return product


class _StreamedProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        ctx.host_weight = weight
        return nn.functional.linear(x, weight.to(x.device, non_blocking=True), bias)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return gradient @ ctx.host_weight.to(gradient.device, non_blocking=True), None, None


def stream_blocks(transformer: nn.Module, count: int, device: torch.device) -> None:
    """Keep the linear weights of the last `count` transformer blocks in main memory. Call once all LoRAs are
    attached.

    From the last block backwards; LoRAs, embeddings, norms and biases move with the model. More blocks than
    there are, or than may be spared (one must stay), raise UserError.
    """
    blocks = [
        *getattr(transformer, "transformer_blocks", ()),
        *getattr(transformer, "single_transformer_blocks", ()),
    ]
    if count >= len(blocks):
        raise UserError(
            f"--blocks_to_swap is {count}; this model has {len(blocks)} blocks, so at most {len(blocks) - 1}"
        )
    for block in blocks[len(blocks) - count :]:
        for parent, name, linear in list(_linears(block)):
            setattr(parent, name, StreamedLinear(linear, pin=device.type == "cuda"))


def describe(transformer: nn.Module, device: torch.device) -> str:
    """Say in one line how the memory is used: for the start of a run."""
    streamed = sum(m.host_weight.nbytes for m in transformer.modules() if isinstance(m, StreamedLinear))
    resident = sum(parameter.nbytes for parameter in transformer.parameters())
    text = f"{_gib(resident)} of weights on {device.type}"
    if streamed:
        text += f", {_gib(streamed)} streamed from main memory"
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        text += f", {_gib(free)} of {_gib(total)} free"
    return text


def _linears(module: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    for parent in module.modules():
        for name, child in parent.named_children():
            if type(child) is nn.Linear and not isinstance(
                parent, nn.ModuleDict
            ):  # there peft keeps the LoRAs
                yield parent, name, child


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

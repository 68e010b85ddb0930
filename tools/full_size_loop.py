"""What the GPU gives without the trainer: its matrix product, and a bare training loop on the same model."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ..diffusioncleft_core.flux.lora import lora_parameters, target_modules
from ..diffusioncleft_core.flux.packed import FORMATS, PLAIN
from ..diffusioncleft_core.flux.sampling import deterministic, no_cudnn_attention, predict_velocity
from ..diffusioncleft_core.flux.transformer import pack_blocks
from .full_size_base import Sizes, random_transformer

LORA = "default"
RANK, ALPHA = 16, 32
GIB = 2**30


@dataclass(frozen=True)
class Loop:
    """One measurement of a training loop: side in px, and how memory is saved.

    form: of the base, see `load_transformer`. streamed: blocks in main memory. deterministic: with the
    kernels that the trainer asks for.
    """

    side: int
    form: str = PLAIN
    checkpointing: bool = False
    streamed: int = 0
    deterministic: bool = False

    @property
    def name(self) -> str:
        """As in `Loop.named`: `1024-nf4-checkpointing`, `512-plain-20streamed-deterministic`."""
        parts = [str(self.side), self.form]
        parts += [f"{self.streamed}streamed"] if self.streamed else []
        parts += ["checkpointing"] if self.checkpointing else []
        parts += ["deterministic"] if self.deterministic else []
        return "-".join(parts)

    @classmethod
    def named(cls, name: str) -> Loop:
        """The measurement of that name; ValueError for what is none."""
        side, form, *rest = name.split("-")
        streamed = next((part for part in rest if part.endswith("streamed")), "0streamed")
        loop = cls(
            int(side),
            form,
            "checkpointing" in rest,
            int(streamed.removesuffix("streamed")),
            "deterministic" in rest,
        )
        if loop.name != name or form not in (PLAIN, *FORMATS):
            raise ValueError(f"{name!r} is no measurement; one is {Loop(1024, 'nf4', True).name}")
        return loop


def gemm_rate(device: torch.device, dtype: torch.dtype, side: int, repeats: int = 10) -> dict[str, Any]:
    """The rate of a square matrix product of random numbers, operations a second: the ceiling of training."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)

    def ten() -> None:
        for _ in range(10):
            torch.mm(a, b, out=out)

    seconds = median_seconds(ten, device, repeats, warm_up=2) / 10
    return {"side": side, "dtype": str(dtype).removeprefix("torch."), "tflops": 2 * side**3 / seconds / 1e12}


def attach_peft(transformer: Any, rank: int, alpha: float, device: torch.device) -> list[torch.nn.Parameter]:
    """peft's LoRA, as a script without this project would put it: on every linear layer, in float32 on the
    device, also around blocks that are streamed there.
    """
    from peft import LoraConfig

    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=target_modules(transformer), bias="none")
    transformer.add_adapter(config, adapter_name=LORA)
    parameters = lora_parameters(transformer, LORA)
    for parameter in parameters:
        parameter.data = parameter.data.to(device, torch.float32)
    return parameters


def build(sizes: Sizes, loop: Loop, device: torch.device, dtype: torch.dtype) -> tuple[Any, list[Any]]:
    """A random transformer in the loop's form with a LoRA of the paper's rank, and the LoRA's parameters."""
    transformer = random_transformer(sizes, device, dtype)
    pack_blocks(transformer, loop.form, dtype, loop.streamed)
    return transformer, attach_peft(transformer, RANK, ALPHA, device)


def bare_step(
    transformer: Any,
    parameters: list[torch.nn.Parameter],
    side: int,
    text_tokens: int,
    device: torch.device,
    dtype: torch.dtype,
    *,
    learning_rate: float = 1e-4,
    batch: int = 1,
) -> Callable[[], torch.Tensor]:
    """A step of flow matching on random latents: forward, backward, AdamW and nothing else; it gives the
    loss.
    """
    config = transformer.config
    latents = torch.randn(batch, 16, side // 8, side // 8, device=device)
    text = torch.randn(batch, text_tokens, config.joint_attention_dim, device=device)
    pooled = torch.randn(batch, config.pooled_projection_dim, device=device)
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, fused=True)

    def step() -> torch.Tensor:
        noise = torch.randn_like(latents)
        sigma = torch.rand(batch, device=device)
        level = sigma[:, None, None, None]
        noisy = (1 - level) * latents + level * noise
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            velocity = predict_velocity(transformer, noisy, sigma, text, pooled)
        loss = (velocity - (noise - latents)).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return step


def time_loop(
    transformer: Any,
    parameters: list[torch.nn.Parameter],
    loop: Loop,
    text_tokens: int,
    device: torch.device,
    dtype: torch.dtype,
    *,
    learning_rate: float = 1e-4,
    steps: int = 6,
    warm_up: int = 2,
) -> dict[str, Any]:
    """Seconds and peak memory of a bare step on one picture."""
    release(device)
    transformer.train()
    if loop.checkpointing:
        transformer.enable_gradient_checkpointing()
    else:
        transformer.disable_gradient_checkpointing()
    step = bare_step(
        transformer, parameters, loop.side, text_tokens, device, dtype, learning_rate=learning_rate
    )
    loss = torch.zeros(())

    def counted() -> None:
        nonlocal loss
        loss = step()

    try:
        with no_cudnn_attention(), deterministic(loop.deterministic):
            seconds = median_seconds(counted, device, steps, warm_up)
    finally:
        for parameter in parameters:
            parameter.grad = None
    last = loss.item()
    if not math.isfinite(last):
        raise ValueError(f"the loss is {last}")
    return {"seconds_a_step": seconds, "steps": steps, "loss": last, **peaks(device)}


def median_seconds(work: Callable[[], Any], device: torch.device, repeats: int, warm_up: int) -> float:
    """The median duration of a call, waiting for the device after each."""
    found = []
    for _ in range(warm_up + repeats):
        synchronize(device)
        start = time.perf_counter()
        work()
        synchronize(device)
        found.append(time.perf_counter() - start)
    return statistics.median(found[warm_up:])


def peaks(device: torch.device) -> dict[str, float]:
    """The most memory so far, GiB: of the process, and on CUDA of its allocations and reservations."""
    import resource

    found = {"host_peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB}
    if device.type == "cuda":
        found["gpu_allocated_peak_gib"] = torch.cuda.max_memory_allocated(device) / GIB
        found["gpu_peak_gib"] = torch.cuda.max_memory_reserved(device) / GIB
    return found


def release(device: torch.device) -> None:
    """Give back what nothing refers to, and count peaks anew."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

"""What the GPU gives without the trainer: its matrix product, and a bare training loop on the same model."""

import gc
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ..diffusioncleft_core.flux.lora import lora_parameters, target_modules
from ..diffusioncleft_core.flux.sampling import no_cudnn_attention, predict_velocity

LORA = "default"
GIB = 2**30


@dataclass(frozen=True)
class Loop:
    """One measurement of a training loop: side in px, and how memory is saved."""

    side: int
    checkpointing: bool = False
    steps: int = 10
    warm_up: int = 2

    @property
    def image_tokens(self) -> int:
        return (self.side // 16) ** 2


def gemm_rate(device: torch.device, dtype: torch.dtype, side: int, repeats: int = 10) -> dict[str, Any]:
    """The rate of a square matrix product of random numbers, operations a second: the ceiling of training."""
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)

    def ten() -> None:
        for _ in range(10):
            torch.mm(a, b, out=out)

    seconds = median_seconds(ten, device, repeats, warm_up=2) / 10
    return {"side": side, "dtype": str(dtype).removeprefix("torch."), "tflops": 2 * side**3 / seconds / 1e12}


def attach_peft(transformer: Any, rank: int, alpha: float) -> list[torch.nn.Parameter]:
    """peft's LoRA, as a script without this project would put it: on every linear layer, float32."""
    from peft import LoraConfig

    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=target_modules(transformer), bias="none")
    transformer.add_adapter(config, adapter_name=LORA)
    parameters = lora_parameters(transformer, LORA)
    for parameter in parameters:
        parameter.data = parameter.data.float()
    return parameters


def time_loop(
    transformer: Any,
    parameters: list[torch.nn.Parameter],
    loop: Loop,
    text_tokens: int,
    device: torch.device,
    dtype: torch.dtype,
) -> dict[str, Any]:
    """Seconds a step and peak memory of flow matching on one random latent: forward, backward, AdamW."""
    release(device)
    transformer.train()
    if loop.checkpointing:
        transformer.enable_gradient_checkpointing()
    else:
        transformer.disable_gradient_checkpointing()
    config = transformer.config
    latents = torch.randn(1, 16, loop.side // 8, loop.side // 8, device=device)
    text = torch.randn(1, text_tokens, config.joint_attention_dim, device=device)
    pooled = torch.randn(1, config.pooled_projection_dim, device=device)
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)
    loss = torch.zeros(())

    def step() -> None:
        nonlocal loss
        noise = torch.randn_like(latents)
        sigma = torch.rand(1, device=device)
        level = sigma[:, None, None, None]
        noisy = (1 - level) * latents + level * noise
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            velocity = predict_velocity(transformer, noisy, sigma, text, pooled)
        loss = (velocity - (noise - latents)).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    try:
        with no_cudnn_attention():
            seconds = median_seconds(step, device, loop.steps, loop.warm_up)
    finally:
        optimizer.zero_grad(set_to_none=True)
    last = loss.detach().item()
    if not math.isfinite(last):
        raise ValueError(f"the loss is {last}")
    return {"seconds_a_step": seconds, "steps": loop.steps, "loss": last, **peaks(device)}


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


def time_compiled(transformer: Any, timed: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A loop over the transformer before and after its repeated blocks are compiled, and the ratio."""
    plain = timed()
    started = time.perf_counter()
    transformer.compile_repeated_blocks()
    compiled = timed()
    return {
        "seconds_a_step": compiled["seconds_a_step"],
        "plain_seconds_a_step": plain["seconds_a_step"],
        "ratio": compiled["seconds_a_step"] / plain["seconds_a_step"],
        "seconds_with_compilation": time.perf_counter() - started,
        "gpu_peak_gib": compiled.get("gpu_peak_gib"),
    }

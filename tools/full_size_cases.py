"""Measurements of a training loop at full size, one after the other in one process.

    python -m diffusioncleft.tools.full_size_cases --cases gemm,1024-nf4-checkpointing,lora --work DIR

One JSON object a case goes to standard output as soon as it is there. A case that fails says why, and the
others go on; after an error of the GPU itself, which nothing in this process would survive, it ends, and who
started it begins anew with the cases that are left. `lora` trains a few steps, saves the LoRA and what it
draws; `reload`, in another process than it, draws the same base anew from its seed and compares.
"""

import argparse
import json
import os
import sys
import time
import traceback
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..diffusioncleft_core.environment import default_dtype, pick_device
from ..diffusioncleft_core.flux.lora import load_lora, lora_state
from ..diffusioncleft_core.flux.lora_file import save_kohya
from ..diffusioncleft_core.flux.sampling import deterministic, initial_noise, no_cudnn_attention, sample
from .flops import step_flops
from .full_size_base import Sizes, full_sizes, random_transformer, tiny_sizes
from .full_size_loop import (
    ALPHA,
    LORA,
    RANK,
    Loop,
    build,
    gemm_rate,
    release,
    synchronize,
    time_loop,
)

GEMM, SAVED, RELOADED = "gemm", "lora", "reload"
RATE = 1e-2
"""Of the LoRA that is saved: so few steps are to change the picture visibly."""
_FATAL = ("CUDA error", "cuBLAS error", "CUDNN_STATUS", "device-side assert")


class Cases:
    """What the cases of one process share: the transformer of the last form, and the GPU's rate."""

    def __init__(self, work: Path, *, tiny: bool) -> None:
        self.sizes: Sizes = tiny_sizes() if tiny else full_sizes()
        self.device, self.work, self.tiny = pick_device(), work, tiny
        self.dtype = default_dtype(self.device)
        self._built: tuple[Any, ...] | None = None
        self._transformer: Any = None
        self._parameters: list[Any] = []

    def measure(self, name: str, tflops: float | None) -> dict[str, Any]:
        """The figures of one case; `tflops` is the rate of a matrix product, if it is known."""
        if name == GEMM:
            return gemm_rate(self.device, self.dtype, 256 if self.tiny else 8192)
        if name == SAVED:
            return self._save()
        if name == RELOADED:
            return self._reload()
        loop = Loop.named(name)
        started = time.perf_counter()
        self._build(loop)
        seconds = time.perf_counter() - started
        found = time_loop(
            self._transformer, self._parameters, loop, self.sizes.text_tokens, self.device, self.dtype
        )
        return found | {"seconds_to_build": seconds} | shares(self.sizes, loop, found, tflops)

    def _build(self, loop: Loop) -> None:
        """The transformer in the loop's form: the last one, if it has it."""
        wanted = (loop.form, loop.streamed)
        if self._built != wanted:
            self.forget()
            self._transformer, self._parameters = build(self.sizes, loop, self.device, self.dtype)
            self._built = wanted
            synchronize(self.device)

    def forget(self) -> None:
        self._built, self._transformer, self._parameters = None, None, []
        release(self.device)

    def _save(self) -> dict[str, Any]:
        loop = Loop(64 if self.tiny else 512)
        self._build(loop)
        found = time_loop(
            self._transformer,
            self._parameters,
            loop,
            self.sizes.text_tokens,
            self.device,
            self.dtype,
            learning_rate=RATE,
        )
        path = self.work / "lora.safetensors"
        save_kohya(path, lora_state(self._transformer, LORA), ALPHA, {})
        torch.save(self._draw(self._transformer), self.work / "drawn.pt")
        self.forget()
        return {"steps": found["steps"], "loss": found["loss"], "lora_bytes": path.stat().st_size}

    def _reload(self) -> dict[str, Any]:
        self.forget()
        transformer = random_transformer(self.sizes, self.device, self.dtype)
        drawn = torch.load(self.work / "drawn.pt", weights_only=True)
        without = self._draw(transformer)
        load_lora(transformer, self.work / "lora.safetensors", name=LORA, trainable=True)
        found = self._draw(transformer)
        return {
            "identical": bool(torch.equal(found, drawn)),
            "largest_difference": float((found - drawn).abs().max()),
            "largest_difference_without_lora": float((without - drawn).abs().max()),
        }

    def _draw(self, transformer: Any) -> torch.Tensor:
        """The latents of four steps on fixed noise and text, float32 on the CPU."""
        random, config = torch.Generator().manual_seed(5), transformer.config
        side = 64 if self.tiny else 512
        text = torch.randn(1, self.sizes.text_tokens, config.joint_attention_dim, generator=random)
        pooled = torch.randn(1, config.pooled_projection_dim, generator=random)
        noise = initial_noise(7, side, side)[None].to(self.device)
        transformer.eval()
        mixed = torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)
        with torch.no_grad(), no_cudnn_attention(), deterministic(True), mixed:
            latents = sample(transformer, noise, text.to(self.device), pooled.to(self.device))
        return latents.float().cpu()


def shares(sizes: Sizes, loop: Loop, found: dict[str, Any], tflops: float | None) -> dict[str, Any]:
    """Arithmetic of a step, and its rate as a share of a matrix product's."""
    tokens = (loop.side // 16) ** 2
    flops = partial(step_flops, sizes.transformer, tokens, sizes.text_tokens, RANK)
    needed, done = flops() / 1e12, flops(recomputed=loop.checkpointing) / 1e12
    figures: dict[str, Any] = {"tflop_a_step": needed, "tflop_a_step_recomputed": done}
    if tflops:
        seconds = found["seconds_a_step"]
        figures["share_of_gemm"] = needed / seconds / tflops
        figures["share_of_gemm_recomputed"] = done / seconds / tflops
    return figures


def run(cases: Sequence[str], work: Path, tflops: float | None, *, tiny: bool) -> None:
    """Measure all, print each."""
    shared = Cases(work, tiny=tiny)
    for name in cases:
        started, fatal = time.monotonic(), False
        try:
            found = shared.measure(name, tflops)
            tflops = found.get("tflops", tflops)
        except Exception as error:
            traceback.print_exc()
            found = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
            fatal = any(sign in str(error) for sign in _FATAL)
            error.__traceback__ = None
        if "error" in found and not fatal:
            shared.forget()
        print(json.dumps({"case": name, "stage_seconds": time.monotonic() - started, **found}), flush=True)
        if fatal:
            sys.exit(1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", required=True, help="names, separated by commas")
    parser.add_argument("--work", type=Path, required=True, help="folder of the LoRA that is saved")
    parser.add_argument("--tflops", type=float, help="rate of a matrix product, if it was measured already")
    parser.add_argument("--tiny", action="store_true", help="a tiny model")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before the GPU is first used
    run(args.cases.split(","), args.work, args.tflops, tiny=args.tiny)


if __name__ == "__main__":
    main()

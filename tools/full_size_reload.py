"""Whether a fresh process draws with a saved LoRA what the trainer drew with the one in its memory.

    python -m diffusioncleft.tools.full_size_reload \\
        --base BASE --lora LORA --preview PNG --prompt TEXT --seed 7

Prints one JSON object: the difference in levels of 255 between the trainer's preview and three pictures of
the same seed. `as_trained`: LoRA in float32 and the trainer's mixed precision; `as_generated`: the LoRA in
the base's number format, as `diffusioncleft generate` draws; `without_lora`: how far the base is away.
"""

import argparse
import gc
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from ..diffusioncleft_core.environment import default_dtype, pick_device
from ..diffusioncleft_core.flux.components import load_text_encoders
from ..diffusioncleft_core.flux.lora import load_lora, remove_lora
from ..diffusioncleft_core.flux.sampling import (
    decode_latents,
    encode_prompts,
    initial_noise,
    no_cudnn_attention,
    sample,
)
from ..diffusioncleft_core.flux.source import FluxSource
from ..diffusioncleft_core.generation.sampler import ImageSampler
from ..diffusioncleft_core.generation.settings import ImageSize
from .full_size_loop import peaks

Pixels = npt.NDArray[np.uint8]


def compare(base: Path, lora: Path, preview: Path, prompt: str, seed: int) -> dict[str, Any]:
    """Draw the three pictures and compare each with the preview, of whose size they are."""
    started = time.perf_counter()
    with Image.open(preview) as image:
        expected = np.asarray(image.convert("RGB"))
    height, width = expected.shape[:2]
    device = pick_device()
    dtype = default_dtype(device)
    if device.type == "cuda":  # the kernels that the trainer chooses
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    source = FluxSource.from_arguments(base)
    encoders = load_text_encoders(source, device, dtype)
    (embedding,) = encode_prompts(encoders, [prompt], device)
    del encoders
    gc.collect()
    sampler = ImageSampler(source, device, dtype)
    found: dict[str, Any] = {"seconds_to_load": time.perf_counter() - started}

    load_lora(sampler.transformer, lora, name="as_trained", trainable=True)
    mixed = torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)
    with no_cudnn_attention(), torch.no_grad(), mixed:
        noise = initial_noise(seed, height, width)[None].to(device)
        text, pooled = embedding.prompt_embeds[None], embedding.pooled[None]
        pixels = decode_latents(sampler.vae, sample(sampler.transformer, noise, text, pooled))[0]
    levels = ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0)
    found["as_trained"] = difference(levels.cpu().numpy(), expected)
    remove_lora(sampler.transformer, "as_trained")

    size = ImageSize(width, height)
    for name, used in (("as_generated", lora), ("without_lora", None)):
        sampler.use_lora(used)
        start = time.perf_counter()
        picture = sampler.draw([embedding], [seed], size)[0]
        found[name] = difference(picture, expected) | {"seconds_to_draw": time.perf_counter() - start}
    return found | peaks(device)


def difference(picture: Pixels, expected: Pixels) -> dict[str, Any]:
    """Largest and mean difference in levels, and the share of pixels' values that are equal."""
    apart = np.abs(picture.astype(int) - expected.astype(int))
    return {
        "identical": not apart.any(),
        "largest_difference": int(apart.max()),
        "mean_difference": float(apart.mean()),
        "equal_share": float((apart == 0).mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("base", "lora", "preview"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--seed", type=int, required=True)
    args = parser.parse_args()
    print(json.dumps(compare(args.base, args.lora, args.preview, args.prompt, args.seed)), flush=True)


if __name__ == "__main__":
    main()

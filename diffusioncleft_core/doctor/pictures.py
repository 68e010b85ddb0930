"""The pictures that the doctor draws and compares."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..files import atomic_path
from .settings import MAX_RESOLUTION


def phantom_pictures(n: int, size: int, seed: int) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    """`n` rendered faces with a cleft, [size, size, 3] uint8: no photograph is asked for."""
    from ..phantom import random_face, render

    rng = np.random.default_rng(seed)
    drawn = [render(random_face(rng, condition="pre_op"), min(size, MAX_RESOLUTION)).image for _ in range(n)]
    return [np.asarray(image, dtype=np.uint8) for image in drawn]


def write_training_folder(folder: Path, n: int, size: int, caption: str, seed: int = 0) -> None:
    """A plain training folder: `n` pictures and their captions."""
    folder.mkdir(parents=True)
    for index, pixels in enumerate(phantom_pictures(n, size, seed)):
        with atomic_path(folder / f"{index}.png") as temporary:
            Image.fromarray(pixels).save(temporary, format="PNG")
        (folder / f"{index}.txt").write_text(caption + "\n", encoding="utf-8")


def to_model(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> torch.Tensor:
    """[H, W, 3] uint8 to [1, 3, H, W] float32 in [-1, 1]."""
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1.0


def read_picture(path: Path) -> torch.Tensor:
    """A PNG as [3, H, W] float32 in [0, 1]."""
    from ..dataset.ingest import read_image

    return torch.from_numpy(read_image(path)).permute(2, 0, 1).float() / 255.0


def psnr(one: torch.Tensor, other: torch.Tensor) -> float:
    """Peak signal-to-noise ratio of two pictures in [0, 1], dB; at most 99, for equal ones."""
    error = float(torch.mean((one.double() - other.double()) ** 2))
    return 99.0 if error <= 10**-9.9 else min(99.0, -10.0 * math.log10(error))


def png_bytes(picture: torch.Tensor) -> int:
    """Size of a picture [3, H, W] in [0, 1] as PNG."""
    pixels = (picture.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.tell()


@torch.no_grad()
def draw(
    transformer: Any,
    vae: Any,
    prompt_embeds: torch.Tensor,
    pooled: torch.Tensor,
    *,
    seed: int,
    size: int,
    device: torch.device,
    dtype: torch.dtype,
) -> torch.Tensor:
    """One picture by this package's sampler, [3, size, size] float32 in [0, 1] on the CPU.

    prompt_embeds: [T, D]; pooled: [P].
    """
    from ..flux.encoding import decode_latents
    from ..flux.sampling import initial_noise, sample

    noise = initial_noise(seed, size, size)[None].to(device, dtype)
    latents = sample(
        transformer, noise, prompt_embeds[None].to(device, dtype), pooled[None].to(device, dtype)
    )
    return (decode_latents(vae, latents)[0].cpu() + 1.0) / 2.0

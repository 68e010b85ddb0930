"""Each component, loaded by itself, used once and let go, so that only one is in memory at a time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

from ..flux.components import load_text_encoders, load_transformer, load_vae
from ..flux.encoding import decode_latents, encode_images, encode_prompts
from ..flux.placement import place
from ..generation.sampler import release_memory
from ..prompts import plain_text
from .pictures import draw, phantom_pictures, png_bytes, psnr, to_model
from .settings import PICTURE_SEED, PROMPT
from .steps import Failed, Figures

if TYPE_CHECKING:
    from .checkup import Checkup

CPU = torch.device("cpu")
LEAST_PSNR = 15.0
"""dB. Below this an autoencoder does not give the picture back: a VAE of another model stays under it."""


def text_encoders(checkup: Checkup) -> Figures:
    """Load CLIP and T5, encode the test prompt; the embeddings serve the later steps."""
    settings, found = checkup.settings, checkup.found
    begun = time.monotonic()
    text = load_text_encoders(settings.source, settings.device, settings.dtype)
    loaded = time.monotonic() - begun
    encode_prompts(text, ["warm up"], CPU)
    begun = time.monotonic()
    embedding = encode_prompts(text, [plain_text(PROMPT)], CPU)[0]
    found.prompt_seconds = time.monotonic() - begun
    found.prompt_embeds, found.pooled = embedding.prompt_embeds, embedding.pooled
    found.t5_length = text.t5_length
    del text
    release_memory(settings.device)
    _finite("the text encoders", embedding.prompt_embeds, embedding.pooled)
    return {
        "load_seconds": round(loaded, 1),
        "prompt_seconds": round(found.prompt_seconds, 4),
        "t5_tokens": found.t5_length,
    }


@torch.no_grad()
def autoencoder(checkup: Checkup) -> Figures:
    """Load the VAE, send a rendered face to latents and back."""
    settings, found = checkup.settings, checkup.found
    begun = time.monotonic()
    vae = load_vae(settings.source, settings.device, settings.dtype)
    loaded = time.monotonic() - begun
    picture = to_model(phantom_pictures(1, settings.resolution, seed=1)[0])
    encode_images(vae, picture)
    begun = time.monotonic()
    latents = encode_images(vae, picture).cpu()
    found.encode_seconds = time.monotonic() - begun
    back = decode_latents(vae, latents.to(settings.device)).cpu()
    del vae
    release_memory(settings.device)
    _finite("the autoencoder", back)
    likeness = psnr(back / 2 + 0.5, picture / 2 + 0.5)
    figures: Figures = {
        "load_seconds": round(loaded, 1),
        "encode_seconds": round(found.encode_seconds, 3),
        "there_and_back_db": round(likeness, 1),
    }
    if likeness < LEAST_PSNR:
        raise Failed(
            f"a picture comes back from the autoencoder at {likeness:.1f} dB, hardly to be recognised",
            "the file is damaged or another model's: get FLUX.1's autoencoder again",
            figures,
        )
    return figures


@torch.no_grad()
def transformer(checkup: Checkup) -> Figures:
    """Load the transformer, draw the test prompt twice: the second time is the time of an image."""
    settings, found = checkup.settings, checkup.found
    assert found.prompt_embeds is not None and found.pooled is not None
    begun = time.monotonic()
    model = load_transformer(settings.source, CPU, settings.dtype)
    whole = place(model, settings.device)
    loaded = time.monotonic() - begun
    vae = load_vae(settings.source, settings.device, settings.dtype)
    for _ in range(2):
        begun = time.monotonic()
        picture = draw(
            model,
            vae,
            found.prompt_embeds,
            found.pooled,
            seed=PICTURE_SEED,
            size=settings.resolution,
            device=settings.device,
            dtype=settings.dtype,
        )
        found.image_seconds = time.monotonic() - begun
    del model, vae
    release_memory(settings.device)
    _finite("the transformer", picture)
    found.picture, found.image_bytes = picture, png_bytes(picture)
    figures: Figures = {
        "load_seconds": round(loaded, 1),
        "image_seconds": round(found.image_seconds or 0.0, 2),
        "size": settings.resolution,
        "whole_on_device": whole,
        "contrast": round(float(picture.std()), 3),
    }
    if float(picture.std()) < 0.01:
        raise Failed("the picture is of one colour", "get the base model's files again", figures)
    return figures


def _finite(what: str, *tensors: torch.Tensor) -> None:
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
        raise Failed(f"{what} gave not-a-number values", "try --dtype bf16 or fp32, or get the files again")

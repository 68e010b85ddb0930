"""The base model loaded, sampled, and its LoRA reloaded by diffusers to the same picture."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ...diffusioncleft_core.conditions.prompts import plain_text
from ...diffusioncleft_core.flux.components import load_text_encoders, load_vae, shipped_config
from ...diffusioncleft_core.flux.lora import load_lora
from ...diffusioncleft_core.flux.lora_file import convert_lora
from ...diffusioncleft_core.flux.offload import stream_changed
from ...diffusioncleft_core.flux.placement import load_placed, place
from ...diffusioncleft_core.flux.sampling import (
    decode_latents,
    encode_images,
    encode_prompts,
    initial_noise,
    pack_latents,
    sample,
)
from ...diffusioncleft_core.flux.transformer import load_transformer
from ...diffusioncleft_core.generation.sampler import release_memory
from .checkup import PICTURE_SEED, DoctorSettings
from .steps import Failed, Figures
from .training import phantom_pictures, png_bytes, psnr, read_picture, to_model

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
    embedding = encode_prompts(text, [plain_text(settings.prompt)], CPU)[0]
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
    begun = time.monotonic()
    model, whole = load_placed(settings.source, settings.device, settings.dtype)
    loaded = time.monotonic() - begun
    vae = load_vae(settings.source, settings.device, settings.dtype)
    for _ in range(2):
        begun = time.monotonic()
        picture = _draw(checkup, model, vae)
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


REAL_WIDTH = 3072
"""The width for which diffusers converts kohya's keys; smaller models get diffusers' keys from us."""
GOAL_FP32 = 40.0
GOAL_HALF = 25.0
"""dB in 16-bit formats, where two exact programs differ by their order of rounding."""
MARGIN = 3.0
"""dB by which the two pictures must be nearer to each other than to the one without the LoRA."""


def same_picture(checkup: Checkup) -> Figures:
    """Draw the test prompt with the LoRA here and in diffusers, and compare."""
    settings, found = checkup.settings, checkup.found
    assert found.lora is not None and found.picture is not None
    begun = time.monotonic()
    ours = _ours(checkup, found.lora)
    release_memory(settings.device)
    half = time.monotonic()
    theirs = _diffusers(checkup, found.lora)
    release_memory(settings.device)
    likeness, effect = psnr(ours, theirs), psnr(ours, found.picture)
    goal = GOAL_FP32 if settings.dtype == torch.float32 else GOAL_HALF
    figures: Figures = {
        "psnr_db": round(likeness, 1),
        "goal_db": goal,
        "without_lora_db": round(effect, 1),
        "our_seconds": round(half - begun, 1),
        "diffusers_seconds": round(time.monotonic() - half, 1),
        "diffusers_loaded": "by itself" if _opens_folder(settings) else "what this package read",
    }
    if found.preview is not None and found.preview.is_file():
        figures["preview_db"] = round(psnr(ours, read_picture(found.preview)), 1)
    if likeness < goal:
        raise Failed(
            f"diffusers draws another picture from the same LoRA and seed: {likeness:.1f} dB, where {goal:g} "
            "is the goal",
            "compare the versions above with those in the documentation, and report it",
            figures,
        )
    if likeness - effect < MARGIN:
        raise Failed(
            "the LoRA hardly changes the picture, so this proves nothing: without it the picture is as near "
            f"({effect:.1f} dB)",
            "report it with this result",
            figures,
        )
    return figures


@torch.no_grad()
def _ours(checkup: Checkup, lora: Path) -> torch.Tensor:
    settings = checkup.settings
    transformer, whole = load_placed(settings.source, settings.device, settings.dtype)
    load_lora(transformer, lora)
    transformer.eval()
    if not whole:
        stream_changed(transformer)
    return _draw(checkup, transformer, load_vae(settings.source, settings.device, settings.dtype))


@torch.no_grad()
def _draw(checkup: Checkup, transformer: Any, vae: Any) -> torch.Tensor:
    """The test prompt by this package's sampler, [3, size, size] float32 in [0, 1] on the CPU."""
    settings, found = checkup.settings, checkup.found
    assert found.prompt_embeds is not None and found.pooled is not None
    noise, prompt_embeds, pooled = (
        value[None].to(settings.device, settings.dtype)
        for value in (
            initial_noise(PICTURE_SEED, settings.resolution, settings.resolution),
            found.prompt_embeds,
            found.pooled,
        )
    )
    latents = sample(transformer, noise, prompt_embeds, pooled)
    return (decode_latents(vae, latents)[0].cpu() + 1.0) / 2.0


@torch.no_grad()
def _diffusers(checkup: Checkup, lora: Path) -> torch.Tensor:
    settings, found = checkup.settings, checkup.found
    prompt_embeds, pooled = _encode(settings, found.t5_length)
    release_memory(settings.device)
    pipe = _pipeline(settings, text=False)
    if found.hidden != REAL_WIDTH:
        converted = settings.workspace / "diffusers.safetensors"
        convert_lora(lora, converted, "diffusers")
        lora = converted
    pipe.load_lora_weights(str(lora.parent), weight_name=lora.name, local_files_only=True)
    place(pipe.transformer, settings.device)
    pipe.vae.to(settings.device)
    noise = initial_noise(PICTURE_SEED, settings.resolution, settings.resolution)[None]
    result = pipe(
        prompt_embeds=prompt_embeds,
        pooled_prompt_embeds=pooled,
        height=settings.resolution,
        width=settings.resolution,
        num_inference_steps=4,
        guidance_scale=1.0,
        latents=pack_latents(noise).to(settings.device, settings.dtype),
        output_type="pt",
    )
    picture: torch.Tensor = result.images[0]
    return picture.float().cpu()


def _encode(settings: DoctorSettings, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    pipe = _pipeline(settings, text=True)
    for part in (pipe.text_encoder, pipe.text_encoder_2):
        part.to(settings.device)
    embeds, pooled, _ = pipe.encode_prompt(
        prompt=plain_text(settings.prompt), prompt_2=None, device=settings.device, max_sequence_length=length
    )
    return embeds, pooled


def _pipeline(settings: DoctorSettings, *, text: bool) -> Any:
    """diffusers' pipeline with its text half, or with its picture half: the two need not fit together."""
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline

    absent: dict[str, Any] = (
        {"transformer": None, "vae": None}
        if text
        else {"text_encoder": None, "text_encoder_2": None, "tokenizer": None, "tokenizer_2": None}
    )
    if _opens_folder(settings):
        pipe = FluxPipeline.from_pretrained(
            str(settings.source.folder), dtype=settings.dtype, local_files_only=True, **absent
        )
    else:
        scheduler = FlowMatchEulerDiscreteScheduler.from_config(shipped_config("scheduler"))
        if text:
            known = load_text_encoders(settings.source, CPU, settings.dtype)
            parts: dict[str, Any] = {
                "text_encoder": known.text_encoder,
                "tokenizer": known.tokenizer,
                "text_encoder_2": known.text_encoder_2,
                "tokenizer_2": known.tokenizer_2,
            }
        else:
            parts = {
                "transformer": load_transformer(settings.source, CPU, settings.dtype),
                "vae": load_vae(settings.source, CPU, settings.dtype),
            }
        pipe = FluxPipeline(scheduler=scheduler, **parts, **absent)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _opens_folder(settings: DoctorSettings) -> bool:
    source = settings.source
    return source.folder is not None and source.tokenizer_clip is None and source.tokenizer_t5 is None

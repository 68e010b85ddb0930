"""The saved LoRA in this package's sampler and in diffusers' own pipeline: the same picture?

diffusers reads the base model's folder and the LoRA file by itself, from the prompt to the pixels. Single
files are handed to its pipeline as loaded here, because it has no configuration for them without a network.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..flux.components import load_text_encoders, load_transformer, load_vae, shipped_config
from ..flux.lora import convert_lora, load_lora
from ..flux.placement import place
from ..flux.sampling import initial_noise, pack_latents
from ..generation.sampler import release_memory
from ..prompts import plain_text
from .pictures import draw, psnr, read_picture
from .settings import PICTURE_SEED, PROMPT, DoctorSettings
from .steps import Failed, Figures

if TYPE_CHECKING:
    from .checkup import Checkup

CPU = torch.device("cpu")
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
    settings, found = checkup.settings, checkup.found
    assert found.prompt_embeds is not None and found.pooled is not None
    transformer = load_transformer(settings.source, CPU, settings.dtype)
    load_lora(transformer, lora)
    transformer.eval()
    place(transformer, settings.device)
    return draw(
        transformer,
        load_vae(settings.source, settings.device, settings.dtype),
        found.prompt_embeds,
        found.pooled,
        seed=PICTURE_SEED,
        size=settings.resolution,
        device=settings.device,
        dtype=settings.dtype,
    )


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
        prompt=plain_text(PROMPT), prompt_2=None, device=settings.device, max_sequence_length=length
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

"""Prompts to embeddings, images to latents and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .components import TextEncoders


@dataclass(frozen=True)
class PromptEmbedding:
    """One prompt's conditioning: `prompt_embeds` [T, D] from T5, `pooled` [P] from CLIP."""

    prompt_embeds: torch.Tensor
    pooled: torch.Tensor


@torch.no_grad()
def encode_prompts(text: TextEncoders, prompts: Sequence[str], device: torch.device) -> list[PromptEmbedding]:
    """Embed prompts as diffusers' FluxPipeline does: both encoders on the padded tokens, without a mask.

    One prompt at a time, so that an embedding does not depend on its neighbours in a batch; equal prompts are
    encoded once. Longer texts are cut at the encoders' lengths.

    Args:
        text: the encoders, wherever they are.
        prompts: any number of texts; "" is a valid one.
        device: where the results go.
    """
    known: dict[str, PromptEmbedding] = {}
    for prompt in prompts:
        if prompt in known:
            continue
        clip_ids = _token_ids(text.tokenizer, prompt, text.clip_length).to(text.text_encoder.device)
        t5_ids = _token_ids(text.tokenizer_2, prompt, text.t5_length).to(text.text_encoder_2.device)
        pooled = text.text_encoder(clip_ids, output_hidden_states=False).pooler_output[0]
        embeds = text.text_encoder_2(t5_ids, output_hidden_states=False)[0][0]
        known[prompt] = PromptEmbedding(embeds.to(device), pooled.to(device))
    return [known[prompt] for prompt in prompts]


def _token_ids(tokenizer: Any, prompt: str, length: int) -> torch.Tensor:
    batch = tokenizer(prompt, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    ids: torch.Tensor = batch.input_ids
    return ids


@torch.no_grad()
def encode_images(vae: Any, images: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """Images [B, 3, H, W] in [-1, 1] to normalised latents [B, 16, H/8, W/8], float32.

    The mean of the posterior, or a sample of it when a generator is given; then (x − shift) · scaling.
    """
    parameter = next(vae.parameters())
    posterior = vae.encode(images.to(parameter.device, parameter.dtype)).latent_dist
    latents: torch.Tensor = posterior.mode() if generator is None else posterior.sample(generator)
    normalised: torch.Tensor = (latents.float() - vae.config.shift_factor) * vae.config.scaling_factor
    return normalised


@torch.no_grad()
def decode_latents(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """Normalised latents [B, 16, H/8, W/8] to images [B, 3, H, W] in [-1, 1], float32."""
    parameter = next(vae.parameters())
    scaled = latents.float() / vae.config.scaling_factor + vae.config.shift_factor
    images: torch.Tensor = vae.decode(scaled.to(parameter.device, parameter.dtype), return_dict=False)[0]
    return images.float().clamp(-1.0, 1.0)

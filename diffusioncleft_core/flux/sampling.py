"""Prompt encoding, the flow-matching sampler of FLUX.1 schnell, and latents to and from pixels."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .components import TextEncoders


def schnell_sigmas(steps: int) -> list[float]:
    """schnell's own noise levels, unshifted: 4 steps are [1, 0.75, 0.5, 0.25, 0]."""
    if steps < 1:
        raise ValueError(f"steps must be at least 1, not {steps}")
    return [1.0 - index / steps for index in range(steps)] + [0.0]


def initial_noise(seed: int, height: int, width: int, channels: int = 16) -> torch.Tensor:
    """The noise of one image: [channels, H/8, W/8], float32, on the CPU; the same as ComfyUI's for a batch
    of one.

    Args:
        seed: 0 … 2⁶⁴ − 1.
        height, width: the image's, in pixels, multiples of 16.
    """
    if height % 16 or width % 16:
        raise ValueError(f"height and width must be multiples of 16, not {height}×{width}")
    generator = torch.Generator(device="cpu").manual_seed(seed)
    shape = (1, channels, height // 8, width // 8)
    return torch.randn(shape, generator=generator, device="cpu", dtype=torch.float32)[0]


def pack_latents(latents: torch.Tensor) -> torch.Tensor:
    """Latents [B, C, h, w] to tokens [B, h/2 · w/2, 4C]: 2×2 patches, row by row."""
    batch, channels, height, width = latents.shape
    patches = latents.reshape(batch, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return patches.reshape(batch, (height // 2) * (width // 2), channels * 4)


def unpack_latents(tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Tokens [B, h/2 · w/2, 4C] to latents [B, C, h, w]; `height`, `width` are the latents'."""
    batch, _, features = tokens.shape
    patches = tokens.reshape(batch, height // 2, width // 2, features // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return patches.reshape(batch, features // 4, height, width)


def image_ids(height: int, width: int, device: torch.device | None = None) -> torch.Tensor:
    """Rope positions of the image tokens, [h/2 · w/2, 3] as (0, row, column), float32; arguments are the
    latents'.
    """
    rows = torch.arange(height // 2, device=device, dtype=torch.float32)
    columns = torch.arange(width // 2, device=device, dtype=torch.float32)
    grid = torch.zeros(height // 2, width // 2, 3, device=device)
    grid[..., 1] = rows[:, None]
    grid[..., 2] = columns[None, :]
    return grid.reshape(-1, 3)


def text_ids(length: int, device: torch.device | None = None) -> torch.Tensor:
    """Rope positions of the text tokens: [T, 3] zeros, float32."""
    return torch.zeros(length, 3, device=device)


@contextlib.contextmanager
def no_cudnn_attention() -> Iterator[None]:
    """Attention by torch's own kernels, not by cuDNN, which torch prefers on an H100.

    In the backward pass of FLUX.1 at full size cuDNN's attention ended in an illegal memory access there
    (torch 2.11, CUDA 13.0, 2026-11-26). It holds for what runs inside, recomputed blocks included.
    """
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


@contextlib.contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Deterministic kernels of the GPU where there are some; the settings are put back."""
    before = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    memory_filling: Any = torch.utils.deterministic
    fill = memory_filling.fill_uninitialized_memory
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs to be deterministic
        torch.use_deterministic_algorithms(True, warn_only=True)
        memory_filling.fill_uninitialized_memory = False  # it would write every tensor twice
    try:
        yield
    finally:
        memory_filling.fill_uninitialized_memory = fill
        torch.use_deterministic_algorithms(before, warn_only=warn_only)


def predict_velocity(
    transformer: Any,
    latents: torch.Tensor,
    sigma: torch.Tensor,
    prompt_embeds: torch.Tensor,
    pooled: torch.Tensor,
) -> torch.Tensor:
    """The flow's velocity, noise − data, at a noise level.

    Args:
        transformer: a `FluxTransformer2DModel` without guidance embedder.
        latents: [B, 16, h, w], h and w even; (1 − σ) · data + σ · noise.
        sigma: [B], 0 … 1.
        prompt_embeds: [B, T, D].
        pooled: [B, P].

    Returns:
        [B, 16, h, w], float32.
    """
    weight = transformer.x_embedder.weight
    dtype, device = weight.dtype, latents.device
    height, width = latents.shape[-2:]
    tokens: torch.Tensor = transformer(
        hidden_states=pack_latents(latents).to(dtype),
        timestep=sigma.to(device, dtype),
        guidance=None,
        pooled_projections=pooled.to(device, dtype),
        encoder_hidden_states=prompt_embeds.to(device, dtype),
        txt_ids=text_ids(prompt_embeds.shape[1], device),
        img_ids=image_ids(height, width, device),
        return_dict=False,
    )[0]
    return unpack_latents(tokens.float(), height, width)


@torch.no_grad()
def sample(
    transformer: Any,
    noise: torch.Tensor,
    prompt_embeds: torch.Tensor,
    pooled: torch.Tensor,
    steps: int = 4,
    on_step: Callable[[int, int], None] | None = None,
) -> torch.Tensor:
    """Euler steps along schnell's schedule, as diffusers' FluxPipeline (held to 1e-5 in float32).

    Args:
        noise: [B, 16, h, w]; its device is where the work is done.
        prompt_embeds: [B, T, D].
        pooled: [B, P].
        on_step: called with (steps done, steps) after each.

    Returns:
        Normalised latents [B, 16, h, w], float32.
    """
    sigmas = schnell_sigmas(steps)
    latents = noise.float()
    for index in range(steps):
        sigma = torch.full((latents.shape[0],), sigmas[index], device=latents.device)
        velocity = predict_velocity(transformer, latents, sigma, prompt_embeds, pooled)
        latents = latents + (sigmas[index + 1] - sigmas[index]) * velocity
        if on_step is not None:
            on_step(index + 1, steps)
    return latents


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
        t5_ids = _token_ids(text.tokenizer_2, prompt, text.t5_length)
        t5_ids = t5_ids.to(text.t5_device or text.text_encoder_2.device)
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

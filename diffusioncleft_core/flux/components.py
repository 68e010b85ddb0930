"""Loading FLUX.1 schnell's autoencoder and text encoders from a diffusers folder or from ComfyUI's single
files, without a network. The transformer: `transformer.py`.

Both ways read the same: tensors one by one, brought to the working precision, every key accounted for. A
missing or an unexpected key is an error, never a silently random weight.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError
from . import encoder_keys as text_keys
from . import encoder_keys as vae_keys
from .filling import counted_reading, empty, fill, folder_config
from .offload import has_room, stream_layers
from .source import FluxSource
from .tensors import open_tensors

T5_LENGTH = 256
"""schnell's text length in tokens; a tokenizer with a smaller maximum (the phantom's) uses that."""

CLIP_LENGTH = 77

TEXT_RESERVE_BYTES = 1 << 30
"""GPU memory that encoding a text needs beside T5's weights."""


@dataclass(frozen=True)
class TextEncoders:
    """CLIP-L and T5 with their tokenizers; `t5_length` and `clip_length` in tokens."""

    tokenizer: Any
    text_encoder: Any
    tokenizer_2: Any
    text_encoder_2: Any
    t5_length: int
    clip_length: int
    t5_device: torch.device | None = None
    """Where T5 computes, which is not where a streamed one lies."""


def shipped_config(name: str) -> dict[str, Any]:
    """One of the real model's configurations: `transformer`, `vae`, `clip_l`, `t5xxl`, `scheduler`."""
    path = Path(__file__).parent / "configs" / f"{name}.json"
    config: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return config


def load_vae(source: FluxSource, device: torch.device, dtype: torch.dtype) -> Any:
    """The 16-channel `AutoencoderKL`, frozen, in evaluation mode."""
    from diffusers import AutoencoderKL

    with open_tensors(source.files("vae"), "the VAE", vae_keys.PROBES, vae_keys.PREFIXES) as tensors:
        config = folder_config(source, "vae") or vae_keys.infer_config(tensors, shipped_config("vae"))
        state = {key: tensors.get(key, dtype) for key in tensors.names()}
        if vae_keys.is_single_file_form(list(state)):
            state = vae_keys.to_diffusers(state)
        model = empty(AutoencoderKL.from_config, config)
        return fill(model, state, tensors, device)


def load_text_encoders(
    source: FluxSource, device: torch.device, dtype: torch.dtype, free_bytes: int | None = None
) -> TextEncoders:
    """CLIP-L and T5 with their tokenizers, frozen, in evaluation mode.

    T5-XXL has 9.5 GB of weights in bfloat16: one that the device can't hold is streamed to it by layers.

    Args:
        source, device, dtype: see `load_transformer`.
        free_bytes: see `has_room`.
    """
    tokenizer = _load_tokenizer(source.tokenizer_folder("clip"), "CLIP")
    tokenizer_2 = _load_tokenizer(source.tokenizer_folder("t5"), "T5")
    text_encoder = _load_clip(source, tokenizer, device, dtype)
    clip_length = min(CLIP_LENGTH, tokenizer.model_max_length, text_encoder.config.max_position_embeddings)
    # ComfyUI's copy of the tokenizer says 8192, where CLIP has 77 positions.
    tokenizer.model_max_length = clip_length
    return TextEncoders(
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        tokenizer_2=tokenizer_2,
        text_encoder_2=_load_t5(source, device, dtype, free_bytes),
        t5_length=min(T5_LENGTH, tokenizer_2.model_max_length),
        clip_length=clip_length,
        t5_device=device,
    )


def _load_clip(source: FluxSource, tokenizer: Any, device: torch.device, dtype: torch.dtype) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel

    files = source.files("clip_l")
    with open_tensors(
        files, "the CLIP text encoder", text_keys.CLIP_PROBES, text_keys.CLIP_PREFIXES
    ) as tensors:
        ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        config = folder_config(source, "clip_l") or text_keys.infer_clip_config(
            tensors, shipped_config("clip_l"), ids
        )
        model = empty(CLIPTextModel, CLIPTextConfig.from_dict(config))
        prefix = "text_model." if any(key.startswith("text_model.") for key in model.state_dict()) else ""
        state = {
            prefix + short: tensors.get(key, dtype)
            for key in tensors.names()
            if (short := text_keys.clip_key(key)) is not None
        }
        return fill(model, state, tensors, device)


def _load_t5(source: FluxSource, device: torch.device, dtype: torch.dtype, free_bytes: int | None) -> Any:
    from transformers import T5Config, T5EncoderModel

    files = source.files("t5xxl")
    with open_tensors(files, "the T5 text encoder", text_keys.T5_PROBES, text_keys.T5_PREFIXES) as tensors:
        config = folder_config(source, "t5xxl") or text_keys.infer_t5_config(tensors, shipped_config("t5xxl"))
        model = empty(T5EncoderModel, T5Config.from_dict(config))
        state: dict[str, torch.Tensor] = {}
        with counted_reading(tensors) as counted:
            for key in tensors.names():
                counted()
                own = text_keys.t5_key(key)
                if own is not None:
                    # fp16 overflows in this layer; transformers keeps it in fp32 as well.
                    wide = dtype == torch.float16 and own.endswith(".wo.weight")
                    state[own] = tensors.get(key, torch.float32 if wide else dtype)
        tokens = state.get("shared.weight", state.get("encoder.embed_tokens.weight"))
        if tokens is not None:
            state["shared.weight"] = state["encoder.embed_tokens.weight"] = tokens
        weights = sum(
            tensor.nbytes for name, tensor in state.items() if name != "encoder.embed_tokens.weight"
        )
        whole = has_room(weights, device, free_bytes, TEXT_RESERVE_BYTES)
        model = fill(model, state, tensors, device if whole else torch.device("cpu"))
        model.tie_weights()
        if not whole:
            stream_layers(model, device)
        return model


def _load_tokenizer(folder: Path, what: str) -> Any:
    from transformers import AutoTokenizer

    if not folder.is_dir():
        raise UserError(f"the {what} tokenizer: there is no folder {folder}; give a complete model folder")
    try:
        return AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"the {what} tokenizer in {folder} cannot be opened ({_first_line(error)})"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]

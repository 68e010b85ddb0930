"""A FLUX.1 schnell of random weights as a diffusers folder: the real sizes, or tiny ones for tests."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..diffusioncleft_core.flux.components import CLIP_LENGTH, T5_LENGTH, shipped_config
from ..diffusioncleft_core.flux.model_size import ModelSize, size_of_shapes
from ..diffusioncleft_core.flux.source import phantom_source

SHARD = "5GB"
T5_LAYERS = 2
"""Of T5-XXL's 24: training reads cached embeddings, whose shape does not depend on the depth."""


@dataclass(frozen=True)
class Sizes:
    """The configurations of a model's parts, as diffusers and transformers take them."""

    transformer: Mapping[str, Any]
    vae: Mapping[str, Any]
    clip_l: Mapping[str, Any]
    t5xxl: Mapping[str, Any]
    text_tokens: int


def full_sizes() -> Sizes:
    """FLUX.1 schnell's own sizes; of T5-XXL's layers the first `T5_LAYERS`."""
    return Sizes(
        transformer=shipped_config("transformer"),
        vae=shipped_config("vae"),
        clip_l=shipped_config("clip_l"),
        t5xxl=shipped_config("t5xxl") | {"num_layers": T5_LAYERS},
        text_tokens=T5_LENGTH,
    )


def tiny_sizes() -> Sizes:
    """The same form with some 100,000 parameters."""
    heads = {"num_attention_heads": 2, "attention_head_dim": 32, "axes_dims_rope": [4, 14, 14]}
    width = {"joint_attention_dim": 64, "pooled_projection_dim": 64}
    clip = {"hidden_size": 64, "intermediate_size": 128, "projection_dim": 64}
    clip |= {"num_attention_heads": 2, "num_hidden_layers": 1}
    t5 = {"d_model": 64, "d_ff": 128, "d_kv": 32, "num_heads": 2, "num_layers": 1}
    full = full_sizes()
    return Sizes(
        transformer={**full.transformer, **heads, **width, "num_layers": 2, "num_single_layers": 2},
        vae={**full.vae, "block_out_channels": [32, 32, 32, 32], "layers_per_block": 1},
        clip_l={**full.clip_l, **clip, "vocab_size": 1000},
        t5xxl={**full.t5xxl, **t5, "vocab_size": 1000},
        text_tokens=32,
    )


def transformer_size() -> ModelSize:
    """FLUX.1 schnell's, stored plain: from its configuration, without any weight."""
    from accelerate import init_empty_weights
    from diffusers import FluxTransformer2DModel

    with init_empty_weights():
        model = FluxTransformer2DModel.from_config(dict(full_sizes().transformer))
    return size_of_shapes({key: tuple(value.shape) for key, value in model.state_dict().items()})


def random_transformer(sizes: Sizes, device: torch.device, dtype: torch.dtype, seed: int = 0) -> Any:
    """The transformer, frozen, drawn on `device` in `dtype`: 12 billion weights are never on the CPU.

    torch's own first weights (uniform, variance 1/(3 fan-in)) keep every activation finite.
    """
    from diffusers import FluxTransformer2DModel

    torch.manual_seed(seed)
    model = _drawn(lambda: FluxTransformer2DModel.from_config(dict(sizes.transformer)), device, dtype)
    return model.requires_grad_(False).eval()


def write_base(folder: Path, sizes: Sizes, transformer: Any, device: torch.device, dtype: torch.dtype) -> int:
    """Write the whole model around `transformer`; return the bytes of its weights.

    Tokenizers are the phantom's, padded to the sizes' text length.
    """
    from diffusers import AutoencoderKL
    from transformers import AutoTokenizer, CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    phantom = phantom_source().folder
    assert phantom is not None
    ids = {}
    for name, length in (
        ("tokenizer", min(CLIP_LENGTH, sizes.clip_l["max_position_embeddings"])),
        ("tokenizer_2", sizes.text_tokens),
    ):
        tokenizer = AutoTokenizer.from_pretrained(str(phantom / name), local_files_only=True)
        tokenizer.model_max_length = length
        tokenizer.save_pretrained(str(folder / name))
        ids[name] = {
            key: value
            for key in ("bos_token_id", "eos_token_id", "pad_token_id")
            if (value := getattr(tokenizer, key)) is not None
        }
    clip = CLIPTextConfig.from_dict({**sizes.clip_l, **ids["tokenizer"]})
    t5 = T5Config.from_dict({**sizes.t5xxl, **ids["tokenizer_2"]})
    transformer.save_pretrained(str(folder / "transformer"), max_shard_size=SHARD)
    for name, build in (
        ("vae", lambda: AutoencoderKL.from_config(dict(sizes.vae))),
        ("text_encoder", lambda: CLIPTextModel(clip)),
        ("text_encoder_2", lambda: T5EncoderModel(t5)),
    ):
        _drawn(build, device, dtype).save_pretrained(str(folder / name), max_shard_size=SHARD)
    shutil.copytree(phantom / "scheduler", folder / "scheduler", dirs_exist_ok=True)
    shutil.copy(phantom / "model_index.json", folder / "model_index.json")
    return sum(file.stat().st_size for file in folder.rglob("*.safetensors"))


def parameter_count(folder: Path) -> dict[str, int]:
    """Weights by component, read from the files' headers."""
    counts: dict[str, int] = {}
    for file in sorted(folder.rglob("*.safetensors")):
        with open(file, "rb") as handle:
            header = json.loads(handle.read(int.from_bytes(handle.read(8), "little")))
        shapes = [entry["shape"] for key, entry in header.items() if key != "__metadata__"]
        weights = sum(int(torch.Size(shape).numel()) for shape in shapes)
        counts[file.parent.name] = counts.get(file.parent.name, 0) + weights
    return counts


def _drawn(build: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """A module whose weights are drawn on the device in `dtype`."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            return build()
    finally:
        torch.set_default_dtype(before)

"""Parameter names of FLUX's autoencoder and text encoders, in single files and in diffusers' form.

transformers 4 and ComfyUI write CLIP's keys under `text_model.`, transformers 5 without it: both are read,
and the installed transformers' own form is what they are brought to.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from .tensors import Tensors
from .transformer_keys import count_blocks

if TYPE_CHECKING:
    import torch

PROBES = ("decoder.conv_in.weight",)
PREFIXES = ("vae.", "first_stage_model.", "")

_COMMON = (
    (r"mid\.block_1\.", "mid_block.resnets.0."),
    (r"mid\.block_2\.", "mid_block.resnets.1."),
    (r"mid\.attn_1\.norm\.", "mid_block.attentions.0.group_norm."),
    (r"mid\.attn_1\.q\.", "mid_block.attentions.0.to_q."),
    (r"mid\.attn_1\.k\.", "mid_block.attentions.0.to_k."),
    (r"mid\.attn_1\.v\.", "mid_block.attentions.0.to_v."),
    (r"mid\.attn_1\.proj_out\.", "mid_block.attentions.0.to_out.0."),
    (r"nin_shortcut\.", "conv_shortcut."),
    (r"(?<=coder\.)norm_out\.", "conv_norm_out."),
)


def is_single_file_form(keys: list[str]) -> bool:
    """Whether these are the single file's keys (`down.0.block.0`), else diffusers'
    (`down_blocks.0.resnets.0`).
    """
    return any(".down.0.block." in key or ".up.0.block." in key for key in keys)


def levels_of(keys: list[str]) -> int:
    """The number of resolution levels, in either form."""
    found = {
        int(match.group(1))
        for key in keys
        if (match := re.search(r"encoder\.down(?:_blocks)?\.(\d+)\.", key))
    }
    return max(found) + 1 if found else 0


def to_diffusers_key(key: str, levels: int) -> str:
    """One key of the single file in diffusers' form; the decoder counts its levels the other way round."""
    key = re.sub(r"encoder\.down\.(\d+)\.block\.(\d+)\.", r"encoder.down_blocks.\1.resnets.\2.", key)
    key = re.sub(r"encoder\.down\.(\d+)\.downsample\.", r"encoder.down_blocks.\1.downsamplers.0.", key)

    def up(match: re.Match[str]) -> str:
        level = levels - 1 - int(match.group(1))
        return f"decoder.up_blocks.{level}."

    if re.match(r"decoder\.up\.\d+\.", key):
        key = re.sub(r"decoder\.up\.(\d+)\.", up, key)
        key = key.replace(".upsample.", ".upsamplers.0.").replace(".block.", ".resnets.")
    for old, new in _COMMON:
        key = re.sub(old, new, key)
    return key


def to_diffusers(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The single file's state dict in diffusers' form; 1×1 attention convolutions [C, C, 1, 1] become [C,
    C].
    """
    levels = levels_of(list(state))
    result: dict[str, torch.Tensor] = {}
    for key, tensor in state.items():
        new = to_diffusers_key(key, levels)
        if ".attentions.0.to_" in new and tensor.ndim == 4:
            tensor = tensor[:, :, 0, 0]
        result[new] = tensor
    return result


def to_single_file(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A diffusers VAE's state dict in the single file's form (the inverse of `to_diffusers`)."""
    levels = levels_of(list(state))
    result: dict[str, torch.Tensor] = {}
    for key, tensor in state.items():
        new = re.sub(r"encoder\.down_blocks\.(\d+)\.resnets\.(\d+)\.", r"encoder.down.\1.block.\2.", key)
        new = re.sub(r"encoder\.down_blocks\.(\d+)\.downsamplers\.0\.", r"encoder.down.\1.downsample.", new)
        match = re.match(r"decoder\.up_blocks\.(\d+)\.(.*)", new)
        if match:
            rest = match.group(2).replace("resnets.", "block.").replace("upsamplers.0.", "upsample.")
            new = f"decoder.up.{levels - 1 - int(match.group(1))}.{rest}"
        for single, own in _COMMON:
            plain = re.sub(r"\(\?<=[^)]*\)", "", single).replace("\\", "")
            new = new.replace(own, plain)
        if ".attn_1." in new and new.endswith(".weight") and ".norm." not in new:
            tensor = tensor[:, :, None, None]
        result[new] = tensor
    return result


def infer_config(tensors: Tensors, template: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of an `AutoencoderKL` from its tensors' names and shapes; factors and groups are
    FLUX.1's.

    Raises:
        UserError: not 16 latent channels (a Stable Diffusion VAE has 4).
    """
    keys = tensors.names()
    single = is_single_file_form(keys)
    levels = levels_of(keys)
    name = tensors.files[0].name
    latent = tensors.shape("decoder.conv_in.weight")[1]
    if latent != 16:
        raise UserError(f"the VAE: {name} has {latent} latent channels; FLUX.1's VAE (ae.safetensors) has 16")
    block = (
        "encoder.down.{}.block.{}.conv1.weight"
        if single
        else "encoder.down_blocks.{}.resnets.{}.conv1.weight"
    )
    if levels == 0 or any(block.format(level, 0) not in tensors for level in range(levels)):
        raise UserError(f"the VAE: {name} has no encoder; training needs the whole VAE (ae.safetensors)")
    depth = 0
    while block.format(0, depth) in tensors:
        depth += 1
    return {
        **template,
        "block_out_channels": [tensors.shape(block.format(level, 0))[0] for level in range(levels)],
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "layers_per_block": depth,
        "latent_channels": latent,
        "use_quant_conv": "quant_conv.weight" in tensors,
        "use_post_quant_conv": "post_quant_conv.weight" in tensors,
    }


CLIP_PROBES = ("text_model.embeddings.token_embedding.weight", "embeddings.token_embedding.weight")
CLIP_PREFIXES = (
    "text_encoders.clip_l.transformer.",
    "text_encoders.clip_l.",
    "clip_l.transformer.",
    "clip_l.",
    "",
)
T5_PROBES = ("encoder.block.0.layer.0.SelfAttention.q.weight",)
T5_PREFIXES = ("text_encoders.t5xxl.transformer.", "text_encoders.t5xxl.", "t5xxl.transformer.", "t5xxl.", "")

_CLIP_UNUSED = ("text_projection", "logit_scale")


def clip_key(key: str) -> str | None:
    """A CLIP key without `text_model.`; None for what a text encoder without projection does not use."""
    key = key.removeprefix("text_model.")
    if key.startswith(_CLIP_UNUSED) or key.endswith("position_ids"):
        return None
    return key


def t5_key(key: str) -> str | None:
    """A T5 key as the encoder-only model has it; None for a decoder's or head's."""
    if key.startswith(("decoder.", "lm_head.", "logit_scale", "spiece_model")):
        return None
    return key


def infer_clip_config(
    tensors: Tensors, template: Mapping[str, Any], token_ids: Mapping[str, int | None]
) -> dict[str, Any]:
    """The configuration of a `CLIPTextModel`; the heads are 64 wide, as in every CLIP text encoder.

    Args:
        tensors: the encoder's.
        template: the real CLIP-L's configuration.
        token_ids: the tokenizer's `bos_token_id`, `eos_token_id` (where the output is pooled),
            `pad_token_id`.

    Raises:
        UserError: a tensor that every CLIP text encoder has is missing, or the width is no multiple of 64.
    """
    own = {short: key for key in tensors.names() if (short := clip_key(key)) is not None}
    tokens, positions, first = (
        "embeddings.token_embedding.weight",
        "embeddings.position_embedding.weight",
        "encoder.layers.0.mlp.fc1.weight",
    )
    for name in (tokens, positions, first):
        if name not in own:
            raise UserError(f"{tensors.what}: {tensors.files[0].name} lacks {name}; download it again")
    vocabulary, hidden = tensors.shape(own[tokens])
    if hidden % 64:
        raise UserError(
            f"{tensors.what}: width {hidden} in {tensors.files[0].name} is no multiple of the heads' 64"
        )
    return {
        **template,
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "projection_dim": hidden,
        "num_attention_heads": hidden // 64,
        "num_hidden_layers": count_blocks(
            [f"x.{key.split('.', 2)[2]}" for key in own if "encoder.layers." in key], "x"
        ),
        "intermediate_size": tensors.shape(own[first])[0],
        "max_position_embeddings": tensors.shape(own[positions])[0],
        **token_ids,
    }


def infer_t5_config(tensors: Tensors, template: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a `T5EncoderModel` from its tensors: heads and their width follow from the bias
    table.

    Raises:
        UserError: the old T5 without gated activation, or a missing tensor.
    """
    block = "encoder.block.0.layer"
    bias, query = (
        f"{block}.0.SelfAttention.relative_attention_bias.weight",
        f"{block}.0.SelfAttention.q.weight",
    )
    gate = f"{block}.1.DenseReluDense.wi_0.weight"
    tokens = "shared.weight" if "shared.weight" in tensors else "encoder.embed_tokens.weight"
    for name in (bias, query, gate, tokens):
        if name not in tensors:
            raise UserError(
                f"{tensors.what}: {tensors.files[0].name} lacks {name}; FLUX.1 needs the T5 v1.1 XXL encoder"
            )
    buckets, heads = tensors.shape(bias)
    inner, width = tensors.shape(query)
    return {
        **template,
        "vocab_size": tensors.shape(tokens)[0],
        "d_model": width,
        "d_kv": inner // heads,
        "num_heads": heads,
        "d_ff": tensors.shape(gate)[0],
        "num_layers": count_blocks([key.removeprefix("encoder.") for key in tensors.names()], "block"),
        "relative_attention_num_buckets": buckets,
    }

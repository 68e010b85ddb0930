"""CLIP's and T5's text encoders: their key forms, and their configurations from the tensors' shapes.

transformers 4 and ComfyUI write CLIP's keys under `text_model.`, transformers 5 without it: both are read,
and the installed transformers' own form is what they are brought to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import UserError
from .tensors import Tensors
from .transformer_keys import count_blocks

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

"""Parameter names of FLUX's transformer in BFL's and diffusers' form, and the modules behind them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import UserError

if TYPE_CHECKING:
    import torch

    from .packed import Packed
    from .tensors import Tensors

    Weight = torch.Tensor | Packed


@dataclass(frozen=True)
class ModulePair:
    """One BFL linear module and the diffusers modules it is made of, in the order of its output rows."""

    bfl: str
    parts: tuple[str, ...]
    swap_halves: bool = False
    """The final modulation: BFL's output is (shift, scale), diffusers' is (scale, shift)."""

    def split_sizes(self, rows: int, hidden: int) -> list[int]:
        """Output rows of each part of a fused weight with `rows` output rows in a model of width `hidden`."""
        count = len(self.parts)
        if count == 1:
            return [rows]
        if count == 3:
            return [rows // 3] * 3
        return [hidden, hidden, hidden, rows - 3 * hidden]


@dataclass(frozen=True)
class VectorPair:
    """A parameter that is not a linear module's (the query and key norms' scales)."""

    bfl: str
    diffusers: str

    @property
    def bfl_names(self) -> tuple[str, str]:
        """BFL's `.scale`, and `.weight` as in single files that ComfyUI 0.13 and later saved."""
        return self.bfl, f"{self.bfl.removesuffix('.scale')}.weight"


_OUTER = (
    ModulePair("img_in", ("x_embedder",)),
    ModulePair("txt_in", ("context_embedder",)),
    ModulePair("time_in.in_layer", ("time_text_embed.timestep_embedder.linear_1",)),
    ModulePair("time_in.out_layer", ("time_text_embed.timestep_embedder.linear_2",)),
    ModulePair("vector_in.in_layer", ("time_text_embed.text_embedder.linear_1",)),
    ModulePair("vector_in.out_layer", ("time_text_embed.text_embedder.linear_2",)),
    ModulePair("guidance_in.in_layer", ("time_text_embed.guidance_embedder.linear_1",)),
    ModulePair("guidance_in.out_layer", ("time_text_embed.guidance_embedder.linear_2",)),
    ModulePair("final_layer.linear", ("proj_out",)),
    ModulePair("final_layer.adaLN_modulation.1", ("norm_out.linear",), swap_halves=True),
)


def double_block(index: int) -> list[ModulePair]:
    """The linear modules of one double-stream block."""
    bfl, own = f"double_blocks.{index}", f"transformer_blocks.{index}"
    pairs = []
    for stream, qkv, out, mlp, norm in (
        ("img", ("to_q", "to_k", "to_v"), "to_out.0", "ff", "norm1"),
        ("txt", ("add_q_proj", "add_k_proj", "add_v_proj"), "to_add_out", "ff_context", "norm1_context"),
    ):
        pairs += [
            ModulePair(f"{bfl}.{stream}_mod.lin", (f"{own}.{norm}.linear",)),
            ModulePair(f"{bfl}.{stream}_attn.qkv", tuple(f"{own}.attn.{name}" for name in qkv)),
            ModulePair(f"{bfl}.{stream}_attn.proj", (f"{own}.attn.{out}",)),
            ModulePair(f"{bfl}.{stream}_mlp.0", (f"{own}.{mlp}.net.0.proj",)),
            ModulePair(f"{bfl}.{stream}_mlp.2", (f"{own}.{mlp}.net.2",)),
        ]
    return pairs


def single_block(index: int) -> list[ModulePair]:
    """The linear modules of one single-stream block."""
    bfl, own = f"single_blocks.{index}", f"single_transformer_blocks.{index}"
    fused = (f"{own}.attn.to_q", f"{own}.attn.to_k", f"{own}.attn.to_v", f"{own}.proj_mlp")
    return [
        ModulePair(f"{bfl}.modulation.lin", (f"{own}.norm.linear",)),
        ModulePair(f"{bfl}.linear1", fused),
        ModulePair(f"{bfl}.linear2", (f"{own}.proj_out",)),
    ]


def linear_modules(double_blocks: int, single_blocks: int) -> list[ModulePair]:
    """All linear modules of a FLUX.1 with that many blocks, the guidance embedder included."""
    pairs = list(_OUTER)
    for index in range(double_blocks):
        pairs += double_block(index)
    for index in range(single_blocks):
        pairs += single_block(index)
    return pairs


def norm_scales(double_blocks: int, single_blocks: int) -> list[VectorPair]:
    """The query and key norms' scales of all blocks."""
    pairs = []
    for index in range(double_blocks):
        bfl, own = f"double_blocks.{index}", f"transformer_blocks.{index}.attn"
        pairs += [
            VectorPair(f"{bfl}.img_attn.norm.query_norm.scale", f"{own}.norm_q.weight"),
            VectorPair(f"{bfl}.img_attn.norm.key_norm.scale", f"{own}.norm_k.weight"),
            VectorPair(f"{bfl}.txt_attn.norm.query_norm.scale", f"{own}.norm_added_q.weight"),
            VectorPair(f"{bfl}.txt_attn.norm.key_norm.scale", f"{own}.norm_added_k.weight"),
        ]
    for index in range(single_blocks):
        bfl, own = f"single_blocks.{index}", f"single_transformer_blocks.{index}.attn"
        pairs += [
            VectorPair(f"{bfl}.norm.query_norm.scale", f"{own}.norm_q.weight"),
            VectorPair(f"{bfl}.norm.key_norm.scale", f"{own}.norm_k.weight"),
        ]
    return pairs


PROBES = ("double_blocks.0.img_attn.qkv.weight", "transformer_blocks.0.attn.to_q.weight")
PREFIXES = ("model.diffusion_model.", "diffusion_model.", "transformer.", "")


def count_blocks(keys: list[str], name: str) -> int:
    """How many blocks `name` (`double_blocks`, `transformer_blocks` …) the keys number, from 0 on."""
    pattern = re.compile(rf"^{name}\.(\d+)\.")
    found = {int(match.group(1)) for key in keys if (match := pattern.match(key))}
    return max(found) + 1 if found else 0


def is_bfl(keys: list[str]) -> bool:
    """Whether these are BFL's keys (else diffusers')."""
    return any(key.startswith("double_blocks.") for key in keys)


def infer_config(tensors: Tensors, template: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a `FluxTransformer2DModel` from its tensors' names and shapes.

    Head width comes from the query norm, rope axes from the real model's ratio 16 : 56 : 56 of 128.

    Raises:
        UserError: FLUX.1 dev and its kin (guidance embedder), or an input that is not 16 latent channels.
    """
    keys = tensors.names()
    bfl = is_bfl(keys)
    if any(key.startswith(("guidance_in.", "time_text_embed.guidance_embedder.")) for key in keys):
        raise_guidance(tensors.files[0].name)
    first_norm = norm_scales(1, 0)[0]
    image_in, text_in, vector_in, norm = (
        (
            "img_in",
            "txt_in",
            "vector_in.in_layer",
            next((name for name in first_norm.bfl_names if name in tensors), first_norm.bfl),
        )
        if bfl
        else (
            "x_embedder",
            "context_embedder",
            "time_text_embed.text_embedder.linear_1",
            first_norm.diffusers,
        )
    )
    needed = [f"{image_in}.weight", f"{text_in}.weight", f"{vector_in}.weight", norm]
    for key in needed:
        if key not in tensors:
            raise UserError(
                f"{tensors.what}: {tensors.files[0].name} lacks {key}; it is no complete FLUX.1 schnell"
            )
    hidden, channels = tensors.shape(needed[0])
    head = tensors.shape(norm)[0]
    check_channels(channels, tensors.files[0].name)
    if hidden % head or head % 32:
        raise UserError(
            f"{tensors.what}: width {hidden} with heads of {head} is no FLUX.1 layout (heads are multiples "
            "of 32)"
        )
    return {
        **template,
        "in_channels": channels,
        "num_layers": count_blocks(keys, "double_blocks" if bfl else "transformer_blocks"),
        "num_single_layers": count_blocks(keys, "single_blocks" if bfl else "single_transformer_blocks"),
        "attention_head_dim": head,
        "num_attention_heads": hidden // head,
        "joint_attention_dim": tensors.shape(needed[1])[1],
        "pooled_projection_dim": tensors.shape(needed[2])[1],
        "guidance_embeds": False,
        "axes_dims_rope": [head * 16 // 128, head * 56 // 128, head * 56 // 128],
    }


def raise_guidance(name: str) -> None:
    """Refuse FLUX.1 dev: guidance-distilled, sampled with another schedule, under a non-commercial
    licence.
    """
    raise UserError(
        f"the transformer: {name} has a guidance embedder: it is FLUX.1 dev or one of its kin (Kontext, "
        "Krea), "
        "not FLUX.1 schnell; give the schnell model (flux1-schnell.safetensors or its diffusers folder)"
    )


def check_channels(channels: int, name: str) -> None:
    """Refuse FLUX.1 variants with more inputs than the noisy latents (Fill has 384, the control models
    128).
    """
    if channels != 64:
        raise UserError(
            f"the transformer: {name} takes {channels} input channels instead of 64: it is a FLUX.1 Fill or "
            "control "
            "model; give FLUX.1 schnell"
        )


def _swap(tensor: torch.Tensor) -> torch.Tensor:
    import torch

    first, second = tensor.chunk(2, dim=0)
    return torch.cat([second, first], dim=0)


def bfl_to_diffusers(
    keys: list[str], get: Callable[[str], Weight], hidden: int
) -> Iterator[tuple[str, Weight]]:
    """BFL's state dict in diffusers' keys, tensor by tensor: no more than one of them is in memory.

    Args:
        keys: the BFL keys there are.
        get: reads one of them, as a tensor or, a block's matrix, packed; called once a key.
        hidden: the model's width.

    Yields:
        Key and tensor; a key the table does not know stays as it is, for the caller's check.
    """
    import torch

    from .packed import Packed

    left = set(keys)
    double, single = count_blocks(keys, "double_blocks"), count_blocks(keys, "single_blocks")
    for pair in linear_modules(double, single):
        for end in ("weight", "bias"):
            key = f"{pair.bfl}.{end}"
            if key not in left:
                continue
            left.discard(key)
            tensor = get(key)
            if pair.swap_halves:
                assert isinstance(tensor, torch.Tensor)
                tensor = _swap(tensor)
            if len(pair.parts) == 1:
                yield f"{pair.parts[0]}.{end}", tensor
                continue
            start = 0
            for part, size in zip(pair.parts, pair.split_sizes(tensor.shape[0], hidden), strict=True):
                stop = start + size
                rows = tensor.rows(start, stop) if isinstance(tensor, Packed) else tensor[start:stop].clone()
                yield f"{part}.{end}", rows
                start = stop
    for vector in norm_scales(double, single):
        for name in vector.bfl_names:
            if name in left:
                left.discard(name)
                yield vector.diffusers, get(name)
    for key in sorted(left):
        yield key, get(key)


def diffusers_to_bfl(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A diffusers FLUX.1 transformer's state dict in BFL's keys, as single files hold it (the inverse of the
    above).

    Raises:
        KeyError: a fused module with a part missing, or a key the table does not know.
    """
    import torch

    keys = list(state)
    result: dict[str, torch.Tensor] = {}
    used: set[str] = set()
    double, single = count_blocks(keys, "transformer_blocks"), count_blocks(keys, "single_transformer_blocks")
    for pair in linear_modules(double, single):
        for end in ("weight", "bias"):
            names = [f"{part}.{end}" for part in pair.parts]
            if not any(name in state for name in names):
                continue
            tensor = torch.cat([state[name] for name in names], dim=0)
            result[f"{pair.bfl}.{end}"] = _swap(tensor) if pair.swap_halves else tensor
            used.update(names)
    for vector in norm_scales(double, single):
        result[vector.bfl] = state[vector.diffusers]
        used.add(vector.diffusers)
    unknown = sorted(set(keys) - used)
    if unknown:
        raise KeyError(f"no FLUX.1 transformer keys: {unknown[:3]}")
    return result

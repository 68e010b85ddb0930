"""FLUX.1's module names in the two dialects: Black Forest Labs' own files and diffusers.

Single files and kohya's LoRA keys follow the first, diffusers' folders and PEFT the second. One BFL module
can be several diffusers modules whose outputs are concatenated: `qkv` is q, k, v; `linear1` is q, k, v and
the MLP's input. Everything that converts weights or LoRA keys reads this one table.
"""

from __future__ import annotations

from dataclasses import dataclass


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

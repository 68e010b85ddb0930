"""kohya's `network_args`: ranks by layer and block, for BFL's layers as kohya's scripts name them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn

from ..diffusioncleft_core.errors import UserError

if TYPE_CHECKING:  # the command line's options import no torch
    from ..diffusioncleft_core.flux.transformer_keys import ModulePair

_DIMS: Mapping[str, tuple[str, ...]] = {
    "img_attn_dim": ("img_attn",),
    "txt_attn_dim": ("txt_attn",),
    "img_mlp_dim": ("img_mlp",),
    "txt_mlp_dim": ("txt_mlp",),
    "img_mod_dim": ("img_mod",),
    "txt_mod_dim": ("txt_mod",),
    "single_dim": ("single_blocks", "linear"),
    "single_mod_dim": ("modulation",),
}
"""By argument what a layer's name must hold, in the order in which kohya's scripts ask."""
_BLOCKS = {"train_double_block_indices": "double", "train_single_block_indices": "single"}
_WITHOUT_EFFECT = ("verbose", "conv_dim", "conv_alpha")
_REFUSED: Mapping[str, str] = {
    "in_dims": "the layers outside the blocks get no LoRA",
    "rank_dropout": "the LoRA has no dropout",
    "module_dropout": "the LoRA has no dropout",
    "train_t5xxl": "the text encoders stay frozen",
    "ggpo_beta": "GGPO is not supported",
    "ggpo_sigma": "GGPO is not supported",
    "network_reg_lrs": "the LoRA has one learning rate",
    "loraplus_lr_ratio": "the LoRA has one learning rate",
    "loraplus_unet_lr_ratio": "the LoRA has one learning rate",
    "loraplus_text_encoder_lr_ratio": "the text encoders stay frozen",
}


def pairs_of(arguments: Sequence[str], option: str) -> dict[str, str]:
    """`NAME=VALUE` arguments by name; UserError for one that has no value."""
    found: dict[str, str] = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not equals or not name.strip():
            raise UserError(f"--{option} {argument!r} is no NAME=VALUE; write it so")
        found[name.strip()] = value.strip()
    return found


def qkv_of(arguments: Sequence[str]) -> str | None:
    """What `split_qkv` says of the recipe's `network.qkv`; None where it is not among the arguments."""
    value = pairs_of(arguments, "network_args").get("split_qkv")
    return None if value is None else "separate" if value == "True" else "joint"


def layer_ranks(arguments: Sequence[str], rank: int, double: int, single: int) -> Callable[[ModulePair], int]:
    """The rank of each BFL layer, 0 where it gets no LoRA.

    As in kohya's scripts a regular expression comes first, then the kind of layer, then whether its block is
    trained.

    Args:
        arguments: NAME=VALUE.
        rank: of every layer that they don't name.
        double, single: numbers of blocks.

    Raises:
        UserError: an argument that is not honoured, or a value that it can't have.
    """
    given = pairs_of(arguments, "network_args")
    dims: dict[str, int] = {}
    patterns: list[tuple[re.Pattern[str], int]] = []
    blocks: dict[str, set[int]] = {}
    for name, value in given.items():
        if name in _DIMS:
            dims[name] = _rank(name, value)
        elif name == "network_reg_dims":
            patterns = [_pattern(part) for part in value.split(",") if part.strip()]
        elif name in _BLOCKS:
            kind = _BLOCKS[name]
            blocks[kind] = _indices(name, value, double if kind == "double" else single)
        elif name == "train_blocks":
            if value not in ("all", "double", "single"):
                _refuse(f"train_blocks={value}", "give all, double or single")
            if value != "all":
                blocks["single" if value == "double" else "double"] = set()
        elif name in _REFUSED:
            _refuse(name, f"{_REFUSED[name]}; leave it out")
        elif name != "split_qkv" and name not in _WITHOUT_EFFECT:
            _refuse(name, "it is unknown; docs/training.md lists those that are known")

    def rank_of(pair: ModulePair) -> int:
        name = "lora_unet_" + pair.bfl.replace(".", "_")
        for pattern, found in patterns:
            if pattern.search(name):
                return found
        found = next((dims[key] for key in _DIMS if key in dims and _holds(name, _DIMS[key])), rank)
        kind, _, index = pair.bfl.partition("_blocks.")
        chosen = blocks.get(kind)
        return found if chosen is None or int(index.partition(".")[0]) in chosen else 0

    return rank_of


def _holds(name: str, parts: tuple[str, ...]) -> bool:
    return all(part in name for part in parts)


def _rank(name: str, value: str) -> int:
    if not value.isdecimal() or int(value) > 4096:
        _refuse(f"{name}={value}", "give a whole number from 0 to 4096")
    return int(value)


def _pattern(text: str) -> tuple[re.Pattern[str], int]:
    pattern, equals, value = text.strip().rpartition("=")
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        _refuse(f"network_reg_dims={text}", f"its regular expression is wrong ({error})")
    if not equals or not pattern:
        _refuse(f"network_reg_dims={text}", "give REGEX=RANK, separated by commas")
    return compiled, _rank("network_reg_dims", value)


def _indices(name: str, value: str, count: int) -> set[int]:
    if value == "all":
        return set(range(count))
    found: set[int] = set()
    for part in filter(None, (part.strip() for part in value.split(","))):
        first, dash, last = part.partition("-")
        last = last if dash else first
        if not (first.strip().isdecimal() and last.strip().isdecimal()) or not (
            int(first) <= int(last) < count
        ):
            _refuse(f"{name}={value}", f"give numbers of blocks from 0 to {count - 1}, as 0,4-6")
        found |= set(range(int(first), int(last) + 1))
    return found


def _refuse(what: str, why: str) -> NoReturn:
    raise UserError(f"--network_args {what} is not honoured: {why}")

"""kohya's `network_args`: ranks by layer and block, for BFL's layers as kohya's scripts name them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

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
_WITHOUT_EFFECT = ("verbose", "conv_dim", "conv_alpha", "use_tucker", "use_cp")
_FORMS: Mapping[str, str] = {"lora": "lora", "locon": "lora", "lokr": "lokr"}
"""LyCORIS' algorithms that are honoured, and the forms that they are."""
_OF_FORM = ("algo", "use_dora", "dora_wd", "factor", "split_qkv")
_ONLY: Mapping[str, tuple[str, str]] = {
    "decompose_both": ("False", "a LoKr's first matrix stays whole"),
    "full_matrix": (
        "False",
        "a LoKr's second matrix is whole where --network_dim is large; give a larger one",
    ),
    "wd_on_output": ("True", "a DoRA's magnitudes are those of the outputs"),
    "wd_on_out": ("True", "a DoRA's magnitudes are those of the outputs"),
    "rs_lora": ("False", "the scale is alpha / rank; set --network_alpha"),
    "bypass_mode": ("False", "there is one way to compute it"),
    "train_norm": ("False", "only linear layers are trained"),
    "use_scalar": ("False", "there is no further scale"),
}
"""LyCORIS' arguments of which one value is what happens here, and why."""
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


def fields_of(arguments: Sequence[str]) -> dict[str, Any]:
    """The recipe's fields that some of the arguments stand for: `network.qkv`, `.form` and `.factor`.

    Raises:
        UserError: an algorithm of LyCORIS' that is not honoured, or one together with DoRA.
    """
    given = pairs_of(arguments, "network_args")
    found: dict[str, Any] = {}
    if "split_qkv" in given:
        found["network.qkv"] = "separate" if given["split_qkv"] == "True" else "joint"
    if "algo" in given:
        if given["algo"].lower() not in _FORMS:
            _refuse(f"algo={given['algo']}", f"give one of {', '.join(_FORMS)}")
        found["network.form"] = _FORMS[given["algo"].lower()]
    if any(given.get(name, "").lower() in ("true", "1") for name in ("use_dora", "dora_wd")):
        if found.get("network.form") == "lokr":
            _refuse("use_dora=True", "there is no LoKr with DoRA's magnitudes; choose one of them")
        found["network.form"] = "dora"
    if "factor" in given:
        found["network.factor"] = 0 if given["factor"] == "-1" else _rank("factor", given["factor"])
    return found


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
        elif name in _ONLY:
            if value.lower() != _ONLY[name][0].lower():
                _refuse(f"{name}={value}", f"{_ONLY[name][1]}; leave it out")
        elif name not in _OF_FORM and name not in _WITHOUT_EFFECT:
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

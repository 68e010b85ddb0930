"""LoRA branches on a FLUX.1 transformer, by peft: attach, load, read out; and a DoRA's or LoKr's file loaded.

Several adapters can be on the model at once, none is ever merged into it. A training adapter is loaded
frozen beside the one being trained; `set_active` with the trained one alone gives exactly what the saved
file gives.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError
from . import dora, lokr
from .adapters import (
    active_adapters,
    adapters,
    check_fit,
    inject,
    layers_of,
    lora_parameters,
    only,
    pattern,
    remove_lora,
    require,
    set_active,
    set_strength,
)
from .lora_file import Lora, convert_lora, inspect_lora, read_lora, save_kohya
from .transformer_keys import ModulePair, double_block, single_block

__all__ = [
    "Lora",
    "active_adapters",
    "adapters",
    "attach_lora",
    "convert_lora",
    "inspect_lora",
    "load_lora",
    "load_lora_state",
    "lora_alphas",
    "lora_parameters",
    "lora_state",
    "only",
    "read_lora",
    "remove_lora",
    "save_kohya",
    "set_active",
    "set_strength",
    "start_from",
    "target_modules",
    "target_ranks",
]

PRESETS = {
    "all": r".*",
    "attention": r".*\.attn\..*",
    "no_modulation": r"(?!.*\.norm\d?(_context)?\.linear$).*",
}
"""`all` is kohya's default for FLUX: every linear layer of the blocks, the modulation's too."""


def target_modules(transformer: Any, targets: str | Sequence[str] = "all") -> list[str]:
    """The diffusers names of the blocks' linear layers that `targets` means, in the model's order.

    Args:
        transformer: a `FluxTransformer2DModel`, with adapters or without.
        targets: a preset (`all`, `attention`, `no_modulation`) or endings of module names (`attn.to_q`).

    Raises:
        UserError: an unknown preset, or an ending that no module has.
    """
    names = [part for pair in _pairs(transformer) for part in pair.parts]
    if isinstance(targets, str):
        if targets not in PRESETS:
            raise UserError(
                f"unknown LoRA targets {targets!r}; use one of {', '.join(PRESETS)}, or module names"
            )
        return [name for name in names if re.fullmatch(PRESETS[targets], name)]
    for ending in targets:
        if not any(f".{name}".endswith(f".{ending}") for name in names):
            raise UserError(
                f"no linear layer of the transformer is called {ending!r}; an example is attn.to_q"
            )
    return [name for name in names if any(f".{name}".endswith(f".{ending}") for ending in targets)]


def attach_lora(
    transformer: Any,
    rank: int | Callable[[ModulePair], int],
    alpha: float,
    name: str = "default",
    targets: str | Sequence[str] = "all",
    *,
    seed: int | None = None,
    joint: bool = False,
    use_dora: bool = False,
) -> list[str]:
    """Put a new trainable LoRA, in float32 whatever the base's format, beside what is active already.

    The down matrices are drawn from the Kaiming-uniform distribution, the up matrices are zero, as kohya's:
    the output does not change yet.

    Args:
        transformer: a frozen `FluxTransformer2DModel`.
        rank, alpha: ΔW = alpha / rank · up · down. A function gives the rank of each BFL layer; 0: no LoRA.
        name: the adapter's.
        targets: see `target_modules`.
        seed: for the down matrices; None draws from torch's global generator.
        joint: modules that are one in BFL's form (q, k, v; with a single block's MLP) share one down matrix,
            as in kohya's scripts; else each has its own.
        use_dora: a DoRA: the magnitude of each output's weights is trained apart from their direction
            (https://arxiv.org/abs/2402.09353).

    Returns:
        The modules it stands on, for the record.
    """
    ranks = target_ranks(transformer, rank, targets)
    modules = list(ranks)
    if use_dora:
        dora.check_base(transformer, modules)
    alphas = dict.fromkeys(modules, float(alpha))
    if seed is None:
        _inject(transformer, name, ranks, alphas, trainable=True, use_dora=use_dora)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            _inject(transformer, name, ranks, alphas, trainable=True, use_dora=use_dora)
    for layer in layers_of(transformer, name).values():
        for matrix in (layer.lora_A[name], layer.lora_B[name]):
            matrix.to(torch.float32)
    if joint:
        _share_down(transformer, name)
    if use_dora:
        dora.begin(transformer, name)
    set_active(transformer, [*active_adapters(transformer), name])
    return modules


def load_lora(
    transformer: Any,
    path: Path,
    strength: float = 1.0,
    name: str = "lora",
    trainable: bool = False,
) -> dict[str, str]:
    """Put a LoRA file of any known form on the transformer as an unmerged branch, active beside what already
    is.

    Args:
        transformer: a `FluxTransformer2DModel`.
        path: the safetensors file.
        strength: multiplies alpha / rank.
        name: the adapter's.
        trainable: whether its weights take gradients when it is active (then float32, else the base's
            precision).

    Returns:
        The file's metadata.

    Raises:
        UserError: unreadable, or made for a transformer of another size.
    """
    if trainable and (lokr.is_lokr(path) or dora.is_dora(path)):
        raise ValueError("a DoRA or LoKr file is loaded frozen; to train on, start_from copies it")
    if lokr.is_lokr(path):
        return lokr.load_lokr(transformer, path, strength, name)
    file = dora.read_dora(path) if dora.is_dora(path) else None
    lora = file.lora if file else read_lora(path)
    modules = {
        key.removesuffix(".lora_A.weight"): value for key, value in lora.state.items() if "lora_A" in key
    }
    ranks = {module: down.shape[0] for module, down in modules.items()}
    for module, down in modules.items():
        up = lora.state[f"{module}.lora_B.weight"]
        check_fit(transformer, module, (up.shape[0], down.shape[1]), Path(path).name)
    _inject(transformer, name, ranks, lora.alphas, trainable=trainable)
    if trainable:
        for layer in layers_of(transformer, name).values():
            layer.lora_A[name].to(torch.float32)
            layer.lora_B[name].to(torch.float32)
    load_lora_state(transformer, name, lora.state)
    if file:
        dora.fix_gains(transformer, name, file)
    set_strength(transformer, name, strength)
    set_active(transformer, [*active_adapters(transformer), name])
    return lora.metadata


@torch.no_grad()
def start_from(transformer: Any, path: Path, name: str) -> None:
    """Copy a LoRA file's weights into an adapter that is there already; the file's ΔW stays what it is.

    A DoRA starts from a DoRA's file or from a plain LoRA's, with its effect.

    Raises:
        UserError: unreadable, on other layers or of other ranks than the adapter, or each of q, k and v has a
            down matrix of its own where the adapter shares one.
    """
    file = dora.read_dora(path) if dora.is_dora(path) else None
    lora, layers = file.lora if file else read_lora(path), layers_of(transformer, name)
    if file and not dora.on(transformer, name):
        raise UserError(f"{Path(path).name} is a DoRA, and a plain LoRA is to be trained: give the form dora")
    state = {key: value.float() for key, value in lora.state.items()}
    for module, alpha in lora.alphas.items():
        if (layer := layers.get(module)) is not None and f"{module}.lora_B.weight" in state:
            up = state[f"{module}.lora_B.weight"]
            state[f"{module}.lora_B.weight"] = up * (alpha / up.shape[1] / layer.scaling[name])
    try:
        load_lora_state(transformer, name, state)
    except UserError:
        raise UserError(
            f"the LoRA {Path(path).name} is on other layers or of another rank than the one to be trained; "
            "start with the settings it was trained with"
        ) from None
    for module, layer in layers.items():
        if not torch.equal(layer.lora_A[name].weight.cpu(), state[f"{module}.lora_A.weight"]):
            raise UserError(
                f"the LoRA {Path(path).name} has a down matrix for each of q, k and v, and the one to be "
                "trained shares one: train it with --network_qkv separate"
            )
    if dora.on(transformer, name):
        dora.start(transformer, name, file)


def lora_state(transformer: Any, name: str = "default") -> dict[str, torch.Tensor]:
    """A copy of an adapter's weights on the CPU in canonical keys, without the strength: what a file
    holds.
    """
    require(transformer, [name])
    state: dict[str, torch.Tensor] = {}
    for module, layer in layers_of(transformer, name).items():
        state[f"{module}.lora_A.weight"] = layer.lora_A[name].weight.detach().to("cpu", copy=True)
        state[f"{module}.lora_B.weight"] = layer.lora_B[name].weight.detach().to("cpu", copy=True)
    return state


def lora_alphas(transformer: Any, name: str = "default") -> dict[str, float]:
    """An adapter's alphas by module."""
    require(transformer, [name])
    return {module: float(layer.lora_alpha[name]) for module, layer in layers_of(transformer, name).items()}


@torch.no_grad()
def load_lora_state(transformer: Any, name: str, state: Mapping[str, torch.Tensor]) -> None:
    """Copy canonical weights into an adapter that is there already, in place (optimisers keep their
    parameters).

    Raises:
        UserError: the state is of other modules or ranks than the adapter.
    """
    require(transformer, [name])
    own = {
        f"{module}.{matrix}.weight": getattr(layer, matrix)[name].weight
        for module, layer in layers_of(transformer, name).items()
        for matrix in ("lora_A", "lora_B")
    }
    if {key: tuple(value.shape) for key, value in own.items()} != {
        key: tuple(value.shape) for key, value in state.items()
    }:
        raise UserError(
            "the LoRA weights are of other modules or ranks than the adapter; start with the same settings"
        )
    for key, parameter in own.items():
        parameter.copy_(state[key])


def _inject(
    transformer: Any,
    name: str,
    ranks: Mapping[str, int],
    alphas: Mapping[str, float],
    *,
    trainable: bool,
    use_dora: bool = False,
) -> None:
    """Let peft put a LoRA on the modules that `ranks` names."""
    from peft import LoraConfig

    modules = list(ranks)
    rank, alpha = ranks[modules[0]], alphas[modules[0]]
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=modules,
        rank_pattern=pattern(ranks, rank),
        alpha_pattern=pattern(alphas, alpha),
        lora_dropout=0.0,
        bias="none",
        init_lora_weights=True,
        use_dora=use_dora,
    )
    for module, layer in inject(transformer, name, config, modules, trainable=trainable).items():
        assert layer.r[name] == ranks[module]
        assert layer.lora_alpha[name] == alphas[module]


def target_ranks(
    transformer: Any, rank: int | Callable[[ModulePair], int], targets: str | Sequence[str]
) -> dict[str, int]:
    """The rank of each module that is targeted and whose rank is not 0; UserError where none is."""
    by_part = {
        part: rank if isinstance(rank, int) else rank(pair)
        for pair in _pairs(transformer)
        for part in pair.parts
    }
    ranks = {module: by_part[module] for module in target_modules(transformer, targets) if by_part[module]}
    if not ranks:
        raise UserError("no layer gets a LoRA: all are left out, or have the rank 0; choose more")
    return ranks


def _pairs(transformer: Any) -> Iterator[ModulePair]:
    """The linear layers of the blocks, in the model's order."""
    config = transformer.config
    for build, count in ((double_block, config.num_layers), (single_block, config.num_single_layers)):
        for index in range(count):
            yield from build(index)


def _share_down(transformer: Any, name: str) -> None:
    """Let the parts of each BFL module take the first part's down matrix: one parameter, one gradient."""
    layers = layers_of(transformer, name)
    for pair in _pairs(transformer):
        present = [layers[part] for part in pair.parts if part in layers]
        for layer in present[1:]:
            layer.lora_A[name] = present[0].lora_A[name]

"""LoRA branches on a FLUX.1 transformer, by peft: attach, load, switch, scale, read out, remove.

Several adapters can be on the model at once, none is ever merged into it. A training adapter is loaded
frozen beside the one being trained; `set_active` with the trained one alone gives exactly what the saved
file gives.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError
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

    Returns:
        The modules it stands on, for the record.
    """
    modules = target_modules(transformer, targets)
    ranks = dict.fromkeys(modules, rank) if isinstance(rank, int) else _ranks(transformer, modules, rank)
    modules = list(ranks)
    if not modules:
        raise UserError("no layer gets a LoRA: all are left out, or have the rank 0; choose more")
    alphas = dict.fromkeys(modules, float(alpha))
    if seed is None:
        _inject(transformer, name, ranks, alphas, trainable=True)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            _inject(transformer, name, ranks, alphas, trainable=True)
    for layer in _layers(transformer, name).values():
        for matrix in (layer.lora_A[name], layer.lora_B[name]):
            matrix.to(torch.float32)
    if joint:
        _share_down(transformer, name)
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
    lora = read_lora(path)
    modules = {
        key.removesuffix(".lora_A.weight"): value for key, value in lora.state.items() if "lora_A" in key
    }
    ranks = {module: down.shape[0] for module, down in modules.items()}
    for module, down in modules.items():
        layer = _submodule(transformer, module)
        up = lora.state[f"{module}.lora_B.weight"]
        if layer is None or (down.shape[1], up.shape[0]) != (layer.in_features, layer.out_features):
            raise UserError(
                f"the LoRA {Path(path).name} does not fit this transformer ({module}); it was made for "
                "another model"
            )
    _inject(transformer, name, ranks, lora.alphas, trainable=trainable)
    if trainable:
        for layer in _layers(transformer, name).values():
            layer.lora_A[name].to(torch.float32)
            layer.lora_B[name].to(torch.float32)
    load_lora_state(transformer, name, lora.state)
    set_strength(transformer, name, strength)
    set_active(transformer, [*active_adapters(transformer), name])
    return lora.metadata


@torch.no_grad()
def start_from(transformer: Any, path: Path, name: str) -> None:
    """Copy a LoRA file's weights into an adapter that is there already; the file's ΔW stays what it is.

    Raises:
        UserError: unreadable, on other layers or of other ranks than the adapter, or each of q, k and v has a
            down matrix of its own where the adapter shares one.
    """
    lora, layers = read_lora(path), _layers(transformer, name)
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


def remove_lora(transformer: Any, name: str) -> None:
    """Take an adapter off; with the last one the transformer is as it was before."""
    still = [active for active in active_adapters(transformer) if active != name]
    if adapters(transformer) == [name]:
        transformer.unload_lora()
        return
    _require(transformer, [name])
    transformer.delete_adapters(name)
    set_active(transformer, still)


def adapters(transformer: Any) -> list[str]:
    """The names of the adapters on the transformer, in the order they came."""
    return list(getattr(transformer, "peft_config", {}))


def active_adapters(transformer: Any) -> list[str]:
    """The names of the adapters that take part in the forward pass."""
    for layer in _layers(transformer).values():
        if layer.disable_adapters:
            return []
        known = adapters(transformer)
        return [name for name in layer.active_adapters if name in known]
    return []


def set_active(transformer: Any, names: str | Sequence[str]) -> list[str]:
    """Let exactly these adapters take part, none with an empty list; trainable ones then take gradients.

    Returns: the names, in the one list that all layers look into: changing it switches them without a walk.
    """
    wanted = [names] if isinstance(names, str) else list(names)
    _require(transformer, wanted)
    trainable = {name for name in wanted if not transformer.peft_config[name].inference_mode}
    for layer in _layers(transformer).values():
        layer.enable_adapters(bool(wanted))
        if wanted:
            layer.set_adapter(wanted)
            for name, matrix in (*layer.lora_A.items(), *layer.lora_B.items()):
                matrix.requires_grad_(name in trainable)
    return wanted


@contextmanager
def only(transformer: Any, names: str | Sequence[str]) -> Iterator[None]:
    """Within the block exactly these adapters take part (for previews: the trained one without its training
    adapter).
    """
    before = active_adapters(transformer)
    set_active(transformer, names)
    try:
        yield
    finally:
        set_active(transformer, before)


def set_strength(transformer: Any, name: str, strength: float) -> None:
    """Multiply an adapter's alpha / rank by `strength`, from now on; 1 is the file's own."""
    _require(transformer, [name])
    for layer in _layers(transformer, name).values():
        layer.set_scale(name, strength)


def lora_parameters(transformer: Any, name: str = "default") -> list[torch.nn.Parameter]:
    """An adapter's parameters in the model's order, each once."""
    _require(transformer, [name])
    parameters = [
        parameter
        for layer in _layers(transformer, name).values()
        for parameter in (layer.lora_A[name].weight, layer.lora_B[name].weight)
    ]
    return list({id(parameter): parameter for parameter in parameters}.values())


def lora_state(transformer: Any, name: str = "default") -> dict[str, torch.Tensor]:
    """A copy of an adapter's weights on the CPU in canonical keys, without the strength: what a file
    holds.
    """
    _require(transformer, [name])
    state: dict[str, torch.Tensor] = {}
    for module, layer in _layers(transformer, name).items():
        state[f"{module}.lora_A.weight"] = layer.lora_A[name].weight.detach().to("cpu", copy=True)
        state[f"{module}.lora_B.weight"] = layer.lora_B[name].weight.detach().to("cpu", copy=True)
    return state


def lora_alphas(transformer: Any, name: str = "default") -> dict[str, float]:
    """An adapter's alphas by module."""
    _require(transformer, [name])
    return {module: float(layer.lora_alpha[name]) for module, layer in _layers(transformer, name).items()}


@torch.no_grad()
def load_lora_state(transformer: Any, name: str, state: Mapping[str, torch.Tensor]) -> None:
    """Copy canonical weights into an adapter that is there already, in place (optimisers keep their
    parameters).

    Raises:
        UserError: the state is of other modules or ranks than the adapter.
    """
    _require(transformer, [name])
    own = {
        f"{module}.{matrix}.weight": getattr(layer, matrix)[name].weight
        for module, layer in _layers(transformer, name).items()
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
    transformer: Any, name: str, ranks: Mapping[str, int], alphas: Mapping[str, float], *, trainable: bool
) -> None:
    """Let peft wrap the modules; afterwards what was active before is active again."""
    from peft import LoraConfig

    if hasattr(torch.nn.ModuleDict(), name) or "." in name:
        raise ValueError(f"torch reserves the name {name!r}; call the adapter otherwise (training_adapter)")
    if name in adapters(transformer):
        raise ValueError(f"there is an adapter called {name!r} already")
    before = active_adapters(transformer)
    modules = list(ranks)
    rank, alpha = ranks[modules[0]], alphas[modules[0]]
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=modules,
        rank_pattern={f"^{re.escape(key)}": value for key, value in ranks.items() if value != rank},
        alpha_pattern={f"^{re.escape(key)}": value for key, value in alphas.items() if value != alpha},
        lora_dropout=0.0,
        bias="none",
        init_lora_weights=True,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Already found a `peft_config` attribute.*")
        transformer.add_adapter(config, adapter_name=name)
    transformer.peft_config[name].inference_mode = not trainable
    placed = _layers(transformer, name)
    assert set(placed) == set(modules), "peft did not wrap the modules it was told to"
    for module, layer in placed.items():
        assert layer.r[name] == ranks[module]
        assert layer.lora_alpha[name] == alphas[module]
    set_active(transformer, before)


def _ranks(transformer: Any, modules: Sequence[str], rank: Callable[[ModulePair], int]) -> dict[str, int]:
    """The rank of each module that is not 0."""
    by_part = {part: rank(pair) for pair in _pairs(transformer) for part in pair.parts}
    return {module: by_part[module] for module in modules if by_part[module]}


def _pairs(transformer: Any) -> Iterator[ModulePair]:
    """The linear layers of the blocks, in the model's order."""
    config = transformer.config
    for build, count in ((double_block, config.num_layers), (single_block, config.num_single_layers)):
        for index in range(count):
            yield from build(index)


def _share_down(transformer: Any, name: str) -> None:
    """Let the parts of each BFL module take the first part's down matrix: one parameter, one gradient."""
    layers = _layers(transformer, name)
    for pair in _pairs(transformer):
        present = [layers[part] for part in pair.parts if part in layers]
        for layer in present[1:]:
            layer.lora_A[name] = present[0].lora_A[name]


def _layers(transformer: Any, name: str | None = None) -> dict[str, Any]:
    """peft's LoRA layers by diffusers module name: all, or those that carry the adapter `name`."""
    from peft.tuners.lora import LoraLayer

    return {
        module: layer
        for module, layer in transformer.named_modules()
        if isinstance(layer, LoraLayer) and (name is None or name in layer.lora_A)
    }


def _submodule(transformer: Any, name: str) -> Any | None:
    try:
        layer = transformer.get_submodule(name)
    except AttributeError:
        return None
    layer = getattr(layer, "base_layer", layer)
    return layer if hasattr(layer, "in_features") else None


def _require(transformer: Any, names: Sequence[str]) -> None:
    absent = [name for name in names if name not in adapters(transformer)]
    if absent:
        raise ValueError(f"no adapter called {absent[0]!r}; there are {adapters(transformer)}")

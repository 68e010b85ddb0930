"""Adapters on a FLUX.1 transformer as peft puts them there, whatever their form: switch, scale, remove.

A layer may carry a LoRA and, around it, a LoKr: each is a layer of peft's of its own, and both go by the name
of the module that they stand on.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from ..errors import UserError


def remove_lora(transformer: Any, name: str) -> None:
    """Take an adapter off; with the last one the transformer is as it was before."""
    still = [active for active in active_adapters(transformer) if active != name]
    if adapters(transformer) == [name]:
        transformer.unload_lora()
        return
    require(transformer, [name])
    for layer in tuner_layers(transformer):
        getattr(layer, "lora_variant", {}).pop(name, None)
    transformer.delete_adapters(name)
    set_active(transformer, still)


def adapters(transformer: Any) -> list[str]:
    """The names of the adapters on the transformer, in the order they came."""
    return list(getattr(transformer, "peft_config", {}))


def active_adapters(transformer: Any) -> list[str]:
    """The names of the adapters that take part in the forward pass."""
    for layer in tuner_layers(transformer):
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
    require(transformer, wanted)
    trainable = {name for name in wanted if not transformer.peft_config[name].inference_mode}
    for layer in tuner_layers(transformer):
        layer.enable_adapters(bool(wanted))
        if not wanted:
            continue
        layer.set_adapter(wanted)
        for kind in layer.adapter_layer_names:
            for name, weights in getattr(layer, kind).items():
                weights.requires_grad_(name in trainable)
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
    require(transformer, [name])
    for layer in layers_of(transformer, name).values():
        layer.set_scale(name, strength)


def lora_parameters(transformer: Any, name: str = "default") -> list[torch.nn.Parameter]:
    """An adapter's parameters in the model's order, each once."""
    require(transformer, [name])
    parameters = [
        parameter
        for layer in layers_of(transformer, name).values()
        for kind in layer.adapter_layer_names
        if name in getattr(layer, kind)
        for parameter in _parameters(getattr(layer, kind)[name])
    ]
    return list({id(parameter): parameter for parameter in parameters}.values())


def inject(
    transformer: Any, name: str, config: Any, modules: Sequence[str], *, trainable: bool
) -> dict[str, Any]:
    """Let peft wrap the modules as its `config` says; afterwards what was active before is active again.

    Returns:
        The adapter's layers by module.
    """
    if hasattr(torch.nn.ModuleDict(), name) or "." in name:
        raise ValueError(f"torch reserves the name {name!r}; call the adapter otherwise (training_adapter)")
    if name in adapters(transformer):
        raise ValueError(f"there is an adapter called {name!r} already")
    before = active_adapters(transformer)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*Already found a `peft_config` attribute.*")
        transformer.add_adapter(config, adapter_name=name)
    transformer.peft_config[name].inference_mode = not trainable
    placed = layers_of(transformer, name)
    assert set(placed) == set(modules), "peft did not wrap the modules it was told to"
    set_active(transformer, before)
    return placed


def pattern(values: Mapping[str, float], usual: float) -> dict[str, float]:
    """peft's form of what is not as usual in a module: a regular expression of its name, and the value."""
    return {f"^{re.escape(module)}": value for module, value in values.items() if value != usual}


def tuner_layers(transformer: Any) -> list[Any]:
    """All of peft's layers."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [layer for layer in transformer.modules() if isinstance(layer, BaseTunerLayer)]


def layers_of(transformer: Any, name: str) -> dict[str, Any]:
    """peft's layers that carry the adapter `name`, by diffusers module name."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return {
        module.removesuffix(".base_layer"): layer
        for module, layer in transformer.named_modules()
        if isinstance(layer, BaseTunerLayer) and name in layer.r
    }


def linear_layer(transformer: Any, name: str) -> Any | None:
    """The linear layer called so, below whatever stands on it; None where there is none."""
    try:
        layer = transformer.get_submodule(name)
    except AttributeError:
        return None
    layer = layer.get_base_layer() if hasattr(layer, "get_base_layer") else layer
    return layer if hasattr(layer, "in_features") else None


def check_fit(transformer: Any, module: str, sides: tuple[int, int], file: str) -> None:
    """Raise UserError where an adapter's ΔW of [out, in] does not belong on `module`."""
    layer = linear_layer(transformer, module)
    if layer is None or sides != (layer.out_features, layer.in_features):
        raise UserError(
            f"the LoRA {file} does not fit this transformer ({module}); it was made for another model"
        )


def require(transformer: Any, names: Sequence[str]) -> None:
    """Raise ValueError where an adapter is not there."""
    absent = [name for name in names if name not in adapters(transformer)]
    if absent:
        raise ValueError(f"no adapter called {absent[0]!r}; there are {adapters(transformer)}")


def _parameters(weights: Any) -> list[torch.nn.Parameter]:
    return [weights] if isinstance(weights, torch.nn.Parameter) else list(weights.parameters())

"""The LoRA that is trained and the training adapter beside it, on the transformer."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.flux.lora import (
    attach_lora,
    load_lora,
    lora_parameters,
    set_active,
    start_from,
)
from ..diffusioncleft_core.recipe.recipe import Recipe
from .events import Events
from .network_args import layer_ranks

LORA = "default"
ADAPTER = "training_adapter"


def attach(
    transformer: Any, recipe: Recipe, device: torch.device
) -> tuple[dict[str, torch.nn.Parameter], Callable[[bool, bool], None]]:
    """Attach the LoRA and the training adapter; return the LoRA's parameters and a switch (lora, adapter).

    Both lie on `device`, also those around weights that are streamed there.
    """
    if recipe.network.training_adapter is not None:
        load_lora(transformer, recipe.network.training_adapter, name=ADAPTER)
    size = transformer.config
    attach_lora(
        transformer,
        layer_ranks(recipe.network.args, recipe.network.rank, size.num_layers, size.num_single_layers),
        recipe.network.alpha,
        LORA,
        recipe.network.targets,
        seed=recipe.objective.seed,
        joint=recipe.network.qkv == "joint",
    )
    if recipe.network.weights is not None:
        start_from(transformer, recipe.network.weights, LORA)
    transformer.to(device)
    known = {id(parameter) for parameter in lora_parameters(transformer, LORA)}
    parameters = {name: entry for name, entry in transformer.named_parameters() if id(entry) in known}

    def activate(lora: bool, adapter: bool) -> None:
        adapter = adapter and recipe.network.training_adapter is not None
        set_active(transformer, [LORA] * lora + [ADAPTER] * adapter)

    return parameters, activate


def training_adapter(recipe: Recipe, events: Events) -> Path | None:
    """The training adapter's file; its absence on a real, distilled base is worth a warning."""
    adapter = recipe.network.training_adapter
    if adapter is None:
        if not recipe.model.phantom:
            events.emit(
                "warning",
                message="training schnell without --training_adapter unlearns its 4 steps",
            )
        return None
    if not adapter.is_file():
        raise UserError(f"there is no file {adapter}; check --training_adapter")
    return adapter


@contextlib.contextmanager
def replaced(
    parameters: Mapping[str, torch.nn.Parameter], values: Mapping[str, torch.Tensor]
) -> Iterator[None]:
    """Within the block the parameters that `values` names have its values."""
    exact = {name: parameters[name].detach().clone() for name in values}
    with torch.no_grad():
        for name, value in values.items():
            parameters[name].copy_(value)
    try:
        yield
    finally:
        with torch.no_grad():
            for name, value in exact.items():
                parameters[name].copy_(value)


def rounded(
    parameters: Mapping[str, torch.nn.Parameter], precision: torch.dtype
) -> contextlib.AbstractContextManager[None]:
    """Within the block the LoRA is as its file will hold it, so that a preview shows the file."""
    return replaced(
        parameters, {name: parameter.detach().to(precision) for name, parameter in parameters.items()}
    )

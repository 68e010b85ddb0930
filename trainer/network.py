"""The LoRA that is trained and the training adapter beside it, on the transformer."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.flux.adapters import tuner_layers
from ..diffusioncleft_core.flux.dora import save_dora
from ..diffusioncleft_core.flux.lokr import attach_lokr, save_lokr, start_lokr
from ..diffusioncleft_core.flux.lora import (
    attach_lora,
    load_lora,
    lora_parameters,
    lora_state,
    save_kohya,
    set_active,
    start_from,
    target_ranks,
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

    Both lie on `device`, also those around weights that are streamed there. The switch costs nothing: all
    layers look into one list. What is switched off still asks for gradients, so that is done without them.
    """
    if recipe.network.training_adapter is not None:
        load_lora(transformer, recipe.network.training_adapter, name=ADAPTER)
    network, size, seed = recipe.network, transformer.config, recipe.objective.seed
    ranks = layer_ranks(network.args, network.rank, size.num_layers, size.num_single_layers)
    if network.form == "lokr":
        targeted = target_ranks(transformer, ranks, network.targets)
        attach_lokr(transformer, targeted, network.alpha, LORA, factor=network.factor, seed=seed)
    else:
        attach_lora(
            transformer,
            ranks,
            network.alpha,
            LORA,
            network.targets,
            seed=seed,
            joint=network.qkv == "joint",
            use_dora=network.form == "dora",
        )
    if network.weights is not None:
        (start_lokr if network.form == "lokr" else start_from)(transformer, network.weights, LORA)
    transformer.to(device)
    known = {id(parameter) for parameter in lora_parameters(transformer, LORA)}
    parameters = {name: entry for name, entry in transformer.named_parameters() if id(entry) in known}

    adapters = [ADAPTER] * (recipe.network.training_adapter is not None)
    active = set_active(transformer, [LORA, *adapters])
    layers = tuner_layers(transformer)
    assert all(layer.active_adapters is active for layer in layers), "peft copied the list of adapters"
    _leave_casts_to_autocast(layers)

    def activate(lora: bool, adapter: bool) -> None:
        active[:] = [LORA] * lora + adapters * adapter

    return parameters, activate


def _leave_casts_to_autocast(layers: Iterable[Any]) -> None:
    """Keep peft from casting each input to the LoRA's float32, which autocast casts back at once.

    The result is the same to the last bit. Variants such as DoRA compute with the input's format: they keep
    their cast.
    """
    for layer in layers:
        if getattr(layer, "lora_A", None) and not layer.lora_variant:
            layer.cast_input_dtype_enabled = False


def save_network(
    path: Path, transformer: Any, recipe: Recipe, metadata: Mapping[str, str], precision: torch.dtype
) -> None:
    """Write what is trained into its file, in the keys of its form, atomically."""
    if recipe.network.form == "lokr":
        save_lokr(path, transformer, LORA, metadata, precision)
        return
    state, alpha = lora_state(transformer, LORA), recipe.network.alpha
    if recipe.network.form == "dora":
        save_dora(path, transformer, LORA, state, alpha, metadata, precision)
    else:
        save_kohya(path, state, alpha, metadata, precision)


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
        parameters,
        {
            name: parameter.detach().to(precision)
            for name, parameter in parameters.items()
            if "lora_magnitude_vector" not in name  # in the file in float32
        },
    )

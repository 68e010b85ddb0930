"""How the base model lies in memory in this run: planned once, told, recorded, and kept to on resume."""

import dataclasses
from typing import Any

import torch

from ..diffusioncleft_core.flux.components import load_vae
from ..diffusioncleft_core.flux.memory_estimate import TILE_SIDE, Layout
from ..diffusioncleft_core.flux.memory_plan import MemoryPlan, Wishes
from ..diffusioncleft_core.flux.model_size import model_size
from ..diffusioncleft_core.flux.packed import PLAIN, STORED
from ..diffusioncleft_core.flux.source import FluxSource
from ..diffusioncleft_core.flux.training_memory import Batch, plan_training, room_on
from ..diffusioncleft_core.flux.transformer import open_transformer
from ..diffusioncleft_core.recipe.recipe import Recipe
from .checkpoint import Checkpoint
from .events import Events
from .prepare import Prepared


def plan(
    recipe: Recipe,
    source: FluxSource,
    prepared: Prepared,
    device: torch.device,
    dtype: torch.dtype,
    checkpoint: Checkpoint | None,
    events: Events,
    *,
    done: bool = False,
) -> MemoryPlan:
    """How the base lies in memory, which an event tells; see `plan_training`.

    Args:
        checkpoint: that is gone on from.
        done: nothing is left to train, so that nothing has to fit.
    """
    with open_transformer(source) as tensors:
        size = model_size(tensors)
    on_gpu = device.type == "cuda"
    room = room_on(device, recipe.memory.limit) if on_gpu and not done else None
    if recipe.memory.limit is not None and not on_gpu:
        events.emit("warning", message=f"--memory has no effect on {device.type}, which is not planned for")
    batch = Batch(
        tokens=max(one.shape[-2] * one.shape[-1] // 4 for one in prepared.latents),
        preview_pixels=max((one.width * one.height for one in prepared.previews), default=0),
    )
    found = plan_training(recipe, size, dtype, room, batch, _recorded(checkpoint, size.form))
    events.emit(
        "memory",
        message=found.told,
        base_format=size.form if found.layout.form == STORED else found.layout.form,
        gradient_checkpointing=found.layout.checkpointing,
        blocks_to_swap=found.layout.streamed,
        estimated=found.estimate.device,
    )
    if not found.fits:
        events.emit("warning", message=f"the memory may not suffice: {found.told}")
    return found


def _recorded(checkpoint: Checkpoint | None, stored: str) -> Wishes | None:
    """What a checkpoint tells of the layout; of one by an earlier version the base's form, which it names
    where it is not plain.
    """
    if checkpoint is None:
        return None
    if "memory" in checkpoint.beside.values:
        return Wishes(**checkpoint.beside.values["memory"])
    form = checkpoint.made_from.get("base format", PLAIN)
    return Wishes(STORED if form == stored != PLAIN else form)


def recorded(layout: Layout) -> dict[str, Any]:
    """A layout as a checkpoint holds it."""
    return dataclasses.asdict(layout)


def preview_vae(source: FluxSource, device: torch.device, dtype: torch.dtype, plan: MemoryPlan) -> Any:
    """The autoencoder of previews, which decodes in tiles where it would else need more than training."""
    vae = load_vae(source, device, dtype)
    if plan.tiles_previews:
        vae.enable_tiling()
        vae.tile_sample_min_size, vae.tile_latent_min_size = TILE_SIDE, TILE_SIDE // 8
    return vae

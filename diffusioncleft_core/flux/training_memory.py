"""The memory plan of a training: a recipe, a base model and a device brought to `memory_plan.choose`.

Whoever computes memory asks here: the trainer, `doctor`, `run`, and through the trainer ComfyUI's nodes.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass, replace

import torch

from ..recipe.recipe import PAPER_SIDE, Recipe
from .memory_estimate import GIB, OPTIMIZER_BYTES, Layout, Work, estimate, picture_tokens
from .memory_plan import AUTO, MemoryPlan, Room, Wishes, choose, described
from .model_size import ModelSize
from .packed import PLAIN, STORED

TEXT_TOKENS = 256
CONTEXT_BYTES = GIB // 2
"""Of a card's memory, what the driver keeps for a process."""
CARD_SHARE = 0.985
"""What a card reports of the size that it is sold by: 79.2 of 80 GiB, measured on an H100."""
FLOAT_BYTES = 4
HOST_RESERVE_BYTES = 2 * GIB
"""Free main memory that page-locked blocks leave to everything else."""
_RANK = re.compile(r"=(\d+)(?=,|$)")


@dataclass(frozen=True)
class Batch:
    """What is known of the batches once the images are read.

    Attributes:
        tokens: of the largest picture.
        preview_pixels: of the largest preview; 0: none.
    """

    tokens: int
    preview_pixels: int


def plan_training(
    recipe: Recipe,
    size: ModelSize,
    dtype: torch.dtype,
    room: Room | None,
    batch: Batch | None = None,
    recorded: Wishes | None = None,
) -> MemoryPlan:
    """How the base of a training lies in memory.

    Args:
        recipe: its `memory` is taken as it is, and only what is open there is chosen.
        size: the base model.
        dtype: its number format.
        room: what is free; None: not planned, as on a processor. Then, and for the embedded phantom, the
            base is as in its file, whole on the device, and nothing is computed twice.
        batch: of the images; None goes by the recipe's resolution.
        recorded: of the layout with which the run began, what its checkpoint tells. It is taken for what the
            recipe leaves open. Where it does not fit any more, its form stays, on which the tensors depend,
            and the rest is chosen anew.

    Raises:
        UserError: nothing fits.
    """
    own = _wishes(recipe)
    wishes = own if recorded is None else _filled(own, recorded)
    work = work_of(recipe, size, dtype, batch)
    if room is None or recipe.model.phantom:
        layout = Layout(
            wishes.form if wishes.form != AUTO else PLAIN if size.form == PLAIN else STORED,
            bool(wishes.checkpointing),
            wishes.streamed or 0,
        )
        return MemoryPlan(layout, estimate(size, work, layout), described(layout), planned=False)
    plan = choose(size, work, room, wishes)
    if wishes == own:
        return plan
    if plan.fits:
        return replace(plan, told=f"{plan.told}; as the run began")
    plan = choose(size, work, room, replace(own, form=wishes.form))
    return replace(plan, told=f"{plan.told}; the run began otherwise, for which there is no room now")


def planned_recipe(recipe: Recipe, layout: Layout) -> Recipe:
    """`recipe` with what was chosen, as it is recorded."""
    return recipe.replaced(
        {
            "memory.base_format": layout.form,
            "memory.gradient_checkpointing": layout.checkpointing,
            "memory.blocks_to_swap": layout.streamed,
        }
    )


def work_of(recipe: Recipe, size: ModelSize, dtype: torch.dtype, batch: Batch | None = None) -> Work:
    """What a step of `recipe` computes; of the LoRA's parameters no fewer than there are."""
    regularised = recipe.data.reg_dir is not None or any(subset.is_reg for subset in recipe.data.subsets)
    preserved = recipe.objective.output_preservation_weight > 0
    side = max(recipe.data.resolution)
    previews = recipe.previews
    drawn = previews.every_n_steps > 0 or previews.every_n_epochs > 0 or previews.at_first
    preview = (previews.size or min(PAPER_SIDE, side)) if drawn else 0
    known = batch or Batch(picture_tokens(side), preview**2)
    optimizer = recipe.optimizer.name
    if optimizer == "AdamW8bit" and not _eight_bit():
        optimizer = "AdamW"
    adapter = recipe.network.training_adapter
    parameters = size.adapted_sides * _largest_rank(recipe)
    beside = adapter.stat().st_size if adapter is not None and adapter.is_file() else 0
    if recipe.optimizer.ema_decay:
        beside += FLOAT_BYTES * parameters
    return Work(
        tokens=known.tokens + TEXT_TOKENS,
        samples=recipe.data.batch_size * (1 + regularised + preserved),
        lora_parameters=parameters,
        optimizer_bytes=OPTIMIZER_BYTES[optimizer],
        beside_bytes=beside,
        preview_pixels=known.preview_pixels,
        itemsize=dtype.itemsize,
        text_tokens=TEXT_TOKENS,
    )


def room_on(device: torch.device, card: float | None = None) -> Room | None:
    """What is free on a GPU and beside it; None for a device whose memory is not planned.

    Args:
        device: where it is trained.
        card: plan for a card of so many GB; a GPU that has less free is planned as it is.
    """
    import psutil

    if device.type != "cuda" and card is None:
        return None
    free = None if card is None else card_bytes(card)
    if device.type == "cuda":
        there = torch.cuda.mem_get_info(device)[0]
        free = there if free is None else min(free, there)
    assert free is not None
    host = max(0, psutil.virtual_memory().available - HOST_RESERVE_BYTES)
    return Room(free, host, nf4=_eight_bit())


def card_bytes(card: float) -> int:
    """What a process can have of a card of `card` GB on which nothing else runs."""
    return int(card * GIB * CARD_SHARE) - CONTEXT_BYTES


def _eight_bit() -> bool:
    return importlib.util.find_spec("bitsandbytes") is not None


def _wishes(recipe: Recipe) -> Wishes:
    """What the recipe chooses; a DoRA reads whole weights, so that its blocks can't be streamed."""
    memory = recipe.memory
    streamed = 0 if memory.blocks_to_swap is None and recipe.network.form == "dora" else memory.blocks_to_swap
    return Wishes(memory.base_format, memory.gradient_checkpointing, streamed)


def _filled(own: Wishes, recorded: Wishes) -> Wishes:
    return Wishes(
        recorded.form if own.form == AUTO else own.form,
        recorded.checkpointing if own.checkpointing is None else own.checkpointing,
        recorded.streamed if own.streamed is None else own.streamed,
    )


def _largest_rank(recipe: Recipe) -> int:
    """The LoRA's rank, or the largest that `network.args` gives a layer."""
    named = [text for text in recipe.network.args if text.split("=")[0].strip().endswith(("_dim", "_dims"))]
    return max([recipe.network.rank, *(int(rank) for text in named for rank in _RANK.findall(text))])

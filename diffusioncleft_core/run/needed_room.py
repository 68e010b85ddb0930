"""The room that a run needs: free space where it lies, and the memory that the transformer is trained in."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..errors import UserError
from ..recipe.presets import planned_steps
from .need import GIB, Need, gib
from .settings import RunSettings
from .training import trainings_at_once

if TYPE_CHECKING:
    from ..flux.model_size import ModelSize

PIXEL_BYTES = 2
"""Of a generated PNG, which is noisy in its last bits."""
PHOTOGRAPH_BYTES = 16 << 20
"""Of a photograph's normalised copy with its latents, captions and features."""
TEXT_BYTES = 256 * 4096 * 2
"""Of a prompt's T5 embedding in bfloat16; they are on disk while a set is drawn, beyond the first GiB."""
STATE_BYTES = 12
"""A LoRA parameter's share of a checkpoint: itself and AdamW's two moments, float32."""


def disk(settings: RunSettings) -> Need:
    """Free space where the run lies, beside what it will write there."""
    place = next(path for path in (settings.out, *settings.out.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    parts = disk_bytes(settings)
    there = sum(path.stat().st_size for path in settings.out.rglob("*") if path.is_file())
    wanted = max(0, sum(parts.values()) - there)
    listed = ", ".join(f"{what} {gib(size)}" for what, size in parts.items() if size)
    less = f", less {gib(there)} that is there" if there else ""
    told = f"{gib(free)} free at {place}; about {gib(wanted)} to be written ({listed}{less})"
    return Need("disk", told, told if free < wanted else None, required=False)


def disk_bytes(settings: RunSettings) -> dict[str, int]:
    """About how many bytes a run writes, by what."""
    sampling, conditions = settings.sampling, len(settings.conditions)
    drawn = conditions * (settings.n + settings.regularization_images)
    found = sum(
        sum(path.is_file() for path in given.folder.rglob("*"))
        for given in settings.photographs.values()
        if given.folder.is_dir()
    )
    output = settings.recipe.output
    steps = planned_steps(settings.recipe, found)
    saved = 1 + (steps // output.save_every_n_steps if output.save_every_n_steps else 0)
    size = transformer_size(settings)
    lora = settings.recipe.network.rank * size.adapted_sides if size else 0
    prompts = 0 if settings.phantom else max(0, settings.n * TEXT_BYTES - GIB)
    return {
        "images": drawn * sampling.width * sampling.height * PIXEL_BYTES,
        "LoRAs and checkpoints": conditions * lora * (4 * saved + 2 * STATE_BYTES),
        "photographs": found * PHOTOGRAPH_BYTES,
        "prompts for a while": prompts,
    }


def transformer_size(settings: RunSettings) -> ModelSize | None:
    """The transformer's size; None where it can't be read."""
    from ..flux.model_size import model_size
    from ..flux.transformer import open_transformer

    try:
        with open_transformer(settings.source) as tensors:
            return model_size(tensors)
    except (UserError, OSError):
        return None


def memory(settings: RunSettings) -> Iterator[Need]:
    """The memory that the LoRAs are trained in which learn at once, by the trainer's own plan of one."""
    import psutil

    from ..flux.training_memory import plan_training, room_on

    device, recipe, size = settings.sampling.device, settings.recipe, transformer_size(settings)
    if size is None:
        return
    room = room_on(device, recipe.memory.limit) if device.type == "cuda" else None
    try:
        plan = plan_training(recipe, size, settings.sampling.dtype, room)
    except UserError as error:
        yield Need("memory", problem=str(error), required=False)
        return
    if room is not None and not recipe.model.phantom:
        yield Need("memory", plan.told, None if plan.fits else plan.told, required=False)
        return
    at_once, held = trainings_at_once(settings), psutil.virtual_memory().total
    needed = at_once * (plan.estimate.device + plan.estimate.host)
    several = f" for {at_once} trainings at once" if at_once > 1 else ""
    told = f"{plan.told}: about {gib(needed)} of {gib(held)} of memory{several}"
    advice = f"{told}: close what else runs, or use a machine with more; `diffusioncleft doctor` measures it"
    yield Need("memory", told, advice if needed > held else None, required=False)

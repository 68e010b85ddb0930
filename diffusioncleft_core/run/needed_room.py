"""The room that a run needs: free space where it lies, and the memory that the transformer is trained in."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator

from ..errors import UserError
from .need import GIB, Need, gib
from .settings import RunSettings

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
    steps = settings.recipe.optimizer.steps or 10 * found
    saved = 1 + (steps // output.save_every_n_steps if output.save_every_n_steps else 0)
    lora = settings.recipe.network.rank * transformer_size(settings)[1]
    prompts = 0 if settings.phantom else max(0, settings.n * TEXT_BYTES - GIB)
    return {
        "images": drawn * sampling.width * sampling.height * PIXEL_BYTES,
        "LoRAs and checkpoints": conditions * lora * (4 * saved + 2 * STATE_BYTES),
        "photographs": found * PHOTOGRAPH_BYTES,
        "prompts for a while": prompts,
    }


def transformer_size(settings: RunSettings) -> tuple[int, int]:
    """The transformer's parameters, and a LoRA's for each rank; zeros where it can't be read."""
    from ..flux.components import adapted_sides
    from ..flux.transformer import open_transformer

    try:
        with open_transformer(settings.source) as tensors:
            return sum(math.prod(tensors.shape(name)) for name in tensors.names()), adapted_sides(tensors)
    except (UserError, OSError):
        return 0, 0


def memory(settings: RunSettings) -> Iterator[Need]:
    """The memory that the transformer is trained in, beside its weights."""
    import psutil
    import torch

    from ..flux.placement import RESERVE_BYTES

    device = settings.sampling.device
    weights = transformer_size(settings)[0] * settings.sampling.dtype.itemsize
    if not weights:
        return
    if device.type == "cuda":
        place, held = "the GPU", torch.cuda.get_device_properties(device).total_memory
        reserve, advice = RESERVE_BYTES, "--blocks-to-swap streams blocks from main memory"
    else:
        place, held = "main memory", psutil.virtual_memory().total
        reserve, advice = 0, "close what else runs, or use a machine with more"
    told = f"{gib(held)} of {place}; the transformer's weights take {gib(weights)}"
    short = weights + reserve > held and not settings.recipe.memory.blocks_to_swap
    problem = f"{told}: {advice}; `diffusioncleft doctor` measures it" if short else None
    yield Need("memory", told, problem, required=False)

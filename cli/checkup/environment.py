"""The machine, its free room, and what a run will cost on it."""

from __future__ import annotations

import importlib
import platform
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...diffusioncleft_core.environment import hardware, versions
from ...diffusioncleft_core.errors import UserError
from ...diffusioncleft_core.files import write_bytes
from ...diffusioncleft_core.recipe.presets import planned_steps
from ...diffusioncleft_core.recipe.recipe import Recipe
from .checkup import PlannedRun
from .steps import GIB, Failed, Figures, gib

if TYPE_CHECKING:
    from .checkup import Checkup, Found

_NEEDED = ("torch", "torchvision", "diffusers", "transformers", "peft", "accelerate", "safetensors")
_WANTED = ("bitsandbytes", "insightface", "onnxruntime")
LARGE = 1_000_000_000
"""Parameters from which on a processor is too slow for pictures and training."""
SPARE_BYTES = 100 << 20


def environment(checkup: Checkup) -> Figures:
    """Versions and hardware; every library that the work needs is imported for real."""
    figures: Figures = {**hardware(), **versions(), "release": platform.release()}
    for name in _NEEDED:
        try:
            importlib.import_module(name)
        except Exception as error:
            raise Failed(
                f"{name} can't be imported ({type(error).__name__}: {str(error).strip()[:200]})",
                "install the package again in a fresh environment: pip install -r requirements.txt",
                figures,
            ) from error
    for name in _WANTED:
        if not any(known.startswith(name) for known in figures):
            checkup.note(f"{name} is not installed: pip install {name}")
    import torch

    figures["cuda"] = torch.version.cuda or "none"
    if checkup.settings.device.type == "cuda":
        major, minor = torch.cuda.get_device_capability()
        figures["compute_capability"] = f"{major}.{minor}"
        figures["bf16"] = torch.cuda.is_bf16_supported()
    figures["device"] = checkup.settings.device.type
    figures["dtype"] = str(checkup.settings.dtype).removeprefix("torch.")
    return figures


def disk(checkup: Checkup) -> Figures:
    """A file can be written, and there is room for ten steps with their checkpoint."""
    settings, found = checkup.settings, checkup.found
    needed = SPARE_BYTES + 20 * found.lora_parameters
    free = shutil.disk_usage(settings.workspace).free
    figures: Figures = {"free_gib": gib(free), "needed_gib": gib(needed)}
    write_bytes(settings.workspace / "probe", bytes(4096))
    (settings.workspace / "probe").unlink()
    if free < needed:
        raise Failed(
            f"the disk has {free / GIB:.2f} GiB free where the test needs {needed / GIB:.2f}",
            "free some space, or name a folder on another disk with --out",
            figures,
        )
    return figures


def room(checkup: Checkup) -> Figures:
    """What training and the largest component take, against the memory of the device and of the machine."""
    import psutil
    import torch

    settings, found = checkup.settings, checkup.found
    parameters = max(found.parameters or 0, found.text_parameters)
    weights = parameters * settings.dtype.itemsize
    host = psutil.virtual_memory()
    figures: Figures = {
        "weights_gib": gib(weights),
        "host_free_gib": gib(host.available),
        "host_gib": gib(host.total),
    }
    if settings.device.type == "cuda":
        free, total = torch.cuda.mem_get_info(settings.device)
        figures |= {"gpu_free_gib": gib(free), "gpu_gib": gib(total)}
    figures |= planned_memory(checkup)
    if settings.device.type == "cpu" and parameters > LARGE:
        why = "torch sees no GPU" if not torch.cuda.is_available() else "--device cpu was asked for"
        raise Failed(
            f"{why}: on a processor {parameters / 1e9:.0f} billion parameters take hours a picture and weeks "
            "a training, so text encoders, pictures and training are not tried",
            "use a machine with a CUDA GPU; if it has one, install a CUDA build of torch and a driver for it",
            figures,
        )
    if weights > host.available and settings.device.type == "cpu":
        checkup.note("main memory is smaller than the weights that have to lie in it: expect swapping")
    return figures


def planned_memory(checkup: Checkup) -> Figures:
    """How the trainer will lay the base out in memory, by its own plan; with --memory also for a card that is
    not there.
    """
    import torch

    from ...diffusioncleft_core.flux.training_memory import plan_training, room_on

    settings, size = checkup.settings, checkup.found.size
    limit = settings.recipe.memory.limit
    if size is None:
        return {}
    room = room_on(settings.device, limit)
    dtype = settings.dtype if settings.device.type == "cuda" or limit is None else torch.bfloat16
    try:
        plan = plan_training(settings.recipe, size, dtype, room)
    except UserError as error:
        message, _, hint = str(error).partition("; ")
        raise Failed(message, hint) from error
    if not plan.fits:
        checkup.note(f"the memory may not suffice: {plan.told}")
    return {
        "training_plan": plan.told,
        "training_gib": gib(plan.estimate.device),
        "base_format": plan.layout.form,
        "gradient_checkpointing": plan.layout.checkpointing,
        "blocks_to_swap": plan.layout.streamed,
    }


CONDITIONS = 2
PHOTOGRAPH_BYTES = 8 << 20
"""A checked copy of a photograph, at most 2048 px, as PNG: a generous guess, since photographs differ."""
LORA_BYTES = 30
"""Bytes a trainable number: the file, two checkpoints with the optimizer's state."""


@dataclass(frozen=True)
class Estimate:
    """Seconds and bytes of the planned run."""

    training: float
    generation: float
    filters: float
    disk: int

    @property
    def seconds(self) -> float:
        return self.training + self.generation + self.filters


def estimated(found: Found, planned: PlannedRun, recipe: Recipe, resolution: int) -> Estimate:
    """The planned run's time and disk.

    Training: the recipe's steps, as measured with it, the photographs in equal shares to the conditions.
    Generation: an image and a prompt each. Filters: one pass over photographs and images. Start-ups once a
    condition.
    """
    pictures = planned.images
    step, start = found.step_seconds or 0.0, found.start_seconds or 0.0
    encode, prompt = found.encode_seconds or 0.0, found.prompt_seconds or 0.0
    steps = CONDITIONS * planned_steps(recipe, -(-planned.photographs // CONDITIONS))
    training = steps * step + planned.photographs * (encode + prompt) + CONDITIONS * start
    generation = pictures * ((found.image_seconds or 0.0) + prompt)
    filters = (planned.photographs + planned.images) * (found.filter_seconds or found.face_seconds or 0.0)
    latents = planned.photographs * (16 * (resolution // 8) ** 2 * 4)
    disk = (
        pictures * (found.image_bytes or 0)
        + planned.photographs * PHOTOGRAPH_BYTES
        + latents
        + CONDITIONS * LORA_BYTES * found.lora_parameters
    )
    return Estimate(training, generation, filters, disk)


def planned_run(checkup: Checkup) -> Figures:
    """The estimate in words."""
    settings, planned = checkup.settings, checkup.settings.planned
    estimate = estimated(checkup.found, planned, settings.recipe, settings.resolution)
    free = shutil.disk_usage(settings.workspace).free
    if estimate.disk > free:
        checkup.note(
            f"the planned run needs about {estimate.disk / GIB:.1f} GiB, and the disk of this test has "
            f"{free / GIB:.1f} free"
        )
    return {
        "photographs": planned.photographs,
        "images": planned.images,
        "preset": planned.preset,
        "training": duration(estimate.training),
        "generation": duration(estimate.generation),
        "filters": duration(estimate.filters) if estimate.filters else "not measured",
        "total": duration(estimate.seconds),
        "disk_gib": gib(estimate.disk),
    }


def duration(seconds: float) -> str:
    """`95` → `2 min`; `7300` → `2 h 2 min`."""
    minutes = round(seconds / 60)
    if minutes == 0:
        return f"{max(1, round(seconds))} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"

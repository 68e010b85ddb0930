"""What the planned run will take, from what was measured here."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..recipe import STEPS_PER_IMAGE
from .peaks import GIB, gib
from .settings import PlannedRun
from .steps import Figures

if TYPE_CHECKING:
    from .checkup import Checkup, Found

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


def estimated(found: Found, planned: PlannedRun, resolution: int) -> Estimate:
    """The planned run's time and disk.

    Training: 10 steps a photograph, as measured with the preset. Generation: an image and a prompt each.
    Filters: one pass over photographs and images. Start-ups once a condition.
    """
    pictures = planned.images
    step, start = found.step_seconds or 0.0, found.start_seconds or 0.0
    encode, prompt = found.encode_seconds or 0.0, found.prompt_seconds or 0.0
    training = planned.photographs * (STEPS_PER_IMAGE * step + encode + prompt) + CONDITIONS * start
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
    estimate = estimated(checkup.found, planned, settings.resolution)
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

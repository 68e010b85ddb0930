"""What the doctor is asked to examine, and where it may write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError

if TYPE_CHECKING:
    import torch

    from ..flux.source import FluxSource

PAPER_PHOTOGRAPHS = 301
PAPER_IMAGES = 4000
TRAINING_STEPS = 10
TRAINING_PICTURES = 4
PICTURE_SEED = 7
LEARNING_RATE = 1e-3
"""Ten times the paper's, so that ten steps change a picture visibly."""
PHANTOM_LEARNING_RATE = 5e-3
PROMPT = "[CLP] A girl's whole face with an unrepaired unilateral cleft lip. Light skin. Brown eyes."
MIN_RESOLUTION, MAX_RESOLUTION = 64, 1024


@dataclass(frozen=True)
class PlannedRun:
    """The run whose time and disk are estimated: photographs and images of all conditions together."""

    photographs: int = PAPER_PHOTOGRAPHS
    images: int = PAPER_IMAGES
    robust: bool = True
    """Whether the base model's output is preserved without the trigger (the preset `robust`)."""

    def check(self) -> None:
        """Raise UserError for numbers below 1."""
        for option, number in (("--photos", self.photographs), ("--images", self.images)):
            if number < 1:
                raise UserError(f"{option} {number} is not possible: give 1 or more")


@dataclass(frozen=True)
class DoctorSettings:
    """What is examined.

    source: the base model; parts that were not found are in `absent`, by the error that says so. base: the
    trainer's arguments that name it. workspace: the doctor's own empty folder. resolution: side of training
    and test pictures, px. photo: a photograph of the user's for the face pack; nothing of it is told.
    """

    source: FluxSource
    base: Mapping[str, Any]
    device: torch.device
    dtype: torch.dtype
    faces: str
    workspace: Path
    resolution: int
    phantom: bool = False
    absent: Mapping[str, UserError] = field(default_factory=dict)
    training_adapter: Path | None = None
    blocks_to_swap: int = 0
    gradient_checkpointing: bool = False
    photo: Path | None = None
    planned: PlannedRun = PlannedRun()

    def check(self) -> None:
        """Raise UserError for what no machine can do."""
        if not MIN_RESOLUTION <= self.resolution <= MAX_RESOLUTION or self.resolution % 16:
            raise UserError(
                f"--resolution {self.resolution} is not possible: give a multiple of 16 from "
                f"{MIN_RESOLUTION} to {MAX_RESOLUTION}"
            )
        if self.blocks_to_swap < 0:
            raise UserError(f"--blocks-to-swap {self.blocks_to_swap} is not possible: give 0 or more")
        self.planned.check()

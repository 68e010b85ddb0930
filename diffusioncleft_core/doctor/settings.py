"""What the doctor is asked to examine, and where it may write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..ranges import COUNT, NONE_OR_MORE, check_fields, ranged, whole

if TYPE_CHECKING:
    import torch

    from ..flux.source import FluxSource

PAPER_PHOTOGRAPHS = 301
PAPER_IMAGES = 4000
TRAINING_STEPS = 10
TRAINING_PICTURES = 4
PICTURE_SEED = 7
LEARNING_RATE = 1e-3
"""On a real model: ten times the paper's, so that ten steps change a picture visibly."""
PROMPT = "[CLP] A girl's whole face with an unrepaired unilateral cleft lip. Light skin. Brown eyes."
MAX_RESOLUTION = 1024
RESOLUTION = whole(64, MAX_RESOLUTION)


@dataclass(frozen=True)
class PlannedRun:
    """The run whose time and disk are estimated: photographs and images of all conditions together."""

    photographs: int = ranged(COUNT, default=PAPER_PHOTOGRAPHS)
    images: int = ranged(COUNT, default=PAPER_IMAGES)
    preset: str = "robust"

    def __post_init__(self) -> None:
        check_fields(self)


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
    resolution: int = ranged(RESOLUTION)
    phantom: bool = False
    absent: Mapping[str, UserError] = field(default_factory=dict)
    training_adapter: Path | None = None
    blocks_to_swap: int = ranged(NONE_OR_MORE, default=0)
    gradient_checkpointing: bool = False
    photo: Path | None = None
    planned: PlannedRun = PlannedRun()

    def __post_init__(self) -> None:
        check_fields(self)
        if self.resolution % 16:
            raise UserError(f"--resolution {self.resolution} is not possible: give a multiple of 16")

"""What the doctor is asked to examine, and what it has found so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...diffusioncleft_core.conditions.loader import load_vocabulary
from ...diffusioncleft_core.conditions.plan import sampling_plan
from ...diffusioncleft_core.conditions.vocabulary import Condition, Vocabulary
from ...diffusioncleft_core.errors import UserError
from ...diffusioncleft_core.ranges import COUNT, check_fields, ranged, whole
from ...diffusioncleft_core.recipe.recipe import SIZE_STEP, Recipe
from ..recipe_options import DEFAULT_PRESET

if TYPE_CHECKING:
    import torch

    from ...diffusioncleft_core.flux.model_size import ModelSize
    from ...diffusioncleft_core.flux.source import FluxSource

PAPER_PHOTOGRAPHS = 301
PAPER_IMAGES = 4000
TRAINING_STEPS = 10
TRAINING_PICTURES = 4
PICTURE_SEED = 7
LEARNING_RATE = 1e-3
"""On a real model: ten times the paper's, so that ten steps change a picture visibly."""
MAX_RESOLUTION = 1024
RESOLUTION = whole(64, MAX_RESOLUTION)


@dataclass(frozen=True)
class PlannedRun:
    """The run whose time and disk are estimated: photographs and images of all conditions together.

    preset: name of its recipe, to be told.
    """

    photographs: int = ranged(COUNT, default=PAPER_PHOTOGRAPHS)
    images: int = ranged(COUNT, default=PAPER_IMAGES)
    preset: str = DEFAULT_PRESET

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class DoctorSettings:
    """What is examined.

    Attributes:
        source: the base model; parts that were not found are in `absent`, by the error that says so.
        recipe: of the planned run, at one size.
        workspace: the doctor's own empty folder.
        photo: a photograph of the user's for the face pack; nothing of it is told.
    """

    source: FluxSource
    recipe: Recipe
    device: torch.device
    dtype: torch.dtype
    faces: str
    workspace: Path
    absent: Mapping[str, UserError] = field(default_factory=dict)
    photo: Path | None = None
    planned: PlannedRun = PlannedRun()
    vocabulary: Vocabulary = field(default_factory=load_vocabulary)

    @property
    def condition(self) -> Condition:
        """The vocabulary's first condition, of which the test prompt is."""
        return next(iter(self.vocabulary.conditions.values()))

    @property
    def prompt(self) -> str:
        """The prompt that is trained on and drawn: the first of the condition's own plan."""
        return sampling_plan(self.condition, 1, PICTURE_SEED)[0].prompt

    def __post_init__(self) -> None:
        RESOLUTION.check(self.resolution, "--resolution")
        if self.resolution % SIZE_STEP:
            raise UserError(f"--resolution {self.resolution} is not possible: give a multiple of {SIZE_STEP}")

    @property
    def phantom(self) -> bool:
        return self.recipe.model.phantom

    @property
    def resolution(self) -> int:
        """Side of training and test pictures, px."""
        return self.recipe.data.resolution[-1]


Train = Callable[[Recipe, Callable[[Mapping[str, Any]], None], Callable[[], bool]], None]
"""Starts the trainer with a recipe, reports its events, returns when it is done."""


@dataclass
class Found:
    """What one step learned and others use. Times in seconds, sizes in bytes; None: not learned."""

    size: ModelSize | None = None
    parameters: int | None = None
    text_parameters: int = 0
    lora_parameters: int = 0
    hidden: int | None = None
    differences: list[str] = field(default_factory=list)
    prompt_embeds: torch.Tensor | None = None
    pooled: torch.Tensor | None = None
    t5_length: int = 256
    prompt_seconds: float | None = None
    encode_seconds: float | None = None
    image_seconds: float | None = None
    image_bytes: int | None = None
    picture: torch.Tensor | None = None
    step_seconds: float | None = None
    start_seconds: float | None = None
    preview: Path | None = None
    lora: Path | None = None
    face_seconds: float | None = None
    filter_seconds: float | None = None


@dataclass
class Checkup:
    """One examination: its settings, the way to start the trainer, what was found, and remarks."""

    settings: DoctorSettings
    train: Train
    found: Found = field(default_factory=Found)
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Remark something that is no failure."""
        if text not in self.notes:
            self.notes.append(text)

"""What a checkup carries from step to step: its settings, what was found, remarks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .settings import DoctorSettings

if TYPE_CHECKING:
    import torch

Train = Callable[[dict[str, Any], Callable[[Mapping[str, Any]], None], Callable[[], bool]], None]
"""Starts the trainer with its own arguments by name, reports its events, returns when it is done."""


@dataclass
class Found:
    """What one step learned and others use. Times in seconds, sizes in bytes; None: not learned."""

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

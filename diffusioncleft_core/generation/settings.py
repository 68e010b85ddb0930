"""What pictures are drawn with: their size, how they are sampled, and the models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from ..ranges import COUNT, SAMPLING_STEPS, SIDE, STRENGTH, check_fields, ranged
from ..recipe.recipe import PAPER_SIDE, SIZE_STEP

if TYPE_CHECKING:
    import torch

    from ..flux.source import FluxSource


@dataclass(frozen=True)
class ImageSize:
    """Pixels; multiples of 16: the VAE divides by 8 and the transformer takes patches of 2 × 2 latents."""

    width: int
    height: int

    def __post_init__(self) -> None:
        for name, side in (("width", self.width), ("height", self.height)):
            if not SIDE.holds(side) or side % SIZE_STEP:
                raise UserError(
                    f"{name} {side} is not possible: give a multiple of {SIZE_STEP} from 64 to 4096"
                )


@dataclass(frozen=True)
class Sampling:
    """How pictures are drawn.

    Attributes:
        device: where the models work.
        dtype: number format of their weights.
        width, height: px, multiples of 16.
        steps: of sampling; schnell's are 4.
        batch: images at once.
        strength: factor on the LoRA's own scale; at 0 the base model draws alone.
    """

    device: torch.device
    dtype: torch.dtype
    width: int = ranged(SIDE, default=PAPER_SIDE)
    height: int = ranged(SIDE, default=PAPER_SIDE)
    steps: int = ranged(SAMPLING_STEPS, default=4)
    batch: int = ranged(COUNT, default=1)
    strength: float = ranged(STRENGTH, default=1.0)

    def __post_init__(self) -> None:
        check_fields(self)
        ImageSize(self.width, self.height)

    @property
    def size(self) -> ImageSize:
        """Width and height of a picture."""
        return ImageSize(self.width, self.height)


@dataclass(frozen=True)
class GenerationSettings:
    """What all pictures of one set are drawn with: the base model, how it is sampled, and a LoRA or none."""

    source: FluxSource
    sampling: Sampling
    lora: Path | None = None

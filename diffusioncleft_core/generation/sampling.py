"""How pictures are drawn: the settings that every drawing shares, in one object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import UserError
from ..ranges import COUNT, SAMPLING_STEPS, SIDE, STRENGTH, check_fields, ranged
from ..recipe.recipe import PAPER_SIDE, SIZE_STEP

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Sampling:
    """Size in px, sampling steps (schnell's are 4), images at once, and the factor on the LoRA's own scale.

    At strength 0 the base model draws alone.
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
        for name, side in (("width", self.width), ("height", self.height)):
            if side % SIZE_STEP:
                raise UserError(
                    f"{name} {side} is not possible: give a multiple of {SIZE_STEP} from 64 to 4096"
                )

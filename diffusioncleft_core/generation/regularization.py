"""Regularisation images: what the base model draws when the trigger is not in the prompt.

Trained beside the photographs with their own prompts, they hold the LoRA to the base model's behaviour there,
so that the cleft hangs on the trigger (DreamBooth's prior preservation: Ruiz et al. 2023, section 3.2). The
photographs are not used: prompts come from the vocabulary, pictures from the base model.
"""

from __future__ import annotations

from dataclasses import replace

from ..conditions import Condition
from ..prompts import PlanRow, build_prompt, sampling_plan

KINDS = ("cleft_prompt", "healthy_prompt", "caption_like", "cleft_prompt", "other_trigger")
"""One in five each, the cleft prompt two: it is the one that the plain recipe fails."""
APPEARANCE = ("skin", "hair_texture", "hair_length", "hair_color", "eyes")
"""Attributes that captions leave out."""


def regularization_plan(
    condition: Condition, other: Condition, n: int, seed: int, *, bracketed: bool = True
) -> list[PlanRow]:
    """n prompts without the condition's trigger.

    In turn: the cleft prompt, the healthy prompt, the cleft prompt without appearance (as captions are), the
    cleft prompt again, and the cleft prompt under the other class's trigger.
    """
    return [
        replace(row, prompt=_prompt(condition, other, row, KINDS[place % len(KINDS)], bracketed=bracketed))
        for place, row in enumerate(sampling_plan(condition, n, seed, bracketed=bracketed))
    ]


def _prompt(condition: Condition, other: Condition, row: PlanRow, kind: str, *, bracketed: bool) -> str:
    attributes = dict(row.attributes)
    if kind == "caption_like":
        attributes = {key: value for key, value in attributes.items() if key not in APPEARANCE}
    trigger = other.trigger if kind == "other_trigger" else ""
    cleft = kind != "healthy_prompt"
    return build_prompt(condition, attributes, bracketed=bracketed, trigger=trigger, cleft=cleft)

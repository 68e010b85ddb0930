"""Plans of the base model's own pictures: regularisation, and the vocabulary's zero-shot probes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from ..conditions.plan import sampling_plan
from ..conditions.plan_rows import PlanRow
from ..conditions.prompts import build_prompt
from ..conditions.vocabulary import Condition

CONDITION = "zero_shot"
HEALTHY = "healthy"
"""Stands where a condition's name would, on pictures of the base model that show none."""


def zero_shot_plan(prompts: Sequence[str], n: int, seed: int) -> list[PlanRow]:
    """n images of each probe, for `generation.generate` with `lora=None` and `role="control"`."""
    rows = []
    for index in range(n * len(prompts)):
        prompt = prompts[index // n]
        noise = int(hashlib.sha256(f"zero-shot/{seed}/{index}".encode()).hexdigest()[:8], 16)
        rows.append(PlanRow(index, prompt, noise, {}, CONDITION))
    return rows


def healthy_plan(condition: Condition, n: int, seed: int, *, bracketed: bool = True) -> list[PlanRow]:
    """n prompts for healthy people with the condition's attributes, for the base model without a LoRA."""
    return [
        replace(
            row,
            prompt=build_prompt(condition, row.attributes, bracketed=bracketed, trigger="", cleft=False),
            condition=HEALTHY,
        )
        for row in sampling_plan(condition, n, seed, bracketed=bracketed)
    ]


KINDS = ("cleft_prompt", "healthy_prompt", "caption_like", "cleft_prompt", "other_trigger")
"""One in five each, the cleft prompt two: it is the one that the plain recipe fails."""


def regularization_plan(condition: Condition, n: int, seed: int, *, bracketed: bool = True) -> list[PlanRow]:
    """n prompts without the condition's trigger.

    In turn: the cleft prompt, the healthy prompt, the cleft prompt without appearance (as captions are), the
    cleft prompt again, and the cleft prompt under the contrast's trigger, where there is a contrast.
    """
    kinds = KINDS if condition.contrast_trigger is not None else KINDS[:-1]
    return [
        replace(row, prompt=_prompt(condition, row, kinds[place % len(kinds)], bracketed=bracketed))
        for place, row in enumerate(sampling_plan(condition, n, seed, bracketed=bracketed))
    ]


def _prompt(condition: Condition, row: PlanRow, kind: str, *, bracketed: bool) -> str:
    attributes = dict(row.attributes)
    if kind == "caption_like":
        appearance = condition.appearance_attributes
        attributes = {key: value for key, value in attributes.items() if key not in appearance}
    trigger = condition.contrast_trigger if kind == "other_trigger" else ""
    cleft = kind != "healthy_prompt"
    return build_prompt(condition, attributes, bracketed=bracketed, trigger=trigger, cleft=cleft)

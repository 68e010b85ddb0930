"""Zero-shot: what a base model draws for a cleft without any LoRA (Figure 1 of the paper)."""

from __future__ import annotations

import hashlib

from ..prompts import PlanRow

PROMPTS = ("A boy's face with a cleft lip", "a cleft lip scar")
"""The paper's two probes."""
CONDITION = "zero_shot"


def zero_shot_plan(n: int, seed: int) -> list[PlanRow]:
    """n images of each prompt, for `generation.generate` with `lora=None` and `role="control"`."""
    rows = []
    for index in range(n * len(PROMPTS)):
        prompt = PROMPTS[index // n]
        noise = int(hashlib.sha256(f"zero-shot/{seed}/{index}".encode()).hexdigest()[:8], 16)
        rows.append(PlanRow(index, prompt, noise, {}, CONDITION))
    return rows

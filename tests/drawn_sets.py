"""Generated sets of plain pictures, without a model: as `generate` and the filters leave them."""

from dataclasses import replace
from pathlib import Path

import torch

from diffusioncleft.diffusioncleft_core.conditions.loader import load_vocabulary
from diffusioncleft.diffusioncleft_core.conditions.plan import sampling_plan
from diffusioncleft.diffusioncleft_core.files import write_json
from diffusioncleft.diffusioncleft_core.imageset.manifest import write_image_set
from diffusioncleft.diffusioncleft_core.imageset.places import move_all, place_for
from diffusioncleft.diffusioncleft_core.imageset.synthetic import generated_row, write_image

PIXELS = torch.arange(32 * 32 * 3).reshape(32, 32, 3).to(torch.uint8).numpy()
REJECTED = 2
"""The picture that the filters rejected."""


def draw_set(folder: Path, n: int, *, moved: bool = False) -> Path:
    """A set of `n` pictures of which the filters rejected the third, and `moved` it or have not yet."""
    rows = []
    for row in sampling_plan(load_vocabulary().condition("pre_op"), n, 3):
        accepted = row.index != REJECTED
        record = {
            "index": row.index,
            "condition": row.condition,
            "prompt": row.prompt,
            "seed": row.seed,
            "attributes": dict(row.attributes),
            "base": {"sha256": "b" * 64},
            "lora": None,
            "verdicts": {"accepted": accepted, "reasons": [] if accepted else ["text"]},
        }
        rows.append(generated_row(write_image(folder, PIXELS + row.index, record)))
    if moved:
        rows = [replace(row, file=place_for(row.name, accepted=bool(row.accepted))) for row in rows]
    write_image_set(folder, rows)
    if moved:
        move_all(folder, {row.name: bool(row.accepted) for row in rows})
        write_json(folder / "generation.json", {"base": {"sha256": "b" * 64}, "lora": None, "title": "ä"})
    return folder

"""A grid picture: one prompt and seed, LoRA files (checkpoints) down, strengths across."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..conditions.plan import PlanRow
from ..environment import versions
from ..errors import UserError
from ..flux.source import FluxSource
from ..imageset.sheets import Image8, contact_sheet
from ..progress import progress
from ..ranges import STRENGTH
from .generate import base_digests, check_plan, lora_digest, lora_labels
from .sampler import ImageSampler, ImageSize, embed_prompts
from .sampling import Sampling


@dataclass(frozen=True)
class GridResult:
    """One picture a plan row."""

    pictures: list[Path]


def generate_grid(
    source: FluxSource,
    loras: Sequence[Path],
    strengths: Sequence[float],
    plan: Sequence[PlanRow],
    out: Path,
    sampling: Sampling,
    *,
    cell: int = 256,
) -> GridResult:
    """Draw every plan row under every LoRA at every strength, from the same noise.

    Writes `grid_<index>_<seed>.png`, a sheet of len(loras) rows and len(strengths) columns, cells `cell` px
    wide, and a sidecar with the hashes. Strength 0 is the base model.
    """
    if not loras or not strengths:
        raise UserError(
            "a grid needs LoRAs and strengths: give --grid-loras a.safetensors,… --grid-strengths 0.6,1.0"
        )
    check_plan(plan)
    for strength in strengths:
        STRENGTH.check(strength, "the LoRA's strength")
    size = ImageSize(sampling.width, sampling.height)
    digests = [lora_digest(lora) for lora in loras]
    labels = lora_labels(loras)
    embeddings = embed_prompts(source, [row.prompt for row in plan], sampling.device, sampling.dtype)
    sampler = ImageSampler(source, sampling.device, sampling.dtype)
    cells: dict[int, list[Image8]] = {row.index: [] for row in plan}
    with progress(len(loras) * len(strengths) * len(plan), "grid") as bar:
        for lora in loras:
            for strength in strengths:
                sampler.use_lora(lora if strength else None, strength)
                for row in plan:
                    cells[row.index].extend(
                        sampler.draw([embeddings.get(row.prompt)], [row.seed], size, sampling.steps)
                    )
                    bar.update(1)
    named = [f"{label} × {strength:g}" for label in labels for strength in strengths]
    pictures = []
    for row in plan:
        path = out / f"grid_{row.index:06d}_{row.seed}.png"
        record = {
            "prompt": row.prompt,
            "seed": row.seed,
            "base": base_digests(source),
            "loras": digests,
            "strengths": list(strengths),
            "steps": sampling.steps,
            "versions": versions(),
        }
        contact_sheet(
            cells[row.index],
            named,
            path,
            title=row.prompt,
            columns=len(strengths),
            cell=min(cell, sampling.width),
            record=record,
        )
        pictures.append(path)
    return GridResult(pictures)

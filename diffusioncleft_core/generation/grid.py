"""Grid pictures: a prompt under several LoRAs at several strengths, from the same noise."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..conditions.plan_rows import PlanRow
from ..dataset.drawn import lora_names, remember_place
from ..dataset.withdrawn import refuse_withdrawn
from ..environment import versions
from ..errors import UserError
from ..flux.source import FluxSource
from ..imageset.synthetic import Image8, contact_sheet
from ..outputs import check_output
from ..progress import progress
from ..ranges import STRENGTH
from .folder import base_digests, check_plan, lora_digest
from .sampler import ImageSampler, embed_prompts
from .settings import Sampling

LARGEST_CELL = 256
"""Width in px of a cell, if the pictures are not smaller."""


@dataclass(frozen=True)
class Grid:
    """LoRA files down, strengths across. Strength 0 is the base model.

    Raises:
        UserError: there is no LoRA or no strength, or a strength is out of range.
    """

    loras: Sequence[Path]
    strengths: Sequence[float]

    def __post_init__(self) -> None:
        if not self.loras or not self.strengths:
            raise UserError(
                "a grid needs LoRAs and strengths: give --grid-loras a.safetensors,… --grid-strengths 0.6,1.0"
            )
        for strength in self.strengths:
            STRENGTH.check(strength, "the LoRA's strength")

    @property
    def labels(self) -> list[str]:
        """A label a cell, row by row: step of a checkpoint, else the file's stem, and the strength."""
        labels = []
        for lora in self.loras:
            step = re.search(r"-step0*(\d+)$", lora.stem)
            name = f"step {step[1]}" if step else lora.stem
            labels += [f"{name} × {strength:g}" for strength in self.strengths]
        return labels


def generate_grid(
    source: FluxSource, grid: Grid, plan: Sequence[PlanRow], out: Path, sampling: Sampling
) -> list[Path]:
    """Draw every plan row in every cell of the grid.

    Writes `grid_<index>_<seed>.png`, a sheet of len(loras) rows and len(strengths) columns, and a sidecar
    with the hashes.

    Args:
        source: the base model.
        grid: the LoRAs and strengths.
        plan: a sheet each.
        out: folder for the sheets.
        sampling: as all cells are drawn; its own strength is not used.

    Returns:
        The sheets, in the plan's order.
    """
    check_plan(plan)
    check_output(out / "grid.png")
    for lora in grid.loras:
        refuse_withdrawn(lora)
    digests = [lora_digest(lora) for lora in grid.loras]
    names = lora_names(grid.loras)
    trainings = sorted(names - {*digests})
    remember_place(out, names)
    embeddings = embed_prompts(source, [row.prompt for row in plan], sampling.device, sampling.dtype)
    sampler = ImageSampler(source, sampling.device, sampling.dtype)
    one = replace(sampling, batch=1)
    cells: dict[int, list[Image8]] = {row.index: [] for row in plan}
    with progress(len(grid.loras) * len(grid.strengths) * len(plan), "grid") as bar:
        for lora in grid.loras:
            for strength in grid.strengths:
                sampler.use_lora(lora if strength else None, strength)
                for (row,), (picture,) in sampler.batches(plan, embeddings, one):
                    cells[row.index].append(picture)
                    bar.update(1)
    pictures = []
    for row in plan:
        path = out / f"grid_{row.index:06d}_{row.seed}.png"
        record = {
            "prompt": row.prompt,
            "seed": row.seed,
            "base": base_digests(source),
            "loras": digests,
            **({"trainings": trainings} if trainings else {}),
            "strengths": list(grid.strengths),
            "steps": sampling.steps,
            "versions": versions(),
        }
        contact_sheet(
            list(zip(cells[row.index], grid.labels, strict=True)),
            path,
            title=row.prompt,
            columns=len(grid.strengths),
            cell=min(LARGEST_CELL, sampling.width),
            record=record,
        )
        pictures.append(path)
    return pictures

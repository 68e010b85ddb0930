"""The trigger experiment: cells of prompts, drawn and read by the oracle, and drift from the base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..conditions.plan import sampling_plan
from ..conditions.plan_rows import PlanRow
from ..conditions.prompts import build_prompt
from ..conditions.vocabulary import Condition
from ..dataset.withdrawn import refuse_withdrawn
from ..generation.folder import lora_digest
from ..generation.sampler import ImageSampler, embed_prompts, release_memory
from ..generation.settings import GenerationSettings
from ..imageset.manifest import raw_rows, read_image_set
from ..imageset.synthetic import contact_sheet, read_pictures
from ..progress import progress
from ..recipe.recipe import PHANTOM_SIDE
from .face import CLEFT

FULL = "full_prompt"
CLEFT_WITHOUT_TRIGGER = "cleft_prompt_without_trigger"
HEALTHY_WITHOUT_TRIGGER = "healthy_prompt_without_trigger"
TRIGGER_WITH_HEALTHY = "trigger_with_healthy_prompt"
OTHER_TRIGGER = "other_trigger"
SELECTIVITY = (CLEFT_WITHOUT_TRIGGER, HEALTHY_WITHOUT_TRIGGER, TRIGGER_WITH_HEALTHY, OTHER_TRIGGER)
DRIFT = (CLEFT_WITHOUT_TRIGGER, HEALTHY_WITHOUT_TRIGGER)
"""Cells drawn a second time by the base model at equal seeds, to measure what the LoRA changes unasked."""


@dataclass(frozen=True)
class Cell:
    """One cell: its name and the rows to draw, each with prompt, seed and the attributes asked for."""

    name: str
    rows: tuple[PlanRow, ...]


def trigger_cells(condition: Condition, n: int, seed: int, *, bracketed: bool = True) -> dict[str, Cell]:
    """The full prompt and the selectivity cells, n rows each; the last one borrows the contrast's trigger."""
    plan = sampling_plan(condition, n, seed, bracketed=bracketed)

    def cell(name: str, *, trigger: str | None, cleft: bool) -> Cell:
        rows = [
            replace(
                row,
                prompt=build_prompt(
                    condition, row.attributes, bracketed=bracketed, trigger=trigger, cleft=cleft
                ),
            )
            for row in plan
        ]
        return Cell(name, tuple(rows))

    cells = [
        cell(FULL, trigger=condition.trigger, cleft=True),
        cell(CLEFT_WITHOUT_TRIGGER, trigger="", cleft=True),
        cell(HEALTHY_WITHOUT_TRIGGER, trigger="", cleft=False),
        cell(TRIGGER_WITH_HEALTHY, trigger=condition.trigger, cleft=False),
    ]
    if condition.contrast_trigger is not None:
        cells.append(cell(OTHER_TRIGGER, trigger=condition.contrast_trigger, cleft=True))
    return {c.name: c for c in cells}


def prompts_of(cells: Sequence[Cell]) -> list[str]:
    """Every distinct prompt of the cells, in order."""
    return list(dict.fromkeys(row.prompt for cell in cells for row in cell.rows))


def drift(
    base: npt.NDArray[np.uint8], adapted: npt.NDArray[np.uint8], *, resamples: int = 2000, seed: int = 0
) -> dict[str, dict[str, object]]:
    """Compare pictures of equal prompts and seeds without and with the LoRA.

    Args:
        base, adapted: [N, H, W, 3].
        resamples: of the bootstrap over pictures.
        seed: of the bootstrap.

    Returns:
        `mean_absolute_difference` (0 to 255) and `psnr` (dB; of the mean squared error over all pictures,
        peak 255; None for equal pictures), each with `value`, `ci95` and `n`.

    Raises:
        ValueError: the shapes differ, or there is no picture.
    """
    if base.shape != adapted.shape or not len(base):
        raise ValueError(f"drift compares pictures of equal shape, not {base.shape} with {adapted.shape}")
    difference = base.astype(np.float64) - adapted.astype(np.float64)
    axes = tuple(range(1, difference.ndim))
    absolute = np.abs(difference).mean(axis=axes)
    squared = np.square(difference).mean(axis=axes)
    draws = np.random.default_rng(seed).integers(len(base), size=(resamples, len(base)))
    return {
        "mean_absolute_difference": {
            "value": float(absolute.mean()),
            "ci95": [float(x) for x in np.percentile(absolute[draws].mean(axis=1), (2.5, 97.5))],
            "n": len(base),
        },
        "psnr": {
            "value": psnr(float(squared.mean())),
            "ci95": [psnr(float(x)) for x in np.percentile(squared[draws].mean(axis=1), (97.5, 2.5))],
            "n": len(base),
        },
    }


def psnr(mean_squared_error: float) -> float | None:
    """10 log10(255² / MSE) in dB; None where the pictures are equal."""
    if mean_squared_error <= 0:
        return None
    return float(10 * np.log10(255.0**2 / mean_squared_error))


Pictures = npt.NDArray[np.uint8]
SHEET_IMAGES = 16
"""Pictures of each cell on the selectivity sheet."""


def measure_condition(
    settings: GenerationSettings,
    condition: Condition,
    cells: Mapping[str, Cell],
    *,
    generated: Path | None = None,
    pictures: Path | None = None,
    with_drift: bool = True,
) -> dict[str, Any]:
    """All figures of one condition's LoRA.

    Args:
        settings: base model, LoRA and sampling; the size is the phantom's own, whatever is asked.
        condition: the LoRA's; the phantom draws it.
        cells: what is drawn, see `trigger_cells`.
        generated: an image set that stands for the full-prompt cell.
        pictures: folder for a sheet of the cells.
        with_drift: whether the base model draws two cells as well, to be compared.

    Returns:
        JSON values: `trigger_obedience`, `cleft_type_accuracy` where clefts are drawn, `trigger_selectivity`
        by cell, `drift` by cell.
    """
    from .oracle import finding_rate, load_oracle, type_accuracy

    if condition.phantom is None:
        raise ValueError(f"the phantom draws no {condition.name}")
    finding = condition.phantom.finding
    drawn = [cell for name, cell in cells.items() if generated is None or name != FULL]
    plain = [cells[name] for name in DRIFT] if with_drift else []
    with_lora, by_base = draw_cells(settings, drawn, plain)
    if generated is not None:
        rows, full = read_drawn(generated)
    else:
        rows, full = list(cells[FULL].rows), with_lora[FULL]
    oracle = load_oracle()
    reading = oracle.read(full)
    wanted = asked(rows)
    result: dict[str, Any] = {
        "trigger_obedience": finding_rate(finding, reading, wanted),
        "trigger_selectivity": {
            name: finding_rate(finding, oracle.read(with_lora[name]), asked(cells[name].rows))
            for name in SELECTIVITY
            if name in cells
        },
        "drift": {name: drift(by_base[name], with_lora[name]) for name in by_base},
    }
    if finding == CLEFT:
        result["cleft_type_accuracy"] = type_accuracy(reading, wanted)
    if pictures is not None:
        loras = [lora_digest(settings.lora)] if settings.lora else []
        write_cells_sheet(
            condition, cells, {**with_lora, FULL: full}, by_base, pictures / "cells.png", loras=loras
        )
    return result


def asked(rows: Sequence[PlanRow]) -> list[dict[str, str]]:
    """What each row's prompt asked for, or would have asked for had it been the full one."""
    return [dict(row.attributes) for row in rows]


def draw_cells(
    settings: GenerationSettings, cells: Sequence[Cell], plain: Sequence[Cell]
) -> tuple[dict[str, Pictures], dict[str, Pictures]]:
    """Draw `cells` with the LoRA and `plain` without, at equal seeds: pictures [N, H, W, 3] by cell."""
    refuse_withdrawn(settings.lora)
    source = settings.source
    sampling = replace(settings.sampling, width=PHANTOM_SIDE, height=PHANTOM_SIDE)
    embeddings = embed_prompts(source, prompts_of([*cells, *plain]), sampling.device, sampling.dtype)
    sampler = ImageSampler(source, sampling.device, sampling.dtype)

    def draw(cell: Cell, bar: Any) -> Pictures:
        parts = []
        for rows, drawn in sampler.batches(cell.rows, embeddings, sampling):
            parts.append(drawn)
            bar.update(len(rows))
        return np.concatenate(parts)

    with progress(sum(len(cell.rows) for cell in (*cells, *plain)), "cells") as bar:
        by_base = {cell.name: draw(cell, bar) for cell in plain}
        sampler.use_lora(settings.lora, sampling.strength)
        with_lora = {cell.name: draw(cell, bar) for cell in cells}
    release_memory(sampling.device)
    return with_lora, by_base


def read_drawn(folder: Path) -> tuple[list[PlanRow], Pictures]:
    """An image set's rows and pictures [N, H, W, 3], as first generated: what was made again is left out."""
    rows = raw_rows(read_image_set(folder))
    return [row.plan_row() for row in rows], np.stack(read_pictures(folder, [row.file for row in rows]))


def write_cells_sheet(
    condition: Condition,
    cells: Mapping[str, Cell],
    with_lora: Mapping[str, Pictures],
    by_base: Mapping[str, Pictures],
    path: Path,
    *,
    loras: Sequence[str],
) -> None:
    """A row a cell: the first pictures of each, and of the base model at the same prompts and seeds.

    loras: SHA-256 of the LoRA, for the sheet's record.
    """
    sheet: list[tuple[Pictures, str]] = []
    width = min(SHEET_IMAGES, *(len(pictures) for pictures in with_lora.values()))
    named = [(name, with_lora[name]) for name in cells]
    named += [(f"base model: {name}", pictures) for name, pictures in by_base.items()]
    for name, pictures in named:
        labels = [name.replace("_", " ")] + [""] * (width - 1)
        sheet += zip(pictures[:width], labels, strict=True)
    title = f"{condition.title}: LoRA by cell (phantoms)"
    contact_sheet(sheet, path, title=title, columns=width, record={"loras": list(loras)})

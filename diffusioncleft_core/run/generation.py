"""Stages after training: the plan, its pictures, what the oracle reads in them, the sheets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..conditions.plan import PlanRow
from ..conditions.vocabulary import Condition
from ..files import inside, read_json, sha256_file
from ..imageset.manifest import ImageRow, raw_rows, read_image_set
from ..imageset.places import SETTINGS
from ..report.folders import RunFolders
from .settings import RunSettings, sampling_inputs, vocabulary_input
from .stages import Results, Stage, Stages, always, digest_of


def write_prompt_plan(
    settings: RunSettings, folders: RunFolders, stages: Stages, condition: Condition
) -> Results:
    """N prompts with seeds, stratified over the attributes."""
    from ..conditions.plan import extend_plan, read_plan, sampling_plan

    path = folders.plan(condition.name)
    seed = settings.seed_for("plan", condition.name)

    plan = sampling_plan(condition, settings.n, seed, mode=settings.mode, bracketed=settings.bracketed)

    def work() -> Results:
        extend_plan(path, plan)
        return {"images": settings.n}

    def fits() -> bool:
        return all(old == new for old, new in zip(read_plan(path), plan, strict=False))

    inputs = {
        "seed": seed,
        "mode": settings.mode,
        "trigger's form": settings.bracketed,
        "number of images": settings.n,
        **vocabulary_input(settings),
    }
    return stages.run(Stage(f"plan-{condition.name}", lambda: inputs, [path], work, fits=fits))


def generate_images(
    settings: RunSettings,
    folders: RunFolders,
    stages: Stages,
    condition: Condition,
    facts: Mapping[str, Results],
    warn: Callable[[str], None],
) -> Results:
    """The plan's pictures, from the base model with the new LoRA."""
    from ..conditions.plan import read_plan

    out = folders.generated(condition.name)

    def plan() -> list[PlanRow]:
        return read_plan(folders.plan(condition.name))[: settings.n]

    def work() -> Results:
        result = draw_plan(settings, folders, condition, plan(), warn=warn)
        return {"images": result.total, "content": drawn_content(out)}

    def inputs() -> dict[str, Any]:
        return {
            "prompts and seeds": prompts_of(plan()),
            "number of images": settings.n,
            "LoRA": facts["training"]["lora_sha256"],
            "strength": settings.sampling.strength,
            **sampling_inputs(settings),
        }

    def fits() -> bool:
        return set_fits(settings, out, plan(), folders.lora(condition))

    after = [f"plan-{condition.name}", f"training-{condition.name}"]
    return stages.run(Stage(f"generation-{condition.name}", inputs, [out], work, after, fits))


def prompts_of(plan: Sequence[PlanRow]) -> str:
    """Digest of what a plan asks for."""
    return digest_of([(row.index, row.prompt, row.seed) for row in plan])


def set_fits(settings: RunSettings, out: Path, plan: Sequence[PlanRow], lora: Path | None) -> bool:
    """Whether the images that are there are the plan's, drawn by this model as it is asked to draw now."""
    from ..generation.generate import shared_record

    if not (out / SETTINGS).is_file():
        return False
    record = shared_record(settings.source, lora, settings.sampling)
    stored = read_json(out / SETTINGS)
    if any(stored.get(name) != value for name, value in record.items()):
        return False
    asked = {row.index: (row.seed, row.prompt) for row in plan}
    return all(
        asked.get(row["index"], seen) == seen
        for row in map(read_json, out.rglob("??????_*.json"))
        if (seen := (row["seed"], row["prompt"]))
    )


def drawn_content(folder: Path) -> str:
    """Digest of a set's images as they were drawn, wherever the filters moved them since."""
    rows = raw_rows(read_image_set(folder))
    return digest_of([[row.name, row.prompt, _image_digest(folder, row)] for row in rows])


def filtered_content(folder: Path) -> str:
    """Digest of a set's images with all that its manifest says of them, verdicts too."""
    return digest_of([[row.to_json(), _image_digest(folder, row)] for row in read_image_set(folder)])


def _image_digest(folder: Path, row: ImageRow) -> str | None:
    path = inside(folder, row.file)
    return sha256_file(path) if path.is_file() else None


def draw_plan(
    settings: RunSettings,
    folders: RunFolders,
    condition: Condition,
    plan: Sequence[PlanRow],
    *,
    warn: Callable[[str], None],
) -> Any:
    """Draw the rows of a plan that the condition's set does not hold yet."""
    from ..generation.generate import generate

    return generate(
        settings.source,
        folders.lora(condition),
        plan,
        folders.generated(condition.name),
        settings.sampling,
        warn=warn,
    )


def ask_oracle(
    settings: RunSettings,
    folders: RunFolders,
    stages: Stages,
    condition: Condition,
    facts: Mapping[str, Results],
) -> Results:
    """Where ground truth exists: does the LoRA draw what is asked, and only when it is asked?"""
    from ..phantom.experiment import measure_condition, trigger_cells
    from ..phantom.oracle import WEIGHTS

    out = folders.oracle(condition.name)
    seed = settings.seed_for("cells", condition.name)

    def work() -> Results:
        return measure_condition(
            settings.source,
            folders.lora(condition),
            condition,
            settings.sampling,
            n=settings.cell_images,
            seed=seed,
            bracketed=settings.bracketed,
            generated=folders.generated(condition.name),
            pictures=out,
        )

    def inputs() -> dict[str, Any]:
        cells = trigger_cells(condition, settings.cell_images, seed, bracketed=settings.bracketed)
        return {
            "LoRA": facts["training"]["lora_sha256"],
            "cells": [(cell.name, prompts_of(cell.rows)) for cell in cells.values()],
            "strength": settings.sampling.strength,
            "oracle": sha256_file(WEIGHTS),
            "generated images": facts["generation"]["content"],
            **sampling_inputs(settings),
        }

    after = [f"training-{condition.name}", f"generation-{condition.name}"]
    return stages.run(Stage(f"oracle-{condition.name}", inputs, [out], work, after, always))


def draw_sheets(
    settings: RunSettings,
    folders: RunFolders,
    stages: Stages,
    condition: Condition,
) -> Results:
    """A contact sheet of the first images of the set that a report may show."""
    from ..report.summary import write_contact_sheet

    path = folders.sheets / f"{condition.name}.png"

    def work() -> Results:
        shown = write_contact_sheet(
            folders.generated(condition.name), path, condition.title, phantom=settings.phantom
        )
        return {"shown": shown}

    def inputs() -> dict[str, Any]:
        return {"filtered images": filtered_content(folders.generated(condition.name))}

    name = f"sheets-{condition.name}"
    earlier = stages.results(name)
    outputs = [path] if earlier is None or earlier["shown"] else []  # of no image there is no sheet
    return stages.run(Stage(name, inputs, outputs, work, [f"generation-{condition.name}", "filters"], always))

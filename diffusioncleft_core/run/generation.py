"""Stages after training: the plan, its pictures, what the oracle reads in them, the sheets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..conditions.vocabulary import Condition
from ..files import inside, read_jsonl, sha256_file
from ..imageset.manifest import MANIFEST, raw_rows
from .settings import RunFolders, RunSettings, sampling_inputs, sampling_of, vocabulary_input
from .stages import Facts, Stages, digest_of


def write_prompt_plan(
    settings: RunSettings, folders: RunFolders, stages: Stages, condition: Condition
) -> Facts:
    """N prompts with seeds, stratified over the attributes."""
    from ..conditions.plan import extend_plan, sampling_plan

    path = folders.plan(condition.name)
    seed = settings.seed_for("plan", condition.name)

    def work() -> Facts:
        plan = sampling_plan(condition, settings.n, seed, mode=settings.mode, bracketed=settings.bracketed)
        extend_plan(path, plan)
        return {"images": settings.n}

    more = {"number of images": settings.n}
    return stages.stage(f"plan-{condition.name}", plan_inputs(settings, seed), [path], work, soft=more)


def plan_inputs(settings: RunSettings, seed: int) -> dict[str, Any]:
    return {
        "seed": seed,
        "mode": settings.mode,
        "trigger's form": settings.bracketed,
        **vocabulary_input(settings),
    }


def generate_images(
    settings: RunSettings,
    folders: RunFolders,
    stages: Stages,
    condition: Condition,
    facts: Mapping[str, Facts],
    warn: Callable[[str], None],
) -> Facts:
    """The plan's pictures, from the base model with the new LoRA."""
    from ..conditions.plan import read_plan

    out = folders.generated(condition.name)

    def work() -> Facts:
        plan = read_plan(folders.plan(condition.name))[: settings.n]
        result = draw_plan(settings, folders, condition, plan, warn=warn)
        return {"images": result.total, "content": drawn_content(out)}

    inputs = {
        **plan_inputs(settings, settings.seed_for("plan", condition.name)),
        "LoRA": facts["training"]["lora_sha256"],
        "strength": settings.strength,
        **sampling_inputs(settings),
    }
    more = {"number of images": settings.n}
    return stages.stage(f"generation-{condition.name}", inputs, [out], work, soft=more)


def drawn_content(folder: Path) -> str:
    """Digest of a set's images as they were drawn, wherever the filters moved them since."""
    rows = raw_rows(read_jsonl(folder / MANIFEST))
    return digest_of([[Path(row["file"]).name, row["prompt"], _image_digest(folder, row)] for row in rows])


def filtered_content(folder: Path) -> str:
    """Digest of a set's images with all that its manifest says of them, verdicts too."""
    return digest_of([[row, _image_digest(folder, row)] for row in read_jsonl(folder / MANIFEST)])


def _image_digest(folder: Path, row: Mapping[str, Any]) -> str | None:
    path = inside(folder, row["file"])
    return sha256_file(path) if path.is_file() else None


def draw_plan(
    settings: RunSettings,
    folders: RunFolders,
    condition: Condition,
    plan: list[Any],
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
        warn=warn,
        strength=settings.strength,
        **sampling_of(settings),
    )


def ask_oracle(
    settings: RunSettings,
    folders: RunFolders,
    stages: Stages,
    condition: Condition,
    facts: Mapping[str, Facts],
) -> Facts:
    """Where ground truth exists: does the LoRA draw what is asked, and only when it is asked?"""
    from ..phantom.experiment import measure_condition
    from ..phantom.oracle import WEIGHTS

    out = folders.oracle(condition.name)
    seed = settings.seed_for("cells", condition.name)

    def work() -> Facts:
        return measure_condition(
            settings.source,
            folders.lora(condition),
            condition,
            n=settings.cell_images,
            strength=settings.strength,
            seed=seed,
            bracketed=settings.bracketed,
            generated=folders.generated(condition.name),
            pictures=out,
            device=settings.device,
            dtype=settings.dtype,
            batch=settings.batch,
            steps=settings.steps,
        )

    inputs = {
        "LoRA": facts["training"]["lora_sha256"],
        "cells": [settings.cell_images, seed],
        "trigger's form": settings.bracketed,
        "strength": settings.strength,
        "oracle": sha256_file(WEIGHTS),
        **sampling_inputs(settings),
        **vocabulary_input(settings),
    }
    more = {"generated images": facts["generation"]["content"]}
    return stages.stage(f"oracle-{condition.name}", inputs, [out], work, soft=more)


def draw_sheets(
    settings: RunSettings,
    folders: RunFolders,
    stages: Stages,
    condition: Condition,
) -> Facts:
    """A contact sheet of the first images of the set that a report may show."""
    from ..report.run_report import write_contact_sheet

    path = folders.sheets / f"{condition.name}.png"

    def work() -> Facts:
        shown = write_contact_sheet(
            folders.generated(condition.name), path, condition.title, phantom=settings.phantom
        )
        return {"shown": shown}

    inputs = {"filtered images": filtered_content(folders.generated(condition.name))}
    name = f"sheets-{condition.name}"
    earlier = stages.done(name)
    outputs = [path] if earlier is None or earlier["shown"] else []  # of no image there is no sheet
    return stages.stage(name, {}, outputs, work, soft=inputs)

"""Stages after training: the plan, its pictures, what the oracle reads in them, the sheets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..conditions import Condition
from ..files import sha256_file
from .settings import RunFolders, RunSettings, sampling_inputs, sampling_of, vocabulary_input
from .stages import Facts, Stages
from .training import lora_file


def write_prompt_plan(
    settings: RunSettings, folders: RunFolders, stages: Stages, condition: Condition
) -> Facts:
    """N prompts with seeds, stratified over the attributes."""
    from ..prompts import extend_plan, sampling_plan

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
        **vocabulary_input(),
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
    from ..prompts import read_plan

    out = folders.generated(condition.name)

    def work() -> Facts:
        plan = read_plan(folders.plan(condition.name))[: settings.n]
        result = draw_plan(settings, folders, condition, plan, warn=warn)
        return {"images": result.total, "manifest": sha256_file(out / "manifest.jsonl")}

    inputs = {
        **plan_inputs(settings, settings.seed_for("plan", condition.name)),
        "LoRA": facts["training"]["lora_sha256"],
        "strength": settings.strength,
        **sampling_inputs(settings),
    }
    more = {"number of images": settings.n}
    return stages.stage(f"generation-{condition.name}", inputs, [out], work, soft=more)


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
        lora_file(folders, condition),
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
    other: Condition,
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
            lora_file(folders, condition),
            condition,
            other,
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
        **vocabulary_input(),
    }
    more = {"generated images": facts["generation"]["manifest"]}
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

    inputs = {"filtered images": sha256_file(folders.generated(condition.name) / "manifest.jsonl")}
    return stages.stage(f"sheets-{condition.name}", {}, [path], work, soft=inputs)

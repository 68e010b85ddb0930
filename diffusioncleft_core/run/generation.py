"""Stages after training: the plan, its pictures, what the oracle reads in them, the sheets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..conditions.plan_rows import Plan, PlanRow
from ..conditions.vocabulary import Condition
from ..files import inside, sha256_file
from ..imageset.manifest import ImageRow, image_set_rows
from ..progress import progress
from .run import WARNINGS, Run, Warn
from .settings import sampling_inputs, vocabulary_input
from .stages import Results, Stage, always, digest_of_each


def write_prompt_plan(run: Run, condition: Condition) -> Results:
    """N prompts with seeds, stratified over the attributes."""
    from ..conditions.plan import AttributeChoices, sampling_plan
    from ..conditions.plan_rows import extend_plan, read_plan

    settings, path = run.settings, run.folders.plan(condition.name)
    seed = settings.seed_for("plan", condition.name)
    choices = AttributeChoices(settings.mode)
    plan = sampling_plan(condition, settings.n, seed, choices, bracketed=settings.bracketed)

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
    return run.stages.run(Stage(f"plan-{condition.name}", lambda: inputs, [path], work, fits=fits))


def generate_images(run: Run, condition: Condition) -> Results:
    """The plan's pictures, from the base model with the new LoRA."""
    from ..conditions.plan_rows import read_plan
    from ..generation.folder import set_fits

    settings, folders = run.settings, run.folders
    out = folders.generated(condition.name)

    def plan() -> Plan:
        return read_plan(folders.plan(condition.name))[: settings.n]

    def work() -> Results:
        said: list[str] = []
        result = draw_plan(run, condition, plan(), warn=run.noted(said))
        return {"images": result.total, "content": drawn_content(out), WARNINGS: said}

    def inputs() -> dict[str, Any]:
        return {
            "prompts and seeds": prompts_of(plan()),
            "number of images": settings.n,
            "LoRA": run.facts[condition.name]["training"]["lora_sha256"],
            "strength": settings.strength_of(condition),
            **sampling_inputs(settings),
        }

    def fits() -> bool:
        return set_fits(settings.with_lora(condition, folders.lora(condition)), plan(), out)

    after = [f"plan-{condition.name}", f"training-{condition.name}"]
    return run.stages.run(Stage(f"generation-{condition.name}", inputs, [out], work, after, fits))


def prompts_of(plan: Iterable[PlanRow]) -> str:
    """Digest of what a plan asks for."""
    return digest_of_each((row.index, row.prompt, row.seed) for row in plan)


def drawn_content(folder: Path) -> str:
    """Digest of a set's images as they were drawn, wherever the filters moved them since."""
    rows = (row for row in _compared(folder) if row.is_raw)
    return digest_of_each([row.name, row.prompt, _image_digest(folder, row)] for row in rows)


def filtered_content(folder: Path) -> str:
    """Digest of a set's images with all that its manifest says of them, verdicts too."""
    return digest_of_each([row.to_json(), _image_digest(folder, row)] for row in _compared(folder))


def _compared(folder: Path) -> Iterator[ImageRow]:
    """The set's rows, one by one, with a bar."""
    total = sum(1 for _ in image_set_rows(folder))
    yield from progress(image_set_rows(folder), "comparing images", total, leave=False)


def _image_digest(folder: Path, row: ImageRow) -> str | None:
    path = inside(folder, row.file)
    return sha256_file(path) if path.is_file() else None


def draw_plan(run: Run, condition: Condition, plan: Sequence[PlanRow], *, warn: Warn) -> Any:
    """Draw the rows of a plan that the condition's set does not hold yet."""
    from ..generation.generate import draw_all

    settings, out = (
        run.settings.with_lora(condition, run.folders.lora(condition)),
        run.folders.generated(condition.name),
    )
    return draw_all(settings, plan, out, warn=warn, engine=run.settings.engine)


def ask_oracle(run: Run, condition: Condition) -> Results:
    """Where ground truth exists: does the LoRA draw what is asked, and only when it is asked?"""
    from ..phantom.experiment import measure_condition, trigger_cells
    from ..phantom.oracle import WEIGHTS

    settings, folders, facts = run.settings, run.folders, run.facts[condition.name]
    out = folders.oracle(condition.name)
    seed = settings.seed_for("cells", condition.name)
    cells = trigger_cells(condition, settings.cell_images, seed, bracketed=settings.bracketed)

    def work() -> Results:
        return measure_condition(
            settings.with_lora(condition, folders.lora(condition)),
            condition,
            cells,
            generated=folders.generated(condition.name),
            pictures=out,
        )

    def inputs() -> dict[str, Any]:
        return {
            "LoRA": facts["training"]["lora_sha256"],
            "cells": [(cell.name, prompts_of(cell.rows)) for cell in cells.values()],
            "strength": settings.strength_of(condition),
            "oracle": sha256_file(WEIGHTS),
            "generated images": facts["generation"]["content"],
            **sampling_inputs(settings),
        }

    after = [f"training-{condition.name}", f"generation-{condition.name}"]
    return run.stages.run(Stage(f"oracle-{condition.name}", inputs, [out], work, after, always))


def draw_sheets(run: Run, condition: Condition) -> Results:
    """A contact sheet of the first images of the set that a report may show."""
    from ..report.summary import write_contact_sheet

    stages, generated = run.stages, run.folders.generated(condition.name)
    path = run.folders.sheets / f"{condition.name}.png"

    def work() -> Results:
        shown = write_contact_sheet(generated, path, condition.title, phantom=run.settings.phantom)
        return {"shown": shown}

    def inputs() -> dict[str, Any]:
        return {"filtered images": filtered_content(generated)}

    name = f"sheets-{condition.name}"
    earlier = stages.results(name)
    outputs = [path] if earlier is None or earlier["shown"] else []  # of no image there is no sheet
    return stages.run(Stage(name, inputs, outputs, work, [f"generation-{condition.name}", "filters"], always))

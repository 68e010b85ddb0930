"""Generation: a plan, a base model and a LoRA give a folder of synthetic images (see `folder`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from ..cluster.work import HERE, Engine, SetAside, Work
from ..conditions.plan_rows import Plan, PlanRow
from ..dataset.drawn import refuse_withdrawn_set, remember_place
from ..dataset.withdrawn import refuse_withdrawn
from ..errors import UserError
from ..flux.lora_forms import said_of
from ..imageset.places import SETTINGS
from ..imageset.synthetic import drawn_by
from ..outputs import check_output
from ..progress import progress
from .drawing import BLOCK, BLOCK_IN_MEMORY, Batch, Batches, Drawing, Drawn
from .folder import PlannedSet, check_plan, open_planned_set, shared_record
from .settings import GenerationSettings

EMBEDDINGS_FOLDER = ".embeddings"
NAMED_AT_MOST = 10
"""Rows that are named one by one when workers ended over them."""
STREAMED = (
    "the base model is bigger than the GPU's free memory, so it is streamed from main memory: slower, "
    "the same pictures"
)
Warn = Callable[[str], None]
OnImage = Callable[[int, int], None]


@dataclass(frozen=True)
class GenerationResult:
    """What a call did: `total` images of the plan are in `folder`, of which `made` are new.

    `set_aside`: why a row has no image, by its index: its drawing ended every worker that tried.
    """

    folder: Path
    total: int
    made: int
    warnings: list[str] = field(default_factory=list)
    set_aside: dict[int, str] = field(default_factory=dict)


def generate(
    settings: GenerationSettings,
    plan: Sequence[PlanRow],
    out: Path,
    *,
    role: str = "generated",
    warn: Warn = lambda message: None,
    on_image: OnImage = lambda done, total: None,
    engine: Engine = HERE,
) -> GenerationResult:
    """Make every image of `plan` that `out` does not hold yet.

    Args:
        settings: base model, LoRA and sampling.
        plan: prompts and seeds, each index once.
        out: the set's folder; a call that was interrupted goes on there.
        role: the manifest's role, `generated` or `control`.
        warn: told what the LoRA itself says against this use of it, and when the model is streamed.
        on_image: called with (images done, images of the plan) after each batch; what it raises stops the
            call.
        engine: who draws: this process, or workers on Ray, to the same bytes.

    Raises:
        UserError: the plan is empty, another process is at work in `out`, `out` holds images of other
            settings or of another plan, or the LoRA, or the one that drew what is in `out`, learned from a
            photograph whose consent was withdrawn.
    """
    check_plan(plan)
    check_output(out / SETTINGS)
    refuse_withdrawn(settings.lora)
    refuse_withdrawn_set(out)
    record = shared_record(settings)
    warnings = lora_warnings(settings.lora, record, plan)
    remember_place(out, drawn_by(record["lora"]))
    for message in warnings:
        warn(message)
    with open_planned_set(out, plan, role, record) as planned:
        pending = planned.write_manifest()
        set_aside = draw_pending(settings, planned, pending, engine, warn, on_image) if pending else {}
        if pending:
            planned.write_manifest()
    made = len(pending) - len(set_aside)
    return GenerationResult(out, len(plan) - len(set_aside), made, warnings, set_aside)


def draw_all(
    settings: GenerationSettings, plan: Sequence[PlanRow], out: Path, **options: Any
) -> GenerationResult:
    """`generate`, whose every image is there in the end; UserError where workers ended over some of them."""
    result = generate(settings, plan, out, **options)
    if result.set_aside:
        named = "; ".join(f"{index}: {why}" for index, why in list(result.set_aside.items())[:NAMED_AT_MOST])
        more = len(result.set_aside) - NAMED_AT_MOST
        raise UserError(
            f"{len(result.set_aside)} rows of the plan were set aside because they ended their workers "
            f"({named}{f'; and {more} more' if more > 0 else ''}); the others are drawn, and the same "
            "command tries these again"
        )
    return result


def draw_pending(
    settings: GenerationSettings,
    planned: PlannedSet,
    pending: Plan,
    engine: Engine,
    warn: Warn,
    on_image: OnImage,
) -> dict[int, str]:
    """Draw `pending` batch by batch and write each as it comes; why a row was set aside, by its index."""
    at_once = settings.sampling.batch
    batches = Batches(planned.plan, pending, at_once)
    total, set_aside = len(planned.plan), dict[int, str]()
    done = total - len(pending)
    told = False
    with progress(total, "images") as bar:
        bar.update(done)
        for result in engine.run(drawing_work(settings, planned, engine), batches):
            rows = result.job.rows
            if isinstance(result, SetAside):
                set_aside |= dict.fromkeys((row.index for row in rows), result.reason)
                continue
            if result.found.streamed and not told:
                warn(STREAMED)
                told = True
            for row, png in zip(rows, result.found.pictures, strict=True):
                planned.write(row, png)
            done += len(rows)
            bar.set_postfix_str(engine.told(), refresh=False)
            bar.update(len(rows))
            on_image(done, total)
    return set_aside


def drawing_work(settings: GenerationSettings, planned: PlannedSet, engine: Engine) -> Work[Batch, Drawn]:
    """The batches of a set as work: in this process embeddings may lie in the set's folder meanwhile."""
    folder = None if engine.elsewhere else planned.folder / EMBEDDINGS_FOLDER
    if engine.elsewhere:  # a worker sees the one GPU that is its own
        device = torch.device(settings.sampling.device.type)
        settings = replace(settings, sampling=replace(settings.sampling, device=device))
    rows = BLOCK_IN_MEMORY if engine.elsewhere else BLOCK
    return Work(
        Drawing(settings, planned.record, folder, elsewhere=engine.elsewhere),
        block=max(1, rows // settings.sampling.batch),
        size=lambda batch: len(batch.rows),
        split=Batch.split,
    )


def lora_warnings(lora: Path | None, record: Mapping[str, Any], plan: Sequence[PlanRow]) -> list[str]:
    """What the LoRA says against this use of it: no effect, another base model, another trigger."""
    if lora is None:
        return []
    metadata, told = said_of(lora)
    warnings = [f"the LoRA changes less than it seems: {said}" for said in told]
    trained_on = metadata.get("base_model_sha256", "")
    if trained_on and trained_on != record["base"]["sha256"]:
        warnings.append(
            "the LoRA was trained on another base model than this one: expect weaker or odd results"
        )
    start = trigger_as_trained(metadata)
    other = sum(not row.prompt.startswith(f"{start} ") for row in plan) if start else 0
    if other:
        warnings.append(
            f"{other} of {len(plan)} prompts do not begin with the LoRA's trigger as it was trained, {start}"
        )
    return warnings


def trigger_as_trained(metadata: Mapping[str, str]) -> str:
    """`[CLP]` or `CLP`, as the LoRA's captions began; "" when the file does not say."""
    trigger = metadata.get("trigger", "").strip("[]")
    if not trigger:
        return ""
    return f"[{trigger}]" if metadata.get("prompt_form") == "bracketed" else trigger

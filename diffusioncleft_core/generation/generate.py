"""Generation: a plan, a base model and a LoRA give a folder of synthetic images (see `folder`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..conditions.plan import PlanRow
from ..dataset.drawn import refuse_withdrawn_set, remember_place
from ..dataset.withdrawn import refuse_withdrawn
from ..flux.lora_forms import said_of
from ..imageset.places import SETTINGS
from ..imageset.synthetic import drawn_by
from ..outputs import check_output
from ..progress import progress
from .folder import PlannedSet, check_plan, open_planned_set, shared_record
from .sampler import ImageSampler, embed_prompts, release_memory
from .settings import GenerationSettings

EMBEDDINGS_FOLDER = ".embeddings"
STREAMED = (
    "the base model is bigger than the GPU's free memory, so it is streamed from main memory: slower, "
    "the same pictures"
)
Warn = Callable[[str], None]
OnImage = Callable[[int, int], None]


@dataclass(frozen=True)
class GenerationResult:
    """What a call did: `total` images of the plan are in `folder`, of which `made` are new."""

    folder: Path
    total: int
    made: int
    warnings: list[str] = field(default_factory=list)


def generate(
    settings: GenerationSettings,
    plan: Sequence[PlanRow],
    out: Path,
    *,
    role: str = "generated",
    warn: Warn = lambda message: None,
    on_image: OnImage = lambda done, total: None,
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
        pending = planned.pending()
        if pending:
            draw_pending(settings, planned, pending, warn, on_image)
            planned.write_manifest()
    return GenerationResult(out, total=len(plan), made=len(pending), warnings=warnings)


def draw_pending(
    settings: GenerationSettings,
    planned: PlannedSet,
    pending: Sequence[PlanRow],
    warn: Warn,
    on_image: OnImage,
) -> None:
    """Encode the prompts, then draw and write `pending` batch by batch."""
    sampling = settings.sampling
    prompts, folder = [row.prompt for row in pending], planned.folder / EMBEDDINGS_FOLDER
    embeddings = embed_prompts(settings.source, prompts, sampling.device, sampling.dtype, folder)
    total = len(planned.plan)
    done = total - len(pending)
    try:
        sampler = ImageSampler(settings.source, sampling.device, sampling.dtype)
        if sampler.streamed:
            warn(STREAMED)
        sampler.use_lora(settings.lora, sampling.strength)
        with progress(total, "images") as bar:
            bar.update(done)
            for rows, pictures in sampler.batches(pending, embeddings, sampling):
                for row, pixels in zip(rows, pictures, strict=True):
                    planned.write(row, pixels)
                done += len(rows)
                bar.update(len(rows))
                on_image(done, total)
        del sampler
    finally:
        embeddings.close()
        release_memory(sampling.device)


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

"""The examination in order, and its result as a document and a block to paste."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from . import environment, face_pack, loading, training
from . import environment as estimate
from . import loading as reload
from . import models as model_files
from .checkup import Checkup
from .redaction import Redaction
from .steps import Figure, Figures, Step, StepResult, run_steps


def examine(checkup: Checkup, tell: Callable[[int, StepResult | Step], None]) -> list[StepResult]:
    """Do every step; `tell` is called before and after each."""
    return run_steps(steps_of(checkup), checkup.settings.device.type, tell)


def steps_of(checkup: Checkup) -> list[Step]:
    """The steps in order. What needs what is said here and nowhere else."""

    def step(name: str, proves: str, work: Callable[[Checkup], Figures], *needs: str) -> Step:
        return Step(name, proves, partial(work, checkup), needs)

    def loads(name: str, proves: str, work: Callable[[Checkup], Figures], *needs: str) -> Step:
        return Step(name, proves, partial(work, checkup), needs, weighs=True)

    files = ("transformer file", "autoencoder file", "text encoder files")
    return [
        step("environment", "the libraries are there and can be imported", environment.environment),
        step("transformer file", "its header is readable and whole", model_files.transformer),
        step("autoencoder file", "its header is readable and whole", model_files.autoencoder),
        step("text encoder files", "headers readable, tokenizers there", model_files.text_encoders),
        step("schnell", "the shapes are FLUX.1 schnell's", model_files.is_schnell, *files),
        step("training adapter", "it is a LoRA file", model_files.adapter),
        step("measuring models", "the models that measure a set are there", model_files.measuring),
        step("disk", "the folder can be written and has room", environment.disk),
        step("memory", "the device can carry the base model", environment.room),
        loads("text encoders", "they load and encode", loading.text_encoders, "text encoder files", "memory"),
        loads("autoencoder", "it gives a picture back", loading.autoencoder, "autoencoder file"),
        loads(
            "transformer", "it loads and draws", loading.transformer,
            "transformer file", "memory", "text encoders", "autoencoder",
        ),
        loads("face pack", "detector and recogniser open", face_pack.opens),
        step("face", "the face pack finds a face", face_pack.finds, "face pack"),
        step("filters", "artifacts are looked for, text too", face_pack.filters, "face pack"),
        step("training", "ten steps in the trainer's process", training.ten_steps, *files, "memory", "disk"),
        step("preview", "the trainer drew what it learns", training.preview, "training"),
        step("LoRA file", "well formed, and names no file or folder", training.lora_file, "training"),
        loads(
            "reload", "diffusers draws the same picture from the file", reload.same_picture,
            "LoRA file", "transformer",
        ),
        step("estimate", "what the planned run will take", estimate.planned_run, "training", "transformer"),
    ]  # fmt: skip


SCHEMA = 1
BEGIN = "<!-- diffusioncleft doctor: begin; nothing here names a person, computer, file or photograph -->"
END = "<!-- diffusioncleft doctor: end -->"
PHANTOM = "These figures are of the embedded phantom; they say nothing about FLUX.1."
_SHOWN_DIGITS = 16


def document(
    results: Sequence[StepResult], notes: Sequence[str], redaction: Redaction, *, phantom: bool
) -> dict[str, Any]:
    """The result as JSON values; every text went through `redaction`."""
    counts = Counter(result.outcome for result in results)
    return {
        "schema": SCHEMA,
        "date": datetime.now(UTC).date().isoformat(),
        "phantom": phantom,
        "ok": counts["failed"] == 0,
        "counts": {outcome: counts[outcome] for outcome in ("ok", "failed", "skipped")},
        "seconds": round(sum(result.seconds for result in results), 1),
        "steps": [
            {
                "name": result.name,
                "proves": result.proves,
                "outcome": result.outcome,
                "seconds": round(result.seconds, 2),
                "figures": {name: _clean(value, redaction) for name, value in result.figures.items()},
                "message": redaction(result.message),
                "hint": redaction(result.hint),
            }
            for result in results
        ],
        "notes": [redaction(note) for note in notes],
    }


def markdown(result: dict[str, Any]) -> str:
    """The block to paste, from `document`."""
    counts = result["counts"]
    said = ", ".join(f"{number} {outcome}" for outcome, number in counts.items() if number)
    lines = [BEGIN, f"### diffusioncleft doctor: {said}", ""]
    lines += [f"{result['date']}, {result['seconds']:.0f} s.{' ' + PHANTOM if result['phantom'] else ''}", ""]
    lines += ["| step | outcome | s | figures |", "| --- | --- | --- | --- |"]
    for step in result["steps"]:
        figures = ", ".join(f"{name} {_shown(value)}" for name, value in step["figures"].items())
        outcome = step["outcome"] if step["outcome"] != "failed" else "**failed**"
        lines.append(f"| {step['name']} | {outcome} | {step['seconds']:.1f} | {_cell(figures)} |")
    reasons = [step for step in result["steps"] if step["message"]]
    if reasons:
        lines.append("")
    for step in reasons:
        sentence = ": ".join((f"{step['name']} {step['outcome']}", step["message"]))
        lines.append(f"- {'. '.join(filter(None, (sentence, step['hint'])))}")
    lines += [f"- note: {note}" for note in result["notes"]] if result["notes"] else []
    return "\n".join([*lines, END])


def _clean(value: Figure, redaction: Redaction) -> Figure:
    return redaction(value) if isinstance(value, str) else value


def _shown(value: Figure) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and value >= 10_000_000:
        return f"{value / 1e6:.0f} M"
    text = str(value)
    is_digest = len(text) == 64 and all(letter in "0123456789abcdef" for letter in text)
    return text[:_SHOWN_DIGITS] if is_digest else text


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")

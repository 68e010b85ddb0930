"""The run: photographs in, two LoRAs and a synthetic set out.

One function a stage, in the order of the story. Each reads a folder and writes a folder; a finished stage is
skipped, an interrupted one goes on where it was (`run_stages`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from .conditions import Condition, Vocabulary, load_vocabulary
from .errors import UserError
from .files import private_dir, sha256_file, write_text
from .run_evaluation import draw_zero_shot, filter_images, measure_images, write_report
from .run_settings import (
    CONDITIONS,
    NETWORK_ALPHA,
    NETWORK_DIM,
    PHANTOM_ROBUST,
    PHANTOM_SCHEDULE,
    PREVIEWS,
    ROBUST,
    STEPS_PER_IMAGE,
    Photographs,
    RunFolders,
    RunSettings,
    check_settings,
)
from .run_stages import Facts, Stages, say_on_stderr, stage_table
from .side_by_side import Stop, side_by_side

TrainArguments = dict[str, Any]
Event = Mapping[str, Any]
Train = Callable[[TrainArguments, Callable[[Event], None], Stop], None]
"""Starts the trainer with its own arguments by name, reports its events, returns when it is done.

The last argument says whether to stop: the trainer then saves a checkpoint and raises.
"""


@dataclass(frozen=True)
class RunResult:
    """Where the run's results lie, and its table of stages."""

    folders: RunFolders
    table: str
    warnings: list[str]


def run_pipeline(
    settings: RunSettings,
    train: Train,
    *,
    warn: Callable[[str], None] = lambda message: None,
    say: Callable[[str], None] = say_on_stderr,
) -> RunResult:
    """Do the whole run, or what is left of it.

    Errors: UserError, before any work, when photographs, face pack or base model are missing.
    """
    check_settings(settings)
    begun = time.monotonic()
    folders = RunFolders(settings.out)
    private_dir(folders.private)
    vocabulary = load_vocabulary()
    stages = Stages(folders.stages, redo=settings.redo, say=say)
    warnings: list[str] = []

    def remember(message: str) -> None:
        warnings.append(message)
        warn(message)

    facts: dict[str, dict[str, Facts]] = {name: {} for name in settings.conditions}
    for name in settings.conditions:
        photographs = render_photographs(settings, folders, stages, name)
        condition = vocabulary.condition(name)
        facts[name]["dataset"] = build(settings, folders, stages, condition, photographs, remember)
    for name in settings.conditions:
        condition, other = condition_and_other(vocabulary, name)
        if settings.regularization_images:
            facts[name]["regularization"] = regularize(settings, folders, stages, condition, other)
    jobs = {
        name: partial(
            train_lora,
            settings,
            folders,
            stages,
            *condition_and_other(vocabulary, name),
            facts[name],
            train,
            remember,
        )
        for name in settings.conditions
    }
    for name, done in side_by_side(jobs, trainings_at_once(settings)).items():
        facts[name]["training"] = done
    for name in settings.conditions:
        condition, other = condition_and_other(vocabulary, name)
        facts[name]["plan"] = write_prompt_plan(settings, folders, stages, condition)
        facts[name]["generation"] = generate_images(
            settings, folders, stages, condition, facts[name], remember
        )
        if settings.phantom:
            facts[name]["oracle"] = ask_oracle(settings, folders, stages, condition, other, facts[name])
    again = {
        name: partial(draw_plan, settings, folders, vocabulary.condition(name), warn=remember)
        for name in settings.conditions
    }
    filtered = filter_images(settings, folders, stages, facts, again)
    for name in settings.conditions:
        draw_sheets(settings, folders, stages, vocabulary.condition(name), facts[name])
    draw_zero_shot(settings, folders, stages, sampling_of(settings))
    measured = measure_images(settings, folders, stages, facts, remember)
    write_report(settings, folders, stages, facts, filtered, measured, warnings, time.monotonic() - begun)
    return RunResult(folders, stage_table(stages.rows), warnings)


def condition_and_other(vocabulary: Vocabulary, name: str) -> tuple[Condition, Condition]:
    """The condition, and the class it must not be mistaken for."""
    other = "post_op" if name == "pre_op" else "pre_op"
    return vocabulary.condition(name), vocabulary.condition(other)


def render_photographs(settings: RunSettings, folders: RunFolders, stages: Stages, name: str) -> Photographs:
    """The user's photographs; under --phantom without any, phantoms that the renderer photographs."""
    if name in settings.photographs:
        return settings.photographs[name]
    from .phantom import write_photographs

    folder = folders.photographs(name)
    n = photographs_for(settings.phantom_training_faces[name], settings.holdout)
    seed = settings.seed_for("photographs", name)

    def work() -> Facts:
        private_dir(folder.parent)
        write_photographs(folder, n, name, seed, size=settings.width, subjects=n)
        return {"photographs": n}

    inputs = {"number of phantoms": n, "seed": seed, "size": settings.width}
    stages.stage(f"photographs-{name}", inputs, [folder], work)
    return Photographs(folder, folder / "metadata.csv")


def photographs_for(training_faces: int, holdout: float) -> int:
    """How many photographs, a person each, leave `training_faces` beside the hold-out's share."""
    n = training_faces
    while n - (max(1, round(holdout * n)) if holdout > 0 else 0) < training_faces:
        n += 1
    return n


def build(
    settings: RunSettings,
    folders: RunFolders,
    stages: Stages,
    condition: Condition,
    photographs: Photographs,
    warn: Callable[[str], None],
) -> Facts:
    """Photographs → checked, captioned private dataset with its hold-out."""
    from .dataset import BuildSettings, build_dataset
    from .faces.analyzer import load_face_analyzer

    out = folders.dataset(condition.name)
    choices = BuildSettings(
        holdout=settings.holdout, seed=settings.seed, bracketed=settings.bracketed, phantom=settings.phantom
    )
    earlier = CONDITIONS[: CONDITIONS.index(condition.name)]
    others = [folders.dataset(name) for name in earlier if name in settings.conditions]

    def work() -> Facts:
        faces = load_face_analyzer(settings.faces, device=settings.device.type)
        result = build_dataset(
            photographs.folder,
            photographs.metadata,
            condition,
            out,
            faces,
            settings=choices,
            apart_from=others,
            arguments=readmit_arguments(settings, photographs, condition, others, choices),
        )
        for message in result.warnings:
            warn(message)
        if not result.count("train"):
            raise UserError(
                f"no {condition.name} photograph can be trained on: see `diffusioncleft dataset show {out}`"
            )
        return {
            "training_images": result.count("train"),
            "holdout_images": result.count("holdout"),
            "set_aside": result.reasons,
            "manifest": sha256_file(out / "manifest.jsonl"),
            "faces": faces.describe(),
        }

    readmitted = out / "readmitted.jsonl"
    inputs = {
        "photographs": photograph_digests(photographs),
        "readmitted": sha256_file(readmitted) if readmitted.is_file() else None,
        "face pack": settings.faces,
        "settings": asdict(choices),
    }
    return stages.stage(f"dataset-{condition.name}", {}, [out / "manifest.jsonl"], work, soft=inputs)


def readmit_arguments(
    settings: RunSettings, photographs: Photographs, condition: Condition, others: list[Path], choices: Any
) -> dict[str, Any]:
    """What `dataset readmit` needs to build the private dataset again, as `dataset build` records it."""
    return {
        "photos": str(photographs.folder.resolve()),
        "metadata": str(photographs.metadata.resolve()),
        "condition": condition.name,
        "vocabulary": None,
        "faces": settings.faces,
        "apart_from": [str(path.resolve()) for path in others],
        "settings": asdict(choices),
    }


def photograph_digests(photographs: Photographs) -> list[str]:
    """Content hashes of everything in the folder, names included, so that a change is noticed."""
    found = []
    for path in sorted(photographs.folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            found.append(f"{path.relative_to(photographs.folder).as_posix()} {sha256_file(path)}")
    return [*found, sha256_file(photographs.metadata)]


def regularize(
    settings: RunSettings,
    folders: RunFolders,
    stages: Stages,
    condition: Condition,
    other: Condition,
) -> Facts:
    """Pictures of the base model for prompts without the trigger, trained beside the photographs."""
    from .generation import generate
    from .regularization import regularization_plan

    out = folders.regularization(condition.name)
    n = settings.regularization_images
    seed = settings.seed_for("regularization", condition.name)
    plan = regularization_plan(condition, other, n, seed, bracketed=settings.bracketed)

    def work() -> Facts:
        generate(settings.source, None, plan, out, role="control", **sampling_of(settings))
        return {"images": n, "manifest": sha256_file(out / "manifest.jsonl")}

    inputs = {"prompts": [(row.prompt, row.seed) for row in plan], **base_inputs(settings)}
    return stages.stage(f"regularization-{condition.name}", inputs, [out], work)


def sampling_of(settings: RunSettings) -> dict[str, Any]:
    """How pictures are drawn, the same in every stage."""
    return {
        "steps": settings.steps,
        "width": settings.width,
        "height": settings.height,
        "batch": settings.batch,
        "device": settings.device,
        "dtype": settings.dtype,
    }


def base_inputs(settings: RunSettings) -> dict[str, Any]:
    return {
        "base model": settings.source.fingerprint(),
        "sampling": [settings.steps, settings.width, settings.height, str(settings.dtype)],
    }


def train_lora(
    settings: RunSettings,
    folders: RunFolders,
    stages: Stages,
    condition: Condition,
    other: Condition,
    facts: Mapping[str, Facts],
    train: Train,
    warn: Callable[[str], None],
    stop: Stop = lambda: False,
) -> Facts:
    """One LoRA of the condition, in the trainer's own process: 10 steps a training image."""
    out = folders.training(condition.name)
    lora = lora_file(folders, condition)
    arguments = training_arguments(settings, folders, condition, other, facts)

    def work() -> Facts:
        from .progress import progress

        write_preview_prompts(settings, folders, condition)
        last: dict[str, Any] = {}
        with progress(int(arguments["max_train_steps"]), f"training {condition.name}", unit="step") as bar:

            def on_event(event: Event) -> None:
                if event.get("event") in ("warning", "notice"):
                    warn(str(event["message"]))
                if event.get("event") == "step":
                    bar.update(int(event["step"]) - bar.n)
                    bar.set_postfix(loss=f"{event['loss']:.3f}", refresh=False)
                    last.update(step=event["step"], loss=event["loss"], lr=event["lr"])

            train(arguments, on_event, stop)
        return {
            "lora_sha256": sha256_file(lora),
            "last_step": last,
            "training_images": facts["dataset"]["training_images"],
            "regularization_images": facts.get("regularization", {}).get("images", 0),
            "settings": shared_training_settings(arguments),
        }

    inputs = {
        "dataset": facts["dataset"]["manifest"],
        "regularisation": facts.get("regularization", {}).get("manifest"),
        "training settings": {k: str(v) for k, v in arguments.items() if k not in LOCATIONS},
        "base model": settings.source.fingerprint(),
    }
    return stages.stage(f"training-{condition.name}", inputs, [out], work)


def write_preview_prompts(settings: RunSettings, folders: RunFolders, condition: Condition) -> None:
    """Two prompts that the trainer draws now and then."""
    from .prompts import sampling_plan

    seed = settings.seed_for("previews", condition.name)
    rows = sampling_plan(condition, 2, seed, mode=settings.mode, bracketed=settings.bracketed)
    write_text(folders.previews(condition.name), "".join(f"{row.prompt}\n" for row in rows))


def trainings_at_once(settings: RunSettings) -> int:
    """Both LoRAs at once on a processor, a core each, which is faster than one after the other.

    A GPU has room for one.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return len(settings.conditions) if settings.device.type == "cpu" and cores > 1 else 1


LOCATIONS = (
    "train_data_dir",
    "reg_data_dir",
    "output_dir",
    "cache_dir",
    "sample_prompts",
    "pretrained_model_name_or_path",
    "clip_l",
    "t5xxl",
    "ae",
    "tokenizer_clip",
    "tokenizer_t5",
    "training_adapter",
)
"""Arguments of the trainer that are paths: no part of what a result is, and of no report."""


def training_arguments(
    settings: RunSettings,
    folders: RunFolders,
    condition: Condition,
    other: Condition,
    facts: Mapping[str, Facts],
) -> TrainArguments:
    """The trainer's arguments by name: the paper's recipe, the run's folders, then what the user said."""
    arguments: TrainArguments = {
        **settings.base,
        "train_data_dir": folders.dataset(condition.name),
        "output_dir": folders.training(condition.name),
        "output_name": lora_file(folders, condition).stem,
        "network_dim": NETWORK_DIM,
        "network_alpha": NETWORK_ALPHA,
        "learning_rate": settings.training_rate,
        "max_train_steps": STEPS_PER_IMAGE * int(facts["dataset"]["training_images"]),
        "seed": settings.seed_for("training", condition.name),
        "trigger": condition.trigger,
        "prompt_form": "bracketed" if settings.bracketed else "bare",
    }
    steps = int(settings.training.get("max_train_steps", arguments["max_train_steps"]))
    arguments |= {
        "sample_prompts": folders.previews(condition.name),
        "sample_every_n_steps": max(1, steps // PREVIEWS),
    }
    if settings.phantom:
        arguments |= {"resolution": (settings.width,), "num_cpu_threads": 1, **PHANTOM_SCHEDULE}
    if settings.preset == "robust":
        arguments |= {
            "other_trigger": other.trigger,
            **ROBUST,
            **(PHANTOM_ROBUST if settings.phantom else {}),
        }
    if settings.regularization_images:
        arguments["reg_data_dir"] = folders.regularization(condition.name)
    return arguments | dict(settings.training)


def shared_training_settings(arguments: TrainArguments) -> dict[str, Any]:
    """The settings a report may show: no path among them."""
    shown = {key: value for key, value in arguments.items() if key not in LOCATIONS}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in shown.items()}


def lora_file(folders: RunFolders, condition: Condition) -> Path:
    return folders.training(condition.name) / f"{condition.trigger.lower()}.safetensors"


def write_prompt_plan(
    settings: RunSettings, folders: RunFolders, stages: Stages, condition: Condition
) -> Facts:
    """N prompts with seeds, stratified over the attributes."""
    from .prompts import extend_plan, sampling_plan

    path = folders.plan(condition.name)
    seed = settings.seed_for("plan", condition.name)

    def work() -> Facts:
        plan = sampling_plan(condition, settings.n, seed, mode=settings.mode, bracketed=settings.bracketed)
        extend_plan(path, plan)
        return {"images": settings.n}

    inputs = {"number of images": settings.n, **plan_inputs(settings, seed)}
    return stages.stage(f"plan-{condition.name}", {}, [path], work, soft=inputs)


def plan_inputs(settings: RunSettings, seed: int) -> dict[str, Any]:
    return {"seed": seed, "mode": settings.mode, "trigger's form": settings.bracketed}


def generate_images(
    settings: RunSettings,
    folders: RunFolders,
    stages: Stages,
    condition: Condition,
    facts: Mapping[str, Facts],
    warn: Callable[[str], None],
) -> Facts:
    """The plan's pictures, from the base model with the new LoRA."""
    from .prompts import read_plan

    out = folders.generated(condition.name)

    def work() -> Facts:
        plan = read_plan(folders.plan(condition.name))[: settings.n]
        result = draw_plan(settings, folders, condition, plan, warn=warn)
        return {"images": result.total, "manifest": sha256_file(out / "manifest.jsonl")}

    inputs = {
        **plan_inputs(settings, settings.seed_for("plan", condition.name)),
        "LoRA": facts["training"]["lora_sha256"],
        "strength": settings.strength,
        **base_inputs(settings),
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
    from .generation import generate

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
    from .phantom.experiment import measure_condition

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
        "generated images": facts["generation"]["manifest"],
        "LoRA": facts["training"]["lora_sha256"],
        "cells": [settings.cell_images, seed],
        "strength": settings.strength,
        **base_inputs(settings),
    }
    return stages.stage(f"oracle-{condition.name}", inputs, [out], work)


def draw_sheets(
    settings: RunSettings,
    folders: RunFolders,
    stages: Stages,
    condition: Condition,
    facts: Mapping[str, Facts],
) -> Facts:
    """A contact sheet of the first images of the set."""
    from .report.run_report import write_contact_sheet

    path = folders.sheets / f"{condition.name}.png"

    def work() -> Facts:
        shown = write_contact_sheet(
            folders.generated(condition.name), path, condition.title, phantom=settings.phantom
        )
        return {"shown": shown}

    inputs = {"generated images": facts["generation"]["manifest"]}
    return stages.stage(f"sheets-{condition.name}", inputs, [path], work)

"""The run: photographs in, LoRAs and synthetic sets out.

One function a stage, in the order of the story. Each reads a folder and writes a folder; a finished stage is
skipped, an interrupted one goes on where it was (`stages`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from ..files import private_dir
from ..recipe.document import write_recipe
from ..report.folders import RunFolders
from .dataset import build, control_faces, render_photographs
from .evaluation import Warn, draw_zero_shot, filter_images, measure_images, write_report
from .generation import ask_oracle, draw_plan, draw_sheets, generate_images, write_prompt_plan
from .settings import RunSettings, check_settings
from .stages import Results, StageRow, Stages, say_on_stderr, stage_table
from .training import Train, regularize, side_by_side, train_lora, trainings_at_once


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
    stages = Stages(folders.root, folders.private, redo=settings.redo, say=say)
    warnings: list[str] = []

    def remember(message: str) -> None:
        warnings.append(message)
        warn(message)

    facts, filtered, measured = run_stages(settings, folders, stages, train, warn, remember)
    write_report(settings, folders, stages, facts, filtered, measured, warnings, time.monotonic() - begun)
    return RunResult(folders, stage_table(stages.rows), warnings)


def plan_run(settings: RunSettings) -> list[StageRow]:
    """What each stage of the run has before it, and why; nothing is started or written."""
    check_settings(settings)
    folders = RunFolders(settings.out)
    stages = Stages(folders.root, folders.private, redo=settings.redo, dry=True)

    def nothing(message: str) -> None:
        """A dry run has nothing to warn of."""

    def no_training(arguments: object, on_event: object, stop: object) -> None:
        raise AssertionError("a dry run trains nothing")

    run_stages(settings, folders, stages, no_training, nothing, nothing)
    return stages.rows


def run_stages(
    settings: RunSettings,
    folders: RunFolders,
    stages: Stages,
    train: Train,
    warn: Warn,
    remember: Warn,
) -> tuple[dict[str, dict[str, Results]], Results, Results]:
    """Every stage in the order of the story; results by condition, of the filters and of the measurements.

    remember: what the report is to say too; `warn` for messages that may name a file.
    """
    vocabulary = settings.vocabulary
    facts: dict[str, dict[str, Results]] = {name: {} for name in settings.conditions}
    for name in settings.conditions:
        condition = vocabulary.condition(name)
        photographs = render_photographs(settings, folders, stages, condition)
        facts[name]["dataset"] = build(settings, folders, stages, condition, photographs, warn, remember)
    for name in settings.conditions:
        if settings.regularization_images:
            condition = vocabulary.condition(name)
            facts[name]["regularization"] = regularize(settings, folders, stages, condition)
    jobs = {
        name: partial(
            train_lora,
            settings,
            folders,
            stages,
            vocabulary.condition(name),
            facts[name],
            train,
            remember,
        )
        for name in settings.conditions
    }
    for name, done in side_by_side(jobs, trainings_at_once(settings)).items():
        facts[name]["training"] = done
    if not stages.dry:
        write_recipe(folders.recipe, settings.recipe)
    for name in settings.conditions:
        condition = vocabulary.condition(name)
        facts[name]["plan"] = write_prompt_plan(settings, folders, stages, condition)
        facts[name]["generation"] = generate_images(
            settings, folders, stages, condition, facts[name], remember
        )
        if settings.phantom and condition.phantom is not None:
            facts[name]["oracle"] = ask_oracle(settings, folders, stages, condition, facts[name])
    draw_again = {
        name: partial(draw_plan, settings, folders, vocabulary.condition(name), warn=remember)
        for name in settings.conditions
    }
    filtered = filter_images(settings, folders, stages, facts, draw_again, warn)
    for name in settings.conditions:
        draw_sheets(settings, folders, stages, vocabulary.condition(name))
    if vocabulary.zero_shot:
        draw_zero_shot(settings, folders, stages)
    control = control_faces(settings, folders, stages)
    measured = measure_images(settings, folders, stages, facts, control, warn)
    return facts, filtered, measured

"""The run: photographs in, two LoRAs and a synthetic set out.

One function a stage, in the order of the story. Each reads a folder and writes a folder; a finished stage is
skipped, an interrupted one goes on where it was (`stages`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from ..files import private_dir
from .dataset import build, control_faces, render_photographs
from .evaluation import draw_zero_shot, filter_images, measure_images, write_report
from .generation import ask_oracle, draw_plan, draw_sheets, generate_images, write_prompt_plan
from .settings import RunFolders, RunSettings, check_settings, sampling_of
from .stages import Facts, Stages, say_on_stderr, stage_table
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
    vocabulary = settings.vocabulary
    stages = Stages(folders.stages, redo=settings.redo, say=say)
    warnings: list[str] = []

    def remember(message: str) -> None:
        warnings.append(message)
        warn(message)

    if line := another_n(settings, stages):
        say(line)
    facts: dict[str, dict[str, Facts]] = {name: {} for name in settings.conditions}
    for name in settings.conditions:
        condition = vocabulary.condition(name)
        photographs = render_photographs(settings, folders, stages, condition)
        facts[name]["dataset"] = build(settings, folders, stages, condition, photographs, remember)
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
    for name in settings.conditions:
        condition = vocabulary.condition(name)
        facts[name]["plan"] = write_prompt_plan(settings, folders, stages, condition)
        facts[name]["generation"] = generate_images(
            settings, folders, stages, condition, facts[name], remember
        )
        if settings.phantom and condition.phantom is not None:
            facts[name]["oracle"] = ask_oracle(settings, folders, stages, condition, facts[name])
    again = {
        name: partial(draw_plan, settings, folders, vocabulary.condition(name), warn=remember)
        for name in settings.conditions
    }
    filtered = filter_images(settings, folders, stages, facts, again, warn)
    for name in settings.conditions:
        draw_sheets(settings, folders, stages, vocabulary.condition(name))
    if vocabulary.zero_shot:
        draw_zero_shot(settings, folders, stages, sampling_of(settings))
    control = control_faces(settings, folders, stages)
    # Names of files have no place in the report, which keeps what is remembered.
    measured = measure_images(settings, folders, stages, facts, control, warn)
    write_report(settings, folders, stages, facts, filtered, measured, warnings, time.monotonic() - begun)
    return RunResult(folders, stage_table(stages.rows), warnings)


def another_n(settings: RunSettings, stages: Stages) -> str | None:
    """What another number of images than the earlier call's means for a run, in one line."""
    facts = [stages.done(f"generation-{name}") for name in settings.conditions]
    earlier = {int(done["images"]) for done in facts if done} - {settings.n}
    if not earlier:
        return None
    before, head = max(earlier), f"--n {settings.n}, before {' and '.join(map(str, sorted(earlier)))}:"
    if settings.n > before:
        more = "the images that are missing are drawn and the others kept"
    else:
        more = f"the first {settings.n} images count; the others stay in their folder, out of every figure"
    return f"{head} {more}; filters, measurements and report are brought up to date"

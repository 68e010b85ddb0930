"""The run: photographs in, LoRAs and synthetic sets out.

One function a stage, in the order of the story. Each reads a folder and writes a folder; a finished stage is
skipped, an interrupted one goes on where it was (`stages`).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..conditions.vocabulary import Condition
from ..dataset.folder import erase
from ..errors import UserError
from ..files import TEMPORARY_PREFIX, folder_lock, private_dir
from ..progress import watched
from ..recipe.document import write_recipe
from ..report.folders import RunFolders
from .audit import audit_loras
from .dataset import build, control_faces, render_photographs
from .downstream import read_evidence, try_classifiers
from .evaluation import draw_zero_shot, filter_images, measure_images, write_report
from .generation import ask_oracle, draw_sheets, generate_images, write_prompt_plan
from .needs import check_settings, chosen
from .run import Run, Warn
from .settings import RunSettings
from .stages import Results, StageRow, say_on_stderr
from .study import demonstrate_study, told_study
from .training import Stop, Train, regularize, side_by_side, train_lora, trainings_at_once
from .withdrawal import foreseen


@dataclass(frozen=True)
class RunResult:
    """Where the run's results lie, what each stage had before it, and its results by condition."""

    folders: RunFolders
    rows: list[StageRow]
    facts: Mapping[str, Mapping[str, Results]]
    warnings: list[str]


def run_pipeline(
    settings: RunSettings,
    train: Train,
    *,
    warn: Warn = lambda message: None,
    say: Callable[[str], None] = say_on_stderr,
) -> RunResult:
    """Do the whole run, or what is left of it.

    Args:
        settings: what is asked for.
        train: starts the trainer.
        warn: told every warning.
        say: prints one line a stage.

    Raises:
        UserError: photographs, face pack or base model are missing, or another process is at work in the
            run's folder; raised before any work.
    """
    check_settings(settings)
    begun = time.monotonic()
    run = Run(settings, warn=warn, say=say)
    with run_lock(run.folders):
        remove_half_written(run.folders.root)
        filtered, measured, audited = run_stages(run, train)
        say("report …")
        seconds = time.monotonic() - begun
        write_report(run, filtered, measured, seconds, read_evidence(run), told_study(run), audited)
    return RunResult(run.folders, run.stages.rows, run.facts, run.warnings)


def run_lock(folders: RunFolders) -> contextlib.AbstractContextManager[None]:
    """Keep a second run out of the folder, until this process ends in whatever way."""
    return folder_lock(
        private_dir(folders.private),
        lambda process: (
            f"process {process} is at work on the run {folders.root}; wait for it, or stop it, and run this "
            "again"
        ),
    )


def remove_half_written(root: Path) -> None:
    """Remove what a killed run left of atomic writes, unless its trainer is still there and writing."""
    with contextlib.suppress(UserError), contextlib.ExitStack() as trainings:
        for folder in RunFolders(root).trainings():
            trainings.enter_context(folder_lock(folder, str))
        for left in list(root.rglob(f"{TEMPORARY_PREFIX}*")):
            erase(left)


def plan_run(settings: RunSettings) -> list[StageRow]:
    """What each stage of the run has before it, and why; nothing is started or written."""
    check_settings(settings)
    run = Run(settings, dry=True)

    def no_training(arguments: object, on_event: object, stop: object) -> None:
        raise AssertionError("a dry run trains nothing")

    run_stages(run, no_training)
    return run.stages.rows


def plan_notes(settings: RunSettings) -> list[str]:
    """What the run would say of consent that was withdrawn; nothing is written."""
    folders = RunFolders(settings.out)
    return [
        line
        for condition in chosen(settings)
        if condition.name in settings.photographs
        for line in foreseen(folders.dataset(condition.name), settings.photographs[condition.name], condition)
    ]


def learn_and_draw(
    run: Run, condition: Condition, train: Train, drawing: threading.Lock, stop: Stop = lambda: False
) -> None:
    """A condition's LoRA and its pictures; on a processor they are drawn while another one learns.

    drawing: held by the condition whose pictures are drawn, in this process. stop: says whether to end, with
    a checkpoint or after the batch.
    """

    def until_asked(description: str, done: int, total: int) -> None:
        if stop():
            raise KeyboardInterrupt

    results = run.facts[condition.name]
    results["training"] = train_lora(run, condition, train, stop)
    with drawing, watched(until_asked):
        results["plan"] = write_prompt_plan(run, condition)
        results["generation"] = generate_images(run, condition)
        if run.settings.phantom and condition.phantom is not None:
            results["oracle"] = ask_oracle(run, condition)


def run_stages(run: Run, train: Train) -> tuple[Results, Results, Results]:
    """Every stage in the order of the story; results of the filters, the measurements and the audits."""
    settings, facts = run.settings, run.facts
    for condition in run.conditions:
        photographs = render_photographs(run, condition)
        facts[condition.name]["dataset"] = build(run, condition, photographs)
    for condition in run.conditions:
        if settings.regularization_images:
            facts[condition.name]["regularization"] = regularize(run, condition)
    drawing = threading.Lock()
    jobs = {
        condition.name: partial(learn_and_draw, run, condition, train, drawing)
        for condition in run.conditions
    }
    side_by_side(jobs, 1 if run.stages.dry else trainings_at_once(settings))
    if not run.stages.dry:
        write_recipe(run.folders.recipe, settings.recipe)
    filtered = filter_images(run)
    for condition in run.conditions:
        draw_sheets(run, condition)
    if settings.vocabulary.zero_shot:
        draw_zero_shot(run)
    control = control_faces(run)
    measured = measure_images(run, control)
    audited = audit_loras(run) if settings.audit else {}
    if settings.downstream:
        try_classifiers(run, control)
    if settings.study:
        demonstrate_study(run)
    return filtered, measured, audited

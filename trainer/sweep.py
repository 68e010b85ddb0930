"""A sweep: each combination is a training of its own, here one after the other or by workers on Ray.

A finished run has a record in the private folder, with digests of what it was made from: while these and the
LoRA are the same it is not trained again. The rest is the trainer's, which goes on from its checkpoint.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from ..diffusioncleft_core.cluster.work import HERE, Engine, SetAside, Work
from ..diffusioncleft_core.dataset.folder import dataset_rows, is_dataset
from ..diffusioncleft_core.errors import UserError
from ..diffusioncleft_core.files import (
    folder_lock,
    private_dir,
    read_json,
    sha256_bytes,
    sha256_file,
    sha256_model,
    write_json,
)
from ..diffusioncleft_core.imageset.manifest import described
from ..diffusioncleft_core.progress import SECONDS, progress
from ..diffusioncleft_core.recipe.document import recipe_text
from ..diffusioncleft_core.recipe.recipe import Recipe, Subset
from .folders import held_out_folders, image_folders
from .interruption import Interrupted, output_lock
from .launch import Event, check_installed, train
from .sweep_recipe import PRIVATE, Combination
from .sweep_table import DONE, FAILED, Row, losses_of, write_table

RECORDS = "sweep"
"""Folder of the records in the private one."""
BUSY_SECONDS = 120.0
"""So long a run waits for the trainer of one that was killed: it saves a checkpoint first."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Training:
    """A run to be trained."""

    name: str
    recipe: Recipe


@dataclass(frozen=True)
class Outcome:
    """What a training came to: `problem` why it failed, `said` its warnings and notices."""

    seconds: float
    resumed: bool = False
    problem: str = ""
    stopped: bool = False
    said: tuple[str, ...] = ()


class TrainingWorker:
    """Trains one run after the other, each by the trainer's own process.

    Args:
        on_event: gets the run's name and each event of the trainer.
    """

    def __init__(self, on_event: Callable[[str, Event], None] = lambda name, event: None) -> None:
        self._on_event = on_event

    def prepare(self, jobs: Sequence[Training]) -> None:
        """See `Worker.prepare`: nothing is shared."""

    def do(self, job: Training) -> Outcome:
        """See `Worker.do`: a training that fails is an outcome too."""
        said: list[str] = []
        resumed = False
        began = time.monotonic()

        def on_event(event: Event) -> None:
            nonlocal resumed
            if event["event"] == "start":
                resumed = event["step"] > 0
            if event["event"] in ("warning", "notice"):
                said.append(str(event["message"]))
            self._on_event(job.name, event)

        problem, stopped = "", False
        try:
            _wait_until_free(job.recipe.output.folder)
            train(job.recipe, on_event)
        except UserError as error:
            problem = str(error)
        except RuntimeError as error:  # a fault of the trainer, its traceback behind the first line
            problem = str(error).partition("\n")[0]
        except Interrupted as error:
            stopped, problem = True, str(error)
        return Outcome(time.monotonic() - began, resumed, problem, stopped, tuple(said))

    def close(self) -> None:
        """See `Worker.close`."""


def run_sweep(
    folder: Path, combinations: Sequence[Combination], engine: Engine = HERE, say: Say = lambda line: None
) -> list[Row]:
    """Train what is not done, and write the table after each run; its rows, in the combinations' order.

    Args:
        folder: the sweep's.
        combinations: at least one.
        engine: who trains; its hosts all see `folder`.
        say: told why a run failed, and what the trainer says beside, each sentence once.

    Raises:
        UserError: another process is at work in `folder`.
        Interrupted: a run was asked to stop; the same call goes on.
    """
    check_installed()
    with folder_lock(folder, partial(_busy, folder)):
        content = Content()
        rows = [_known(folder, combination, content) for combination in combinations]
        told: set[str] = set()
        for row in rows:
            if row.state == FAILED:
                say(f"{row.combination.name} can't be trained: {row.combination.problem}")
        jobs = {
            row.combination.name: (
                place,
                Training(row.combination.name, _here(row.combination.recipe, engine)),
            )
            for place, row in enumerate(rows)
            if row.state not in (DONE, FAILED) and row.combination.recipe is not None
        }
        write_table(folder, rows)
        with progress(len(rows), "sweep", unit="run") as bar:
            bar.update(len(rows) - len(jobs))
            build = TrainingWorker if engine.elsewhere else partial(TrainingWorker, _Shown(bar))
            if jobs:
                _make_private([job.recipe for _, job in jobs.values()])
            work: Work[Training, Outcome] = Work(build, block=1, size=None)
            for result in engine.run(work, [job for _, job in jobs.values()]):
                place = jobs[result.job.name][0]
                bar.clear()
                if isinstance(result, SetAside):
                    outcome = Outcome(0.0, problem=result.reason)
                else:
                    outcome = result.found
                for message in outcome.said:
                    if message not in told:
                        say(f"{result.job.name}: {message}")
                        told.add(message)
                if outcome.stopped:
                    raise Interrupted(outcome.problem)
                rows[place] = _finished(folder, rows[place], content, outcome, say)
                write_table(folder, rows)
                bar.update(1)
    return rows


def sweep_rows(folder: Path, combinations: Sequence[Combination]) -> list[Row]:
    """The table before anything is trained: which runs are done, to do, or can't be."""
    content = Content()
    return [_known(folder, combination, content) for combination in combinations]


class Content:
    """Digests of what runs are made from, each computed once."""

    def __init__(self) -> None:
        self._images = cache(_images)
        self._base = cache(_base)

    def of(self, recipe: Recipe) -> str:
        """Digest of the settings, images and models of a run. Not to be shown: it tells photographs."""
        data, network = recipe.data, recipe.network
        folders = [*image_folders(recipe), *held_out_folders(recipe)]
        preserves = bool(recipe.objective.output_preservation_weight)
        parts = [
            recipe_text(recipe),
            [(self._images(folder.image_dir, preserves), _use(folder)) for folder in folders],
            sha256_file(data.config) if data.config else None,
            self._base(recipe.model),
            [sha256_model(file) for file in (network.weights, network.training_adapter) if file],
        ]
        return sha256_bytes(repr(parts).encode())


def _known(folder: Path, combination: Combination, content: Content) -> Row:
    recipe = combination.recipe
    if recipe is None:
        return Row(combination, FAILED)
    path = _record(folder, combination.name)
    lora = recipe.output.folder / f"{recipe.output.name}.safetensors"
    if recipe.output.resume == "no" or not (path.is_file() and lora.is_file()):
        return Row(combination)
    record = read_json(path)
    try:
        same = record["made_from"] == content.of(recipe) and record["lora_sha256"] == sha256_file(lora)
    except (UserError, OSError):  # what it is made from is gone: the trainer says what
        same = False
    return Row(combination, DONE, **record["figures"]) if same else Row(combination)


def _finished(folder: Path, row: Row, content: Content, outcome: Outcome, say: Say) -> Row:
    recipe = row.combination.recipe
    assert recipe is not None
    lora = recipe.output.folder / f"{recipe.output.name}.safetensors"
    problem = outcome.problem
    if not problem and not lora.is_file():
        problem = "its LoRA is not in the sweep's folder; give a folder that all hosts see"
    if problem:
        say(f"{row.combination.name} failed: {problem}")
        return replace(row, state=FAILED)
    final, validated = losses_of(recipe)
    figures: Mapping[str, Any] = {
        "final_loss": final,
        "validation_loss": validated,
        "seconds": round(outcome.seconds, 1),
        "resumed": outcome.resumed,
        "lora": lora.relative_to(folder.absolute()).as_posix(),
    }
    record = {
        "made_from": content.of(recipe),
        "lora_sha256": sha256_file(lora),
        "figures": figures,
    }
    path = _record(folder, row.combination.name)
    private_dir(path.parent.parent)
    private_dir(path.parent)
    write_json(path, record, private=True)
    return replace(row, state=DONE, **figures)


def _make_private(recipes: Sequence[Recipe]) -> None:
    """The cache's folder and key, before several trainings would each make their own."""
    from .prepare import private_of

    for recipe in {recipe.data.cache_dir: recipe for recipe in recipes}.values():
        private_of(recipe, image_folders(recipe))


def _record(folder: Path, name: str) -> Path:
    return folder / PRIVATE / RECORDS / f"{name}.json"


def _here(recipe: Recipe | None, engine: Engine) -> Recipe:
    """`recipe` where it is trained: a worker on Ray sees the one GPU that is its own."""
    assert recipe is not None
    if not engine.elsewhere:
        return recipe
    return recipe.replaced({"memory.device": recipe.memory.device.partition(":")[0]})


def _use(folder: Subset) -> tuple[Any, ...]:
    """How the images of a folder are used, which nothing in it need say."""
    return tuple(getattr(folder, field.name) for field in fields(folder) if field.name != "image_dir")


def _images(folder: Path, preserves: bool) -> str:
    """Digest of a dataset's training and held-out rows, or of every file of another folder."""
    if is_dataset(folder):
        rows = dataset_rows(folder, "train", "holdout")
        return sha256_bytes(repr(described(rows, healthy=preserves)).encode())
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    parts = [
        (path.relative_to(folder).as_posix(), sha256_file(path))
        for path in progress(files, "comparing images", leave=False)
    ]
    return sha256_bytes(repr(parts).encode())


def _base(model: Any) -> dict[str, str]:
    from .prepare import base_model

    return base_model(Recipe(model=model)).fingerprints()


def _wait_until_free(folder: Path) -> None:
    """Wait while another process trains into `folder`; the trainer itself says so if it stays."""
    limit = time.monotonic() + BUSY_SECONDS
    while time.monotonic() < limit:
        with contextlib.suppress(UserError), output_lock(folder):
            return
        time.sleep(1)


def _busy(folder: Path, owner: str) -> str:
    return f"process {owner} is at work in {folder}; stop it, wait for it, or choose another --output_dir"


class _Shown:
    """The run that is trained, and how far it is, behind the bar of the sweep."""

    def __init__(self, bar: Any) -> None:
        self._bar, self._last = bar, time.monotonic()

    def __call__(self, name: str, event: Event) -> None:
        if event["event"] in ("load", "prepare"):
            told = f"{name}: {event['what']} {event['done']}/{event['total']}"
        elif event["event"] == "step":
            told = f"{name}: step {event['step']}/{event['total']}, loss {event['loss']:.3f}"
        else:
            return
        self._bar.set_postfix_str(told, refresh=False)
        if sys.stderr.isatty() or time.monotonic() - self._last >= SECONDS:
            self._last = time.monotonic()
            self._bar.refresh()

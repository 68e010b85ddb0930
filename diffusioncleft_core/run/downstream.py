"""What a run's images are good for: classifiers trained on them, tested on people that are new to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..downstream.cropper import Cropper
from ..downstream.document import FILE_NAME, read_document, write_document
from ..downstream.evidence import downstream_document
from ..downstream.experiment import ExperimentSettings, run_experiment
from ..downstream.task import Task, load_task
from ..downstream.training import TrainSettings
from ..errors import UserError
from ..weights.backbones import PROBE, Backbone, refuse_photographs
from .dataset import folder_digests
from .downstream_material import PHANTOM_TEST, Holdings
from .generation import filtered_content, prompts_of
from .run import WARNINGS, Run
from .settings import downstream_backbone, face_pack_input, sampling_inputs
from .stages import Results, Stage, always

if TYPE_CHECKING:
    from ..weights.backbones import BackboneEntry

STAGE = "downstream"
PHANTOM_BASE = 40
"""Faces of the base model alone that a run on phantoms draws; of photographs as many as of a condition."""
PHANTOM_CURVE = (20, 50, 100)
PHANTOM_SETTINGS = ExperimentSettings(TrainSettings(kind=PROBE), seeds=5, folds=2)
"""On phantoms: a linear probe, in the time that a demo has."""


def try_tasks(
    holdings: Holdings,
    tasks: Sequence[Task],
    backbone: Backbone,
    settings: ExperimentSettings,
    *,
    paper: bool = False,
    warn: Callable[[str], None] = lambda message: None,
) -> dict[str, Any]:
    """Run the tasks on a run's folder and write its `downstream.json`; returns the document.

    A task for which something is missing is told of; the others are run.

    Raises:
        UserError: no task could be run.
    """
    refuse_photographs(backbone, phantom=holdings.phantom)
    found, missing = {}, []
    for task in tasks:
        cropper = replace(holdings.cropper, crop=task.crop)
        try:
            own = replace(holdings, cropper=cropper)
            material, leak = own.material(task, paper=paper)
        except UserError as error:
            missing.append(f"{task.name}: {error}")
            continue
        if chosen := own.chosen(material):
            warn(f"{task.name}: {chosen}")
        found[task.name] = run_experiment(
            task,
            material,
            backbone,
            cropper,
            holdings.folders.downstream,
            settings,
            leak=leak,
            chosen=chosen,
            warn=warn,
        )
    if not found:
        raise UserError("; ".join(missing))
    for message in missing:
        warn(f"not run is {message}")
    document = downstream_document(found)
    write_document(holdings.folders.root / FILE_NAME, document)
    return document


def draw_base(run: Run) -> Results:
    """Healthy faces of the base model alone: what controls put in the place of other images."""
    from ..generation.folder import set_fits
    from ..generation.generate import generate
    from ..generation.plans import healthy_plan

    settings, out = run.settings, run.folders.base
    n = min(settings.n, PHANTOM_BASE) if settings.phantom else settings.n
    seed = settings.seed_for("base")
    plan = healthy_plan(run.conditions[-1], n, seed, bracketed=settings.bracketed)

    def work() -> Results:
        return {"images": generate(settings.base_alone(), plan, out, role="control").total}

    def fits() -> bool:
        return set_fits(settings.base_alone(), plan, out)

    inputs = {"prompts and seeds": prompts_of(plan), "number of images": n, **sampling_inputs(settings)}
    return run.stages.run(Stage("base", lambda: inputs, [out], work, fits=fits))


def try_classifiers(run: Run, control: Path | None) -> Results:
    """Every task that is asked for; its figures lie in `downstream.json`.

    control: healthy faces.
    """
    from ..faces.analyzer import load_face_analyzer
    from ..weights.backbones import BACKBONES, load_backbone

    settings, folders, facts = run.settings, run.folders, run.facts
    draw_base(run)
    tasks = [load_task(name) for name in settings.downstream]
    trial = ExperimentSettings(seed=settings.seed_for(STAGE))
    if settings.phantom:
        trial = replace(PHANTOM_SETTINGS, seed=settings.seed_for(STAGE))
        tasks = [replace(task, curve=PHANTOM_CURVE) for task in tasks]
    name = downstream_backbone(settings)

    def work() -> Results:
        said: list[str] = []
        device = settings.sampling.device
        analyzer = load_face_analyzer(settings.faces, device=device.type)
        holdings = Holdings(
            folders,
            Cropper.of(tasks[0].crop, analyzer, folders.faces),
            settings.vocabulary,
            control,
            n_test=PHANTOM_TEST,
            warn=run.noted(said),
        )
        try_tasks(holdings, tasks, load_backbone(name, device), trial, warn=run.noted(said))
        return {WARNINGS: said}

    def inputs() -> dict[str, Any]:
        return {
            "filtered images": {part: filtered_content(folders.generated(part)) for part in facts},
            "photographs": {part: stages["dataset"]["manifest"] for part, stages in facts.items()},
            "base model's faces": filtered_content(folders.base),
            "control faces": folder_digests(control) if control else [],
            "tasks": [task.to_json() for task in tasks],
            "classifiers": [trial.train.to_json(), trial.seeds, trial.seed, trial.folds, PHANTOM_TEST],
            "network of the classifiers": backbone_content(BACKBONES[name]),
            **face_pack_input(settings),
        }

    after = ["base", "filters", "photographs-control"]
    after += [f"{stage}-{part}" for part in facts for stage in ("dataset", "generation")]
    return run.stages.run(Stage(STAGE, inputs, [folders.root / FILE_NAME], work, after, always))


def backbone_content(entry: BackboneEntry) -> str:
    """What the file of a network's weights is, or the embedded one's."""
    from ..files import sha256_model
    from ..weights.backbones import PHANTOM_WEIGHTS
    from ..weights.registry import require_file

    return sha256_model(PHANTOM_WEIGHTS if entry.weights is None else require_file(entry.weights))


def read_evidence(run: Run) -> Results | None:
    """What `downstream.json` says, where this run asks for it."""
    path = run.folders.root / FILE_NAME
    return read_document(path) if run.settings.downstream and path.is_file() else None

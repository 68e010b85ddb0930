"""All trainings of a task, sources, controls and learning curve with several seeds, and their predictions.

Predictions are kept in a private folder by the content of all they depend on, so that a second call trains
nothing anew and one that was killed goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..files import private_dir, read_json, write_json
from ..imageset.cache import entry_key
from ..progress import progress
from ..ranges import COUNT, SEED, check_fields, ranged, whole
from ..weights.backbones import PAPER, Backbone
from .crops import Crops, View
from .document import rounded
from .evidence import TaskEvidence
from .predictions import Predictions
from .saliency import lip_saliency
from .task import Task
from .training import Classifier, TrainSettings, train_classifier
from .trainings import SOURCE, Fold, Material, Plan, planned

if TYPE_CHECKING:
    import torch

    from .cropper import Cropper

VERSION = 3
"""Of what the predictions depend on beside their inputs; counted up when a training comes out otherwise."""
SALIENCY = "saliency"


@dataclass(frozen=True)
class ExperimentSettings:
    """How a task is tried.

    Attributes:
        train: how every classifier is trained; of its view the plans decide.
        seeds: trainings behind each figure.
        seed: the first one's.
        folds: of the cross-validation on photographs.
    """

    train: TrainSettings = field(default_factory=TrainSettings)
    seeds: int = ranged(COUNT, default=5)
    seed: int = ranged(SEED, default=0)
    folds: int = ranged(whole(2, 100), default=5)

    def __post_init__(self) -> None:
        check_fields(self)


def run_experiment(
    task: Task,
    material: Material,
    backbone: Backbone,
    cropper: Cropper,
    private: Path,
    settings: ExperimentSettings | None = None,
    *,
    leak: str | None = None,
    chosen: str | None = None,
    warn: Callable[[str], None] = lambda message: None,
) -> TaskEvidence:
    """Train and test everything that a task asks for and there is material for.

    Args:
        task: what is told apart.
        material: what is learned from and tested on.
        backbone: what every classifier stands on.
        cropper: cut the crops.
        private: folder where the predictions are kept.
        settings: how the classifiers are trained.
        leak: of `HeldOut.check`.
        chosen: of `HeldOut.chosen`.
        warn: told of a control or a source that could not be trained, which is then not run.

    Raises:
        UserError: the first source can't be trained.
    """
    settings = settings or ExperimentSettings()
    loras = sorted(material.positive.loras | material.negative.loras)
    model = {**described(settings, backbone, cropper), "loras": loras}
    trial = _Trial(task, backbone, private_dir(private), settings, model["crop"])
    plans = list(planned(task, material, settings.folds))
    seeds = range(settings.seed, settings.seed + settings.seeds)
    found: list[tuple[Plan, list[Predictions]]] = []
    touched = material.test.touched(private)
    with progress(len(plans) * len(seeds), f"trainings, {task.name}", unit="training") as bar:
        for plan in plans:
            trainings = []
            try:
                for seed in seeds:
                    trainings.append(trial.predictions(plan, seed))
                    bar.update()
            except UserError as error:
                if plan is plans[0]:
                    raise
                bar.update(len(seeds) - len(trainings))
                warn(f"{task.name}, {plan.name.replace('_', ' ')} is not run: {error}")
                continue
            found.append((plan, trainings))
    main = {plan.name: trainings for plan, trainings in found if plan.images is None}
    controls = {control.name for control in task.controls}
    learned = min(len(material.positive), len(material.negative))
    curve = {plan.images: trainings for plan, trainings in found if plan.images is not None}
    return TaskEvidence.of_task(
        task,
        {name: trainings for name, trainings in main.items() if name not in controls},
        controls={name: trainings for name, trainings in main.items() if name in controls},
        touched=touched,
        curve={**curve, learned: main[SOURCE]} if curve else {},
        model=model,
        leak=leak,
        chosen=chosen,
        saliency=trial.saliency(plans[0], settings.seed) if material.test.crops.phantom else None,
        photographs=not material.test.crops.phantom,
    )


def described(settings: ExperimentSettings, backbone: Backbone, cropper: Cropper) -> dict[str, Any]:
    """What the classifiers are, for the document: plain values, none that names a place."""
    return {
        "classifier": settings.train.to_json(),
        "backbone": {"backbone": backbone.name, **backbone.info.as_json()},
        "crop": cropper.describe(),
        "seeds": settings.seeds,
        "folds": settings.folds,
    }


@dataclass(frozen=True)
class _Trial:
    """Trains what is not kept yet."""

    task: Task
    backbone: Backbone
    private: Path
    settings: ExperimentSettings
    crop: Mapping[str, Any]
    memory: dict[str, torch.Tensor] = field(default_factory=dict)

    def predictions(self, plan: Plan, seed: int) -> Predictions:
        """Of one seed on the whole test set, those of a cross-validation put together."""
        parts = [self._of_fold(fold, plan.view, seed) for fold in plan.folds(seed)]
        return Predictions.joined(parts)

    def _of_fold(self, fold: Fold, view: View, seed: int) -> Predictions:
        path = self.private / f"{self._key(fold, view, seed)}.jsonl"
        if path.is_file():
            with suppress(UserError):  # a torn file is made again
                return Predictions.read(path)
        found = self._trained(fold, view, seed).predict(fold.test)
        found.write(path)
        return found

    def saliency(self, plan: Plan, seed: int) -> Mapping[str, Any] | None:
        """Where the paper's model looks; of one training."""
        if self.settings.train.kind != PAPER:
            return None
        (fold,) = plan.folds(seed)
        path = self.private / f"{self._key(fold, plan.view, seed)}.{SALIENCY}.json"
        if path.is_file():
            with suppress(UserError):
                return dict(read_json(path))
        found = lip_saliency(self._trained(fold, plan.view, seed), fold.test).to_json()
        write_json(path, rounded(found))
        return found

    def _trained(self, fold: Fold, view: View, seed: int) -> Classifier:
        settings = replace(self.settings.train, view=view)
        return train_classifier(
            self.task,
            fold.positive,
            fold.negative,
            self.backbone,
            settings,
            seed=seed,
            memory=self.memory,
        )

    def _key(self, fold: Fold, view: View, seed: int) -> str:
        settings = replace(self.settings.train, view=view)
        crops = [content_of(part) for part in (fold.positive, fold.negative, fold.test)]
        return entry_key(VERSION, crops, self.crop, settings.to_json(), seed, self.backbone.info.sha256)


def content_of(crops: Crops) -> str:
    """A digest of what crops are and of whom they show; faces hang on both and on the face pack."""
    groups: dict[str, Sequence[str | None]] = dict(crops.groups)
    return entry_key(crops.keys, crops.subjects, crops.labels.tolist(), groups, crops.n_not_found)

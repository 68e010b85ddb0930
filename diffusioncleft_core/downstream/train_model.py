"""From sets of images to a model's folder: what the command line and ComfyUI's node both do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..dataset.drawn import remember_place
from ..dataset.folder import keyed_hash
from ..dataset.trained import remember_training
from ..environment import check_packages
from ..errors import UserError
from ..imageset.cache import entry_key
from ..imageset.manifest import unlisted
from ..outputs import check_output
from ..weights.backbones import Backbone, check_backbone, refuse_photographs
from .cropper import Cropper
from .crops import Crops, joined, refuse_same_sets, refuse_shared
from .experiment import VERSION, content_of
from .model import FILE_NAME, write_model
from .task import Task
from .training import Classifier, TrainSettings, frozen_part_of, train_classifiers

PACKAGES = ("sklearn",)
"""Of splits by person and of the probe."""


@dataclass(frozen=True)
class ModelTraining:
    """One classifier a seed, on the crops of two classes.

    Attributes:
        task: what is told apart.
        cropper: cuts the crops.
        backbone: what every classifier stands on.
        settings: how each is trained.
        seeds: of the trainings.
        warn: told what of the sets is left out.

    Raises:
        UserError: the settings and the backbone don't fit, or photographs would meet a backbone of phantoms.
    """

    task: Task
    cropper: Cropper
    backbone: Backbone
    settings: TrainSettings
    seeds: Sequence[int]
    warn: Callable[[str], None] = lambda message: None

    def __post_init__(self) -> None:
        check_packages(PACKAGES)
        frozen_part_of(self.backbone, self.settings)
        refuse_photographs(self.backbone, phantom=self.cropper.analyzer.phantom_only)

    def crops(self, positive: Sequence[Path], negative: Sequence[Path]) -> tuple[Crops, Crops]:
        """The crops of both classes' sets; of a dataset those of its training photographs.

        Raises:
            UserError: as `Cropper.read`, or the classes share a set or a picture.
        """
        refuse_same_sets(positive, negative)
        classes = [
            joined([self._read(folder, label) for folder in folders])
            for label, folders in ((1, positive), (0, negative))
        ]
        refuse_shared(joined(classes), "what is learned from")
        return classes[0], classes[1]

    def key(self, positive: Crops, negative: Crops) -> str:
        """A digest of everything that the model depends on."""
        return entry_key(
            VERSION,
            self.task.sha256,
            [content_of(positive), content_of(negative)],
            self.cropper.describe(),
            self.settings.to_json(),
            list(self.seeds),
            self.backbone.info.sha256,
        )

    def run(
        self,
        positive: Crops,
        negative: Crops,
        out: Path,
        on_trained: Callable[[Classifier], None] = lambda classifier: None,
    ) -> dict[str, Any]:
        """Train and write the model's folder; returns the content of `model.json`.

        Datasets note the training before it starts, as they note a LoRA's, so that a consent withdrawn later
        reaches the model.

        on_trained: called with each classifier as it is done.

        Raises:
            UserError: as `train_classifiers`, or `out` holds something else.
        """
        refuse_used_folder(out)
        fingerprint = self._noted(positive, negative, out)
        classifiers = []
        for classifier in train_classifiers(
            self.task, positive, negative, self.backbone, self.settings, self.seeds
        ):
            on_trained(classifier)
            classifiers.append(classifier)
        loras = positive.loras | negative.loras
        remember_place(out, {name for names in loras for name in names})
        return write_model(out, classifiers, positive, negative, self.cropper, fingerprint)

    def _noted(self, positive: Crops, negative: Crops, out: Path) -> str | None:
        """The fingerprint under which the datasets note this training; None where it learns from none."""
        datasets = sorted(positive.datasets | negative.datasets)
        if not datasets:
            return None
        fingerprint = keyed_hash(datasets[0], self.key(positive, negative))
        for dataset in datasets:
            remember_training(dataset, fingerprint, out)
        return fingerprint

    def _read(self, folder: Path, label: int) -> Crops:
        crops = self.cropper.training_set(folder, label)
        for message in unlisted(folder):
            self.warn(message)
        return crops


def check_classifiers(backbone: str, own: Path | None = None) -> Path | None:
    """What a training needs, as far as it shows without opening anything; see `check_backbone`."""
    check_packages(PACKAGES)
    return check_backbone(backbone, own)


def refuse_used_folder(folder: Path) -> None:
    """Raise UserError for a folder that holds something else than a model, or that can't be written."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; give another --out")
    check_output(folder / FILE_NAME)
    if folder.is_dir() and any(folder.iterdir()) and not (folder / FILE_NAME).is_file():
        raise UserError(f"{folder} holds something else than a model; give a new folder as --out")


def words_of(training: dict[str, Any]) -> str:
    """One of `trainings` of `model.json`: `seed 0: epoch 7 of 10, 97.5 % of the validation images right`."""
    how = (
        f"C {training['C']:g}"
        if "C" in training
        else f"epoch {training['best_epoch']} of {training['epochs']}"
    )
    right = 100 * training["validation_accuracy"]
    return f"seed {training['seed']}: {how}, {right:.1f} % of the validation images right"

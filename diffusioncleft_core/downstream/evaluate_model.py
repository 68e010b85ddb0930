"""What a trained model says of a test set: what the command line and ComfyUI's node both do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from .cropper import Cropper
from .evidence import TaskEvidence
from .held_out import HeldOut, read_held_out
from .leak import People
from .model import SavedModel
from .training import Classifier

if TYPE_CHECKING:
    import torch

SOURCE = "its training sets"
"""What the model learned from, which its folder does not name."""


@dataclass(frozen=True)
class Examined:
    """A test set that may be judged.

    leak: of `leak.check_leak` and `leak.check_pictures`; chosen: of `leak.chosen_by_test`.
    """

    held_out: HeldOut
    leak: str | None
    chosen: str | None


@dataclass(frozen=True)
class Judge:
    """A model that is ready for test sets.

    Attributes:
        model: as it lies in its folder.
        cropper: cuts the crops as in training.
        classifiers: one a seed.
    """

    model: SavedModel
    cropper: Cropper
    classifiers: Sequence[Classifier]

    @classmethod
    def of(
        cls,
        model: SavedModel,
        cropper: Cropper,
        device: torch.device,
        own: Path | None = None,
        backbone: str | None = None,
    ) -> Judge:
        """Open a model's classifiers; own and backbone as `SavedModel.classifiers`.

        Raises:
            UserError: a file or the backbone is missing or another one, or the cropper cuts otherwise than in
                training.
        """
        model.check_faces(cropper)
        return cls(model, cropper, model.classifiers(device, own, backbone))

    def evaluate(
        self,
        labelled: Sequence[tuple[Path, int]],
        learned: Mapping[str, People | None],
        private: Path,
        *,
        choosers: Mapping[str, People] = MappingProxyType({}),
        paper: bool = False,
        dates: Path | None = None,
    ) -> TaskEvidence:
        """Judge one test set; every classifier's predictions are kept.

        Args:
            labelled: the test set's folders and the labels of their images; of a dataset the hold-out.
            learned: as `leak.check_leak`.
            private: folder of the predictions, `seed-N.jsonl`.
            choosers: as `leak.choosing_people`.
            paper: allow people whom something learned from, and mark the figures.
            dates: private folder that remembers when a test set was first looked at (default: `private`).

        Raises:
            UserError: as `examined`.
        """
        test = self.examined(labelled, learned, choosers=choosers, paper=paper)
        return self.judged(test, private, dates=dates)

    def examined(
        self,
        labelled: Sequence[tuple[Path, int]],
        learned: Mapping[str, People | None],
        *,
        choosers: Mapping[str, People] = MappingProxyType({}),
        paper: bool = False,
    ) -> Examined:
        """A test set, and whether something learned from it; arguments as `evaluate`. Nothing is written.

        Raises:
            UserError: as `Cropper.read`, `leak.check_pictures` and `leak.check_leak`.
        """
        held_out = read_held_out(self.cropper, labelled)
        clauses = [
            held_out.check_pictures(self.model.learned_pictures(), paper=paper),
            held_out.check(learned, paper=paper),
        ]
        leak = "; ".join(clause for clause in clauses if clause) or None
        return Examined(held_out, leak, held_out.chosen(choosers))

    def judged(self, test: Examined, private: Path, *, dates: Path | None = None) -> TaskEvidence:
        """What the classifiers say of a test set; arguments as `evaluate`."""
        held_out = test.held_out
        trainings = [classifier.predict(held_out.crops) for classifier in self.classifiers]
        for classifier, predictions in zip(self.classifiers, trainings, strict=True):
            predictions.write(private / f"seed-{classifier.seed}.jsonl")
        return TaskEvidence.of_task(
            self.model.task,
            {SOURCE: trainings},
            touched=held_out.touched(dates or private),
            model=self.model.describe(),
            leak=test.leak,
            chosen=test.chosen,
            photographs=not self.model.phantom,
        )

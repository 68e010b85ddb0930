"""What a run's folder holds for the classifiers of a task: generated sets, photographs, a test set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..conditions.names import CONTROL, HEALTHY
from ..conditions.vocabulary import Vocabulary
from ..dataset.folder import is_dataset
from ..downstream.cropper import Cropper
from ..downstream.crops import Crops, joined
from ..downstream.held_out import HeldOut, trained_people
from ..downstream.leak import choosing_people, drawing_names
from ..downstream.learned import LearnedPictures
from ..downstream.task import Class, Task
from ..downstream.trainings import Material
from ..errors import UserError
from ..files import private_dir, sha256_bytes
from ..imageset.manifest import ImageRow, image_set_rows, write_image_set
from ..report.folders import RunFolders

PHANTOM_TEST = 400
"""Phantoms of new people to test on, half of each class: they cost nothing."""
HEALTHY_TEST = 5
"""One in so many healthy people is tested on."""


@dataclass
class Holdings:
    """What a run's folder holds for a task.

    Attributes:
        folders: of the run.
        cropper: cuts the crops.
        vocabulary: says what phantoms of a condition show.
        control: folder of healthy faces; None: the healthy phantoms of a run under --phantom.
        foreign: folders of other sources, positive and negative, by name.
        n_test: phantoms to test on.
        warn: told what is missing, and which command makes it.
    """

    folders: RunFolders
    cropper: Cropper
    vocabulary: Vocabulary
    control: Path | None = None
    foreign: dict[str, tuple[Path, Path]] = field(default_factory=dict)
    n_test: int = PHANTOM_TEST
    warn: Callable[[str], None] = lambda message: None

    @property
    def phantom(self) -> bool:
        return self.cropper.analyzer.phantom_only

    def material(self, task: Task, *, paper: bool = False) -> tuple[Material, str | None]:
        """What there is for a task, and the clause on a leak (`leak.check_leak`).

        Raises:
            UserError: a class has no images to learn from, or none to be tested on, or the test set shares
                people with what the LoRAs learned from and `paper` is not set.
        """
        healthy = self._healthy(task)
        learned = [self._learned(item, label, healthy) for label, item in self._classes(task)]
        test = self._test(task, healthy)
        photographs = [
            crops
            for label, item in self._classes(task)
            if (crops := self._photographs(item, label, healthy)) is not None
        ]
        base = self._base()
        has_healthy = task.negative.condition is None
        material = Material(
            learned[0],
            learned[1],
            test,
            base_negative=base if has_healthy else None,
            base=base,
            photographs=joined(photographs) if photographs else None,
            foreign={
                name: (
                    self.cropper.training_set(positive, 1),
                    self.cropper.training_set(negative, 0),
                )
                for name, (positive, negative) in self.foreign.items()
            },
        )
        sources = [*learned, *photographs, *(crops for pair in material.foreign.values() for crops in pair)]
        pictures = LearnedPictures.of(picture for crops in sources for picture in crops.pictures)
        clauses = [test.check_pictures(pictures, paper=paper)]
        if not self.phantom:  # phantoms are drawn for the test alone
            clauses.append(test.check(trained_people(self.folders.datasets()), paper=paper))
        return material, "; ".join(clause for clause in clauses if clause) or None

    def chosen(self, material: Material) -> str | None:
        """The clause on LoRAs that were chosen by people of the test set (`leak.chosen_by_test`)."""
        loras = drawing_names(sorted(material.positive.loras | material.negative.loras))
        return material.test.chosen(choosing_people(loras, self.folders.datasets()))

    def _classes(self, task: Task) -> list[tuple[int, Class]]:
        return [(1, task.positive), (0, task.negative)]

    def _healthy(self, task: Task) -> tuple[Crops, Crops] | None:
        """Healthy people to learn from and to be tested on; None where the task has no such class."""
        found = [label for label, item in self._classes(task) if item.condition is None]
        if not found:
            return None
        folder = self.control or self.folders.photographs(CONTROL)
        if not folder.is_dir():
            raise UserError(
                f"the run {self.folders.root} has no healthy faces, which {task.name} needs; give a folder "
                "of them: --control DIR"
            )
        if self.phantom:
            crops = self.cropper.training_set(folder, found[0])
            return crops, crops
        crops = self.cropper.read(folder, found[0], description="lips, healthy")
        people = np.asarray(crops.people)
        names = np.unique(people)
        tested = np.random.default_rng(0).permutation(names)[: -(-len(names) // HEALTHY_TEST)]
        inside = np.isin(people, tested)
        return crops.where(~inside), crops.where(inside)

    def _learned(self, item: Class, label: int, healthy: tuple[Crops, Crops] | None) -> Crops:
        if item.condition is None:
            assert healthy is not None
            return healthy[0]
        folder = self.folders.generated(item.condition)
        if not folder.is_dir():
            raise UserError(
                f"the run {self.folders.root} has no generated images of {item.condition}; make them: "
                f"diffusioncleft run --photos {item.condition}=DIR --out {self.folders.root}"
            )
        return self.cropper.training_set(folder, label)

    def _photographs(self, item: Class, label: int, healthy: tuple[Crops, Crops] | None) -> Crops | None:
        """Photographs that the line to beat may learn from."""
        if item.condition is None:
            return None if healthy is None else healthy[0]
        folder = self.folders.dataset(item.condition)
        return self.cropper.training_set(folder, label) if is_dataset(folder) else None

    def _base(self) -> Crops | None:
        folder = self.folders.base
        if folder.is_dir():
            return self.cropper.training_set(folder, 0)
        self.warn(
            f"the run {self.folders.root} has no faces of the base model alone, so controls that need them "
            "are not run; make them: diffusioncleft run --downstream with the run's other options"
        )
        return None

    def _test(self, task: Task, healthy: tuple[Crops, Crops] | None) -> HeldOut:
        parts: list[tuple[Path, Crops]] = []
        for label, item in self._classes(task):
            if self.phantom:
                folder = self._rendered(task, item)
            elif item.condition is None:
                assert healthy is not None
                folder = self.control or self.folders.photographs(CONTROL)
                parts.append((folder, healthy[1]))
                continue
            else:
                folder = self.folders.dataset(item.condition)
                if not is_dataset(folder):
                    raise UserError(
                        f"the run {self.folders.root} has no photographs of {item.condition} to test on; "
                        f"make them a part of it: diffusioncleft run --photos {item.condition}=DIR"
                    )
            parts.append((folder, self.cropper.test_set(folder, label)))
        return HeldOut.of(parts)

    def _rendered(self, task: Task, item: Class) -> Path:
        """Phantoms of new people, drawn once; the manifest tells who is on each and of which groups."""
        from ..phantom.photographs import write_people

        name = item.condition or HEALTHY
        n, seed = self.n_test // 2, int(sha256_bytes(f"downstream/{name}".encode())[:8], 16) >> 1
        generated = self.folders.generated(next(c.condition for _, c in self._classes(task) if c.condition))
        size = next((row.width for row in image_set_rows(generated) if row.width), 128)
        folder = private_dir(self.folders.downstream) / "phantoms" / f"{name}-{n}-{size}"
        finding = None
        if item.condition is not None:
            shown = self.vocabulary.condition(item.condition).phantom
            if shown is None:
                raise UserError(f"the phantom draws no {item.condition}, so there is nothing to test on")
            finding = shown.finding
        groups = write_people(folder, n, finding, seed, size)
        write_image_set(
            folder,
            [
                ImageRow(file, condition=item.condition, attributes=known, subject=f"{name} {file}")
                for file, known in groups.items()
            ],
        )
        return folder

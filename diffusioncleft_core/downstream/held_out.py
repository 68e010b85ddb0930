"""A test set: its crops, its people, whether something learned from them, and when it was first seen."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..dataset.folder import dataset_rows, is_dataset
from ..errors import UserError
from ..files import private_dir, read_json, sha256_bytes, write_json
from .cropper import Cropper, tested_roles
from .crops import Crops, refuse_same_sets, refuse_shared
from .crops import joined as joined_crops
from .leak import People, check_leak, check_pictures, chosen_by_test, dataset_people, recorded_people
from .leak import joined as joined_people
from .learned import FILE_NAME as LEARNED_FILE
from .learned import LearnedPictures

LEARNED = "the classifier, or of what drew its images"
"""Whose training photographs are not known, where nothing tells what learned from some."""
NOT_TOLD = (
    f"the model's folder has no {LEARNED_FILE}, which tells the images that it learned from, so test images "
    "may be among them"
)
TOUCHED = "touched.json"
"""Private file: when each test set was first looked at, by what is on it."""


@dataclass(frozen=True, eq=False, repr=False)
class HeldOut:
    """A test set; private.

    Attributes:
        crops: of all its images whose lip was found, labelled.
        people: on the crops, and on other images of theirs that a dataset knows.
    """

    crops: Crops
    people: People

    @classmethod
    def of(cls, parts: Sequence[tuple[Path, Crops]]) -> HeldOut:
        """The test set of some folders' labelled crops.

        Raises:
            UserError: a picture is in both classes.
        """
        crops = each_once(joined_crops([crops for _, crops in parts]))
        people = joined_people([people_of(folder, crops) for folder, crops in parts])
        return cls(crops, counted_as_in(people, crops))

    def check(self, learned: Mapping[str, People | None], *, paper: bool = False) -> str | None:
        """Refuse people whom something learned from; see `leak.check_leak`."""
        return check_leak(self.people, learned, paper=paper, photographs=not self.crops.phantom)

    def chosen(self, choosers: Mapping[str, People]) -> str | None:
        """Whether LoRAs were chosen by these people; see `leak.chosen_by_test`."""
        return chosen_by_test(self.people, choosers, photographs=not self.crops.phantom)

    def check_pictures(self, learned: LearnedPictures | None, *, paper: bool = False) -> str | None:
        """Refuse pictures that a model learned from; see `leak.check_pictures`. learned: None: not known."""
        if learned is None:
            return NOT_TOLD
        pictures = self.crops.pictures
        phantom = self.crops.phantom
        return check_pictures(learned.among(pictures), len(pictures), paper=paper, photographs=not phantom)

    def touched(self, folder: Path) -> str:
        """The date on which this very set was first looked at, as a private folder remembers it."""
        path = private_dir(folder) / TOUCHED
        known: Any = {}
        with suppress(UserError):
            known = read_json(path) if path.is_file() else {}
        dates = dict(known) if isinstance(known, dict) else {}
        digest = sha256_bytes("\n".join(sorted(self.crops.keys)).encode())
        if not isinstance(dates.get(digest), str):
            dates[digest] = datetime.now(UTC).date().isoformat()
            write_json(path, dates)
        return str(dates[digest])


def refuse_same_classes(labelled: Sequence[tuple[Path, int]]) -> None:
    """Raise UserError for a folder that is in both classes of a test set."""
    refuse_same_sets(*([folder for folder, label in labelled if label == of] for of in (1, 0)))


def read_held_out(cropper: Cropper, labelled: Sequence[tuple[Path, int]]) -> HeldOut:
    """The test set of some folders and the labels of their images; of a dataset the hold-out.

    Raises:
        UserError: as `Cropper.read`, or a folder is in both classes.
    """
    refuse_same_classes(labelled)
    return HeldOut.of([(folder, cropper.test_set(folder, label)) for folder, label in labelled])


def check_datasets(tested: Sequence[Path], learned: Sequence[Path], *, phantom: bool) -> None:
    """Refuse datasets as a test set whose people are in others, before a picture is opened.

    Raises:
        UserError: as `leak.check_leak`.
    """
    if tested and learned:
        check_leak(
            joined_people([tested_people(folder) for folder in tested]),
            trained_people(learned),
            photographs=not phantom,
        )


def each_once(crops: Crops) -> Crops:
    """The crops without copies of a picture. UserError for a picture that is in both classes."""
    refuse_shared(crops, "the test set")
    first: dict[str, int] = {}
    for place, picture in enumerate(crops.pictures):
        first.setdefault(picture, place)
    return replace(crops.where(list(first.values())), n_not_found=crops.n_not_found)


def people_of(folder: Path, crops: Crops) -> People:
    """The people of a folder's crops: of a dataset all whom it knows, else by label, picture and face."""
    if is_dataset(folder):
        return dataset_people(folder, roles=("train", "holdout"), trained=())
    owner = str(Path(folder).resolve())
    return People(crops.subjects, (owner,) * len(crops), crops.pictures, crops.embeddings)


def counted_as_in(people: People, crops: Crops) -> People:
    """Those of the people who are on the crops, counted as the figures count them (`Crops.people`)."""
    of_picture = dict(zip(crops.pictures, crops.people, strict=True))
    seen = list(zip(people.names, people.pictures, strict=True))
    of_name = {name: of_picture[picture] for name, picture in seen if picture in of_picture}
    places = [i for i, (name, _) in enumerate(seen) if name in of_name]
    return People(
        tuple(people.subjects[i] for i in places),
        tuple(people.owners[i] for i in places),
        tuple(people.pictures[i] for i in places),
        people.embeddings[places],
        tuple(of_picture.get(seen[i][1] or "", of_name[seen[i][0]]) for i in places),
    )


def tested_people(dataset: Path) -> People:
    """The people of a dataset that are tested on: the hold-out, all of it where nothing is held out."""
    return dataset_people(dataset, roles=tested_roles(dataset), trained=())


def trained_people(datasets: Sequence[Path]) -> dict[str, People]:
    """Everybody whom a training on one of the datasets may have learned from, by their condition."""
    parts: dict[str, list[People]] = {}
    for folder in datasets:
        condition = next((row.condition for row in dataset_rows(folder) if row.condition), "a dataset")
        parts.setdefault(condition, []).append(dataset_people(folder))
    return {condition: joined_people(people) for condition, people in parts.items()}


def learned_people(
    learners: Mapping[str, Collection[str]], datasets: Sequence[Path], at_hand: Sequence[Path] = ()
) -> dict[str, People | None]:
    """Whom a model and the LoRAs of its images learned from, for `HeldOut.check`.

    The people of named datasets are one entry a condition, and stand for every training that one of these
    datasets recorded. Of any other learner, datasets that are named tell nothing.

    Args:
        learners: see `SavedModel.learners`.
        datasets: that were named as those that something was trained on.
        at_hand: others that may know the trainings.

    Returns:
        None where no dataset recorded the training.
    """
    found: dict[str, People | None] = dict(trained_people(datasets))
    others = [folder for folder in at_hand if folder not in datasets]
    for name, known_by in learners.items():
        if recorded_people(known_by, datasets) is None:
            found[name] = recorded_people(known_by, others)
    return found or {LEARNED: None}

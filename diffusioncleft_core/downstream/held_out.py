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
from .leak import People, check_leak, dataset_people, recorded_people
from .leak import joined as joined_people

LEARNED = "the classifier, or of what drew its images"
"""Whose training photographs are not known, where nothing tells what learned from some."""
TOUCHED = "touched.json"
"""Private file: when each test set was first looked at, by what is on it."""


@dataclass(frozen=True, eq=False, repr=False)
class HeldOut:
    """A test set; private.

    Attributes:
        crops: of all its images whose lip was found, labelled.
        people: on all its images, where a dataset tells them, else on the crops.
    """

    crops: Crops
    people: People

    def check(self, learned: Mapping[str, People | None], *, paper: bool = False) -> str | None:
        """Refuse people whom something learned from; see `leak.check_leak`."""
        return check_leak(self.people, learned, paper=paper, photographs=not self.crops.phantom)

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
    parts = [(folder, cropper.test_set(folder, label)) for folder, label in labelled]
    people = [people_of(folder, crops) for folder, crops in parts]
    return HeldOut(each_once(joined_crops([crops for _, crops in parts])), joined_people(people))


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
    for place, key in enumerate(crops.keys):
        first.setdefault(key, place)
    return replace(crops.where(list(first.values())), n_not_found=crops.n_not_found)


def people_of(folder: Path, crops: Crops) -> People:
    """The people of a test set: of a dataset as it knows them, else by the folder's labels and by face."""
    if is_dataset(folder):
        return tested_people(folder)
    owner = str(Path(folder).resolve())
    return People(crops.subjects, (owner,) * len(crops), (None,) * len(crops), crops.embeddings)


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

    Args:
        learners: see `SavedModel.learners`.
        datasets: that were named as those that something was trained on.
        at_hand: others that may know the trainings.

    Returns:
        None where neither a named dataset nor what one recorded of a training tells.
    """
    found: dict[str, People | None] = dict(trained_people(datasets))
    for name, known_by in learners.items():
        people = recorded_people(known_by, [folder for folder in at_hand if folder not in datasets])
        if people is not None or not datasets:  # the people of named datasets are known anyway
            found[name] = people
    return found or {LEARNED: None}

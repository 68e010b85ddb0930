"""Whether people in a test set are among those that something learned from: then its figures prove nothing.

A person is known again by a dataset's own label, by a picture, and across folders, whose labels mean nothing
to each other, by the face. A phantom's face alone refuses nothing: the embedded recogniser takes strangers
for one person now and then, so such a match only marks the figures.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..dataset.examine import Ledger
from ..dataset.folder import dataset_rows, read_embeddings
from ..dataset.select import SAME_PERSON
from ..dataset.trained import TRAIN, choosing_photographs, lora_training, trained_photographs
from ..errors import UserError
from ..imageset.manifest import ImageRow
from ..small_counts import is_small

ADVICE = (
    "test on photographs that were kept apart before any training (the dataset's hold-out), or give the "
    "option paper (--paper), which allows it and marks every figure"
)
OF_IMAGES = " of its images"
"""How the names of LoRAs end that drew what a classifier learned from."""
ALIKE_PHANTOMS = 0.75
"""Cosine from which two phantoms look like one: of 2.0 million pairs of strangers 5 do, of 1,000 pairs of one
phantom 945 (at 0.65, from which a dataset takes two for one: 94, and 982)."""


@dataclass(frozen=True, eq=False, repr=False)
class People:
    """Who is on N photographs. Private.

    Attributes:
        subjects: [N] the label of the person, None where there is none.
        owners: [N] the dataset that the label is of; "" where it is of none, or of a folder of its own.
        pictures: [N] hash of the normalised pixels, None where it is not known.
        embeddings: [N, 512] of the face, L2 norm 1; zeros where there is none.
        persons: [N] who counts as one; None: a label, or a photograph that has none.
    """

    subjects: tuple[str | None, ...]
    owners: tuple[str, ...]
    pictures: tuple[str | None, ...]
    embeddings: NDArray[np.float32]
    persons: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.subjects)

    @property
    def counted(self) -> Sequence[object]:
        """[N] what stands for the person of each photograph where people are counted."""
        return self.names if self.persons is None else self.persons

    @property
    def names(self) -> list[tuple[str, str]]:
        """[N] a name for each person: owner and label, or what stands for one photograph."""
        return [
            (owner, f"label {subject}" if subject is not None else f"photograph {i}")
            for i, (owner, subject) in enumerate(zip(self.owners, self.subjects, strict=True))
        ]


def dataset_people(
    folder: Path, *, roles: Sequence[str] = (TRAIN,), trained: Collection[str] | None = None
) -> People:
    """The people on a dataset's photographs.

    Args:
        folder: of the dataset.
        roles: of the photographs.
        trained: content hashes of source photographs, which count too whatever their role is now: a hold-out
            may have been drawn anew. Default: all that any recorded training learned from where the role
            `train` is asked for, else none.

    Raises:
        UserError: the folder is no dataset, or was never built.
    """
    rows = dataset_rows(folder)
    if trained is None:
        known = trained_photographs(folder).values() if TRAIN in roles else ()
        trained = {source for sources in known for source in sources}
    learned = pictures_of(folder, trained)
    return _people(folder, [row for row in rows if row.role in roles or row.sha256 in learned])


def recorded_people(names: Collection[str], datasets: Sequence[Path]) -> People | None:
    """The people whom a LoRA or a classifier learned from, by what the datasets recorded of its training.

    Args:
        names: all by which it is known, as a generated set records its LoRA (`Crops.loras`).
        datasets: that it may have been trained on.

    Returns:
        None when none of them knows the training: then it is not known.
    """
    parts = []
    for folder in datasets:
        known = trained_photographs(folder)
        runs = {name for name in names if name in known} | {lora_training(folder, name) for name in names}
        sources = {source for run in runs for source in known.get(run, ())}
        if sources:
            parts.append(dataset_people(folder, roles=(), trained=sources))
    return joined(parts) if parts else None


def drawing_names(loras: Sequence[Collection[str]]) -> dict[str, tuple[str, ...]]:
    """The LoRAs of some images, as sentences call them, each with all by which it is known."""
    return {
        f"the LoRA{OF_IMAGES}" if len(loras) == 1 else f"LoRA {number}{OF_IMAGES}": tuple(map(str, names))
        for number, names in enumerate(loras, start=1)
    }


def choosing_people(loras: Mapping[str, Collection[str]], datasets: Sequence[Path]) -> dict[str, People]:
    """By whom an early stop chose each of these LoRAs, by what the datasets recorded; others are left out.

    loras: of `drawing_names`.
    """
    found = {}
    for name, known_by in loras.items():
        sources = {folder: choosing_photographs(folder, known_by) for folder in dict.fromkeys(datasets)}
        parts = [dataset_people(folder, roles=(), trained=some) for folder, some in sources.items() if some]
        if parts:
            found[name] = joined(parts)
    return found


def pictures_of(folder: Path, sources: Collection[str]) -> set[str]:
    """Hashes of the normalised pixels of source photographs, by the content hashes of their files."""
    if not sources:
        return set()
    examined = Ledger(folder).examined
    return {
        pixels for source in sources if source in examined and (pixels := examined[source].pixels) is not None
    }


def joined(parts: Sequence[People]) -> People:
    """All people of several."""
    return People(
        tuple(subject for part in parts for subject in part.subjects),
        tuple(owner for part in parts for owner in part.owners),
        tuple(picture for part in parts for picture in part.pictures),
        np.concatenate([np.zeros((0, 512), np.float32), *(part.embeddings for part in parts)]),
    )


def _people(folder: Path, rows: Sequence[ImageRow]) -> People:
    faces = read_embeddings(folder)
    none = np.zeros(512, np.float32)
    found = [faces.get(row.sha256 or "", none) for row in rows]
    return People(
        tuple(row.subject for row in rows),
        (str(Path(folder).resolve()),) * len(rows),
        tuple(row.sha256 for row in rows),
        np.stack(found).astype(np.float32) if found else np.zeros((0, 512), np.float32),
    )


@dataclass(frozen=True)
class Shared:
    """People of a test set who were learned from: `known` for certain, `alike` by their faces alone."""

    known: frozenset[object]
    alike: frozenset[object]


def shared_people(test: People, learned: People, threshold: float) -> Shared:
    """Which people of the test set are among those learned from.

    Two photographs are of one person when they are the same picture or share a label of the same dataset;
    when they have no labels to compare, their faces decide.

    Args:
        threshold: cosine from which two faces are one person's.
    """
    labels = {name for name in learned.names if name[1].startswith("label ")}
    pictures = {picture for picture in learned.pictures if picture is not None}
    look_alike = test.embeddings @ learned.embeddings.T >= threshold
    owned = np.array(
        [
            owner if subject is not None else ""
            for owner, subject in zip(learned.owners, learned.subjects, strict=True)
        ],
        dtype=object,
    )
    known: set[object] = set()
    alike: set[object] = set()
    for i, (name, person) in enumerate(zip(test.names, test.counted, strict=True)):
        owner = test.owners[i] if test.subjects[i] is not None else ""
        comparable = (owned == owner) & bool(owner)
        if name in labels or test.pictures[i] in pictures:
            known.add(person)
        elif (look_alike[i] & ~comparable).any():
            alike.add(person)
    return Shared(frozenset(known), frozenset(alike - known))


def check_leak(
    test: People, learned: Mapping[str, People | None], *, paper: bool = False, photographs: bool = True
) -> str | None:
    """Refuse a test set with people whom something learned from.

    Args:
        test: the people of the test set.
        learned: by whose training photographs they are (`the LoRA of its images`, or a condition); None where
            it is not known who is on them.
        paper: allow it, as the paper's own test sets probably were.
        photographs: whether they are people, of whom small numbers stay untold; phantoms who are known by
            their faces alone are no reason to refuse.

    Returns:
        None for a test set that is free of them; else a clause for the document's `leak`, which marks every
        figure.

    Raises:
        UserError: people are shared, and `paper` is not set.
    """
    threshold = SAME_PERSON if photographs else ALIKE_PHANTOMS
    shared = {
        name: shared_people(test, people, threshold) for name, people in learned.items() if people is not None
    }
    found = {name: both for name, people in shared.items() if (both := people.known | people.alike)}
    if found:
        n, of = len(frozenset().union(*found.values())), len(set(test.counted))
        clause = f"{_counted(n, of, photographs)} also on the training photographs of {_listed(found)}"
        if not photographs and not any(people.known for people in shared.values()):
            return f"by their faces alone {clause}"
        if not paper:
            raise UserError(f"{clause}, so figures could come from knowing them again; {ADVICE}")
        return clause
    unknown = [name for name, people in learned.items() if people is None]
    if unknown:
        return (
            f"no dataset at hand tells who is on the training photographs of {_listed(unknown)}, "
            "so people of the test set may be among them"
        )
    return None


def chosen_by_test(test: People, choosers: Mapping[str, People], *, photographs: bool = True) -> str | None:
    """A clause on LoRAs that an early stop chose by people of the test set; None for others.

    Nothing learned from these people, so that it refuses and marks nothing.

    Args:
        test: the people of the test set.
        choosers: of `choosing_people`.
        photographs: whether they are people; of phantoms a face alone says nothing.
    """
    threshold = SAME_PERSON if photographs else ALIKE_PHANTOMS
    shared = {name: shared_people(test, people, threshold) for name, people in choosers.items()}
    found = [name for name, both in shared.items() if both.known or (photographs and both.alike)]
    if not found:
        return None
    return (
        f"{_listed(found)} {'was' if len(found) == 1 else 'were'} chosen by an early stop on people of the "
        "test set, so the figures may flatter a little"
    )


def check_pictures(n: int, of: int, *, paper: bool = False, photographs: bool = True) -> str | None:
    """Refuse a test set with pictures that the classifier itself learned from.

    Args:
        n, of: how many of how many pictures it learned from.
        paper, photographs: as `check_leak`.

    Returns:
        As `check_leak`.

    Raises:
        UserError: there is one, and `paper` is not set.
    """
    if not n:
        return None
    number = "one or more" if photographs and (is_small(n) or is_small(of - n)) else f"{n}"
    whole = "the" if photographs and is_small(of) else f"the {of}"
    clause = f"{number} of {whole} test images {'was' if number == '1' else 'were'} learned from"
    if not paper:
        raise UserError(f"{clause}, so figures could come from knowing them again; {ADVICE}")
    return clause


def _counted(n: int, of: int, photographs: bool) -> str:
    if photographs and (is_small(n) or is_small(of - n)):
        return "one or more of the people in the test set are"
    return f"{n} of the {of} people in the test set {'is' if n == 1 else 'are'}"


def _listed(names: Collection[str]) -> str:
    """`LoRA 1 and LoRA 2 of its images`: an ending that two or more share is said once."""
    *first, last = names
    if first and first[-1].endswith(OF_IMAGES) and last.endswith(OF_IMAGES):
        first = [name.removesuffix(OF_IMAGES) for name in first]
    return f"{', '.join(first)} and {last}" if first else last

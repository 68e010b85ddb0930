"""Whose faces a set is compared with in the leak audit: training photographs, and those of other people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..dataset.references import ReferenceSet
from ..small_counts import FEWEST, is_small
from .sets import ALL

Array = NDArray[np.float32]
UNKNOWN = "unknown"
"""Who is on photographs of which nobody says it: all may show one person."""


@dataclass(frozen=True, eq=False, repr=False)
class People:
    """Faces [n, D] of L2 norm 1 and who is on each."""

    faces: Array
    subjects: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.faces)

    @classmethod
    def nobody(cls) -> People:
        return cls(np.zeros((0, 512), np.float32), ())

    @classmethod
    def strangers(cls, faces: Array) -> People:
        """Faces of which each is somebody else's."""
        return cls(faces, tuple(f"stranger {place}" for place in range(len(faces))))

    @property
    def numbers(self) -> NDArray[np.int64]:
        """[n]: the people, numbered from 0."""
        return np.unique(np.array(self.subjects, object).astype(str), return_inverse=True)[1].astype(np.int64)

    @property
    def n_people(self) -> int:
        return len(set(self.subjects))

    def in_fives(self) -> People:
        """The first so many that their number is a multiple of five: it tells of no count below that."""
        few = len(self) // FEWEST * FEWEST
        return People(self.faces[:few], self.subjects[:few])


@dataclass(frozen=True, eq=False, repr=False)
class Gallery:
    """What a set's faces are compared with: its training photographs, and people not learned from."""

    train: People
    holdout: People
    control: People | None = None


def gallery_of(
    name: str,
    references: ReferenceSet,
    holdout: Mapping[str, People],
    control: Array | None,
) -> Gallery:
    """The gallery of a condition, or of images of no one condition."""
    others = None if control is None else People.strangers(control)
    conditions = list(dict.fromkeys(references.conditions))
    if name == ALL and len(conditions) == 1:
        name = conditions[0]
    places = references.index(name)
    subjects = references.subjects or tuple(f"photograph {place}" for place in range(len(references)))
    who = tuple(subjects[place] for place in places)
    if len({references.conditions[place] for place in places}) > 1 or not all(who):
        # Two sources may show the same people, and which is not known: nobody here is surely another person.
        return Gallery(
            People(references.embeddings[places], (UNKNOWN,) * len(places)), People.nobody(), others
        )
    train = People(references.embeddings[places], who)
    return Gallery(train, holdout.get(name, People.nobody()), others)


def side_by_side(
    parts: Sequence[tuple[Array, Gallery]],
) -> tuple[Array, Gallery]:
    """Several sets with their galleries as one, in which each is compared with its own gallery alone.

    Each set's faces have dimensions of their own, so that the cosine between two sets is 0. Where one of them
    has fewer than five held-out faces there are none: the number would follow from the union's.
    """

    def placed(faces: Array, place: int) -> Array:
        wide = np.zeros((len(faces), len(parts) * faces.shape[1]), np.float32)
        wide[:, place * faces.shape[1] : (place + 1) * faces.shape[1]] = faces
        return wide

    def joined(people: Sequence[People]) -> People:
        faces = np.concatenate([placed(item.faces, place) for place, item in enumerate(people)])
        names = [f"{place} {name}" for place, item in enumerate(people) for name in item.subjects]
        return People(faces, tuple(names))

    generated = np.concatenate([placed(faces, place) for place, (faces, _) in enumerate(parts)])
    galleries = [gallery for _, gallery in parts]
    own = galleries[0].control
    # Other people's faces are strangers to every set: they are compared with the first one's photographs.
    control = None if own is None else People(placed(own.faces, 0), own.subjects)
    train, holdout = joined([item.train for item in galleries]), joined([item.holdout for item in galleries])
    if any(is_small(len(item.holdout.faces)) for item in galleries):
        holdout = People(holdout.faces[:0], ())
    return generated, Gallery(train, holdout, control)

"""The crops of a set's lips, and the views of them that classifiers see."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..files import shown
from .people import identity_groups

GREY = (124, 116, 104)
"""ImageNet's mean colour, 0 to a network that takes its normalisation."""
SURROUNDINGS_SEEN = 0.05
"""Share of a picture that must be left beside the greyed face for its surroundings to tell anything."""
MASK_GROWTH = 0.1
"""By how much of its longer side the greyed or kept part reaches beyond the lip's box, on every side."""

Pixels = NDArray[np.uint8]


class View(StrEnum):
    """What of a picture a classifier sees."""

    WHOLE = "whole"
    """The crop around the lip."""
    LIP_MASKED = "lip_masked"
    """The crop with the lip greyed out."""
    LIP_ALONE = "lip_alone"
    """The lip, all else of the crop greyed out."""
    BACKGROUND = "background"
    """The whole picture with the face greyed out."""


class Stack:
    """[N, S, S, 3] uint8: pictures of other stacks, which are copied when they are looked at and not before.

    An experiment picks and joins the same pictures for hundreds of trainings, most of which know their
    features already.
    """

    def __init__(self, pictures: Sequence[Pixels]) -> None:
        self._pictures = pictures

    @classmethod
    def joined(cls, stacks: Iterable[Pixels | Stack]) -> Stack:
        """All pictures of several, one after the other."""
        return cls([picture for stack in stacks for picture in cls._of(stack)])

    @classmethod
    def picked(cls, stack: Pixels | Stack, places: Sequence[int]) -> Stack:
        """Some of the pictures."""
        pictures = cls._of(stack)
        return cls([pictures[place] for place in places])

    @staticmethod
    def _of(stack: Pixels | Stack) -> Sequence[Pixels]:
        return stack._pictures if isinstance(stack, Stack) else list(stack)

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, place: Any) -> Any:
        return np.asarray(self)[place]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        found = np.stack(self._pictures) if self._pictures else np.zeros((0, 1, 1, 3), np.uint8)
        return found if dtype is None else found.astype(dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """As an array's."""
        return (len(self), *(self._pictures[0].shape if self._pictures else (1, 1, 3)))


@dataclass(frozen=True, eq=False, repr=False)
class Crops:
    """The crops of N pictures whose lip was found; private, like the pictures.

    Attributes:
        pixels: [N, S, S, 3] uint8 RGB, the crop around the lip.
        surroundings: [N, S, S, 3], the whole picture, its face greyed out, squeezed into a square.
        lips: [N, 4] int16, x0, y0, x1, y1 of the lip's box within the crop, px.
        labels: [N] int64, 1 of the positive class, 0 of the negative.
        subjects: [N] a person's label; None where none is known.
        groups: by name, [N] the picture's group, None where it is not known.
        keys: [N] key of the picture's content and of how it was cropped.
        pictures: [N] hash of the picture's normalised pixels, as a dataset knows it.
        embeddings: [N, 512] of the faces, L2 norm 1.
        owners: [N] the folder in which what is computed from the picture is kept; None: nowhere.
        same_person: cosine from which two faces are one person's.
        phantom: whether the pictures are phantoms.
        n_not_found: pictures that are not among them: they can't be decoded, or show no lip.
        loras: of each LoRA that drew some of them, all by which it is known; of photographs none.
        datasets: folders of those that some of them are from.
        bare: whether some are of a folder that is neither a dataset nor generated.
    """

    pixels: Pixels | Stack
    surroundings: Pixels | Stack
    lips: NDArray[np.int16]
    labels: NDArray[np.int64]
    subjects: tuple[str | None, ...]
    groups: Mapping[str, tuple[str | None, ...]]
    keys: tuple[str, ...]
    pictures: tuple[str, ...]
    embeddings: NDArray[np.float32]
    owners: tuple[Path | None, ...]
    same_person: float
    phantom: bool
    n_not_found: int = 0
    loras: frozenset[tuple[str, ...]] = frozenset()
    datasets: frozenset[Path] = frozenset()
    bare: bool = False

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def people(self) -> tuple[str, ...]:
        """[N] opaque label of the person: the set's own, else of the cluster of faces (`identity_groups`)."""
        groups = identity_groups(self.subjects, self.embeddings, self.same_person)
        named: dict[int, str] = {}
        for group, subject, key in zip(groups.tolist(), self.subjects, self.keys, strict=True):
            named.setdefault(group, subject or f"face {key[:12]}")
        return tuple(named[group] for group in groups.tolist())

    def view(self, view: View) -> Pixels:
        """[N, S, S, 3] uint8: the crops as a classifier of that view sees them."""
        if view == View.WHOLE:
            return np.asarray(self.pixels)
        if view == View.BACKGROUND:
            return np.asarray(self.surroundings)
        seen = np.array(self.pixels)
        side = self.pixels.shape[1]
        for picture, lip in zip(seen, self.lips, strict=True):
            x0, y0, x1, y1 = grown(lip, MASK_GROWTH, (side, side))
            if view == View.LIP_MASKED:
                picture[y0:y1, x0:x1] = GREY
            else:
                kept = picture[y0:y1, x0:x1].copy()
                picture[:] = GREY
                picture[y0:y1, x0:x1] = kept
        return seen

    def refuse_hidden_surroundings(self) -> None:
        """UserError where most of the pictures show nothing but the face."""
        grey = np.array(GREY, np.uint8)
        pictures = (self.surroundings[place] for place in range(len(self)))
        seen = [(picture != grey).any(axis=-1).mean() for picture in pictures]
        if np.median(seen) < SURROUNDINGS_SEEN:
            raise UserError(
                "most of the pictures show nothing beside the face, so nothing is left to learn from without "
                "it; use pictures with some room around the head"
            )

    def where(self, places: Sequence[int] | NDArray[np.int64] | NDArray[np.bool_]) -> Crops:
        """Some of the crops, by their places or a mask; pictures without a lip stay with the whole set."""
        chosen = np.arange(len(self))[np.asarray(places)].tolist()

        def picked(values: Sequence[Any]) -> tuple[Any, ...]:
            return tuple(values[i] for i in chosen)

        return replace(
            self,
            pixels=Stack.picked(self.pixels, chosen),
            surroundings=Stack.picked(self.surroundings, chosen),
            lips=self.lips[chosen],
            labels=self.labels[chosen],
            subjects=picked(self.subjects),
            groups={name: picked(values) for name, values in self.groups.items()},
            keys=picked(self.keys),
            pictures=picked(self.pictures),
            embeddings=self.embeddings[chosen],
            owners=picked(self.owners),
            n_not_found=0,
        )

    def labelled(self, labels: int | NDArray[np.int64]) -> Crops:
        """The same crops with this label, or these [N]."""
        return replace(self, labels=np.broadcast_to(np.asarray(labels, np.int64), len(self)).copy())


def joined(parts: Sequence[Crops]) -> Crops:
    """The crops of several sets as one. Raises ValueError for none, and for phantoms beside photographs."""
    first = parts[0]
    if len({part.phantom for part in parts}) > 1:
        raise ValueError("crops of phantoms and of photographs are never one set")
    names = dict.fromkeys(name for part in parts for name in part.groups)
    return replace(
        first,
        pixels=Stack.joined(part.pixels for part in parts),
        surroundings=Stack.joined(part.surroundings for part in parts),
        lips=np.concatenate([part.lips for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        subjects=tuple(subject for part in parts for subject in part.subjects),
        groups={
            name: tuple(v for part in parts for v in part.groups.get(name, (None,) * len(part)))
            for name in names
        },
        keys=tuple(key for part in parts for key in part.keys),
        pictures=tuple(picture for part in parts for picture in part.pictures),
        embeddings=np.concatenate([part.embeddings for part in parts]),
        owners=tuple(owner for part in parts for owner in part.owners),
        n_not_found=sum(part.n_not_found for part in parts),
        loras=frozenset().union(*(part.loras for part in parts)),
        datasets=frozenset().union(*(part.datasets for part in parts)),
        bare=any(part.bare for part in parts),
    )


def refuse_same_sets(positive: Sequence[Path], negative: Sequence[Path]) -> None:
    """Raise UserError for a folder that is given for both classes."""
    both = {folder.resolve() for folder in positive} & {folder.resolve() for folder in negative}
    if both:
        names = ", ".join(shown(folder) for folder in sorted(both))
        raise UserError(f"{names} is given as positive and as negative; give each class images of its own")


def refuse_shared(crops: Crops, which: str) -> None:
    """Raise UserError for a picture that is in both classes of a set, which the message calls `which`."""
    negative, positive = ({crops.pictures[i] for i in np.flatnonzero(crops.labels == of)} for of in (0, 1))
    if n := len(negative & positive):
        raise UserError(
            f"{'a picture is' if n == 1 else f'{n:,} pictures are'} in both classes of {which}; "
            "give each class images of its own"
        )


def grown(box: NDArray[Any], growth: float, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The box [4], wider on every side by a share of its longer side, inside a picture (width, height)."""
    x0, y0, x1, y1 = (float(value) for value in box)
    more = growth * max(x1 - x0, y1 - y0)
    low, high = np.floor([x0 - more, y0 - more]), np.ceil([x1 + more, y1 + more])
    (left, top), (right, bottom) = (np.clip(corner, 0, size).astype(int).tolist() for corner in (low, high))
    return left, top, right, bottom

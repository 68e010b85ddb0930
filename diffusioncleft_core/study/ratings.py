"""Ratings: the answers of people to the questions on each picture, as rows and as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..conditions.vocabulary import GROUPS
from ..errors import UserError
from .design import usual_role
from .items import Item

_OF_ITEM = ("origin", "role", "condition", *GROUPS, "repeat_of")
"""What is known of a picture, which no two lines say differently."""

Value = int | str | list[float]
Strings = npt.NDArray[np.object_]


@dataclass(frozen=True)
class Rating:
    """A rater's answer to one question on one item.

    Attributes:
        rater: an opaque id such as R1.
        item: its id.
        value: the point of a scale, the value of a choice, a text, or [x, y] as shares of width and height.
        seconds: from the picture's showing to the answer.
        at: when it was given, ISO 8601.
    """

    rater: str
    item: str
    question: str
    value: Value
    seconds: float | None = None
    at: str = ""


@dataclass(frozen=True)
class RatingTable:
    """Ratings with what is known of each picture, column by column; practice left out, one row an answer.

    Attributes:
        rater, item, origin, question: [N] texts.
        role: [N] `generated` or `real`.
        condition: [N] text or None; so each of `groups`, by the names of `GROUPS`.
        repeat_of: [N] the item whose picture is shown again, or None.
        value: [N] int, text or [x, y].
        place: [N] where each answer stands, for the sentence on a mistake in it.
        seconds: [N] float64, NaN where unknown.
        notices: what the reader of a file should be told of how it was read.
    """

    rater: Strings
    item: Strings
    origin: Strings
    role: Strings
    condition: Strings
    groups: Mapping[str, Strings]
    repeat_of: Strings
    question: Strings
    value: Strings
    place: Strings
    seconds: npt.NDArray[np.float64]
    notices: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.value)

    def where(self, mask: npt.NDArray[np.bool_]) -> RatingTable:
        """The rows where `mask` [N] is true."""
        names = [item.name for item in fields(self) if item.name not in ("groups", "notices")]
        columns = {name: getattr(self, name)[mask] for name in names}
        groups = {name: column[mask] for name, column in self.groups.items()}
        return replace(self, groups=groups, **columns)

    def of(self, question: str) -> RatingTable:
        """The answers to one question, of pictures shown the first time."""
        return self.where((self.question == question) & ~self.repeated)

    def again(self, question: str) -> RatingTable:
        """The answers to one question on pictures shown once more."""
        return self.where((self.question == question) & self.repeated)

    @property
    def repeated(self) -> npt.NDArray[np.bool_]:
        """[N] whether the picture was shown before."""
        return np.array([of is not None for of in self.repeat_of], bool)

    @property
    def questions(self) -> tuple[str, ...]:
        """In the order of their first answers."""
        return tuple(dict.fromkeys(self.question))

    @property
    def scores(self) -> npt.NDArray[np.float64]:
        """[N] the answers to questions of a scale. UserError where one is no number."""
        for value, place in zip(self.value, self.place, strict=True):
            if not isinstance(value, int):
                raise UserError(f"{place}: {value!r} is no point of a scale; correct it, or take it out")
        return np.array(self.value, np.float64)


def rating_table(
    ratings: Iterable[Rating], items: Iterable[Item], roles: Mapping[str, str] | None = None
) -> RatingTable:
    """Join ratings with the items of their study; practice is left out.

    A picture that was rated in its second showing alone counts as shown once.

    Args:
        ratings: one an answer, corrections left out.
        items: the study's.
        roles: `generated` or `real`, by origin; by default an origin `real` is real.

    Raises:
        UserError: an item is unknown, or a rater has two answers to one question on it.
    """
    known = {item.id: item for item in items}
    ratings = list(ratings)
    rated = {rating.item for rating in ratings}
    rows = []
    for rating in ratings:
        item = known.get(rating.item)
        if item is None:
            raise UserError(f"item {rating.item!r} was rated and is not in the study; give its own ratings")
        if item.practice:
            continue
        row = {"rater": rating.rater, "item": item.id, "origin": item.origin, "condition": item.condition}
        row |= {name: item.groups.get(name) for name in GROUPS}
        row |= {"repeat_of": item.repeat_of if item.repeat_of in rated else None}
        row |= {"role": (roles or {}).get(item.origin) or usual_role(item.origin)}
        row |= {"place": f"{rating.rater} on item {item.id}"}
        rows.append(row | {"question": rating.question, "value": rating.value, "seconds": rating.seconds})
    return table_of(rows)


def table_of(rows: Sequence[Mapping[str, Any]]) -> RatingTable:
    """The table of rows that name all its columns. UserError, by place, where they contradict each other."""
    answered = set()
    for row in rows:
        key = (row["rater"], row["item"], row["question"])
        if key in answered:
            raise UserError(
                f"{row['place']}: rater {key[0]!r} has a second answer to {key[2]!r} on item {key[1]!r}; "
                "keep one of them"
            )
        answered.add(key)
    _check_items(rows)
    names = [item.name for item in fields(RatingTable) if item.name not in ("groups", "seconds", "notices")]
    columns = {name: _objects([row[name] for row in rows]) for name in names}
    groups = {name: _objects([row[name] for row in rows]) for name in GROUPS}
    seconds = np.array([np.nan if row["seconds"] is None else row["seconds"] for row in rows], np.float64)
    return RatingTable(**columns, groups=groups, seconds=seconds, notices=())


def _check_items(rows: Sequence[Mapping[str, Any]]) -> None:
    """Raise UserError where two lines say different things of a picture, or one repeats what nobody saw."""
    first: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        known = first.setdefault(row["item"], row)
        for name in _OF_ITEM:
            if row[name] != known[name]:
                raise UserError(
                    f"{row['place']}: {name} of item {row['item']!r} is {row[name] or 'empty'}, and in "
                    f"{known['place']} it is {known[name] or 'empty'}; a picture has one: correct a line"
                )
    for item, row in first.items():
        if row["repeat_of"] is None:
            continue
        picture = first.get(row["repeat_of"])
        what = f"{row['place']}: repeat_of of item {item!r} is {row['repeat_of']!r}, "
        if picture is None or picture["repeat_of"] is not None:
            why = (
                "which no line answers"
                if picture is None
                else "the item itself"
                if picture is row
                else "which shows another's picture again"
            )
            raise UserError(f"{what}{why}; name the item of the picture's first showing, or leave it empty")
        for name in _OF_ITEM[:-1]:
            if row[name] is not None and row[name] != picture[name]:
                raise UserError(
                    f"{what}whose {name} is {picture[name] or 'empty'} in {picture['place']} and not "
                    f"{row[name]}; a picture has one: correct a line"
                )


def _objects(values: Sequence[Any]) -> Strings:
    """[N] of any values, lists too."""
    column = np.empty(len(values), object)
    for place, value in enumerate(values):
        column[place] = value
    return column

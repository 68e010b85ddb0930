"""The rows of a plan, in memory and as a file: up to a million of them, of which little differs."""

from __future__ import annotations

import operator
import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, overload

from ..errors import UserError
from ..files import iterate_jsonl, write_jsonl
from ..ranges import NONE_OR_MORE, SEED

NO_PLAN = "give one that `diffusioncleft plan` wrote"


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One image to make. index: place in the plan from 0; seed: of its noise, 0 <= seed < 2**48."""

    index: int
    prompt: str
    seed: int
    attributes: Mapping[str, str]
    condition: str


class Plan(Sequence[PlanRow]):
    """Rows in their order, 24 bytes each: prompt and attributes are kept once for all rows that have them."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, rows: Iterable[PlanRow] = ()) -> None:
        self._indices, self._seeds, self._kinds = array("q"), array("q"), array("q")
        self._words: list[_Words] = []
        self._known: dict[_Words, int] = {}
        self._order: Sequence[int] | None = None
        for row in rows:
            self.append(row)

    def append(self, row: PlanRow) -> None:
        """Add a row at the end."""
        words = _words_of(row)
        kind = self._known.setdefault(words, len(self._words))
        if kind == len(self._words):
            self._words.append(words)
        self._indices.append(row.index)
        self._seeds.append(row.seed)
        self._kinds.append(kind)
        self._order = None

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, place: int) -> PlanRow: ...
    @overload
    def __getitem__(self, place: slice) -> Plan: ...
    def __getitem__(self, place: int | slice) -> PlanRow | Plan:
        if isinstance(place, slice):
            return Plan(self._row(at) for at in range(*place.indices(len(self))))
        return self._row(place)

    def _row(self, place: int) -> PlanRow:
        prompt, names, values, condition = self._words[self._kinds[place]]
        attributes = dict(zip(names, values, strict=True))
        return PlanRow(self._indices[place], prompt, self._seeds[place], attributes, condition)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(other) == len(self) and all(map(operator.eq, self, other))

    def __repr__(self) -> str:
        return f"Plan({list(self)!r})"

    def _by_index(self) -> Sequence[int]:
        """The places of the rows, in the order of their indices; they mostly lie so already."""
        if self._order is None:
            order = range(len(self))
            if all(map(operator.le, self._indices, islice(self._indices, 1, None))):
                self._order = order
            else:
                self._order = array("q", sorted(order, key=self._indices.__getitem__))
        return self._order

    def at(self, index: int) -> PlanRow | None:
        """The row with this index, the first of several; None when there is none."""
        order = self._by_index()
        found = bisect_left(order, index, key=self._indices.__getitem__)
        return self._row(order[found]) if found < len(self) and self._indices[order[found]] == index else None

    @property
    def has_doubles(self) -> bool:
        """Whether an index is there twice."""
        return any(self._indices[one] == self._indices[next_] for one, next_ in pairwise(self._by_index()))


_Words = tuple[str, tuple[str, ...], tuple[str, ...], str]
"""Prompt, names and values of the attributes, condition."""


def _words_of(row: PlanRow) -> _Words:
    names, values = map(sys.intern, row.attributes), map(sys.intern, row.attributes.values())
    return row.prompt, tuple(names), tuple(values), sys.intern(row.condition)


def as_plan(rows: Sequence[PlanRow]) -> Plan:
    """The rows as a plan; a plan as it is."""
    return rows if isinstance(rows, Plan) else Plan(rows)


def write_plan(path: Path, rows: Sequence[PlanRow]) -> None:
    """Write a plan as JSON Lines, atomically."""
    write_jsonl(path, (asdict(row) | {"attributes": dict(row.attributes)} for row in rows))


def read_plan(path: Path) -> Plan:
    """Read a plan; a torn last line is left out. Raises UserError for a line that is no plan row."""
    return Plan(_row(row, path) for row in iterate_jsonl(path, f"it is no sampling plan: {NO_PLAN}"))


def extend_plan(path: Path, rows: Sequence[PlanRow]) -> int:
    """Write a plan, or make the one at `path` longer.

    Nothing is written when `path` already holds all rows.

    Returns:
        How many rows it had before.

    Raises:
        UserError: it holds rows of other settings; the file is left as it is.
    """
    before = read_plan(path) if Path(path).exists() else Plan()
    for old, new in zip(before, rows, strict=False):
        if old != new:
            raise UserError(
                f"{path} holds a plan with other settings (row {new.index} differs); "
                "give another file, or delete it"
            )
    if len(before) < len(rows):
        write_plan(path, rows)
    return len(before)


def _row(row: Mapping[str, Any], path: Path) -> PlanRow:
    try:
        attributes = {str(key): str(value) for key, value in dict(row["attributes"]).items()}
        index, seed = NONE_OR_MORE.check(row["index"], "index"), SEED.check(row["seed"], "seed")
        return PlanRow(index, str(row["prompt"]), seed, attributes, str(row["condition"]))
    except UserError as error:
        raise UserError(f"{path}, row {row['index']}: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is no sampling plan ({error!r}); {NO_PLAN}") from error

"""A question's scale with the dispersion that its cells share: what every interval of the question needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from .grid import Grid, Mask
from .intervals import (
    ENOUGH_RATERS,
    LEVEL,
    LIKERT_DISPERSION,
    SHARE_DISPERSION,
    Array,
    Cell,
    cell_of,
    difference_interval,
    dispersion,
    mean_interval,
)


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, object]:
        return {"value": self.value, "ci95": [self.low, self.high]}


@dataclass(frozen=True)
class Scale:
    """Ends of what is measured, and what the dispersion of few images is drawn to."""

    low: float
    high: float
    pooled: float

    def mean(self, scores: Array, level: float = LEVEL) -> Estimate:
        """The mean of scores [I, R]."""
        cell = cell_of(scores)
        low, high = mean_interval(cell, self.low, self.high, self.pooled, level)
        return Estimate(float(cell.mean), float(low), float(high))

    def difference(self, one: Array, other: Array, level: float = LEVEL) -> Estimate:
        """The mean of scores [I, R] less that of scores [J, R] of the same raters."""
        cells = cell_of(one), cell_of(other)
        low, high = difference_interval(*cells, self.low, self.high, self.pooled, level)
        return Estimate(float(cells[0].mean - cells[1].mean), float(low), float(high))


def scale_of(grid: Grid, low: float, high: float) -> Scale:
    """The scale of a question from `low` to `high`, its dispersion pooled over origins and conditions."""
    return Scale(low, high, float(dispersion(_cells(grid, grid.scores), low, high, LIKERT_DISPERSION)))


def share_of(grid: Grid, counted: Mask) -> tuple[Grid, Scale]:
    """The answers as 1 where `counted` [I, R] and 0 where not, and their scale."""
    marks = np.where(np.isnan(grid.scores), np.nan, counted.astype(np.float64))
    pooled = float(dispersion(_cells(grid, marks), 0.0, 1.0, SHARE_DISPERSION))
    return replace(grid, scores=marks), Scale(0.0, 1.0, pooled)


def speaks_of(raters: int) -> str:
    """Whom an interval is about: `these raters`, or `raters like these`."""
    return "raters like these" if raters >= ENOUGH_RATERS else "these raters"


def _cells(grid: Grid, scores: Array) -> Sequence[Cell]:
    keys = [(origin, condition) for origin, condition in zip(grid.origin, grid.condition, strict=True)]
    places = {key: [at for at, other in enumerate(keys) if other == key] for key in dict.fromkeys(keys)}
    return [cell_of(scores[rows]) for rows in places.values()]

"""Intervals of figures over images: the jackknife, by image or by groups of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Interval = tuple[float, float]
GROUPS = 20
"""Of a side's images, each left out once."""


@dataclass(frozen=True, eq=False)
class Estimate:
    """A figure with its leave-one-out values on each side (jackknife): of the images, of the photographs.

    The groups of a side depend on its images and the seed alone, so figures over the same photographs leave
    the same ones out, and their difference is taken before its variance.
    """

    value: float
    images: NDArray[np.float64]
    photographs: NDArray[np.float64]

    def interval(self, low: float | None = None) -> Interval:
        """At 95 %; `low`: the least that the figure can be."""
        return interval_of(self.value, (self.images, self.photographs), low)

    def less(self, other: Estimate) -> tuple[float, Interval]:
        """How much more this is than `other`, over the same photographs, and the interval of that at 95 %.

        The sets vary independently; the photographs are left out of both at once.
        """
        value = self.value - other.value
        shared = self.photographs - other.photographs
        return value, interval_of(value, (self.images, other.images, shared))


def interval_of(value: float, without: Sequence[NDArray[np.float64]], low: float | None = None) -> Interval:
    """The 95 % interval of `value` from its leave-one-out values on each side (jackknife).

    The variance is, summed over the sides, (G - 1) / G times the sum of squares round the mean of the side's
    G values (Efron and Stein 1981); the quantile is Student's with G - 1 degrees of freedom, of the smallest
    side. `low`: the least that the figure can be.
    """
    from scipy.special import stdtrit

    variance = sum((len(side) - 1) / len(side) * np.square(side - side.mean()).sum() for side in without)
    reach = float(stdtrit(min(len(side) for side in without) - 1, 0.975) * np.sqrt(variance))
    bottom = value - reach
    return (bottom if low is None else max(bottom, low)), value + reach


def grouped_jackknife(
    statistic: Callable[..., NDArray[np.float64]],
    sides: Sequence[Array],
    seed: int,
    *,
    groups: int = GROUPS,
) -> list[list[NDArray[np.float64]]]:
    """For each number of `statistic(*sides)` [K], its values without each group of images, by side.

    A side's rows are divided at random into `groups` (as many as it has rows if those are fewer). Unlike the
    bootstrap it repeats no image: a repeated one lowers a covariance's rank, and is its own neighbour.
    """
    values: list[list[NDArray[np.float64]]] = []
    for place, side in enumerate(sides):
        group = np.random.default_rng([seed, place]).permutation(len(side)) % min(groups, len(side))
        found = [
            statistic(*sides[:place], side[group != number], *sides[place + 1 :])
            for number in range(group.max() + 1)
        ]
        for index, column in enumerate(np.array(found).T):
            if len(values) <= index:
                values.append([])
            values[index].append(column)
    return values

"""The answers to one question as a grid of images by raters, with what is known of each image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ...conditions.vocabulary import GROUPS
from ..ratings import RatingTable, Strings
from .intervals import Array

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Grid:
    """Answers of R raters to one question on I images.

    Attributes:
        scores: [I, R]; NaN where a rater left an image out.
        raters: names of the columns.
        images: [I] ids; so are origin, role, condition and each of `groups`, in the images' order.
    """

    scores: Array
    raters: tuple[str, ...]
    images: Strings
    origin: Strings
    role: Strings
    condition: Strings
    groups: Mapping[str, Strings]

    def where(self, mask: Mask) -> Grid:
        """The images where `mask` [I] is true, all raters."""
        return Grid(
            self.scores[mask],
            self.raters,
            self.images[mask],
            self.origin[mask],
            self.role[mask],
            self.condition[mask],
            {name: column[mask] for name, column in self.groups.items()},
        )

    def rated(self) -> Grid:
        """Without raters who answered on none of its images."""
        kept = np.asarray(~np.isnan(self.scores).all(0))
        raters = tuple(name for name, keep in zip(self.raters, kept, strict=True) if keep)
        return replace(self, scores=self.scores[:, kept], raters=raters)

    @property
    def n(self) -> int:
        return len(self.images)


def grid_of(table: RatingTable, scores: Array | None = None, raters: Sequence[str] | None = None) -> Grid:
    """The grid of the answers to one question, in the order of the images' first answers.

    Args:
        table: the answers to one question.
        scores: [N] a number an answer; by default the point of its scale.
        raters: the columns, in order; by default those who answered, by name.
    """
    values = table.scores if scores is None else scores
    names = tuple(sorted(set(table.rater))) if raters is None else tuple(raters)
    images = list(dict.fromkeys(table.item))
    row = {item: place for place, item in enumerate(images)}
    column = {name: place for place, name in enumerate(names)}
    grid = np.full((len(images), len(names)), np.nan)
    first: dict[str, int] = {}
    for place, (item, name) in enumerate(zip(table.item, table.rater, strict=True)):
        grid[row[item], column[name]] = values[place]
        first.setdefault(item, place)
    order = np.array([first[item] for item in images], int)
    known: dict[str, Any] = {name: getattr(table, name)[order] for name in ("origin", "role", "condition")}
    groups = {name: table.groups[name][order] for name in GROUPS}
    return Grid(grid, names, table.item[order], groups=groups, **known)

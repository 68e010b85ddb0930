"""Places that raters marked in the pictures, as an answer to what looks wrong: how often, and where."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..design import REAL, Question
from ..ratings import RatingTable
from . import words
from .grid import grid_of
from .scale import share_of, speaks_of
from .summary import pooled_over, told_cells


def marks_part(table: RatingTable, question: Question, *, phantom: bool) -> dict[str, Any]:
    """How often a place was marked, by origin and condition, and the places themselves.

    Whoever rated a picture and marked nothing in it counts as one who found nothing. Where a photograph of a
    person was marked is not told.

    Returns:
        `cells`, each with `images`, `ratings` and, of the ratings, how many and what share are `marked`;
        `places` by origin: [x, y] from the upper left corner, in shares of the picture's side.
    """
    marks = table.of(question.name)
    marked = set(zip(marks.rater, marks.item, strict=True))
    seen = table.where(~table.repeated)
    first: dict[tuple[str, str], int] = {}
    for place, pair in enumerate(zip(seen.rater, seen.item, strict=True)):
        first.setdefault(pair, place)
    rated = seen.where(np.isin(np.arange(len(seen)), list(first.values())))
    grid = grid_of(rated, np.array([float(pair in marked) for pair in first], np.float64))
    pooled = pooled_over(grid, phantom=phantom)
    _, scale = share_of(pooled, pooled.scores > 0)
    cells: list[dict[str, Any]] = []
    for entry, part in told_cells(grid, phantom=phantom):
        if part is None:
            cells.append({**entry, "images": None, "ratings": None, "marked": None, "untold": True})
            continue
        counts = {"images": part.n, "ratings": int((~np.isnan(part.scores)).sum())}
        share = scale.mean(part.scores).as_dict() | {"about": speaks_of(len(part.raters))}
        cells.append({**entry, **counts, "marked": {"n": int(np.nansum(part.scores)), **share}})
    places: dict[str, list[list[float]]] = {}
    for origin, role, value in zip(marks.origin, marks.role, marks.value, strict=True):
        if phantom or role != REAL:
            places.setdefault(str(origin), []).append([round(part, 4) for part in value])
    return {"cells": cells, "places": places, "words": words.of_marks(cells)}

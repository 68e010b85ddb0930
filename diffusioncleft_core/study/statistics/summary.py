"""Means, distributions and shares of the high answers, by origin and condition (the paper's Fig. 3 and 4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from ...conditions.loader import load_vocabulary
from ...small_counts import is_small, told_parts
from ..design import REAL, Question
from ..ratings import RatingTable, Strings
from .grid import Grid
from .intervals import percentile_interval
from .scale import Scale, scale_of, share_of, speaks_of

ALL = "all"
RESAMPLES = 2000


def origins_of(grid: Grid) -> list[str]:
    """The sets by name, real ones last."""
    real = dict(zip(grid.origin, grid.role == REAL, strict=True))
    return sorted(real, key=lambda name: (bool(real[name]), name))


def conditions_of(grid: Grid) -> list[str]:
    """The conditions that its images are known by: those of our vocabulary in its order, then others."""
    usual = list(load_vocabulary().conditions)
    known = {name for name in grid.condition if name is not None}
    return sorted(known, key=lambda name: (usual.index(name) if name in usual else len(usual), name))


def told_cells(grid: Grid, *, phantom: bool) -> Iterator[tuple[dict[str, Any], Grid | None]]:
    """What each cell is of (`origin`, `role`, `condition`), each set's whole (`all`) first, and its images.

    None where they are so few photographs of people that nothing of them may be told.
    """
    for origin in origins_of(grid):
        own = grid.where(grid.origin == origin)
        secret = hidden(own, own.condition, phantom=phantom)
        conditions = conditions_of(own)
        for condition in (ALL, *(conditions if len(conditions) > 1 else [])):
            part = own if condition == ALL else own.where(own.condition == condition)
            entry = {"origin": origin, "role": str(own.role[0]), "condition": condition}
            yield entry, None if untold(part, phantom=phantom) or condition in secret else part


def untold(part: Grid, *, phantom: bool) -> bool:
    """Whether so few photographs of people are in it that nothing of it may be told."""
    return not phantom and is_small(int((part.role == REAL).sum()))


def few_photographs(part: Grid | RatingTable, pictures: Strings, *, phantom: bool) -> set[str]:
    """The sets of which it has so few photographs of people that nothing of them may be told.

    What is told over all images leaves them out: they would follow from it and the sets that are told.

    pictures: [I] ids, in the order of its rows.
    """
    real = dict.fromkeys(
        (origin, picture)
        for origin, role, picture in zip(part.origin, part.role, pictures, strict=True)
        if role == REAL
    )
    counts = Counter(origin for origin, _ in real)
    return set() if phantom else {origin for origin, n in counts.items() if is_small(n)}


def without(part: Grid, origins: Collection[str]) -> Grid:
    """The images of other sets than these."""
    return part.where(np.array([origin not in origins for origin in part.origin], bool))


def pooled_over(grid: Grid, *, phantom: bool) -> Grid:
    """The images of which something may be told, for what their intervals share; all where that is none."""
    told = without(grid, few_photographs(grid, grid.images, phantom=phantom))
    return told if told.n else grid


def hidden(part: Grid, values: Strings, *, phantom: bool) -> set[str | None]:
    """The values [I] of which nothing may be told, so that no count of one to four photographs follows.

    part: the images of one set.
    """
    if phantom or not (part.role == REAL).any():
        return set()
    counts = Counter(values[part.role == REAL].tolist())
    told = told_parts({"" if value is None else value: n for value, n in counts.items()})
    return {value or None for value, n in told.items() if n is None}


def cells_of(grid: Grid, question: Question, *, phantom: bool, seed: int) -> list[dict[str, Any]]:
    """One entry an origin and condition: how many images and ratings, mean, distribution, share of 4 and 5.

    Entries of one to four photographs have `value` None everywhere.
    """
    pooled = pooled_over(grid, phantom=phantom)
    scale = scale_of(pooled, question.low, question.high)
    marks, shares = share_of(pooled, pooled.scores >= high_from(question))
    rng = np.random.default_rng(seed)
    found = []
    for entry, part in told_cells(grid, phantom=phantom):
        if part is None:
            found.append({**entry, "images": None, "ratings": None, "mean": None, "untold": True})
            continue
        same = np.isin(pooled.images, part.images)
        entry |= {"images": part.n, "ratings": int((~np.isnan(part.scores)).sum())}
        entry |= _told(part, marks.where(same), question, scale, shares, rng)
        found.append(entry)
    return found


def high_from(question: Question) -> int:
    """The lowest of the answers that count as high: the last two of the scale."""
    return max(question.high - 1, question.low + 1)


def _told(
    part: Grid, marks: Grid, question: Question, scale: Scale, shares: Scale, rng: np.random.Generator
) -> Mapping[str, Any]:
    answers = part.scores[~np.isnan(part.scores)]
    counts = {str(point): int((answers == point).sum()) for point in question.values}
    resampled = percentile_interval(part.scores, RESAMPLES, rng)
    return {
        "mean": scale.mean(part.scores).as_dict() | {"about": speaks_of(len(part.raters))},
        "resampled": {"ci95": list(resampled), "resamples": RESAMPLES},
        "distribution": counts,
        "high_share": shares.mean(marks.scores).as_dict() | {"from": high_from(question)},
        "by_rater": [
            None if np.isnan(column).all() else float(np.nanmean(column)) for column in part.scores.T
        ],
    }

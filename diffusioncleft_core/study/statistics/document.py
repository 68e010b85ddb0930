"""study.json: all that is told of a study, made from its table of ratings alone.

It names no image, no rater and no file; raters are numbered. Of one to four photographs of people nothing
is told.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from ...errors import UserError
from ...small_counts import is_small
from ..design import CHOICE, POINT, REAL, SCALE, Design, Question, words_in
from ..ratings import RatingTable
from . import words
from .agreement import COEFFICIENTS, agreement, chance_agreement
from .asked import questions_of
from .detection import detection
from .equivalence import comparisons
from .grid import Grid, Mask, grid_of
from .hypothesis import by_age
from .intervals import Array
from .marks import marks_part
from .ordinal import ordinal_effect
from .repeats import repeats
from .scale import scale_of, speaks_of
from .simulated import NAME as SIMULATED_RATER
from .summary import ALL, cells_of, few_photographs, origins_of, pooled_over, told_cells, without

SCHEMA = 1
KIND = "study"


def study_document(
    table: RatingTable,
    design: Design | None = None,
    *,
    phantom: bool = False,
    simulated: bool = False,
    seed: int = 0,
) -> dict[str, Any]:
    """The document of a study.

    Args:
        table: its ratings, repeats among them.
        design: what was asked, and the margin; None: as the ratings themselves tell, with the usual margin.
        phantom: phantoms stand for people, so that no count is withheld.
        simulated: nobody rated; the document says so, as it does of raters who are called so.
        seed: of the resampling.

    Raises:
        UserError: there is no rating, or an answer is none to its question.
    """
    if not len(table):
        raise UserError("there is no rating yet: analyse the study when somebody has rated")
    phantom = phantom or (design is not None and design.of_phantoms)
    asked = [
        question
        for question in questions_of(table, design)
        if question.name in table.questions or question.kind == POINT  # no mark at all is an answer too
    ]
    raters = tuple(sorted(set(table.rater), key=_natural))
    simulated = simulated or any(rater.startswith(f"{SIMULATED_RATER}-") for rater in raters)
    margin = design.margin if design else Design.margin
    first = table.where(~table.repeated)
    few = few_photographs(first, first.item, phantom=phantom)
    seconds = _without(table, few).seconds
    seconds = seconds[~np.isnan(seconds)]
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "kind": KIND,
        "created": datetime.now(UTC).strftime("%Y-%m-%d"),
        "title": words_in(design.title, "en") if design else "A rater study",
        "phantom": phantom,
        "simulated": simulated,
        "raters": len(raters),
        "margin": margin,
        "margin_from": design.margin_from if design else "the usual one, not stated before",
        "median_seconds": float(np.median(seconds)) if len(seconds) else None,
        "sets": _sets(table, phantom=phantom),
        "words": [
            *([words.SIMULATED] if simulated else []),
            words.about_raters(len(raters)),
            *([words.LEFT_OUT] if few else []),
            *([words.of_margin(margin, design.margin_from)] if design else []),
        ],
        "questions": {},
    }
    for question in asked:
        part: dict[str, Any] | None = None
        if question.kind == SCALE:
            part = _scale_part(table, question, raters, margin, phantom=phantom, seed=seed)
        elif question.asks_role:
            part = _role_part(table, question, raters, phantom=phantom)
        elif question.kind == CHOICE:
            part = _choice_part(table, question, phantom=phantom)
        elif question.kind == POINT:
            part = marks_part(table, question, phantom=phantom)
        if part is not None:
            text = words_in(question.text, "en")
            document["questions"][question.name] = {"text": text, "kind": question.kind, **part}
    if not document["questions"]:
        raise UserError("no answer is on a scale, a choice or a place, so there is nothing to count")
    return document


def _scale_part(
    table: RatingTable,
    question: Question,
    raters: Sequence[str],
    margin: float,
    *,
    phantom: bool,
    seed: int,
) -> dict[str, Any]:
    own, again = table.of(question.name), table.again(question.name)
    grid = grid_of(own, raters=raters).rated()
    few = few_photographs(grid, grid.images, phantom=phantom)
    told = without(grid, few)
    few |= few_photographs(again, again.repeat_of, phantom=phantom)
    scale = scale_of(pooled_over(grid, phantom=phantom), question.low, question.high)
    cells = cells_of(grid, question, phantom=phantom, seed=seed)
    beside = told if (told.role == REAL).any() else grid
    compared = comparisons(beside, scale, margin, phantom=phantom)
    said = words.of_means(cells)
    for found in compared:
        if found["condition"] == ALL and found["difference"] is not None:
            both = beside.where((beside.origin == found["origin"]) | (beside.role == REAL))
            found["ordinal"] = ordinal_effect(both)
        said.append(words.of_comparison(found))
        if "ordinal" in found:
            said.append(words.of_ordinal(found["ordinal"]))
    part: dict[str, Any] = {
        "low": question.low,
        "high": question.high,
        "raters": [list(raters).index(name) + 1 for name in grid.raters],
        "cells": cells,
        "agreement": _agreement(told, question, phantom=phantom),
        "repeats": repeats(_without(table, few), question, grid.raters),
        "comparisons": compared,
        "ages": by_age(grid, scale, phantom=phantom),
    }
    if part["agreement"] is not None:
        said.append(words.of_agreement(part["agreement"]))
    if part["repeats"] is not None:
        said.append(words.of_repeats(part["repeats"]))
    said += [words.of_ages(found) for found in part["ages"]]
    return {**part, "words": said}


def _agreement(grid: Grid, question: Question, *, phantom: bool) -> dict[str, Any] | None:
    """The coefficients over all images; None for one rater, or where no two rated the same image.

    Photographs are left out where so few have two ratings that nothing of these may be told.
    """
    both = grid.where(_paired(grid))
    grid = without(grid, few_photographs(both, both.images, phantom=phantom)).rated()
    pairs = _paired(grid)
    if len(grid.raters) < 2 or pairs.sum() < 2:
        return None
    scores = grid.scores - question.low
    k = question.high - question.low + 1
    found = agreement(scores, k)
    answers = grid.scores[~np.isnan(grid.scores)].astype(int)
    points, counts = np.unique(answers, return_counts=True)
    mode = int(points[counts.argmax()])
    told = {
        name: {"value": _number(found[name].value), "ci95": _limits(found[name].low, found[name].high)}
        for name in COEFFICIENTS
    }
    return {
        "images": int(pairs.sum()),
        "about": speaks_of(0),
        **told,
        "chance": float(chance_agreement(scores, k)),
        "mode": {"answer": mode, "share": float(counts.max() / counts.sum())},
    }


def _paired(grid: Grid) -> Mask:
    """[I] whether two raters or more rated an image."""
    return np.asarray((~np.isnan(grid.scores)).sum(-1) >= 2)


def _without(table: RatingTable, origins: Collection[str]) -> RatingTable:
    """The answers on other sets than these."""
    return table.where(np.array([origin not in origins for origin in table.origin], bool))


def _role_part(
    table: RatingTable, question: Question, raters: Sequence[str], *, phantom: bool
) -> dict[str, Any]:
    """Real or generated: each origin that is not real beside the real pictures."""
    own = table.of(question.name)
    grid = grid_of(own, np.array([value != REAL for value in own.value], np.float64), raters).rated()
    grid = without(grid, few_photographs(grid, grid.images, phantom=phantom))
    real = grid.where(grid.role == REAL)
    found: list[dict[str, Any]] = []
    for origin in origins_of(grid.where(grid.role != REAL)):
        other = grid.where(grid.origin == origin)
        if not real.n:
            continue
        both = ~np.isnan(other.scores).all(0) & ~np.isnan(real.scores).all(0)
        mine, theirs = (_of_raters(part.scores, both) for part in (other, real))
        if not both.any() or not len(mine) or not len(theirs) or (is_small(len(theirs)) and not phantom):
            continue
        shown = detection(mine, theirs)
        figures = {
            "accuracy": shown.accuracy,
            "d_prime": shown.sensitivity,
            "bias": shown.bias,
            "hits": shown.hits,
            "false_alarms": shown.false_alarms,
        }
        told = {
            name: {"value": float(value), "ci95": [float(limit) for limit in limits]}
            for name, (value, limits) in figures.items()
        }
        found.append({"origin": origin, "images": len(mine), "real_images": len(theirs), **told})
    return {"detection": found, "words": [words.of_detection(each) for each in found]}


def _of_raters(scores: Array, raters: Any) -> Array:
    """[I, R] of some raters, without images that none of them answered on."""
    kept = scores[:, raters]
    return np.asarray(kept[~np.isnan(kept).all(-1)], np.float64)


def _choice_part(table: RatingTable, question: Question, *, phantom: bool) -> dict[str, Any]:
    own = table.of(question.name)
    places = {value: float(place) for place, value in enumerate(question.values)}
    grid = grid_of(own, np.array([places[value] for value in own.value], np.float64))
    cells = []
    for entry, part in told_cells(grid, phantom=phantom):
        if part is None:
            cells.append({**entry, "counts": None})
            continue
        counts = {value: int((part.scores == at).sum()) for value, at in places.items()}
        cells.append({**entry, "counts": counts})
    return {"cells": cells, "words": []}


def _sets(table: RatingTable, *, phantom: bool) -> dict[str, Mapping[str, Any]]:
    """Number of images and the role of each origin; None for one to four photographs."""
    found: dict[str, Mapping[str, Any]] = {}
    first = table.where(~table.repeated)
    few = few_photographs(first, first.item, phantom=phantom)
    roles = dict(zip(first.origin, first.role, strict=True))
    for origin in sorted(roles, key=lambda name: (roles[name] == REAL, name)):
        n, role = len(set(first.item[first.origin == origin])), str(roles[origin])
        found[origin] = {"role": role, "images": None if origin in few else n}
    return found


def _number(value: Array) -> float | None:
    return None if math.isnan(float(value)) else float(value)


def _limits(low: Array, high: Array) -> list[float] | None:
    return None if math.isnan(float(low)) or math.isnan(float(high)) else [float(low), float(high)]


def _natural(name: str) -> tuple[int, str]:
    """R2 before R10."""
    return len(name), name

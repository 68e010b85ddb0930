"""A rater against himself: the answers on pictures that were shown a second time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...statistics import clopper_pearson
from ..design import Question
from ..ratings import RatingTable
from .agreement import agreement
from .intervals import SHARE_DISPERSION, Array
from .scale import Scale, speaks_of


def repeats(table: RatingTable, question: Question, raters: Sequence[str]) -> dict[str, Any] | None:
    """How alike the two answers of a rater on one picture are; None where no picture was answered twice.

    Returns:
        `same`: share of the pictures with the same answer, mean over raters; `by_rater`, in the order of
        `raters`: the same counted, and AC2 of the rater's two answers, None where he saw none twice.
    """
    before, after = _pairs(table.of(question.name), table.again(question.name), raters)
    both = ~np.isnan(before) & ~np.isnan(after)
    seen = both.any(-1)
    if not seen.any():
        return None
    same = np.where(both, (before == after).astype(np.float64), np.nan)[seen]
    by_rater: list[dict[str, Any] | None] = []
    for column in range(len(raters)):
        own = both[:, column]
        if not own.any():
            by_rater.append(None)
            continue
        answers = np.stack([before[own, column], after[own, column]], -1) - question.low
        ac2 = agreement(answers, question.high - question.low + 1)["ac2"]
        counted = clopper_pearson(int((before == after)[own, column].sum()), int(own.sum()))
        limits = [float(ac2.low), float(ac2.high)]
        by_rater.append({"same": counted.as_dict(), "ac2": {"value": float(ac2.value), "ci95": limits}})
    same = same[:, ~np.isnan(same).all(0)]
    mean = Scale(0.0, 1.0, SHARE_DISPERSION / same.shape[1]).mean(same)
    return {
        "pictures": int(seen.sum()),
        "same": mean.as_dict() | {"about": speaks_of(len(raters))},
        "by_rater": by_rater,
    }


def _pairs(first: RatingTable, again: RatingTable, raters: Sequence[str]) -> tuple[Array, Array]:
    """[P, R] first and second answers on the pictures shown twice; NaN where there is none."""
    pictures = {of: row for row, of in enumerate(dict.fromkeys(again.repeat_of))}
    column = {name: place for place, name in enumerate(raters)}
    before, after = np.full((2, len(pictures), len(raters)), np.nan)
    for table, names, answers in ((first, first.item, before), (again, again.repeat_of, after)):
        for score, picture, rater in zip(table.scores, names, table.rater, strict=True):
            place = pictures.get(picture), column.get(rater)
            if None not in place and np.isnan(answers[place]):
                answers[place] = score
    return before, after

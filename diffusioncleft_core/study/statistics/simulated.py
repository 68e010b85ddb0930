"""A study rated by a program, for demonstrations: nobody looks at a picture, and there is nothing to find."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..design import CHOICE, POINT, SCALE, Design
from ..folder import Study
from ..items import Item
from ..ratings import Rating, RatingTable, Value, rating_table
from .simulate import CUTS, Raters

NAME = "simulated"
"""Of each rater, with a number: a table of such ratings says so in every line."""
QUALITY = 1.9
"""Of generated and real pictures alike: near the upper end of a scale, where the paper's raters were."""
RATERS = Raters()
MARKED = 0.1
"""Share of the pictures in which a place is marked, at random."""


def simulated_ratings(study: Study, seed: int, raters: Raters = RATERS) -> RatingTable:
    """The answers of a program to the questions of a study that are no text.

    They follow from the pictures' files and the seed, not from the random ids of the items.
    """
    ratings = list(_answers(study.design, study.rated, np.random.default_rng(seed), raters))
    return rating_table(ratings, study.items, study.design.roles)


def _answers(
    design: Design, items: tuple[Item, ...], rng: np.random.Generator, raters: Raters
) -> Iterator[Rating]:
    ordered = sorted(items, key=lambda item: (item.sha256, item.repeat_of is not None))
    pictures = {item.picture: QUALITY + raters.picture * rng.standard_normal() for item in ordered}
    for item in ordered:
        for number, bias in enumerate(raters.bias, start=1):
            for question in design.questions:
                seen = pictures[item.picture] + bias + raters.noise * rng.standard_normal()
                if question.kind == SCALE:
                    inner = np.linspace(CUTS[0], CUTS[-1], question.high - question.low)
                    value: Value = question.low + int(np.searchsorted(inner, seen))
                elif question.kind == CHOICE:
                    value = str(rng.choice(question.values))
                elif question.kind == POINT and rng.random() < MARKED:
                    value = [round(float(part), 4) for part in rng.uniform(0.2, 0.8, 2)]
                else:
                    continue
                yield Rating(f"{NAME}-{number}", item.id, question.name, value)

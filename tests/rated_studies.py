"""A study as the paper's, rated by a program, and what its document tells."""

from __future__ import annotations

import numpy as np

from diffusioncleft.diffusioncleft_core.study.items import Item
from diffusioncleft.diffusioncleft_core.study.ratings import Rating, rating_table
from diffusioncleft.diffusioncleft_core.study.statistics.simulate import CUTS

AGES = ("baby", "child")


def answers(raters=2, generated=50, real=10, *, quality=2.4, shift=0.0, repeats=8, seed=0):
    """A study as the paper's, rated by a program: items and ratings. shift: of the real pictures' quality."""
    rng = np.random.default_rng(seed)
    items = [
        Item(
            f"{origin}{number}",
            origin,
            "pre_op" if number % 2 else "post_op",
            {"age_group": AGES[number // 2 % 2], "skin_tone": None, "gender": None},
        )
        for origin, n in (("generated", generated), ("real", real))
        for number in range(n)
    ]
    items += [
        Item(f"again{n}", "generated", items[n].condition, repeat_of=items[n].id) for n in range(repeats)
    ]
    pictures = {item.id: rng.normal(quality + shift * (item.origin == "real"), 0.6) for item in items}
    ratings = []
    for item in items:
        for number in range(raters):
            for question in ("realism", "plausibility"):
                seen = pictures[item.picture] + rng.normal(0.1 * number, 0.6)
                score = int(1 + np.searchsorted(CUTS, seen))
                ratings.append(Rating(f"Dr. {number}", item.id, question, score, 9.0))
            said = "generated" if rng.random() < 0.5 else "real"
            ratings.append(Rating(f"Dr. {number}", item.id, "origin", said))
    return items, ratings


def table(**options):
    items, ratings = answers(**options)
    return rating_table(ratings, items)


def told(document) -> str:
    parts = [part["words"] for part in document["questions"].values()]
    lines = [*document["words"], *(line for part in parts for line in part)]
    return " ".join(lines).replace("\u00a0", " ")

"""The paper's hypothesis: before repair, older faces look less plausible, generated and real alike.

A cleft lip is repaired in the first year of life, so an older child with an unrepaired one is unusual.
The paper did not test it; here each kind of image has its means by age group and the difference of baby
to older, in each condition: what holds after the repair too is no matter of the repair.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .grid import Grid
from .scale import Scale
from .summary import conditions_of, hidden, origins_of

AGES = ("baby", "child", "adult")


def by_age(grid: Grid, scale: Scale, *, phantom: bool) -> list[dict[str, Any]]:
    """One entry an origin and condition: means by age group, and baby less older.

    [] where no age is known. Parts of one to four photographs are not told.
    """
    return [
        entry
        for condition in conditions_of(grid)
        for entry in _within(grid.where(grid.condition == condition), scale, condition, phantom=phantom)
    ]


def _within(own: Grid, scale: Scale, condition: str, *, phantom: bool) -> list[dict[str, Any]]:
    found = []
    for origin in origins_of(own):
        part = own.where(own.origin == origin)
        ages = {age: part.where(part.groups["age_group"] == age) for age in AGES}
        known = {age: group for age, group in ages.items() if group.n}
        if not known:
            continue
        secret = hidden(part, part.groups["age_group"], phantom=phantom)
        older = part.where((part.groups["age_group"] == "child") | (part.groups["age_group"] == "adult"))
        two = np.where(part.groups["age_group"] == "baby", "baby", "older").astype(object)
        difference = None
        if ages["baby"].n and older.n and not hidden(part, two, phantom=phantom):
            difference = scale.difference(ages["baby"].scores, older.scores).as_dict()
        found.append(
            {
                "origin": origin,
                "role": str(part.role[0]),
                "condition": condition,
                "ages": {age: _mean(group, scale, secret=age in secret) for age, group in known.items()},
                "baby_less_older": difference,
            }
        )
    return found


def _mean(group: Grid, scale: Scale, *, secret: bool) -> dict[str, Any]:
    if secret:
        return {"images": None, "mean": None, "untold": True}
    return {"images": group.n, "mean": scale.mean(group.scores).as_dict()}

"""The paper's hypothesis: before repair, older faces look less plausible, generated and real alike.

A cleft lip is repaired in the first year of life, so an older child with an unrepaired one is unusual.
The paper did not test it; here each kind of image has its means by age group and the difference of baby
to older.
"""

from __future__ import annotations

from typing import Any

from .grid import Grid
from .scale import Scale
from .summary import origins_of, untold

AGES = ("baby", "child", "adult")
BEFORE_REPAIR = "pre_op"


def by_age(
    grid: Grid, scale: Scale, *, phantom: bool, condition: str = BEFORE_REPAIR
) -> list[dict[str, Any]]:
    """One entry an origin: means by age group within the condition, and baby less older.

    [] where no age is known. Parts of one to four photographs are not told.
    """
    own = grid.where(grid.condition == condition)
    found = []
    for origin in origins_of(own):
        part = own.where(own.origin == origin)
        ages = {age: part.where(part.groups["age_group"] == age) for age in AGES}
        known = {age: group for age, group in ages.items() if group.n}
        if not known:
            continue
        older = part.where((part.groups["age_group"] == "child") | (part.groups["age_group"] == "adult"))
        difference = None
        if ages["baby"].n and older.n and not any(untold(g, phantom=phantom) for g in (ages["baby"], older)):
            difference = scale.difference(ages["baby"].scores, older.scores).as_dict()
        found.append(
            {
                "origin": origin,
                "role": str(part.role[0]),
                "condition": condition,
                "ages": {age: _mean(group, scale, phantom=phantom) for age, group in known.items()},
                "baby_less_older": difference,
            }
        )
    return found


def _mean(group: Grid, scale: Scale, *, phantom: bool) -> dict[str, Any]:
    if untold(group, phantom=phantom):
        return {"images": None, "mean": None, "untold": True}
    return {"images": group.n, "mean": scale.mean(group.scores).as_dict()}

"""Generated against real: the difference, whether it is within the margin, and what could have been found.

Equivalence is claimed where the whole 95 % interval of the difference lies within the margin: two
one-sided tests (Schuirmann, J Pharmacokinet Biopharm 15, 1987) of 2.5 % each, as ICH E9 has it. Two tests
of 5 % each (a 90 % interval) would be the usual ones; in trials with ten real images at the scale's
end they claimed an equivalence that was not there in more than 5 % of the studies.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

from ..design import REAL
from .grid import Grid
from .intervals import Array, cell_of, difference_interval
from .scale import Scale, speaks_of
from .summary import ALL, conditions_of, hidden, origins_of, untold

EACH_TEST = 0.025
POWER = 0.8


def comparisons(grid: Grid, scale: Scale, margin: float, *, phantom: bool) -> list[dict[str, Any]]:
    """Each origin that is not real against the real images: over all of them, and by condition."""
    found = []
    real = grid.where(grid.role == REAL)
    for origin in origins_of(grid.where(grid.role != REAL)):
        own = grid.where(grid.origin == origin)
        conditions = [name for name in conditions_of(own) if name in set(real.condition)]
        for condition in [ALL, *(conditions if len(conditions) > 1 else [])]:
            ours, theirs = (
                part if condition == ALL else part.where(part.condition == condition) for part in (own, real)
            )
            if not theirs.n:
                continue
            entry = {"origin": origin, "condition": condition, "margin": margin}
            if untold(theirs, phantom=phantom) or condition in hidden(real, real.condition, phantom=phantom):
                found.append({**entry, "difference": None, "untold": True})
            else:
                found.append(entry | compared(ours, theirs, scale, margin))
    return found


def compared(one: Grid, other: Grid, scale: Scale, margin: float) -> dict[str, Any]:
    """The difference of two grids with the same raters, its test, and the study's own power."""
    difference = scale.difference(one.scores, other.scores)
    half = (difference.high - difference.low) / 2
    return {
        "images": one.n,
        "real_images": other.n,
        "difference": difference.as_dict() | {"about": speaks_of(len(one.raters))},
        "equivalent": bool(-margin < difference.low and difference.high < margin),
        "p": tost_p(one.scores, other.scores, scale, margin),
        "power": {
            "detectable": detectable(half),
            "equivalence": equivalence_power(half, margin),
        },
    }


def tost_p(one: Array, other: Array, scale: Scale, margin: float) -> float:
    """The larger p of the two one-sided tests: the level at which an end of the interval meets the margin."""
    cells = cell_of(one), cell_of(other)

    def inside(p: float) -> bool:
        low, high = difference_interval(*cells, scale.low, scale.high, scale.pooled, 1 - 2 * p)
        return bool(low > -margin and high < margin)

    low, high = 1e-6, 0.5 - 1e-6
    if not inside(high):
        return 0.5
    if inside(low):
        return low
    for _ in range(40):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if inside(middle) else (middle, high)
    return high


def detectable(half: float) -> float:
    """The true difference whose interval of this half width leaves out zero in four of five studies."""
    return half * (1 + float(ndtri(POWER) / ndtri(1 - EACH_TEST)))


def equivalence_power(half: float, margin: float) -> float:
    """Chance that an interval of this half width lies within the margin when there is no difference."""
    error = half / float(ndtri(1 - EACH_TEST))
    return max(0.0, 2 * float(ndtr((margin - half) / error)) - 1) if error > 0 else 1.0


def share_equivalent(lows: Array, highs: Array, margin: float) -> float:
    """Of [S] intervals: how many lie within the margin."""
    return float(np.mean((lows > -margin) & (highs < margin)))

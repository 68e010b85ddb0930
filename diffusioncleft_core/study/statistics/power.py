"""What a study of a size can show: counted on simulated studies, with the very intervals of the analysis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...text import counted
from .equivalence import POWER, detectable, share_equivalent
from .intervals import (
    ENOUGH_RATERS,
    LIKERT_DISPERSION,
    Array,
    cell_of,
    difference_interval,
    dispersion,
)
from .scale import speaks_of
from .simulate import Raters, draw_sets, quality_for, same_bias

STUDIES = 1000
MARGINS = (0.25, 0.5, 0.75, 1.0)
REAL_IMAGES = (10, 15, 20, 25, 30, 40, 50, 75, 100, 150, 200)
LOW, HIGH = 1.0, 5.0


@dataclass(frozen=True)
class Plan:
    """A study to be: images of each kind, raters, the margin, and the mean rating that is expected."""

    generated: int = 50
    real: int = 10
    raters: int = 2
    margin: float = 0.5
    mean: float = 4.8
    seed: int = 0


def planned(plan: Plan) -> dict[str, Any]:
    """What this study could show, and how many real images each margin takes (with as many generated ones per
    real one, at least as many as planned).
    """
    raters = raters_of(plan.raters)
    lows, highs = _intervals(plan.generated, plan.real, raters, plan)
    half = float(np.median(highs - lows)) / 2
    return {
        "generated": plan.generated,
        "real": plan.real,
        "raters": plan.raters,
        "about": speaks_of(plan.raters),
        "mean": plan.mean,
        "margin": plan.margin,
        "half_width": half,
        "detectable": detectable(half),
        "power": share_equivalent(lows, highs, plan.margin),
        "needed": [
            {"margin": margin, **_needed(plan, raters, margin)} for margin in sorted({*MARGINS, plan.margin})
        ],
        "studies": STUDIES,
    }


def raters_of(number: int) -> Raters:
    """Simulated raters: few have biases evenly spread over 0.4, others are drawn anew for each study."""
    few = Raters(bias=tuple(float(bias) for bias in np.linspace(-0.2, 0.2, max(number, 2))))
    if number >= ENOUGH_RATERS:
        return same_bias(few, number)
    return few if number > 1 else Raters(bias=(0.0,))


def plan_words(found: dict[str, Any]) -> list[str]:
    """The plan as sentences."""
    chance, mean = found["power"], found["mean"]
    said = [
        f"{found['generated']} generated and {counted(found['real'], 'real image')}, "
        f"{counted(found['raters'], 'rater')}, ratings around {mean:g}: the difference is known to "
        f"about ±{found['half_width']:.2f} points (95 %; the result is about {found['about']}).",
        f"If generated and real are truly alike, {100 * chance:.0f} % of such studies show that they are "
        f"within {found['margin']:g}.",
        f"A true difference of {found['detectable']:.2f} or more is told from none in four of five of them.",
    ]
    for row in found["needed"]:
        enough = (
            f"{row['real']} real and {counted(row['generated'], 'generated image')}"
            if row["real"] is not None
            else f"more than {REAL_IMAGES[-1]} real images"
        )
        said.append(f"Margin {row['margin']:g}: {enough} for a chance of {100 * POWER:.0f} %.")
    if found["raters"] < ENOUGH_RATERS:
        said.append(
            f"With fewer than {ENOUGH_RATERS} raters nothing follows on others, however many the images."
        )
    return said


def _needed(plan: Plan, raters: Raters, margin: float) -> dict[str, Any]:
    for real in REAL_IMAGES:
        generated = max(plan.generated, real)
        lows, highs = _intervals(generated, real, raters, plan)
        chance = share_equivalent(lows, highs, margin)
        if chance >= POWER:
            return {"real": real, "generated": generated, "power": chance}
    return {"real": None, "generated": None, "power": None}


def _intervals(generated: int, real: int, raters: Raters, plan: Plan) -> Sequence[Array]:
    """Limits of the difference in simulated studies without one: [S], [S]."""
    rng = np.random.default_rng([plan.seed, generated, real])
    quality = quality_for(plan.mean, raters)
    sets = draw_sets(STUDIES, [(generated, quality), (real, quality)], raters, rng)
    cells = [cell_of(scores) for scores in sets]
    return difference_interval(cells[0], cells[1], LOW, HIGH, dispersion(cells, LOW, HIGH, LIKERT_DISPERSION))

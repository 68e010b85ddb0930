"""Real or generated: accuracy, d′ and bias of the raters' answers, with intervals and against chance.

A signal is a generated picture, a hit says so of one, a false alarm says so of a real one (Macmillan &
Creelman, Detection Theory, 2nd edition, 2005). Shares of 0 and 1 have no z: half an answer is added to
each count and one to its number (the log-linear correction of Hautus, Behav Res Methods Instrum Comput
27, 1995). d′ and the bias c are means of the raters' own. Their limits are z at the Jeffreys limits of
each rater's shares (Brown, Cai & DasGupta, Stat Sci 16, 2001), squared and added (MOVER, see
`intervals`), weighted by how alike the raters answer; they are about these raters and other images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv, ndtri

from .intervals import (
    LEVEL,
    SHARE_DISPERSION,
    Array,
    Limits,
    cell_of,
    difference_interval,
    dispersion,
    mean_interval,
)

Figure = tuple[Array, Limits]


@dataclass(frozen=True)
class Detection:
    """Figures of [...] studies, each a value with its limits.

    Attributes:
        hits, false_alarms: share of the generated, and of the real pictures, called generated.
        accuracy: mean of the shares of generated and of real pictures called what they are, 0.5 by chance.
        sensitivity: d′, 0 by chance.
        bias: c, above 0 for raters who rather say real.
    """

    hits: Figure
    false_alarms: Figure
    accuracy: Figure
    sensitivity: Figure
    bias: Figure


def detection(generated: Array, real: Array, level: float = LEVEL) -> Detection:
    """From answers 1 (generated) and 0 (real) on generated [..., I, R] and real [..., J, R] pictures.

    NaN where a rater left a picture out; every rater answered on both kinds.
    """
    cells = cell_of(generated), cell_of(real)
    pooled = dispersion(cells, 0.0, 1.0, SHARE_DISPERSION)
    shares = [(cell.mean, mean_interval(cell, 0.0, 1.0, pooled, level)) for cell in cells]
    low, high = difference_interval(*cells, 0.0, 1.0, pooled, level)
    accuracy = (1 + cells[0].mean - cells[1].mean) / 2
    hit, hit_down, hit_up = _mean_z(generated, level)
    alarm, alarm_down, alarm_up = _mean_z(real, level)
    sensitivity, bias = hit - alarm, -(hit + alarm) / 2
    apart = np.hypot(hit_down, alarm_up), np.hypot(hit_up, alarm_down)
    together = np.hypot(hit_up, alarm_up) / 2, np.hypot(hit_down, alarm_down) / 2
    return Detection(
        shares[0],
        shares[1],
        (accuracy, ((1 + low) / 2, (1 + high) / 2)),
        (sensitivity, (sensitivity - apart[0], sensitivity + apart[1])),
        (bias, (bias - together[0], bias + together[1])),
    )


def _mean_z(answers: Array, level: float) -> tuple[Array, Array, Array]:
    """[...] mean over raters of z of their shares, and the distances to its lower and upper limit."""
    known = ~np.isnan(answers)
    n = known.sum(-2).astype(np.float64)  # [..., R]
    said = np.where(known, answers, 0.0)
    count = said.sum(-2)
    share = (count + 0.5) / (n + 1)
    z = ndtri(share)
    tail = (1 - level) / 2
    low, high = (ndtri(betaincinv(count + 0.5, n - count + 0.5, side)) for side in (tail, 1 - tail))
    around = np.where(known, said - (count / n)[..., None, :], 0.0)
    both = np.swapaxes(known, -1, -2).astype(np.float64) @ known
    spread = np.sqrt(share * (1 - share))
    alike = np.swapaxes(around, -1, -2) @ around / (both + 2) / (spread[..., :, None] * spread[..., None, :])
    raters = answers.shape[-1]
    alike = np.where(np.eye(raters, dtype=bool), 1.0, np.clip(alike, 0.0, 1.0))

    def combined(distances: Array) -> Array:
        squared = np.einsum("...r,...rs,...s->...", distances, alike, distances)
        root: Array = np.sqrt(squared) / raters
        return root

    return z.mean(-1), combined(z - low), combined(high - z)

"""Intervals of means and differences of ratings that hold at the end of a scale, with few images and raters.

Every function takes arrays with any leading axes, so that thousands of simulated studies are one call.

**Images.** The mean lies between the ends of its scale and its variance shrinks as it nears one of them.
So the limits solve (m - μ)² = t² φ (high - μ)(μ - low) / n for μ: Wilson's score interval (J Am Stat
Assoc 22, 1927) with the dispersion φ of a quasi-binomial (Wedderburn, Biometrika 61, 1974). φ is the
images' own variance over (high - m)(m - low), drawn towards that of the question's other cells by two
images' weight: where ten images of ten got the highest answer their own variance says nothing. A
difference squares and adds the distances of both limits (MOVER: Zou & Donner, Stat Med 27, 2008;
Newcombe, Stat Med 17, 1998).

**Raters.** From `ENOUGH_RATERS` on they stand for raters like them: their variance (the two-way one of
Cameron, Gelbach & Miller, J Bus Econ Stat 29, 2011) has limits of its own by the same equation, at t of R
- 1 degrees of freedom, and the distances are squared and added (as in the modified large sample intervals
of Graybill & Wang, J Am Stat Assoc 75, 1980). Fewer raters can't tell how raters differ, so the interval
is about these raters and other images, and the words say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

Array = npt.NDArray[np.float64]
Limits = tuple[Array, Array]

LEVEL = 0.95
ENOUGH_RATERS = 6
"""Raters from which an interval speaks of raters like them; with fewer none that we tried held."""
FEWEST_IMAGES = 5
"""Of each kind, from which a comparison says more than its interval."""
PRIOR_IMAGES = 2.0
"""Weight of the other cells' dispersion, in images."""
LIKERT_DISPERSION, SHARE_DISPERSION = 0.4, 1.0
"""One rater's dispersion where no cell says anything: of a 5-point scale, of a share."""
ALIKE = 0.25
"""How far raters go together where no cell says anything."""
RESIDUAL_KEPT = 0.25
"""Share of the residual variance that stays in the raters' part: at the end of a scale raters' biases are
skewed, and without it such intervals fall short."""


@dataclass(frozen=True)
class Cell:
    """The mean of one cell and where its variance comes from.

    Attributes:
        mean: [...] mean over images of each image's mean over its raters.
        images: [...] variance of the mean over images, the raters being the same.
        residual: [...] the part of it that images and raters have in common.
        raters: [..., R] what each rater's answers add to the mean, around it.
        n: images.
    """

    mean: Array
    images: Array
    residual: Array
    raters: Array
    n: int

    @property
    def n_raters(self) -> int:
        return int(self.raters.shape[-1])


def cell_of(scores: Array) -> Cell:
    """The cell of scores [..., I, R]; NaN where a rater left an image out, every image having one score.

    Raises:
        ValueError: it has no image.
    """
    n = scores.shape[-2]
    if n == 0:
        raise ValueError("a cell without an image has no mean")
    known = ~np.isnan(scores)
    weights = known / known.sum(-1, keepdims=True) / n
    values = np.where(known, scores, 0.0)
    mean = (values.sum(-1) / known.sum(-1)).mean(-1)
    around = weights * (values - mean[..., None, None]) * known
    images = (around.sum(-1) ** 2).sum(-1) * n / max(n - 1, 1)
    return Cell(mean, images, (around**2).sum((-1, -2)), around.sum(-2), n)


def usual_dispersion(one: float, raters: int) -> float:
    """The dispersion of the mean of so many raters, from one rater's, where no cell says anything."""
    return one * (1 + (raters - 1) * ALIKE) / raters


def dispersion(cells: Sequence[Cell], low: float, high: float, one: float) -> Array:
    """[...] variance of the cells' image means over (high - m)(m - low), pooled.

    `one`, a rater's dispersion, has two images' weight. A cell whose mean is an end of the scale says nothing
    of it.
    """
    usual = usual_dispersion(one, cells[0].n_raters)
    total = np.full(cells[0].mean.shape, PRIOR_IMAGES * usual)
    weight = np.full(cells[0].mean.shape, PRIOR_IMAGES)
    for cell in cells:
        own, inside = _own_dispersion(cell, low, high)
        total = total + np.where(inside, own, 0.0) * (cell.n - 1)
        weight = weight + inside * (cell.n - 1)
    pooled: Array = total / weight
    return pooled


def mean_interval(cell: Cell, low: float, high: float, pooled: Array | float, level: float = LEVEL) -> Limits:
    """Limits of a cell's mean; for raters like these from `ENOUGH_RATERS` on, else for these raters."""
    lower, upper = _image_limits(cell, low, high, pooled, level)
    if cell.n_raters < ENOUGH_RATERS:
        return lower, upper
    reach = _rater_reach(cell.raters, cell.residual, level)
    of_raters = _score_limits(cell.mean, reach, low, high)
    return (
        np.maximum(cell.mean - np.hypot(cell.mean - lower, cell.mean - of_raters[0]), low),
        np.minimum(cell.mean + np.hypot(upper - cell.mean, of_raters[1] - cell.mean), high),
    )


def difference_interval(
    one: Cell, other: Cell, low: float, high: float, pooled: Array | float, level: float = LEVEL
) -> Limits:
    """Limits of the mean of `one` less that of `other`: other images, the same raters in the same order."""
    lower, upper = _image_limits(one, low, high, pooled, level)
    other_lower, other_upper = _image_limits(other, low, high, pooled, level)
    raters: Array | float = 0.0
    if one.n_raters >= ENOUGH_RATERS:
        raters = _rater_reach(one.raters - other.raters, one.residual + other.residual, level)
    value = one.mean - other.mean
    down = np.sqrt((one.mean - lower) ** 2 + (other_upper - other.mean) ** 2 + raters)
    up = np.sqrt((upper - one.mean) ** 2 + (other.mean - other_lower) ** 2 + raters)
    return value - down, value + up


def bounded_interval(
    value: Array,
    variance: Array,
    n: Array | float,
    low: float,
    high: float,
    pooled: Array | float,
    level: float = LEVEL,
) -> Limits:
    """Limits of a value between two ends whose variance shrinks towards them, by the score equation above.

    Args:
        value: [...] the estimate.
        variance: [...] its variance, estimated from `n` images.
        n: [...] images that tell something of it.
        low, high: its ends.
        pooled: the dispersion that its own is drawn to, and that it has at an end.
        level: of confidence.
    """
    width = high - low
    share = np.clip((value - low) / width, 0.0, 1.0)
    room = share * (1 - share)
    inside = room > 1e-9
    own = np.where(inside, variance / width**2 * n / np.where(inside, room, 1.0), pooled)
    spread = (own * (n - 1) + pooled * PRIOR_IMAGES) / (n - 1 + PRIOR_IMAGES)
    spread = np.where(inside, spread, pooled)
    factor = stdtrit(n - 1 + PRIOR_IMAGES, (1 + level) / 2) ** 2 * spread / n
    return _solved(share, factor, low, high)


def percentile_interval(
    scores: Array, resamples: int, rng: np.random.Generator, level: float = LEVEL
) -> tuple[float, float]:
    """The mean's interval by resampling images and raters together (the pigeonhole bootstrap of Owen, Ann
    Appl Stat 1, 2007): kept beside the others, since it falls short with few raters and at a scale's end.

    Args:
        scores: [I, R]; NaN where a rater left an image out.
        resamples: how many.
        rng: decides them.
        level: of confidence.
    """
    n, raters = scores.shape
    known = ~np.isnan(scores)
    images = rng.multinomial(n, np.full(n, 1 / n), size=resamples).astype(np.float64)
    people = rng.multinomial(raters, np.full(raters, 1 / raters), size=resamples).astype(np.float64)
    total = ((images @ np.where(known, scores, 0.0)) * people).sum(-1)
    count = ((images @ known.astype(np.float64)) * people).sum(-1)
    means = total[count > 0] / count[count > 0]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _image_limits(cell: Cell, low: float, high: float, pooled: Array | float, level: float) -> Limits:
    return bounded_interval(cell.mean, cell.images, float(cell.n), low, high, pooled, level)


def _own_dispersion(cell: Cell, low: float, high: float) -> tuple[Array, npt.NDArray[np.bool_]]:
    share = (cell.mean - low) / (high - low)
    room = share * (1 - share)
    inside = room > 1e-9
    return cell.images / (high - low) ** 2 * cell.n / np.where(inside, room, 1.0), inside


def _score_limits(value: Array, reach: Array, low: float, high: float) -> Limits:
    """Limits of a value whose squared distance to them is `reach` if they vary as it does."""
    share = np.clip((value - low) / (high - low), 0.0, 1.0)
    room = share * (1 - share)
    inside = room > 1e-9
    factor = np.where(inside, reach / (high - low) ** 2 / np.where(inside, room, 1.0), 0.0)
    return _solved(share, factor, low, high)


def _solved(share: Array, factor: Array, low: float, high: float) -> Limits:
    """The two μ, from `low` to `high`, that solve (share - μ)² = factor μ (1 - μ) on the unit interval."""
    centre = (share + factor / 2) / (1 + factor)
    half = np.sqrt(factor * share * (1 - share) + factor**2 / 4) / (1 + factor)
    return low + (high - low) * (centre - half), low + (high - low) * (centre + half)


def _rater_reach(effects: Array, residual: Array, level: float) -> Array:
    """[...] t² times the raters' variance of a mean or of a difference, most of the residual taken off."""
    raters = effects.shape[-1]
    variance = (effects**2).sum(-1) * raters / (raters - 1) - (1 - RESIDUAL_KEPT) * residual
    factor = float(stdtrit(raters - 1, (1 + level) / 2)) ** 2
    found: Array = factor * np.maximum(variance, 0.0)
    return found

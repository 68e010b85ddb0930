"""Simulated raters with a known truth: what every interval is held against, and what a power is counted on.

A rater sees a picture's quality, which is normal over pictures, through a bias and noise of the rater's
own, and answers by cuts on that scale. So every mean, share and coefficient of agreement is known by
quadrature. Nobody rates, and what is made with them says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr

from .agreement import Sums
from .intervals import Array

CUTS = np.array([-1.5, -0.5, 0.5, 1.5])
"""Between the five points of the scale."""
CATEGORIES = len(CUTS) + 1
_NODES = 121


@dataclass(frozen=True)
class Raters:
    """How simulated raters answer.

    Attributes:
        picture: standard deviation of the pictures' quality; 0: raters agree by chance alone.
        noise: of a rater's view of one picture.
        bias: of these raters, [R]; or
        spread: standard deviation of the biases of raters who are drawn anew for each study,
        number: of such raters.
    """

    picture: float = 0.6
    noise: float = 0.6
    bias: tuple[float, ...] = (0.2, -0.2)
    spread: float = 0.0
    number: int = 0

    @property
    def n(self) -> int:
        return self.number or len(self.bias)


def quality_for(mean: float, raters: Raters) -> float:
    """The pictures' mean quality at which these raters' true mean is `mean`, of 1 to 5."""

    def miss(quality: float) -> float:
        return float(true_mean(quality, raters)) - mean

    return float(brentq(miss, -30.0, 30.0))


def true_mean(quality: float, raters: Raters) -> float:
    """Of the ratings, 1 to 5, over pictures and raters."""
    return 1.0 + float(_above(quality, raters).sum(-1).mean())


def true_share(quality: float, raters: Raters) -> float:
    """Of ratings of 4 and 5."""
    return float(_above(quality, raters)[..., 2].mean())


def draw(studies: int, images: int, quality: float, raters: Raters, rng: np.random.Generator) -> Array:
    """Ratings 1 to 5 of so many studies: [S, I, R]."""
    return draw_sets(studies, [(images, quality)], raters, rng)[0]


def draw_sets(
    studies: int, sets: Sequence[tuple[int, float]], raters: Raters, rng: np.random.Generator
) -> list[Array]:
    """Ratings of the same raters on several sets of (images, quality): [S, I, R] each."""
    bias = np.array(raters.bias)
    if raters.number:
        bias = raters.spread * rng.standard_normal((studies, 1, raters.number))
    found = []
    for images, quality in sets:
        pictures = quality + raters.picture * rng.standard_normal((studies, images, 1))
        seen = pictures + bias + raters.noise * rng.standard_normal((studies, images, raters.n))
        found.append(1.0 + np.searchsorted(CUTS, seen))
    return found


def true_agreement(sets: Sequence[tuple[float, float]], raters: Raters) -> dict[str, float]:
    """The coefficients over all pictures of sets of (share of the pictures, quality), for these raters."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    weights = weights / weights.sum()
    many = 1e9
    sums = Sums(np.zeros((1, raters.n)), CATEGORIES)
    total = np.zeros_like(sums.total)
    points = np.arange(CATEGORIES, dtype=np.float64)
    for part, quality in sets:
        seen = quality + raters.picture * nodes[:, None, None] + np.array(raters.bias)[:, None]
        above = ndtr((seen - CUTS) / raters.noise)  # [nodes, R, K - 1]
        chances = -np.diff(above, axis=-1, prepend=1.0, append=0.0)  # [nodes, R, K]
        by_rater = np.einsum("n,nrk->rk", weights, chances)
        mean, square = chances @ points, chances @ points**2  # [nodes, R]
        squared_sum = mean.sum(1) ** 2 + (square - mean**2).sum(1)
        pairs = [(a, b) for a in range(raters.n) for b in range(a)]
        alike = [
            sum(np.einsum("n,nj,jk,nk->", weights, chances[:, a], kind, chances[:, b]) for a, b in pairs)
            / len(pairs)
            for kind in sums.weights
        ]
        total += part * np.concatenate(
            [
                [1.0, *alike, 1.0],
                by_rater.mean(0),
                by_rater.ravel(),
                [1.0],
                weights @ mean,
                [weights @ squared_sum, weights @ square.sum(1)],
            ]
        )
    return {name: float(value) for name, value in sums.coefficients(many * total).items()}


def same_bias(raters: Raters, number: int) -> Raters:
    """So many raters drawn anew for each study, who differ as much as these do."""
    return replace(raters, bias=(), spread=float(np.std(raters.bias)), number=number)


def _above(quality: float, raters: Raters) -> Array:
    """Chance of an answer beyond each cut: [R, K - 1], or [1, K - 1] for raters drawn anew."""
    bias = np.zeros(1) if raters.number else np.array(raters.bias)
    spread = np.sqrt(raters.picture**2 + raters.noise**2 + raters.spread**2 * bool(raters.number))
    above: Array = ndtr((quality + bias[:, None] - CUTS) / spread)
    return above

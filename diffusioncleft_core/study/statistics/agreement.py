"""How far raters agree: Gwet's AC2, weighted kappa, ICC(2,1), percent agreement, each with its interval.

Sources of the formulas: Gwet, Handbook of Inter-Rater Reliability, 4th edition (2014), chapters 3 to 5
(AC2, its ordinal weights, missing ratings); Cohen, Psychol Bull 70 (1968), for more raters than two
Conger, Psychol Bull 88 (1980) (weighted kappa); Shrout & Fleiss, Psychol Bull 86 (1979) (ICC(2,1)).

Every coefficient is a function of sums over images. So leaving each image out once costs a subtraction,
and the interval has the jackknife's variance over images (Efron & Stein, Ann Stat 9, 1981) in the score
equation of `intervals`, between -1 and 1: the raters are these raters, the images stand for others.

Kappa and the ICC divide by what the answers off the most frequent one leave over. Where two raters,
independent of each other, would both leave it on fewer than five images, no interval that we tried held
its level (from 20 to 99 % instead of 95 %), and none is told. The five is Cochran's for expected counts
(Biometrics 10, 1954).
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .intervals import (
    LEVEL,
    LIKERT_DISPERSION,
    SHARE_DISPERSION,
    Array,
    bounded_interval,
    usual_dispersion,
)

EXPECTED = 5.0
"""Images, expected off the most frequent answer for two raters at once, from which kappa has an interval."""
MOST_DISPERSION = 1.0
"""What kappa's dispersion is drawn to; like the others' for two raters, and less for more of them."""
COEFFICIENTS = ("ac2", "kappa", "icc", "agreement")


@dataclass(frozen=True)
class Agreement:
    """One coefficient for each of the leading axes; NaN where it is not defined or its interval not told."""

    value: Array
    low: Array
    high: Array


def ordinal_weights(categories: int) -> Array:
    """Gwet's ordinal weights [K, K]: 1 - C(|k - l| + 1, 2) / C(K, 2), and 1 where k = l."""
    apart = _apart(categories)
    weights: Array = 1 - np.where(apart > 0, apart * (apart + 1) / 2, 0.0) / math.comb(categories, 2)
    return weights


def quadratic_weights(categories: int) -> Array:
    """[K, K] weights 1 - (k - l)² / (K - 1)²."""
    weights: Array = 1 - (_apart(categories) / (categories - 1)) ** 2
    return weights


def agreement(scores: Array, categories: int, level: float = LEVEL) -> dict[str, Agreement]:
    """All coefficients of ratings 0 .. K - 1 [..., I, R], NaN where a rater left an image out.

    Returns:
        `ac2`, `kappa`, `icc`, `agreement` (share of pairs of raters with the same answer), by name.

    Raises:
        ValueError: fewer than two raters.
    """
    if scores.shape[-1] < 2:
        raise ValueError("agreement needs two raters")
    sums = Sums(scores, categories)
    values = sums.coefficients(sums.total)
    left_out = sums.coefficients(sums.total[..., None, :] - sums.each)
    n = float(scores.shape[-2])
    apart = sums.off_the_mode()
    told = sums.expected_off_the_mode() >= EXPECTED
    raters = scores.shape[-1]
    found = {}
    for name, value in values.items():
        variance = _jackknife_variance(left_out[name])
        if name == "agreement":
            low, high = bounded_interval(
                value, variance, n, 0.0, 1.0, usual_dispersion(SHARE_DISPERSION, raters), level
            )
        elif name == "ac2":
            low, high = bounded_interval(
                value, variance, n, -1.0, 1.0, usual_dispersion(LIKERT_DISPERSION, raters), level
            )
        else:
            images = np.maximum(apart, 2.0)
            low, high = bounded_interval(
                value, variance, images, -1.0, 1.0, 2 / raters * MOST_DISPERSION, level
            )
            low, high = (np.where(told & ~np.isnan(value), limit, np.nan) for limit in (low, high))
        found[name] = Agreement(value, low, high)
    return found


def chance_agreement(scores: Array, categories: int) -> Array:
    """[...] share of pairs of raters that would give the same answer if each answered at random as often as
    it did."""
    sums = Sums(scores, categories)
    return sums.expected(sums.total, np.eye(categories))


class Sums:
    """The sums over images that the coefficients are functions of.

    each: [..., I, F]; total: [..., F]. F: images with two ratings, their agreement in three kinds of
    weights, images, shares of the categories [K], answers by rater and category [R, K], and of the images
    that all rated: number, sum by rater [R], sum of squared image sums, sum of squares.
    """

    def __init__(self, scores: Array, categories: int, weights: tuple[Array, Array] | None = None) -> None:
        """Args: ratings 0 .. K - 1 [..., I, R]; K; weights [K, K] of AC2 and of kappa in place of ours."""
        self.raters, self.categories = scores.shape[-1], categories
        ours = (ordinal_weights(categories), quadratic_weights(categories))
        self._ordinal, self._quadratic = weights or ours
        self.weights = (self._ordinal, self._quadratic, np.eye(categories))
        known = ~np.isnan(scores)
        answers = (scores[..., None] == np.arange(categories)).astype(np.float64)  # [..., I, R, K]
        by_category = answers.sum(-2)  # [..., I, K]
        ratings = known.sum(-1).astype(np.float64)
        pairs = ratings * (ratings - 1)
        several = np.asarray(pairs > 0)

        def agreeing(weights: Array) -> Array:
            alike = (by_category * (by_category @ weights)).sum(-1) - ratings
            found: Array = np.where(several, alike / np.where(several, pairs, 1.0), 0.0)
            return found

        whole = np.asarray(known.all(-1))
        complete = np.where(whole[..., None], scores, 0.0)
        columns = [
            several[..., None],
            *(agreeing(kind)[..., None] for kind in self.weights),
            (ratings > 0)[..., None],
            by_category / np.maximum(ratings, 1.0)[..., None],
            answers.reshape(*answers.shape[:-2], -1),
            whole[..., None],
            complete,
            (complete.sum(-1) ** 2)[..., None],
            (complete**2).sum(-1)[..., None],
        ]
        self.each: Array = np.concatenate([np.asarray(column, np.float64) for column in columns], -1)
        self.total: Array = self.each.sum(-2)

    def coefficients(self, sums: Array) -> dict[str, Array]:
        """The coefficients of sums [..., F]; NaN where one is not defined."""
        with np.errstate(divide="ignore", invalid="ignore"):
            images = sums[..., 0]
            return {
                "ac2": _corrected(sums[..., 1] / images, self._gwet_chance(sums)),
                "kappa": _corrected(sums[..., 2] / images, self.expected(sums, self._quadratic)),
                "icc": self._icc(sums),
                "agreement": sums[..., 3] / images,
            }

    def expected(self, sums: Array, weights: Array) -> Array:
        """[...] agreement of two raters who answer at random, each as often as it did: mean over pairs."""
        counts = self._counts(sums)
        with np.errstate(divide="ignore", invalid="ignore"):
            shares = counts / counts.sum(-1, keepdims=True)  # [..., R, K]
        pairs = list(itertools.combinations(range(self.raters), 2))
        total = sum((shares[..., a, :] @ weights * shares[..., b, :]).sum(-1) for a, b in pairs)
        return np.asarray(total, np.float64) / len(pairs)

    def off_the_mode(self) -> Array:
        """[...] images on which not every answer is the most frequent answer of all."""
        shares = self.each[..., 5 : 5 + self.categories]  # [..., I, K]
        mode = shares.sum(-2).argmax(-1)
        own = np.take_along_axis(shares, mode[..., None, None], -1)[..., 0]
        return np.asarray((own < 1 - 1e-9).sum(-1), np.float64)

    def expected_off_the_mode(self) -> Array:
        """[...] images on which two raters, independent of each other, would both leave their most frequent
        answer: mean over pairs."""
        counts = self._counts(self.total)
        answers = counts.sum(-1)
        left = answers - counts.max(-1)  # [..., R]
        pairs = list(itertools.combinations(range(self.raters), 2))
        images = np.maximum(answers, 1.0)
        total = sum(left[..., a] * left[..., b] / np.sqrt(images[..., a] * images[..., b]) for a, b in pairs)
        return np.asarray(total, np.float64) / len(pairs)

    def _counts(self, sums: Array) -> Array:
        start = 5 + self.categories
        part = sums[..., start : start + self.raters * self.categories]
        return part.reshape(*part.shape[:-1], self.raters, self.categories)

    def _gwet_chance(self, sums: Array) -> Array:
        """Gwet's: sum of the weights over K (K - 1), times the sum of π (1 - π)."""
        k = self.categories
        shares = sums[..., 5 : 5 + k] / sums[..., 4:5]
        chance: Array = self._ordinal.sum() / (k * (k - 1)) * (shares * (1 - shares)).sum(-1)
        return chance

    def _icc(self, sums: Array) -> Array:
        """ICC(2,1) from the mean squares of the images that all raters rated."""
        k = self.raters
        tail = sums[..., 5 + self.categories + k * self.categories :]  # images that all rated, ...
        n, by_rater = tail[..., 0], tail[..., 1 : 1 + k]
        mean = by_rater.sum(-1) ** 2 / (n * k)
        between = tail[..., 1 + k] / k - mean
        raters = (by_rater**2).sum(-1) / n - mean
        residual = np.maximum(tail[..., 2 + k] - mean - between - raters, 0.0)
        ms_images, ms_raters = between / (n - 1), raters / (k - 1)
        ms_residual = residual / ((n - 1) * (k - 1))
        total = ms_images + (k - 1) * ms_residual + k * (ms_raters - ms_residual) / n
        icc: Array = np.where(total > 1e-9, (ms_images - ms_residual) / np.where(total > 0, total, 1), np.nan)
        return icc


def _apart(categories: int) -> Array:
    places = np.arange(categories, dtype=np.float64)
    return np.abs(places[:, None] - places)


def _corrected(observed: Array, chance: Array) -> Array:
    """(observed - chance) / (1 - chance); NaN where chance leaves nothing over."""
    left = 1 - chance
    corrected: Array = np.where(left > 1e-9, (observed - chance) / np.where(left > 0, left, 1.0), np.nan)
    return corrected


def _jackknife_variance(left_out: Array) -> Array:
    """[...] from the values without each image [..., I]; those that are not defined are left out."""
    known: npt.NDArray[np.bool_] = ~np.isnan(left_out)
    n = np.maximum(known.sum(-1), 1)
    values = np.where(known, left_out, 0.0)
    around = np.where(known, values - (values.sum(-1) / n)[..., None], 0.0)
    variance: Array = (around**2).sum(-1) * (n - 1) / n
    return variance

"""Two classifiers on the same test images: is one better, by how much, and how many images would tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit
from scipy.stats import binom

from .predictions import Predictions
from .resampling import RESAMPLES, Array, Subjects, is_right, observed, same_images, statistics_of

COMPARED = ("accuracy", "balanced_accuracy", "auc")
POWER, ALPHA = 0.8, 0.05
ONLY_WORSE = 0.05
"""Share of images that the worse classifier alone gets right, where nothing is known of it: two that learned
from faces err on many of the same images."""
MOST_IMAGES = 100_000
_CERTAIN = 1e-12


def exact_mcnemar(only_a: int, only_b: int) -> float:
    """p of two classifiers being right equally often, two-sided, by what only one of them got right.

    McNemar (Psychometrika 12, 1947) with the binomial distribution instead of its approximation.
    """
    n = only_a + only_b
    return float(min(1.0, 2 * binom.cdf(min(only_a, only_b), n, 0.5))) if n else 1.0


def discordant_people(a: Sequence[Predictions], b: Sequence[Predictions]) -> tuple[int, int]:
    """People on more of whose images `a` is right than `b`, and the other way round.

    With one image a person and one training they are what McNemar's test counts. Of several images a person
    still counts once, because those images are not independent; of several trainings each image counts by the
    share of them that is right.
    """
    test = Subjects.of([*a, *b])
    right = [np.mean([is_right(item) for item in trainings], axis=0) for trainings in (a, b)]
    ahead = np.round(test.summed(right[0] - right[1]), 9)
    return int((ahead > 0).sum()), int((ahead < 0).sum())


def compare(
    a: Sequence[Predictions],
    b: Sequence[Predictions],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare two classifiers, one prediction a training each, on the same images.

    Returns:
        `n` images, `n_subjects`, `only_a` and `only_b` people, `mcnemar_p`, and `difference` (a less b) by
        metric with `value`, `ci95` over people, and `ci95_trainings` where either has several trainings.

    Raises:
        ValueError: the images differ, or there are no predictions.
    """
    if not a or not b or not same_images(a[0], b[0]):
        raise ValueError("two classifiers are compared on the same images")
    test = Subjects.of([*a, *b])
    only_a, only_b = discordant_people(a, b)
    weights = test.draws(resamples, seed)
    drawn = [statistics_of(trainings, weights) for trainings in (a, b)]
    values = [observed(trainings) for trainings in (a, b)]
    return {
        "n": len(a[0]),
        "n_subjects": test.people,
        "only_a": only_a,
        "only_b": only_b,
        "mcnemar_p": exact_mcnemar(only_a, only_b),
        "difference": {
            name: _difference(
                name, values[0][name] - values[1][name], drawn[0][name] - drawn[1][name], test, a, b
            )
            for name in COMPARED
        },
    }


def _difference(
    metric: str,
    value: float,
    drawn: Array,
    test: Subjects,
    a: Sequence[Predictions],
    b: Sequence[Predictions],
) -> dict[str, Any]:
    """A difference with its intervals: of the t distribution, with half an image more on either side.

    So Agresti & Min (Statistics in Medicine 24, 2005) widen a difference of pairs: else one in which nobody
    differs would have no width.
    """
    figure: dict[str, Any] = {"value": None, "ci95": None, "ci95_trainings": None}
    if not np.isfinite(value):
        return figure
    classes = [test.counts(name)[0] for name in ("sensitivity", "specificity")]
    images = sum(classes) if metric == "accuracy" else 2 * min(classes)
    variance = float(np.nanvar(drawn, ddof=1)) + 1 / images**2
    half = float(stdtrit(test.freedom(metric), 0.975)) * variance**0.5
    figure |= {"value": value, "ci95": _clipped(value, half)}
    if len(a) > 1 or len(b) > 1:
        between = [_between(trainings, metric) for trainings in (a, b)]
        freedom = max(1, min(len(trainings) for trainings in (a, b) if len(trainings) > 1) - 1)
        wide = float(stdtrit(freedom, 0.975)) * sum(between) ** 0.5
        figure["ci95_trainings"] = _clipped(value, float(np.hypot(half, wide)))
    return figure


def _between(trainings: Sequence[Predictions], metric: str) -> float:
    """Variance of the mean over trainings, as far as it comes from them."""
    if len(trainings) < 2:
        return 0.0
    return float(np.var([observed([item])[metric] for item in trainings], ddof=1)) / len(trainings)


def _clipped(value: float, half: float) -> list[float]:
    return [max(-1.0, value - half), min(1.0, value + half)]


def mcnemar_power(n: int, only_better: float, only_worse: float, alpha: float = ALPHA) -> float:
    """Chance that the exact test tells two classifiers apart on `n` images of as many people, in favour of
    the better one.

    Args:
        n: images.
        only_better, only_worse: shares of images that only the one, only the other gets right; their
            difference is that of the accuracies.
        alpha: two-sided level of the test.
    """
    discordant = only_better + only_worse
    if n < 1 or discordant <= 0:
        return 0.0
    counts = np.arange(n + 1)
    likely = binom.pmf(counts, n, discordant)
    counts, likely = counts[likely > _CERTAIN], likely[likely > _CERTAIN]
    # Of `counts` discordant images, the most that the worse one may have for the test to say so; -1 for none.
    most = binom.ppf(alpha / 2, counts, 0.5)
    most = np.where(2 * binom.cdf(most, counts, 0.5) <= alpha, most, most - 1)
    wins = binom.sf(counts - most - 1, counts, only_better / discordant)
    return float(min(1.0, np.sum(likely * np.where(most >= 0, wins, 0.0))))


def images_needed(
    better: float, worse: float, *, only_worse: float = ONLY_WORSE, power: float = POWER, alpha: float = ALPHA
) -> int | None:
    """Test images, one a person, from which on the exact test tells two accuracies apart with this power.

    Args:
        better, worse: the accuracies.
        only_worse: share of images that the worse one alone gets right. `worse * (1 - better)` is that of
            two which err independently of each other: the most that is plausible, so it needs the most.
        power, alpha: of the test.

    Returns:
        None where it is more than 100,000, or the two are equal.

    Raises:
        ValueError: the shares can't be: `only_worse` is more than the worse one's accuracy, or the better
            one's errors.
    """
    if not 0 <= only_worse <= min(worse, 1 - better) + _CERTAIN or worse > better:
        raise ValueError(f"of {worse} and {better} no share of {only_worse} can be the worse one's alone")

    def enough(n: int) -> bool:
        return mcnemar_power(n, better - worse + only_worse, only_worse, alpha) >= power

    if better - worse <= _CERTAIN:
        return None
    high = 1
    while not enough(high):
        high *= 2
        if high > MOST_IMAGES:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    # The power saws up and down by a few images: the last n that is too few decides.
    tried: npt.NDArray[np.int64] = np.arange(max(1, high - 8), high + 25)
    short = [int(n) for n in tried if not enough(int(n))]
    return max(short, default=high - 1) + 1

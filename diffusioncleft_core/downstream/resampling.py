"""Intervals that resample people: images of one person are not independent, so people are drawn, not images.

A bootstrap over subjects tells how much a figure varies; its percentiles are not the interval, because with
few subjects they cover far less than they say, and where all is right they have no width at all (`make
experiments` measures it). The interval is Clopper and Pearson's for as many independent images as would vary
as much (Korn & Graubard, Survey Methodology 24, 1998), which also holds at 0 and at 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri, stdtrit

from ..statistics import beta_interval
from .predictions import Predictions

Array = npt.NDArray[np.float64]
SHARES = ("accuracy", "sensitivity", "specificity")
METRICS = ("accuracy", "balanced_accuracy", "sensitivity", "specificity", "auc", "brier")
RESAMPLES = 2000
THRESHOLD = 0.5
"""Score from which an image is called positive; training sets the scores so that no other is needed."""
_NOTHING = 1e-12
"""A variance that is rounding alone."""
_CELLS = 1 << 23
"""Numbers that are held at once while resampling."""


@dataclass(frozen=True, eq=False)
class Subjects:
    """Who is on which image of a test set: `subject` [N] numbers the people, `positive` [N] is the label."""

    subject: npt.NDArray[np.int64]
    positive: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, trainings: Sequence[Predictions]) -> Subjects:
        """The one that all predictions are of.

        Raises:
            ValueError: there are none, or they are of different images.
        """
        if not trainings:
            raise ValueError("there are no predictions")
        first = trainings[0]
        for other in trainings[1:]:
            if not same_images(first, other):
                raise ValueError("predictions of different test sets can't be taken together")
        _, subject = np.unique(np.array(first.subjects, dtype=object), return_inverse=True)
        return cls(subject.astype(np.int64), first.labels == 1)

    @property
    def people(self) -> int:
        return int(self.subject.max()) + 1 if len(self.subject) else 0

    def images(self, of: npt.NDArray[np.bool_] | None = None) -> Array:
        """How many images each person has [people], of those chosen by `of` [N]."""
        return np.bincount(self.subject, None if of is None else of.astype(float), self.people).astype(float)

    def summed(self, values: Array) -> Array:
        """The sum of `values` [N] over each person's images [people]."""
        return np.bincount(self.subject, values, self.people).astype(np.float64)

    @property
    def strata(self) -> npt.NDArray[np.int64]:
        """Each person's stratum [people]: with positive images, with negative ones, with both.

        People are drawn within it, so that every draw has both classes. One person alone in a stratum joins
        the largest.
        """
        kinds = (self.images(self.positive) > 0) + 2 * (self.images(~self.positive) > 0)
        names, sizes = np.unique(kinds, return_counts=True)
        for name, size in zip(names, sizes, strict=True):
            if size == 1:
                kinds[kinds == name] = names[np.argmax(sizes)]
        return kinds.astype(np.int64)

    def draws(self, resamples: int, seed: int) -> Array:
        """How much each person counts in each draw [resamples, people].

        One fewer than there are is drawn of each stratum and weighed up (Rao & Wu, JASA 83, 1988): else the
        figures of few people would vary too little.
        """
        rng = np.random.default_rng(seed)
        weights = np.ones((resamples, self.people))
        strata = self.strata
        for name in np.unique(strata):
            (members,) = np.nonzero(strata == name)
            size = len(members)
            if size > 1:
                drawn = rng.multinomial(size - 1, np.full(size, 1 / size), size=resamples)
                weights[:, members] = drawn * (size / (size - 1))
        return weights

    def counts(self, metric: str) -> tuple[int, int]:
        """Images and people that a figure is of."""
        of = {"sensitivity": self.positive, "specificity": ~self.positive}.get(metric)
        images = self.images(of)
        return int(images.sum()), int((images > 0).sum())

    def weakest(self, metric: str) -> int:
        """People behind a figure's weakest part: its own, or those of the class that has fewer."""
        if metric in ("balanced_accuracy", "auc"):
            return min(self.counts("sensitivity")[1], self.counts("specificity")[1])
        return self.counts(metric)[1]

    def freedom(self, metric: str) -> int:
        """Degrees of freedom of a figure's variance, at least 1."""
        by_stratum = self.counts(metric)[1] - len(np.unique(self.strata))
        if metric in ("balanced_accuracy", "auc"):
            return max(1, min(by_stratum, 2 * self.weakest(metric) - 2))
        return max(
            1, by_stratum if metric not in ("sensitivity", "specificity") else self.weakest(metric) - 1
        )


def same_images(one: Predictions, other: Predictions) -> bool:
    """Whether two predictions are of the same images in the same order."""
    return (one.subjects, one.keys) == (other.subjects, other.keys) and np.array_equal(
        one.labels, other.labels
    )


def statistics_of(trainings: Sequence[Predictions], weights: Array) -> dict[str, Array]:
    """Every metric in each draw [draws], the mean over the trainings.

    Args:
        trainings: predictions of the same images.
        weights: [draws, people] of `Subjects.draws`.

    Returns:
        By name of `METRICS`; NaN where a draw has no image that the metric is of.
    """
    test = Subjects.of(trainings)
    positive, negative = test.positive, ~test.positive
    right = np.mean([is_right(item) for item in trainings], axis=0)
    error = np.mean([(item.scores - item.labels) ** 2 for item in trainings], axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):

        def share(values: Array, of: npt.NDArray[np.bool_]) -> Array:
            return np.asarray((weights @ test.summed(values * of)) / (weights @ test.images(of)))

        every = np.ones_like(positive)
        sensitivity, specificity = share(right, positive), share(right, negative)
        return {
            "accuracy": share(right, every),
            "balanced_accuracy": (sensitivity + specificity) / 2,
            "sensitivity": sensitivity,
            "specificity": specificity,
            "auc": np.mean([_auc(item.scores, test, weights) for item in trainings], axis=0),
            "brier": share(error, every),
        }


def is_right(item: Predictions) -> Array:
    """[N] 1 where the image is called what it is, else 0."""
    return np.asarray((item.scores >= THRESHOLD) == (item.labels == 1), np.float64)


def _auc(scores: Array, test: Subjects, weights: Array) -> Array:
    """Weighted probability that a positive image scores above a negative one, ties half [draws]."""
    order = np.argsort(scores, kind="stable")
    _, first, size = np.unique(scores[order], return_index=True, return_counts=True)
    subject, positive = test.subject[order], test.positive[order]
    tie = np.repeat(np.arange(len(first)), size)
    found = []
    step = max(1, _CELLS // max(1, len(scores)))
    for part in (weights[i : i + step] for i in range(0, len(weights), step)):
        image = part[:, subject]
        below = np.pad(np.cumsum(image * ~positive, axis=1), ((0, 0), (1, 0)))
        beaten = (below[:, first] + below[:, first + size]) / 2
        of_positive = image * positive
        found.append((of_positive * beaten[:, tie]).sum(axis=1) / (of_positive.sum(axis=1) * below[:, -1]))
    return np.concatenate(found)


def interval_of(
    metric: str, value: float, drawn: Array, test: Subjects, level: float = 0.95
) -> tuple[float, float]:
    """A figure's interval; see the module.

    A share of images of which each person has one is binomial, and gets the exact interval. Else the draws'
    variance says how many independent images the figure is worth; few people cost some of them, by the t
    distribution. It is never narrower than that of as many independent images, and where nothing varies each
    person counts for one image (of a figure of both classes: each of the class that has fewer).

    Args:
        metric: of `METRICS`.
        value: 0 to 1.
        drawn: [draws] of `statistics_of`.
        test: who is on which image.
        level: that it covers.
    """
    images, people = test.counts(metric)
    if metric in SHARES and images == people:
        return beta_interval(value * images, images, level)
    worth = float(test.weakest(metric))
    known = drawn[np.isfinite(drawn)]
    variance = float(np.var(known, ddof=1)) if len(known) > 1 else 0.0
    if variance > _NOTHING:  # which it is where not all is right, and not all wrong
        tail = (1 + level) / 2
        few = float(ndtri(tail) / stdtrit(test.freedom(metric), tail)) ** 2
        worth = value * (1 - value) / variance * few
        if metric != "brier":  # a squared error varies less than a share does
            worth = min(worth, images)
    low, high = beta_interval(value * worth, worth, level)
    return min(low, value), max(high, value)


def share_of(
    values: Array, subjects: Sequence[str], resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, tuple[float, float]]:
    """The mean of what each image counts, `values` [N] 0 to 1, and its interval over people."""
    _, subject = np.unique(np.array(subjects, dtype=object), return_inverse=True)
    test = Subjects(subject.astype(np.int64), np.ones(len(values), bool))
    weights = test.draws(resamples, seed)
    drawn = (weights @ test.summed(values)) / (weights @ test.images())
    mean = float(values.mean())
    return mean, interval_of("accuracy", mean, drawn, test)


def with_trainings(
    ends: Sequence[float], values: Sequence[float], level: float = 0.95
) -> tuple[float, float] | None:
    """An interval that covers what another training would give as well; None for a single training.

    Args:
        ends: of the interval that resamples subjects, about the mean of `values`.
        values: the figure, by training.
        level: that both cover.
    """
    if len(values) < 2:
        return None
    mean = float(np.mean(values))
    spread = float(np.std(values, ddof=1)) / len(values) ** 0.5
    wide = float(stdtrit(len(values) - 1, (1 + level) / 2)) * spread
    low, high = ends
    return max(0.0, mean - float(np.hypot(mean - low, wide))), min(
        1.0, mean + float(np.hypot(high - mean, wide))
    )


def observed(trainings: Sequence[Predictions]) -> Mapping[str, float]:
    """Every metric of the test set as it is, the mean over the trainings; NaN where it is of nothing."""
    test = Subjects.of(trainings)
    return {
        name: float(found[0]) for name, found in statistics_of(trainings, np.ones((1, test.people))).items()
    }

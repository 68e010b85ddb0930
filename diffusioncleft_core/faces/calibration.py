"""The cosine from which two faces count as one person's, at a stated false-match rate.

Estimated from impostor pairs: pictures of different people. Pairs share people and are not independent, so
intervals resample people, and a pair counts as often as both its people were drawn (the subsets bootstrap of
Bolle, Ratha and Pankanti, CVIU 93, 2004). Where so few pairs lie beyond the threshold that they can't be
counted, a generalised Pareto distribution is fitted to the highest scores (Pickands, Ann Stat 3, 1975) by
probability-weighted moments (Hosking and Wallis, Technometrics 29, 1987); where they are fewer still, the
rate can't be stated, which is then said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..small_counts import is_small
from ..statistics import clustered_share

RATES = (1e-2, 1e-3, 1e-4, 1e-5)
"""False-match rates a pair that a calibration states."""
COUNTED, TAIL_FIT = "counted", "tail fit"
LEAST_MATCHES = 30
"""False matches from which they are counted (Doddington's rule of 30: NIST Speaker Recognition 1998)."""
LEAST_BEYOND = 0.3
"""False matches expected at the rate, below which a fitted tail is not believed either."""
LEAST_PEOPLE = 20
"""Fewer can't be resampled."""
TAIL = 0.02
"""Share of the pairs that the tail is fitted to, and that is kept at all."""
LEAST_IN_TAIL = 50
RESAMPLES = 400
_BINS = 4000
_ROWS = 512

Scores = NDArray[np.float64]
Places = NDArray[np.int64]


@dataclass(frozen=True)
class StatedThreshold:
    """A threshold and what is known of it.

    Attributes:
        rate: of false matches a pair, as stated.
        threshold: cosine; None where the rate can't be stated.
        ci95: of the threshold, over people.
        method: `counted` or `tail fit`; None where it can't be stated.
        rate_ci95: of the rate at this threshold, over people.
        n_pairs, n_people: impostor pairs, and the people in them.
        reason: why it can't be stated.
        true_match: share of pairs of one person at or above it: {"value", "ci95", "k", "n"}; None without.
    """

    rate: float
    threshold: float | None
    ci95: tuple[float, float] | None
    rate_ci95: tuple[float, float] | None
    method: str | None
    n_pairs: int
    n_people: int
    reason: str = ""
    true_match: Mapping[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Calibration:
    """The thresholds that a pack's `pack.json` brings along, of the recogniser with this SHA-256."""

    recogniser: str
    thresholds: tuple[StatedThreshold, ...]

    @classmethod
    def from_json(cls, value: Any, where: str) -> Calibration:
        """Read `calibration` of a pack.json. UserError where it is something else."""
        try:
            rows = [
                StatedThreshold(
                    float(row["rate"]),
                    float(row["threshold"]),
                    (float(row["ci95"][0]), float(row["ci95"][1])),
                    (float(row["rate_ci95"][0]), float(row["rate_ci95"][1])),
                    str(row["method"]),
                    int(row["n_pairs"]),
                    int(row["n_people"]),
                    true_match=dict(row["true_match"]) if row.get("true_match") else None,
                )
                for row in value["thresholds"]
            ]
            if not all(0 < row.rate < 1 and -1 <= (row.threshold or 0) <= 1 for row in rows):
                raise ValueError
            return cls(str(value["recogniser_sha256"]), tuple(rows))
        except (KeyError, TypeError, ValueError, IndexError):
            raise UserError(
                f"the calibration in {where} is damaged; make it again or remove it (docs/faces.md)"
            ) from None


@dataclass(frozen=True, eq=False, repr=False)
class ImpostorPairs:
    """The highest scores of pairs of different people, by falling score: `first` and `second` [P] number the
    people. `pictures` [people]: how many each has.
    """

    scores: Scores
    first: Places
    second: Places
    pictures: Places

    @property
    def n_people(self) -> int:
        return len(self.pictures)

    @property
    def n_pairs(self) -> int:
        return int(self.weighted_pairs(np.ones(self.n_people)))

    def weighted_pairs(self, weights: Scores) -> float:
        """How many pairs there are where each person counts `weights` [people] times."""
        drawn = weights * self.pictures
        return float((drawn.sum() ** 2 - np.square(drawn).sum()) / 2)


def impostor_pairs(embeddings: NDArray[np.float32], subjects: Sequence[str]) -> ImpostorPairs:
    """The highest 2 % of the cosines of pictures [N, 512] of different `subjects` [N].

    In two passes over blocks, so that memory does not grow with the number of pairs.
    """
    _, person = np.unique(np.array(subjects, object).astype(str), return_inverse=True)
    pictures = np.bincount(person) if len(person) else np.zeros(0, np.int64)
    pairs = ImpostorPairs(np.zeros(0), *(np.zeros(0, np.int64),) * 2, pictures)

    def blocks() -> Any:
        for start in range(0, len(person), _ROWS):
            cosines = embeddings[start : start + _ROWS] @ embeddings.T
            rows = np.arange(start, min(start + _ROWS, len(person)))
            later = rows[:, None] < np.arange(len(person))[None]
            yield rows, cosines, later & (person[rows][:, None] != person[None])

    counts = np.zeros(_BINS, np.int64)
    for _, cosines, other in blocks():
        counts += np.histogram(np.clip(cosines[other], -1, 1), _BINS, (-1, 1))[0]
    kept = max(LEAST_IN_TAIL, TAIL * counts.sum())
    above = np.cumsum(counts[::-1])[::-1]
    cut = -1 + 2 * max(0, int((above >= kept).sum()) - 1) / _BINS
    found: list[tuple[Scores, Places, Places]] = []
    for rows, cosines, other in blocks():
        first, second = np.nonzero(other & (cosines >= cut))
        found.append((cosines[first, second].astype(np.float64), person[rows[first]], person[second]))
    if not found:
        return pairs
    scores, one, two = (np.concatenate(part) for part in zip(*found, strict=True))
    order = np.argsort(-scores, kind="stable")
    return ImpostorPairs(scores[order], one[order], two[order], pictures)


def calibrate(
    embeddings: NDArray[np.float32], subjects: Sequence[str], rates: Sequence[float] = RATES, *, seed: int = 0
) -> list[StatedThreshold]:
    """The thresholds at these false-match rates a pair, from pictures [N, 512] of L2 norm 1.

    subjects: [N] who is on each picture. The same pictures give the true-match rate, where somebody has two.
    """
    if any(not 0 < rate <= TAIL / 2 for rate in rates):
        raise ValueError(f"rates of false matches are above 0 and at most {TAIL / 2:g}")
    pairs = impostor_pairs(embeddings, subjects)
    draws = _draws(pairs.n_people, seed)
    genuine = genuine_scores(embeddings, subjects)
    found = []
    for rate in rates:
        stated = _stated(pairs, rate, draws)
        if stated.threshold is not None and genuine:
            hits = np.array([(scores >= stated.threshold).sum() for scores in genuine], float)
            share = clustered_share(hits, np.array([len(scores) for scores in genuine], float))
            true_match = {"value": share.value, "ci95": list(share.ci95), "k": share.k, "n": share.n}
            stated = replace(stated, true_match=true_match)
        found.append(stated)
    return found


def genuine_scores(embeddings: NDArray[np.float32], subjects: Sequence[str]) -> list[Scores]:
    """Cosines of all pairs of one person's pictures, an array a person who has two or more."""
    places: dict[str, list[int]] = {}
    for place, name in enumerate(subjects):
        places.setdefault(name, []).append(place)
    found = []
    for own in places.values():
        if len(own) > 1:
            cosines = embeddings[own] @ embeddings[own].T
            found.append(cosines[np.triu_indices(len(own), 1)].astype(np.float64))
    return found


def _draws(people: int, seed: int) -> Scores:
    """How often each person counts in each resample [RESAMPLES, people]."""
    rng = np.random.default_rng(seed)
    if not people:
        return np.zeros((RESAMPLES, 0))
    return rng.multinomial(people, np.full(people, 1 / people), RESAMPLES).astype(np.float64)


def _stated(pairs: ImpostorPairs, rate: float, draws: Scores) -> StatedThreshold:
    expected, said = rate * pairs.n_pairs, f"1 in {1 / rate:,.0f}"
    method = COUNTED if expected >= LEAST_MATCHES else TAIL_FIT
    few = pairs.n_people < LEAST_PEOPLE
    short = method == TAIL_FIT and (expected < LEAST_BEYOND or len(pairs.scores) < LEAST_IN_TAIL)
    if few or short:
        seen = f"n = {pairs.n_pairs:,} pairs of {pairs.n_people:,} people"
        reason = f"can't be stated at {said} with {'too few people' if is_small(pairs.n_people) else seen}"
        return StatedThreshold(rate, None, None, None, None, pairs.n_pairs, pairs.n_people, reason)
    everybody = np.ones(pairs.n_people)
    if method == COUNTED:
        value = _threshold(pairs, rate, everybody)
        thresholds = [_threshold(pairs, rate, weights) for weights in draws]
        fitted = []
    else:
        fits = [fit for weights in draws if (fit := Tail.of(pairs, weights)) is not None]
        own = Tail.of(pairs, everybody)
        if own is None or len(fits) < RESAMPLES / 2:
            reason = f"can't be stated at {said}: the highest scores follow no tail that could be fitted"
            return StatedThreshold(rate, None, None, None, None, pairs.n_pairs, pairs.n_people, reason)
        value = min(1.0, own.threshold(rate))
        thresholds = [fit.threshold(rate) for fit in fits]
        fitted = [fit.rate(value) for fit in fits]
    counted = [_rate(pairs, value, weights) for weights in draws]
    low, high = np.quantile(thresholds, [0.025, 0.975])
    ends = (min(float(low), value), min(1.0, max(float(high), value)))
    # The scores may end before a fitted tail does: the lower end is what was counted.
    low, high = np.quantile(counted, 0.025), np.quantile(fitted or counted, 0.975)
    of_rate = (min(float(low), rate), max(float(high), rate))
    return StatedThreshold(rate, value, ends, of_rate, method, pairs.n_pairs, pairs.n_people)


def _rate(pairs: ImpostorPairs, threshold: float, weights: Scores) -> float:
    """Share of the weighted pairs at or above a threshold."""
    beyond = pairs.scores >= threshold
    return float((weights[pairs.first] * weights[pairs.second])[beyond].sum() / pairs.weighted_pairs(weights))


def _threshold(pairs: ImpostorPairs, rate: float, weights: Scores) -> float:
    """The lowest score at or above which no more than `rate` of the weighted pairs lie."""
    beyond = np.cumsum(weights[pairs.first] * weights[pairs.second])
    place = int(np.searchsorted(beyond, rate * pairs.weighted_pairs(weights), side="right"))
    return float(pairs.scores[min(max(place - 1, 0), len(pairs.scores) - 1)])


@dataclass(frozen=True)
class Tail:
    """A generalised Pareto distribution of what lies beyond the `lowest` kept score, `share` of all pairs."""

    lowest: float
    share: float
    shape: float
    scale: float

    @classmethod
    def of(cls, pairs: ImpostorPairs, weights: Scores) -> Tail | None:
        """Fitted where each person counts `weights` [people] times; None where there is none such."""
        lowest = float(pairs.scores[-1])
        weight = (weights[pairs.first] * weights[pairs.second])[::-1]
        excess, total = pairs.scores[::-1] - lowest, weight.sum()
        if not total:
            return None
        below = (np.cumsum(weight) - weight / 2) / total
        first = float(weight @ excess / total)
        second = float(weight @ (excess * (1 - below)) / total)
        if first <= 2 * second:  # the moments of no such distribution
            return None
        shape, scale = 2 - first / (first - 2 * second), 2 * first * second / (first - 2 * second)
        return cls(lowest, total / pairs.weighted_pairs(weights), shape, scale)

    def threshold(self, rate: float) -> float:
        """The score beyond which `rate` of all pairs lie."""
        from scipy.stats import genpareto  # a second, which no command owes that states no threshold

        beyond = genpareto.isf(min(1.0, rate / self.share), self.shape, scale=self.scale)
        return self.lowest + float(beyond)

    def rate(self, threshold: float) -> float:
        """Share of all pairs beyond `threshold`."""
        from scipy.stats import genpareto

        return self.share * float(genpareto.sf(threshold - self.lowest, self.shape, scale=self.scale))

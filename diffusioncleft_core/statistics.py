"""Proportions with honest intervals, and what is left of them after the oracle's own errors."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, ndtr, ndtri, stdtrit


@dataclass(frozen=True)
class Proportion:
    """k of n with a 95 % interval; a share of nothing is None."""

    value: float | None
    ci95: tuple[float, float]
    k: int
    n: int

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def clopper_pearson(k: int, n: int, level: float = 0.95) -> Proportion:
    """Exact binomial interval (Clopper & Pearson, Biometrika 26, 1934), by the beta distribution."""
    if n == 0:
        return Proportion(None, (0.0, 1.0), 0, 0)
    return Proportion(k / n, beta_interval(k, n, level), k, n)


def beta_interval(k: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """The ends of Clopper and Pearson's interval, also for `k` of an effective `n` that are no whole numbers.

    Such an `n` is what a share of dependent images is worth in independent ones (Korn & Graubard, Survey
    Methodology 24, 1998).
    """
    tail = (1 - level) / 2
    low = 0.0 if k <= 0 else float(betaincinv(k, n - k + 1, tail))
    high = 1.0 if k >= n else float(betaincinv(k + 1, n - k, 1 - tail))
    return low, high


def clustered_share(
    hits: NDArray[np.float64],
    trials: NDArray[np.float64],
    level: float = 0.95,
    *,
    worth: float = 1.0,
) -> Proportion:
    """A share of trials that come in clusters, such as a person's pictures, with the clusters independent.

    Clopper and Pearson's interval for the number of independent trials that would vary as much, by the ratio
    estimator's variance over clusters, and fewer of them where clusters are few (Korn & Graubard, Survey
    Methodology 24, 1998). It is never narrower than that of as many independent trials.

    Args:
        hits, trials: [C] of each cluster.
        level: of the interval.
        worth: what a trial counts for, 0 to 1: half, where each success makes one in another cluster too.
    """
    n = float(trials.sum())
    if not n:
        return Proportion(None, (0.0, 1.0), 0, 0)
    clusters = int((trials > 0).sum())
    value = float(hits.sum()) / n
    independent = float(clusters)  # where nothing varies
    if clusters > 1 and (spread := float(np.square(hits - value * trials).sum())) > 1e-12:
        varies = clusters / (clusters - 1) * spread / n**2
        few = float((stdtrit(max(1.0, n - 1), (1 + level) / 2) / stdtrit(clusters - 1, (1 + level) / 2)) ** 2)
        independent = min(n, value * (1 - value) / varies * few)
    independent *= worth
    ends = beta_interval(value * independent, independent, level)
    return Proportion(value, ends, round(float(hits.sum())), round(n))


def difference_interval(
    first: float, first_ci95: Sequence[float], second: float, second_ci95: Sequence[float]
) -> tuple[float, float]:
    """The interval of `first` - `second` from both intervals, by the method of variance estimates recovery.

    Zou & Donner (Stat Med 27, 2008), eq. 4 and 5, for independent estimates; too wide where they vary
    together, as over the same photographs.
    """
    value = first - second
    low = math.hypot(first - first_ci95[0], second_ci95[1] - second)
    high = math.hypot(first_ci95[1] - first, second - second_ci95[0])
    return value - low, value + high


def chance_of(value: float, ci95: Sequence[float]) -> float:
    """About how likely chance alone brings up a difference as large as `value`: 0.05 where its interval at
    95 % ends at 0, by the normal distribution.
    """
    end = ci95[0] if value > 0 else ci95[1]
    reach = abs(value - end)
    if not value:
        return 1.0
    return float(2 * ndtr(-1.959964 * abs(value) / reach)) if reach else 0.0


def beyond_chance(chances: Sequence[float], level: float = 0.05) -> list[bool]:
    """Which of several differences are beyond chance together (Holm, Scand J Stat 6, 1979)."""
    order = sorted(range(len(chances)), key=lambda place: chances[place])
    found = [False] * len(chances)
    for step, place in enumerate(order):
        if chances[place] > level / (len(chances) - step):
            break
        found[place] = True
    return found


def residual(attack: Proportion, control: Proportion) -> Proportion:
    """How much more often an attack succeeds than its control: (attack - control) / (1 - control).

    The residual risk of Giomi et al. (Anonymeter, PoPETs 2023, eq. 3), 0 where the control succeeds as often.
    An attack succeeds by chance as well, so a control that was seen to succeed more often is taken for as
    often: what is subtracted too much would hide leaks. The interval puts those of both shares together
    without taking them for normal: by the method of variance estimates recovery (Zou & Donner, Stat Med 27,
    2008), with the same derivatives as Anonymeter.
    """
    if attack.value is None or control.value is None or min(attack.value, control.value) >= 1:
        return Proportion(None, (0.0, 1.0), attack.k, attack.n)
    chance = min(control.value, attack.value)
    ends = (max(control.ci95[1], chance), min(control.ci95[0], chance))
    left = 1 - chance
    value = (attack.value - chance) / left
    low, high = (
        float(np.hypot((a - attack.value) / left, (c - chance) * (1 - attack.value) / left**2))
        for a, c in zip(attack.ci95, ends, strict=True)
    )
    return Proportion(value, (max(0.0, value - low), min(1.0, value + high)), attack.k, attack.n)


@dataclass(frozen=True)
class DiagnosticAccuracy:
    """How often a test is right, as counted: `hits` of `positives`, `rejections` of `negatives`."""

    hits: int
    positives: int
    rejections: int
    negatives: int

    @property
    def sensitivity(self) -> float:
        return self.hits / self.positives

    @property
    def specificity(self) -> float:
        return self.rejections / self.negatives


def corrected(k: int, n: int, accuracy: DiagnosticAccuracy, level: float = 0.95) -> Proportion:
    """The true share behind k of n readings of a test with known errors.

    Value: Rogan & Gladen (Am J Epidemiol 107, 1978), clipped to [0, 1]. Interval: Lang & Reiczigel (Prev Vet
    Med 113, 2014), which carries the uncertainty of sensitivity and specificity along.

    Raises:
        ValueError: the test is no better than chance.
    """
    if n == 0:
        return Proportion(None, (0.0, 1.0), 0, 0)
    power = accuracy.sensitivity + accuracy.specificity - 1
    if power <= 0:
        raise ValueError("a test no better than chance cannot be corrected for")
    value = float(np.clip((k / n + accuracy.specificity - 1) / power, 0, 1))
    z = float(ndtri(1 - (1 - level) / 2))
    n_adj = n + z * z
    p = (k + z * z / 2) / n_adj
    se = (accuracy.hits + 1) / (accuracy.positives + 2)
    sp = (accuracy.rejections + 1) / (accuracy.negatives + 2)
    youden = se + sp - 1
    share = (p + sp - 1) / youden
    var_se = se * (1 - se) / (accuracy.positives + 2)
    var_sp = sp * (1 - sp) / (accuracy.negatives + 2)
    shift = 2 * z * z * (share * var_se - (1 - share) * var_sp)
    spread = z / youden * float(np.sqrt(p * (1 - p) / n_adj + share**2 * var_se + (1 - share) ** 2 * var_sp))
    low, high = np.clip([share + shift - spread, share + shift + spread], 0, 1)
    return Proportion(value, (min(float(low), value), max(float(high), value)), k, n)

"""Proportions with honest intervals, and what is left of them after the oracle's own errors."""

from dataclasses import asdict, dataclass

import numpy as np
from scipy.stats import beta, norm


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
    low = 0.0 if k <= 0 else float(beta.ppf(tail, k, n - k + 1))
    high = 1.0 if k >= n else float(beta.ppf(1 - tail, k + 1, n - k))
    return low, high


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
    z = float(norm.ppf(1 - (1 - level) / 2))
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

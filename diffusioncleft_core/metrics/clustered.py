"""Shares of pairs with an interval that respects that pairs share images and people.

An image that is like one training photograph is often like several, and so is a person that many images are
like: an interval that takes pairs as independent covers far less than it says. Images and people are both
resampled, and a pair counts as often as both were drawn: the pigeonhole bootstrap (Owen, Ann Appl Stat 1,
2007). Its variance says how many independent pairs the share is worth, of which Clopper and Pearson's
interval is taken; where no pair matches, each image counts once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from ..statistics import Proportion, beta_interval

RESAMPLES = 500
_CELLS = 1 << 22
"""Numbers held at once while resampling."""


def clustered_pairs(
    image: NDArray[np.int64],
    photograph: NDArray[np.int64],
    images: int,
    subjects: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Proportion:
    """Share of the pairs of generated images and training photographs that match.

    Args:
        image, photograph: [k] the two places of every pair that matches.
        images: how many generated images there are.
        subjects: [N] who is on each training photograph: people are drawn, not photographs.
        resamples, seed: of the bootstrap.
    """
    n = images * len(subjects)
    if not n:
        return Proportion(None, (0.0, 1.0), 0, 0)
    k = len(image)
    value = k / n
    if not 0 < k < n:
        return Proportion(value, beta_interval(value * images, images), k, n)
    _, person = np.unique(np.array(subjects, object).astype(str), return_inverse=True)
    pictures = np.bincount(person).astype(np.float64)
    matched = person[photograph]
    rng = np.random.default_rng(seed)
    people = len(pictures)
    shares = []
    step = max(1, _CELLS // max(k, images, people))
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        by_image = rng.multinomial(images, np.full(images, 1 / images), count)
        by_person = rng.multinomial(people, np.full(people, 1 / people), count)
        found = (by_image[:, image] * by_person[:, matched]).sum(axis=1)
        shares.append(found / (images * (by_person @ pictures)))
    varies = float(np.var(np.concatenate(shares), ddof=1))
    clusters = min(len(np.unique(image)), len(np.unique(matched)))
    few = 1.0 if clusters < 2 else float((stdtrit(n, 0.975) / stdtrit(max(2, clusters - 1), 0.975)) ** 2)
    worth = float(np.clip(value * (1 - value) / varies * few, min(images, 1 / value), n)) if varies else n
    return Proportion(value, beta_interval(value * worth, worth), k, n)

"""How near a generated face lies to its nearest training face, by the distances round about.

A copy lies much nearer to its original than that lies to anybody else. Two figures say so without any
threshold: the distance to the nearest training face by that to the nearest one of another person (the
nearest-neighbour distance ratio of Lowe, IJCV 60, 2004, as the privacy audits of synthetic data use it), and
authenticity: whether an image is farther from its nearest photograph than that is from the next one (Alaa et
al., ICML 2022, section 3.3; as dgm-eval computes it).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from ..small_counts import FEWEST
from ..statistics import clopper_pearson
from .fir import share_as_json
from .gallery import People
from .pairs import by_person, whole_rows

Array = NDArray[np.floating[Any]]
LOW = 0.05
"""The quantile of the ratios that is told: copies are rare, and the middle does not show them."""
RATIO = (
    "Ratio that a twentieth of the images lie below, beside that of other people's photographs (control): "
    "lower means nearer to one person than to the next."
)
AUTHENTIC = (
    "Share of images that are farther from their nearest training face than that is from the next one; "
    "copies are not."
)
_ROWS = 1024


def authentic(generated: Array, train: Array) -> NDArray[np.bool_]:
    """[M]: whether each of `generated` [M, D] is authentic beside `train` [N, D], Euclidean, N at least 2.

    In blocks of rows; equal to the plain computation over all distances.
    """
    own = np.full(len(train), np.inf)
    for start in range(0, len(train), _ROWS):
        distances = _squared(train[start : start + _ROWS], train)
        rows = np.arange(len(distances))
        distances[rows, start + rows] = np.inf
        own[start : start + _ROWS] = distances.min(axis=1)
    found = np.zeros(len(generated), bool)
    for start in range(0, len(generated), _ROWS):
        distances = _squared(generated[start : start + _ROWS], train)
        nearest = distances.argmin(axis=1)
        found[start : start + _ROWS] = own[nearest] < distances[np.arange(len(distances)), nearest]
    return found


def _squared(one: Array, other: Array) -> NDArray[np.float64]:
    """Squared Euclidean distances [n, m]."""
    first, second = one.astype(np.float64), other.astype(np.float64)
    squares = np.square(first).sum(axis=1)[:, None] + np.square(second).sum(axis=1)[None]
    return np.asarray(np.maximum(squares - 2 * first @ second.T, 0))


def distance_ratios(
    probes: Array, train: Array, subjects: Sequence[str], own: Sequence[str] | None = None
) -> NDArray[np.float64]:
    """[M]: distance of each probe [M, 512] to the nearest person by that to the next, 0 to 1.

    train: faces [N, 512] of L2 norm 1 of `subjects` [N], of at least two people beside a probe's own. own:
    [M] who is on each probe, who does not count; None for generated images.
    """
    names, person = np.unique(np.array(subjects, object).astype(str), return_inverse=True)
    who = None if own is None else np.array(own, object).astype(str)
    ratios = np.zeros(len(probes))
    for start, cosines in whole_rows(probes, train):
        nearest = by_person(cosines, person).astype(np.float64)
        here = slice(start, start + len(nearest))
        if who is not None:
            nearest[who[here, None] == names[None]] = -1
        first, second = (-np.partition(-nearest, 1, axis=1)[:, :2]).T
        ratios[here] = np.sqrt(np.maximum(1 - first, 0) / np.maximum(1 - second, 1e-12))
    return ratios


def low_quantile(values: NDArray[np.float64]) -> tuple[float, list[float]]:
    """The lower twentieth of `values` [n] and its exact interval, by order statistics."""
    ordered, n = np.sort(values), len(values)
    low, high = (int(binom.ppf(tail, n, LOW)) for tail in (0.025, 0.975))
    ends = [0.0 if low < 1 else float(ordered[low - 1]), float(ordered[min(high, n - 1)])]
    return float(np.quantile(ordered, LOW)), ends


def nearest_figures(
    generated: Array, train: People, holdout: People, shared: dict[str, Any]
) -> dict[str, Any]:
    """`distance_ratio` and `authenticity` of a raw set, each with its control; without the first where it is
    not known who is on the photographs, and without both where there are too few.
    """
    if min(len(generated), len(train)) < FEWEST:
        return {}
    is_own = authentic(generated, train.faces)
    authenticity = share_as_json(clopper_pearson(int(is_own.sum()), len(is_own))) | shared
    authenticity |= {"note": AUTHENTIC, "control": None}
    if len(holdout) >= FEWEST:
        outside = authentic(holdout.faces, train.faces)
        authenticity["control"] = share_as_json(clopper_pearson(int(outside.sum()), len(outside)))
    if train.n_people < FEWEST:
        return {"authenticity": authenticity}
    value, ends = low_quantile(distance_ratios(generated, train.faces, train.subjects))
    own = train.in_fives()
    others = distance_ratios(own.faces, train.faces, train.subjects, own.subjects)
    control, control_ends = low_quantile(others)
    ratio = {"value": value, "ci95": ends, "n": len(generated), **shared, "note": RATIO}
    ratio["control"] = {"value": control, "ci95": control_ends, "n": len(own)}
    return {"distance_ratio": ratio, "authenticity": authenticity}

"""Figures of a classifier on a test set: each with an interval over people, and the spread over trainings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..small_counts import FEWEST, is_small, told_parts
from .predictions import Predictions
from .resampling import (
    METRICS,
    RESAMPLES,
    Subjects,
    interval_of,
    observed,
    share_of,
    statistics_of,
    with_trainings,
)

LEAST_TRAININGS = 5
"""Trainings from which a spread over seeds is worth reading."""
HEADLINE = "balanced_accuracy"
BINS = 10
"""Of the reliability table, of equal width."""
UNKNOWN = "unknown"
"""Stands for images whose group is not known."""
UNTOLD = f"Not told: it would be of fewer than {FEWEST} people, or show such a number."

Figure = dict[str, Any]
"""`value`, `ci95` (resamples people), `n` images, `n_subjects`; over several trainings `value` is their mean.
`sd_trainings` is their spread and `ci95_trainings` the interval that covers both; None for one training."""


def figures(
    trainings: Sequence[Predictions],
    *,
    photographs: bool,
    metrics: Sequence[str] = METRICS,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Figure]:
    """Every figure of a classifier.

    Args:
        trainings: predictions of the same images, one a training.
        photographs: whether people are on the images: then what would be of 1 to 4 of them is not told.
        metrics: of `METRICS`.
        resamples, seed: of the bootstrap over subjects.
        level: that the intervals cover; their name stays `ci95`.

    Returns:
        By metric. A figure of no image has no value.

    Raises:
        ValueError: there are no predictions, or they are of different images.
    """
    test = Subjects.of(trainings)
    if photographs and small_class(test):
        return {name: untold() for name in metrics}
    values = observed(trainings)
    each = [observed([training]) for training in trainings]
    drawn = statistics_of(trainings, test.draws(resamples, seed)) if test.people else {}
    found = {}
    for name in metrics:
        images, people = test.counts(name)
        figure: Figure = {"value": None, "ci95": None, "n": images, "n_subjects": people}
        figure |= {"sd_trainings": None, "ci95_trainings": None}
        if np.isfinite(values[name]):
            ends = interval_of(name, values[name], drawn[name], test, level)
            single = [training[name] for training in each]
            figure |= {"value": values[name], "ci95": list(ends)}
            wide = with_trainings(ends, single, level)
            if wide is not None:
                figure |= {"sd_trainings": float(np.std(single, ddof=1)), "ci95_trainings": list(wide)}
        found[name] = figure
    return found


def untold() -> Figure:
    """What stands for a figure of too few people."""
    return {
        **dict.fromkeys(("value", "ci95", "n", "n_subjects", "sd_trainings", "ci95_trainings")),
        "note": UNTOLD,
    }


def class_people(test: Subjects) -> dict[str, int]:
    """People with positive images, and with negative ones."""
    return {name: test.counts(name)[1] for name in ("sensitivity", "specificity")}


def small_class(test: Subjects) -> bool:
    """Whether a class has 1 to 4 people: then no figure of photographs is told."""
    return any(map(is_small, class_people(test).values()))


def by_group(
    trainings: Sequence[Predictions],
    name: str,
    *,
    photographs: bool,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, dict[str, Figure]]:
    """The figures of each group of one kind, such as `skin_tone`, by the group's name.

    Of photographs a group is untold where it has 1 to 4 people, all in all or of one class; so is another
    one where the untold ones would else follow from the whole.

    Raises:
        ValueError: as `figures`.
        KeyError: the predictions have no such kind of group.
    """
    Subjects.of(trainings)  # the same images, or an error
    labels = np.array([UNKNOWN if group is None else group for group in trainings[0].groups[name]], object)
    members = {str(group): labels == group for group in sorted(set(labels.tolist()))}
    hidden = hidden_groups(trainings[0], members) if photographs else set()
    return {
        group: dict.fromkeys(METRICS, untold())
        if group in hidden
        else figures(
            [training.where(chosen) for training in trainings],
            photographs=photographs,
            resamples=resamples,
            seed=seed,
        )
        for group, chosen in members.items()
    }


def hidden_groups(training: Predictions, members: Mapping[str, npt.NDArray[np.bool_]]) -> set[str]:
    """Groups of which too few people are in one class or both."""
    parts = {group: Subjects.of([training.where(chosen)]) for group, chosen in members.items()}
    counts = [
        {group: part.people for group, part in parts.items()},
        *(
            {g: class_people(part)[name] for g, part in parts.items()}
            for name in ("sensitivity", "specificity")
        ),
    ]
    return {group for count in counts for group, n in told_parts(count).items() if n is None}


def spread(trainings: Sequence[Predictions], metric: str = HEADLINE) -> dict[str, Any]:
    """How far trainings with other seeds lie apart on the same images, whatever the images' own chance.

    Returns:
        `n` trainings, `metric`, `mean`, `sd` (None for one), `low`, `high`.
    """
    values = [found for training in trainings if np.isfinite(found := observed([training])[metric])]
    return {
        "n": len(trainings),
        "metric": metric,
        "mean": float(np.mean(values)) if values else None,
        "sd": float(np.std(values, ddof=1)) if len(values) > 1 else None,
        "low": min(values, default=None),
        "high": max(values, default=None),
    }


def reliability(
    trainings: Sequence[Predictions], *, photographs: bool, resamples: int = RESAMPLES, seed: int = 0
) -> list[dict[str, Any]]:
    """How often images with a score are positive, in bins of equal width that have any; all trainings pooled.

    Returns:
        Of each bin `from`, `to`, `n` scores, `n_subjects`, `score` (mean) and the share `value` of positive
        ones with `ci95`; of photographs all but the bounds are None for fewer than 5 people, and in all bins
        where a class has 1 to 4.
    """
    few = photographs and small_class(Subjects.of(trainings))
    pooled = Predictions(
        np.concatenate([training.labels for training in trainings]),
        np.concatenate([training.scores for training in trainings]),
        tuple(subject for training in trainings for subject in training.subjects),
    )
    place = np.minimum((pooled.scores * BINS).astype(int), BINS - 1)
    parts = {str(i): pooled.where(place == i) for i in range(BINS) if (place == i).any()}
    people = {name: part.n_subjects for name, part in parts.items()}
    seen = told_parts(people) if photographs else people
    table = []
    for name, part in parts.items():
        row: dict[str, Any] = {"from": int(name) / BINS, "to": (int(name) + 1) / BINS}
        if few or seen[name] is None:
            table.append(row | dict.fromkeys(("n", "n_subjects", "score", "value", "ci95")))
            continue
        value, ends = share_of(part.labels.astype(np.float64), part.subjects, resamples, seed)
        table.append(
            row
            | {
                "n": len(part),
                "n_subjects": part.n_subjects,
                "score": float(part.scores.mean()),
                "value": value,
                "ci95": list(ends),
            }
        )
    return table

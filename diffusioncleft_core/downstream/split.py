"""Splits that keep each person on one side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..environment import check_packages
from ..errors import UserError


def person_folds(
    people: Sequence[str], labels: NDArray[np.int64], folds: int, seed: int
) -> NDArray[np.int64]:
    """[N] number of the fold of each picture: a person's pictures share one, classes are spread evenly.

    There are fewer folds where a class has fewer people.

    Args:
        people: [N] label of the person; one may have pictures of both classes.
        labels: [N] 1 or 0.
        folds: how many.
        seed: of the people's order.

    Raises:
        UserError: a class has fewer than two people, or is not there at all.
    """
    check_packages(["sklearn"])
    from sklearn.model_selection import StratifiedGroupKFold

    groups = np.unique(np.asarray(people), return_inverse=True)[1]
    for label, name in ((1, "positive"), (0, "negative")):
        n = len(set(groups[labels == label].tolist()))
        folds = min(folds, n)
        if n < 2:
            raise UserError(
                f"the {name} class has {'no image' if not n else 'images of one person alone'}; "
                "it takes two people or more, so that one can be kept apart"
            )
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed % 2**32)
    numbers = np.zeros(len(labels), np.int64)
    for number, (_, test) in enumerate(splitter.split(groups, labels, groups)):
        numbers[test] = number
    return numbers


def validation_split(
    people: Sequence[str], labels: NDArray[np.int64], share: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places of the training and of the validation part: about `share` of each class, by person.

    Raises:
        UserError: as `person_folds`, or the people can't be divided so that both parts have both classes.
    """
    numbers = person_folds(people, labels, max(2, round(1 / share)), seed)
    for number in range(int(numbers.max()) + 1):
        inside = numbers == number
        if all(len(set(labels[part].tolist())) == 2 for part in (inside, ~inside)):
            return np.flatnonzero(~inside), np.flatnonzero(inside)
    raise UserError(
        "the people of both classes can't be divided into a training and a validation part; "
        "it takes more people, or subject labels that tell them apart"
    )

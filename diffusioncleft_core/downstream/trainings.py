"""Which trainings a task takes: what each learns from, what it sees, and whom it is tested on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..errors import UserError
from .crops import Crops, View, joined
from .document import check_name
from .held_out import HeldOut
from .split import person_folds
from .task import CONTROLS, Control, Task

SOURCE = "generated"
"""The source that the controls are of."""
VIEWS: Mapping[str, View] = {
    "lip_masked": View.LIP_MASKED,
    "lip_alone": View.LIP_ALONE,
    "background": View.BACKGROUND,
}


def check_foreign(names: Sequence[str]) -> None:
    """Raise UserError for sources of others whose figures would stand under another one's name."""
    for place, name in enumerate(names):
        check_name(name, "a foreign source")
        if name == SOURCE or name in CONTROLS:
            raise UserError(
                f"a foreign source can't be called {name}, which is a training of its own; rename it"
            )
        if name in names[:place]:
            raise UserError(f"two foreign sources are called {name}; give each a name of its own")


@dataclass(frozen=True, eq=False, repr=False)
class Material:
    """What the trainings of a task learn from and are tested on.

    Attributes:
        positive, negative: what the first source learns from.
        test: the test set.
        base_negative: faces of the base model, in place of real negatives.
        base: faces of the base model as both classes.
        photographs: labelled, of people who are not in the test set; the line to beat learns from them too.
        foreign: positive and negative crops of other sources, by name.
    """

    positive: Crops
    negative: Crops
    test: HeldOut
    base_negative: Crops | None = None
    base: Crops | None = None
    photographs: Crops | None = None
    foreign: Mapping[str, tuple[Crops, Crops]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_foreign(list(self.foreign))


@dataclass(frozen=True, eq=False, repr=False)
class Fold:
    """One training: two classes to learn from, and those of the test images that it is tried on."""

    positive: Crops
    negative: Crops
    test: Crops


@dataclass(frozen=True)
class Plan:
    """The trainings behind one figure: a source, a control or a point of the learning curve.

    Attributes:
        name: of the source or the control.
        folds: of a seed; one, or those of a cross-validation.
        view: what of the pictures is seen, in training and in the test.
        images: of each class, for a point of the learning curve.
    """

    name: str
    folds: Callable[[int], Sequence[Fold]]
    view: View = View.WHOLE
    images: int | None = None


def planned(task: Task, material: Material, folds: int) -> Iterator[Plan]:
    """Every training of a task for which there is material, in the order of their worth.

    folds: of the cross-validation on photographs.
    """
    positive, negative = material.positive, material.negative
    yield Plan(SOURCE, _once(positive, negative, material.test.crops))
    for control in task.controls:
        plan = _of_control(control, material, folds)
        if plan is not None:
            yield plan
    for name, (foreign_positive, foreign_negative) in material.foreign.items():
        yield Plan(name, _once(foreign_positive, foreign_negative, material.test.crops))
    most = min(len(positive), len(negative))
    for n in task.curve:
        if n < most:
            yield Plan(SOURCE, _some(positive, negative, n, material.test.crops), images=n)


def _of_control(control: Control, material: Material, folds: int) -> Plan | None:
    positive, negative, test = material.positive, material.negative, material.test.crops
    name = control.name
    if name in VIEWS:
        return Plan(name, _once(positive, negative, test), VIEWS[name])
    if name == "generated_negatives" and material.base_negative is not None:
        return Plan(name, _once(positive, material.base_negative, test))
    if name == "shuffled_labels":
        return Plan(name, lambda seed: [Fold(*shuffled(positive, negative, seed), test)])
    if name == "base_as_both" and (base := material.base) is not None:
        return Plan(name, lambda seed: [Fold(*halves(base, seed), test)])
    if name == "real":
        return Plan(name, lambda seed: crossed(material, folds, seed))
    if name == "real_and_generated":
        more = joined([positive.labelled(1), negative.labelled(0)])
        return Plan(name, lambda seed: crossed(material, folds, seed, more))
    return None


def _once(positive: Crops, negative: Crops, test: Crops) -> Callable[[int], Sequence[Fold]]:
    return lambda seed: [Fold(positive, negative, test)]


def _some(positive: Crops, negative: Crops, n: int, test: Crops) -> Callable[[int], Sequence[Fold]]:
    """The first n of each class in an order of the seed: a longer point of the curve holds a shorter one."""

    def chosen(seed: int) -> Sequence[Fold]:
        parts = [
            crops.where(np.random.default_rng([seed, label]).permutation(len(crops))[:n])
            for label, crops in enumerate((negative, positive))
        ]
        return [Fold(parts[1], parts[0], test)]

    return chosen


def shuffled(positive: Crops, negative: Crops, seed: int) -> tuple[Crops, Crops]:
    """Both classes with the labels dealt out anew: as many of each, without any meaning."""
    crops = joined([positive, negative])
    order = np.random.default_rng([seed, 3]).permutation(len(crops))
    return crops.where(order[: len(positive)]), crops.where(order[len(positive) :])


def halves(crops: Crops, seed: int) -> tuple[Crops, Crops]:
    """Two halves by person, so that nobody is in both."""
    people = np.asarray(crops.people)
    names = np.unique(people)
    first = np.random.default_rng([seed, 4]).permutation(names)[: len(names) // 2]
    inside = np.isin(people, first)
    return crops.where(inside), crops.where(~inside)


def crossed(material: Material, folds: int, seed: int, more: Crops | None = None) -> list[Fold]:
    """The folds of a cross-validation over the people of the test set.

    Each learns from the photographs at hand, and from the test photographs of all other folds. Who is who is
    decided once for all folds: a fold's own faces may be too few to tell its people apart.

    Args:
        folds: how many, fewer where there are not as many people.
        seed: of the people's order.
        more: generated images, which every fold learns from too.
    """
    test = material.test.crops
    at_hand = [] if material.photographs is None else [material.photographs]
    photographs = joined([test, *at_hand])
    people = np.asarray(photographs.people)
    photographs = replace(photographs, subjects=photographs.people)
    tested = replace(test, subjects=test.people)
    numbers = person_folds(photographs.people[: len(test)], test.labels, folds, seed)
    found = []
    for number in range(int(numbers.max()) + 1):
        tried = numbers == number
        learned = photographs.where(~np.isin(people, people[: len(test)][tried]))
        learned = learned if more is None else joined([learned, more])
        found.append(
            Fold(learned.where(learned.labels == 1), learned.where(learned.labels == 0), tested.where(tried))
        )
    return found

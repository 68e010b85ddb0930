"""The leak audit of a set: how often its faces are a training photograph's, and how often others' are.

A recogniser takes strangers for one another now and then, so a count of matches means nothing alone. Every
attack here has a control in which there is nothing to find, with as many people to be found among:

    photographs    hold-out photographs, and training photographs against those of other people
    holdout        hold-out photographs alone
    control_faces  other faces (--control)
    unseen         the generated images against hold-out photographs, which the model has not seen
    calibration    what the pack's own calibration, of very many pairs, lets expect by chance

What the attack finds beyond its control is the residual risk, as Anonymeter has it (Giomi et al., PoPETs
2023).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from ..small_counts import FEWEST
from ..statistics import Proportion, clopper_pearson, clustered_share, residual
from .clustered import clustered_pairs
from .fir import BY_CONSTRUCTION, NO_FACE, share_as_json
from .gallery import Gallery, People
from .nearest import nearest_figures
from .pairs import by_person, pairs_at_least, whole_rows
from .threshold import AuditThreshold

Array = NDArray[np.float32]
Marks = NDArray[np.bool_]
NO_CONTROL = "There is no control: it takes five photographs of other people, held out or of other subjects."
ONE_FEWER = (
    "Hold-out photographs, and training photographs against those of all other people, which are one fewer."
)
UNSEEN = (
    "Generated images against hold-out photographs, and against as many people of the training photographs."
)


@dataclass(frozen=True, eq=False, repr=False)
class Matched:
    """How many of so many `people` each probe matches; counts: [M]."""

    counts: NDArray[np.int64]
    people: int

    @classmethod
    def of(cls, marks: Marks) -> Matched:
        """From marks [M, people]."""
        return cls(marks.sum(axis=1, dtype=np.int64), marks.shape[1])

    @property
    def anybody(self) -> Marks:
        """[M]: whether each probe matches anybody."""
        return np.asarray(self.counts > 0, bool)


def matches(probes: Array, people: People, threshold: float) -> Matched:
    """How many of `people` each probe [M, 512] matches a photograph of, by blocks of rows."""
    counts = np.zeros(len(probes), np.int64)
    if len(people):
        for start, cosines in whole_rows(probes, people.faces):
            found = by_person(cosines, people.numbers) >= threshold
            counts[start : start + len(found)] = found.sum(axis=1)
    return Matched(counts, people.n_people)


def among(matched: NDArray[np.int64], people: int, drawn: int) -> NDArray[np.float64]:
    """Chance that one of `matched` [M] people of `people` is among `drawn` of them, drawn at random.

    Exact, by the hypergeometric distribution: it brings galleries of unequal size to one size.
    """
    if drawn >= people:
        return (matched > 0).astype(np.float64)
    left = people - np.asarray(matched, np.float64)
    none = np.zeros(len(left))
    can = left >= drawn

    def log_choices(n: Any, k: Any) -> Any:
        return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)

    none[can] = np.exp(log_choices(left[can], drawn) - log_choices(people, drawn))
    return 1 - none


@dataclass(frozen=True)
class Control:
    """A control's share, and the attack's with as many people to be found among."""

    share: Proportion
    attack: Proportion
    note: str = ""


@dataclass(frozen=True, eq=False, repr=False)
class Matches:
    """Who matched whom at a threshold: all that the audit counts.

    Attributes:
        generated: each image and the people of the training photographs.
        unseen: each image and the people of the hold-out.
        train: [n] training photographs, a multiple of five of them, and any other person's.
        holdout: [h] hold-out photographs and any training photograph.
        control: [c] control faces and any training photograph.
        train_people, holdout_people: who is on each of `train` and `holdout`.
    """

    generated: Matched
    unseen: Matched
    train: Marks
    holdout: Marks
    control: Marks
    train_people: Sequence[str]
    holdout_people: Sequence[str]

    @classmethod
    def of(cls, generated: Array, gallery: Gallery, threshold: float) -> Matches:
        """Compare the faces [M, 512] of a set, and every control's, with the training photographs."""
        train, holdout, control = gallery.train, gallery.holdout, gallery.control
        own = train.in_fives() if train.n_people > 1 else People.nobody()
        others = np.zeros(len(own), bool)
        numbers = train.numbers
        for start, cosines in whole_rows(own.faces, train.faces):
            here = slice(start, start + len(cosines))
            cosines[numbers[here, None] == numbers[None]] = -1
            others[here] = cosines.max(axis=1) >= threshold
        none = np.zeros(0, bool)
        return cls(
            generated=matches(generated, train, threshold),
            unseen=matches(generated, holdout, threshold),
            train=others,
            holdout=matches(holdout.faces, train, threshold).anybody if len(holdout) else none,
            control=matches(control.faces, train, threshold).anybody if control else none,
            train_people=own.subjects,
            holdout_people=holdout.subjects,
        )

    @property
    def attack(self) -> Proportion:
        """Share of the images that match a training photograph."""
        return clopper_pearson(int(self.generated.anybody.sum()), len(self.generated.counts))

    def other_people(self) -> Proportion:
        """How often photographs match one of another person: hold-out against training, and training against
        the training photographs of others.

        A match of two training photographs counts twice, once from each side, so they are worth half.
        """
        held = len(self.holdout) // FEWEST * FEWEST
        hits = np.concatenate([self.train, self.holdout[:held]]).astype(np.float64)
        who = [*self.train_people, *(f"held out {name}" for name in self.holdout_people[:held])]
        if not len(hits):
            return clopper_pearson(0, 0)
        return _by_person(hits, who, (len(self.train) / 2 + held) / len(hits))

    def controls(self) -> dict[str, Control]:
        """Every control that was measured, by name; see the module."""
        if not len(self.generated.counts) or not self.generated.people:
            return {}
        attack, found = self.attack, {}
        photographs = self.other_people()
        if photographs.n:
            found["photographs"] = Control(photographs, attack, ONE_FEWER)
        if len(self.control) >= FEWEST:
            share = clopper_pearson(int(self.control.sum()), len(self.control))
            found["control_faces"] = Control(share, attack)
        if len(self.holdout) >= FEWEST:
            hits = self.holdout.astype(np.float64)
            found["holdout"] = Control(_by_person(hits, self.holdout_people), attack)
            both = (self.generated, self.unseen)
            size = min(item.people for item in both)
            rates = [among(item.counts, item.people, size) for item in both]
            first, second = (clustered_share(rate, np.ones(len(rate))) for rate in rates)
            found["unseen"] = Control(second, first, UNSEEN)
        return found


def _by_person(hits: NDArray[np.float64], who: Sequence[str], worth: float = 1.0) -> Proportion:
    _, person = np.unique(np.array(who, object).astype(str), return_inverse=True)
    trials = np.bincount(person).astype(np.float64)
    return clustered_share(np.bincount(person, hits).astype(np.float64), trials, worth=worth)


BY_CHANCE = "What the face pack's calibration lets expect by chance: no photograph of these people is in it."
MEASURED = ("photographs", "holdout", "unseen", "control_faces")
"""The first control there is stands behind the residual risk where the pack brings no calibration."""


def headline_of(controls: dict[str, Control]) -> str | None:
    """The control that stands behind the residual risk: the pack's calibration, unless a control that was
    measured here finds more than it allows; else the first of `MEASURED`.
    """
    measured = [name for name in MEASURED if name in controls]
    if "calibration" not in controls:
        return next(iter(measured), None)
    highest = controls["calibration"].share.ci95[1]
    above = [name for name in measured if controls[name].share.ci95[0] > highest]
    return next(iter(above), "calibration")


def leak_figures(
    generated: Array,
    gallery: Gallery,
    threshold: AuditThreshold,
    counts: dict[str, Any],
    *,
    filtered: bool = False,
) -> dict[str, Any]:
    """The audit's figures of one variant of a set: {metric: figure or {control: figure}}.

    Args:
        generated: faces [M, 512] of the images that have one.
        gallery: what they are compared with.
        threshold: from which a face counts as a photograph's.
        counts: n_images, n_no_face, n_unreadable, n_several, extractor.
        filtered: whether a filter has taken matches out.
    """
    cosine, train = threshold.value, gallery.train
    shared = {**counts, "threshold": cosine, "n_reference": len(train)}
    matching = pairs_at_least(generated, train.faces, cosine)
    pairs = clustered_pairs(*matching, len(generated), train.subjects)
    attack, controls, risk = residual_risk(Matches.of(generated, gallery, cosine), threshold)
    note = {"note": BY_CONSTRUCTION} if filtered else {} if len(generated) else {"note": NO_FACE}
    found: dict[str, Any] = {
        "fir_pairs": share_as_json(pairs) | shared | note,
        "leak_images": share_as_json(attack) | shared | note,
    }
    if not filtered:
        extractor = {"extractor": counts["extractor"], "threshold": cosine}
        found["leak_control"] = {
            name: share_as_json(control.share)
            | {
                "n_images": control.share.n if name != "calibration" else None,
                **extractor,
                "attack": share_as_json(control.attack),
            }
            | {"residual": share_as_json(residual(control.attack, control.share))}
            | ({"note": control.note} if control.note else {})
            for name, control in controls.items()
        }
    found["residual_risk"] = risk | shared
    if found["residual_risk"]["value"] is not None and note:
        found["residual_risk"] |= note
    if not filtered:
        found |= nearest_figures(generated, train, gallery.holdout, shared)
    return found


def residual_risk(
    found: Matches, threshold: AuditThreshold
) -> tuple[Proportion, dict[str, Control], dict[str, Any]]:
    """The attack's share, its controls, and the residual risk with the one that stands behind it."""
    people = found.generated.people
    attack = found.attack if people else clopper_pearson(0, 0)
    controls = found.controls()
    expected = threshold.by_chance(people)
    if expected is not None and attack.n:
        controls["calibration"] = Control(expected, attack, BY_CHANCE)
    return attack, controls, _risk(attack, headline_of(controls), controls, threshold)


def _risk(
    attack: Proportion, name: str | None, controls: dict[str, Control], threshold: AuditThreshold
) -> dict[str, Any]:
    """Residual risk, and how much could be missed: by the interval, and by what the recogniser misses."""
    empty = {"value": None, "ci95": None, "k": None, "n": attack.n, "could_be_missed": None, "control": None}
    if attack.value is None:
        return empty | {"note": NO_FACE}
    if name is None:
        return empty | {"note": NO_CONTROL}
    control = controls[name]
    risk = residual(control.attack, control.share)
    finds = threshold.true_match
    missed = risk.ci95[1] / (finds[0] if finds and finds[0] > 0 else 1.0)
    return share_as_json(risk) | {
        "could_be_missed": min(1.0, missed),
        "true_match": None if finds is None else list(finds),
        "attack": share_as_json(control.attack),
        "control": {"name": name, **share_as_json(control.share)},
    }


def bounded_by_unassessed(risk: dict[str, Any]) -> dict[str, Any]:
    """The figure with `upper_of_all`: how many of all images could leak, were each without a face one."""
    missed, n = risk.get("could_be_missed"), risk["n_images"]
    unassessed = risk["n_no_face"] + risk["n_unreadable"]
    total = n + unassessed
    if missed is None or not total:
        return risk | {"upper_of_all": None}
    return risk | {"upper_of_all": (missed * n + unassessed) / total}

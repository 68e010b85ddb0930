"""`downstream.json`: all that is known of what generated faces are good for, computed from predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ..small_counts import told
from .compare import ONLY_WORSE, compare, images_needed
from .document import NOTICE, SCHEMA, check_document, rounded
from .predictions import Predictions
from .reading import (
    ABOVE,
    BELOW,
    CHANCE,
    LINE,
    Finding,
    against_chance,
    chance_level,
    judged,
    reading,
)
from .resampling import RESAMPLES, Subjects, observed, same_images
from .scores import HEADLINE, by_group, figures, reliability, small_class, spread
from .task import Task

Trainings = Sequence[Predictions]
"""A classifier's predictions of one test set, one a training with another seed."""
CURVE = (HEADLINE, "auc")
"""What is drawn over the number of images learned from."""


@dataclass(frozen=True)
class Control:
    """A training beside the source's, and how it came out.

    Attributes:
        what: what is trained, in words.
        expected: of `reading.EXPECTED`.
        trainings: () where it was not run.
    """

    name: str
    what: str
    expected: str
    trainings: Trainings = ()


@dataclass(frozen=True)
class TaskEvidence:
    """Everything that was predicted for one task, on one test set.

    Attributes:
        positive, negative: what the classes show.
        sources: by what was trained on; the first is the one that the controls are of.
        touched: the date when the test set was first looked at, as ISO writes it.
        controls: in the order of the table; those that were not run too.
        curve: by number of images learned from.
        model: what the classifier is, plain values without a path.
        leak: of `leak.check_leak`.
        reported: what others printed, each with `method`, `metric`, `value`, `n`, `source`, `caveat`.
        saliency: where on phantoms it looks: `inside` is the share within the lip's box, `area` the box's
            share of the picture; None of none.
        photographs: whether the test set shows people.
        chosen: of `leak.chosen_by_test`.
    """

    title: str
    positive: str
    negative: str
    sources: Mapping[str, Trainings]
    touched: str
    controls: Sequence[Control] = ()
    curve: Mapping[int, Trainings] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    leak: str | None = None
    reported: Sequence[Mapping[str, Any]] = ()
    saliency: Mapping[str, Any] | None = None
    photographs: bool = True
    chosen: str | None = None

    @classmethod
    def of_task(
        cls,
        task: Task,
        sources: Mapping[str, Trainings],
        *,
        controls: Mapping[str, Trainings] | None = None,
        **others: Any,
    ) -> TaskEvidence:
        """Of a task with its classes, what others reported and its controls, run or not.

        controls: by name, those that were run.
        """
        run = controls or {}
        return cls(
            task.title,
            task.positive.title,
            task.negative.title,
            sources,
            controls=[Control(c.name, c.what, c.expected, run.get(c.name, ())) for c in task.controls],
            reported=[asdict(row) for row in task.reported],
            **others,
        )


def downstream_document(
    tasks: Mapping[str, TaskEvidence], *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """The document of all tasks; it names no person, no picture and no path.

    Raises:
        ValueError: a task has no source, or predictions of different test sets.
        UserError: as `check_document`.
    """
    document = {
        "schema": SCHEMA,
        "phantom": not any(task.photographs for task in tasks.values()),
        "notice": NOTICE,
        "tasks": {name: rounded(task_block(task, resamples, seed)) for name, task in tasks.items()},
    }
    return check_document(document)


def task_block(task: TaskEvidence, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Any]:
    """One task's part of the document."""
    if not task.sources:
        raise ValueError("evidence needs a source that a classifier was trained on")
    sources = {name: paired(trainings) for name, trainings in task.sources.items()}
    controls = [(control, paired(control.trainings)) for control in task.controls]
    name, source = next(iter(sources.items()))
    for _, trainings in controls:
        if trainings and not same_images(source[0], trainings[0]):
            raise ValueError("a control is tested on the same images as the source")
    options: dict[str, Any] = {"photographs": task.photographs, "resamples": resamples, "seed": seed}
    found = {title: source_block(trainings, options) for title, trainings in sources.items()}
    first = source[0]
    ends = judged_by(found[name]["auc"])
    reached = found[name]["auc"]["value"] if ends and against_chance(ends) == ABOVE else None
    blocks = [
        control_block(control, trainings, source, task, options, reached) for control, trainings in controls
    ]
    threshold = judged_by(found[name][HEADLINE])
    return {
        "title": task.title,
        "classes": {"positive": task.positive, "negative": task.negative},
        "model": dict(task.model),
        "test": {
            "n": told(len(first)) if task.photographs else len(first),
            "n_subjects": told(first.n_subjects) if task.photographs else first.n_subjects,
            "n_not_found": told(first.n_not_found) if task.photographs else first.n_not_found,
            "photographs": task.photographs,
            "touched": task.touched,
            "leak": task.leak,
            "chosen": task.chosen,
        },
        "sources": found,
        "controls": [block for block, _ in blocks],
        "curve": curve_block(task.curve, options),
        "comparisons": comparisons(name, sources, controls, task.photographs, resamples, seed),
        "reported": [dict(row) for row in task.reported],
        "needed": needed_for(task.reported),
        "reading": reading(
            name,
            ends,
            [finding for _, finding in blocks],
            sorts=threshold is not None and against_chance(threshold) == ABOVE,
            leak=task.leak,
        ),
        "saliency": None if task.saliency is None else dict(task.saliency),
    }


def paired(trainings: Trainings) -> list[Predictions]:
    """Predictions in the order of their images' keys, where they have keys."""
    return [item.ordered() if item.keys else item for item in trainings]


def judged_by(figure: Mapping[str, Any]) -> Sequence[float] | None:
    """The interval that is held against chance: it covers trainings where there are several."""
    ends: Sequence[float] | None = figure["ci95_trainings"] or figure["ci95"]
    return ends


def source_block(trainings: Trainings, options: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of a source, of its groups, its spread over trainings and its reliability."""
    found = figures(trainings, **options)
    return {
        **found,
        "groups": {kind: by_group(trainings, kind, **options) for kind in trainings[0].groups},
        "seeds": told_spread(trainings, found),
        "reliability": reliability(trainings, **options),
    }


def told_spread(trainings: Trainings, found: Mapping[str, Any]) -> dict[str, Any]:
    """The spread over trainings, untold where the figure is."""
    seeds = spread(trainings)
    if found[HEADLINE]["n"] is None:
        seeds |= dict.fromkeys(("mean", "sd", "low", "high"))
    return seeds


def control_block(
    control: Control,
    trainings: Trainings,
    source: Trainings,
    task: TaskEvidence,
    options: Mapping[str, Any],
    reached: float | None,
) -> tuple[dict[str, Any], Finding]:
    """A row of the controls' table, and how it came out.

    reached: see `reading.judged`.
    """
    block: dict[str, Any] = {"name": control.name, "what": control.what, "expected": control.expected}
    if not trainings:
        finding = judged(control.name, control.expected, None)
        return block | {"figures": None, "seeds": None, **outcome(finding, None)}, finding
    of_chance = sum(item.expected == CHANCE and bool(item.trainings) for item in task.controls)
    level = chance_level(of_chance) if control.expected == CHANCE else 0.95
    auc = figures(trainings, **options, metrics=("auc",), level=level)["auc"]
    ends = judged_by(auc)
    difference = None
    if control.expected in (BELOW, LINE) and ends is not None:
        resampled = {key: options[key] for key in ("resamples", "seed")}
        difference = judged_by(compare(source, trainings, **resampled)["difference"]["auc"])
    finding = judged(control.name, control.expected, ends, difference, people=auc["ci95"], reached=reached)
    found = figures(trainings, **options)
    block |= {"figures": found, "seeds": told_spread(trainings, found), **outcome(finding, level)}
    return block, finding


def outcome(finding: Finding, level: float | None) -> dict[str, Any]:
    ends = None if finding.ends is None else list(finding.ends)
    return {"judged_by": ends, "level": level, "verdict": finding.verdict, "passed": finding.passed}


def curve_block(curve: Mapping[int, Trainings], options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The learning curve, by number of images."""
    return [
        {"n": n, "trainings": len(curve[n]), **figures(curve[n], **options, metrics=CURVE)}
        for n in sorted(curve)
        if curve[n]
    ]


def comparisons(
    first: str,
    sources: Mapping[str, Trainings],
    controls: Sequence[tuple[Control, Trainings]],
    photographs: bool,
    resamples: int,
    seed: int,
) -> list[dict[str, Any]]:
    """The first source beside every other one, and beside each line to beat.

    Of photographs there is no row where a class has 1 to 4 people, and no p where the people of whom either
    alone is right are as few: their number would follow from it.
    """
    if photographs and small_class(Subjects.of(sources[first])):
        return []
    others = {name: trainings for name, trainings in sources.items() if name != first}
    others |= {item.name: trainings for item, trainings in controls if item.expected == LINE and trainings}
    rows = []
    for name, trainings in others.items():
        found = compare(sources[first], trainings, resamples=resamples, seed=seed)
        if photographs:
            counts = ("n", "n_subjects", "only_a", "only_b")
            found |= {key: told(found[key]) for key in counts}
            if found["only_a"] is None or found["only_b"] is None:  # one would follow from the other
                found |= dict.fromkeys(("only_a", "only_b", "mcnemar_p"))
        rows.append({"a": first, "b": name, **found, "n_needed": needed(sources[first], trainings)})
    return rows


def needed_for(reported: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Test images that would tell the first reported accuracy from each other one."""
    first, *others = reported or [{}]
    rows = []
    for other in others:
        worse, better = sorted((float(first["value"]), float(other["value"])))
        alone = worse * (1 - better)
        rows.append(
            {
                "a": first["value"],
                "b": other["value"],
                "only_worse": min(ONLY_WORSE, alone),
                "n": images_needed(better, worse, only_worse=min(ONLY_WORSE, alone)),
                "n_independent": images_needed(better, worse, only_worse=alone),
            }
        )
    return rows


def needed(a: Trainings, b: Trainings) -> int | None:
    """Test images that would tell two such accuracies apart; see `images_needed`."""
    better, worse = sorted((observed(side)["accuracy"] for side in (a, b)), reverse=True)
    return images_needed(better, worse, only_worse=min(ONLY_WORSE, worse, 1 - better))

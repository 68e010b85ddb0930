"""Predictions of made-up classifiers, for tests of what is computed from them."""

from typing import Any

import numpy as np

from diffusioncleft.diffusioncleft_core.downstream.predictions import Predictions


def of(labels: Any, scores: Any, subjects: Any = None, **parts: Any) -> Predictions:
    """Predictions of these images, each of another person unless `subjects` says who is on it."""
    named = [f"s{i}" for i in range(len(labels))] if subjects is None else [str(who) for who in subjects]
    return Predictions(np.array(labels, np.int64), np.array(scores, float), tuple(named), **parts)


def counted(right: int, n: int, positives: int | None = None) -> Predictions:
    """One image a person, the first `right` of `n` called what they are."""
    labels = np.arange(n) % 2 if positives is None else (np.arange(n) < positives).astype(int)
    called = np.where(np.arange(n) < right, labels, 1 - labels)
    return of(labels, 0.2 + 0.6 * called)


def people(n: int, images: int, *, effect: float, seed: int, trainings: int = 1, **parts: Any) -> Any:
    """A prediction a training of `n` people with `images` each, half of them positive."""
    rng = np.random.default_rng(seed)
    subject = np.repeat(np.arange(n), images)
    labels = subject % 2
    person = rng.normal(size=n)[subject]
    found = []
    for _ in range(trainings):
        noise = 0.7 * (person + rng.normal(size=len(subject)))
        scores = 1 / (1 + np.exp(-effect * (labels - 0.5) - noise))
        found.append(of(labels, scores, subject, **parts))
    return found


SKINS = ("light", "pale", "medium", "fair", "dark", "olive")
CONTROLS = {
    "generated_negatives": ("Healthy faces of the same base model as negatives.", "kept", 2.0),
    "lip_masked": ("The crop with the lip greyed out.", "chance", 0.0),
    "lip_alone": ("The lip with all else greyed out.", "kept", 2.2),
    "background": ("The whole picture with the face greyed out.", "chance", 0.0),
    "shuffled_labels": ("The training labels shuffled.", "chance", 0.0),
    "base_as_both": ("Faces of the base model as both classes.", "chance", 0.0),
    "real": ("Trained on photographs, cross-validated over subjects.", "line", 3.0),
    "real_and_generated": ("Trained on photographs and generated images together.", "line", 3.2),
}
"""What is trained, what is expected, and how far the classes lie apart by right."""
REPORTED = [
    {
        "method": "DiffusionCleft (paper)",
        "metric": "accuracy",
        "value": 0.79,
        "n": 100,
        "source": "Rosero et al., DiffusionCleft, ICMI 2025, doi:10.1145/3716553.3750794, section 5.5",
        "caveat": "Its positives were generated and its negatives real: a network can learn “generated”.",
    },
    {"method": "Healthy faces deformed", "metric": "accuracy", "value": 0.66, "n": 100},
]


def on_people(
    effect: float,
    *,
    n: int = 120,
    images: int = 2,
    trainings: int = 5,
    seed: int = 0,
    grouped: bool = False,
) -> list[Predictions]:
    """Trainings on one made-up test set of `n` people, half of them positive, with keys."""
    subject = np.repeat(np.arange(n), images)
    labels = subject % 2
    person = np.random.default_rng(99).normal(size=n)[subject]
    rng = np.random.default_rng(seed)
    groups = {
        "skin_tone": tuple(SKINS[who // 2 % 6] for who in subject),
        "age_group": tuple("baby" if who < 6 else "child" for who in subject),
    }
    return [
        of(
            labels,
            1 / (1 + np.exp(-effect * (labels - 0.5) - 0.7 * (person + rng.normal(size=len(subject))))),
            [f"secret-person-{who}" for who in subject],
            groups=groups if grouped else {},
            n_not_found=7,
            keys=tuple(f"secret-key-{i:04}" for i in range(len(subject))),
        )
        for _ in range(trainings)
    ]


def task(
    *,
    photographs: bool = True,
    leak: str | None = None,
    chosen: str | None = None,
    n: int = 120,
    whole: bool = False,
    **effects: float,
) -> Any:
    """Evidence on a task whose controls come out as they must, but for those of `effects`.

    whole: with groups and a learning curve.
    """
    from diffusioncleft.diffusioncleft_core.downstream.evidence import Control, TaskEvidence

    def made(effect: float, seed: int) -> list[Predictions]:
        return on_people(effect, seed=seed, n=n, grouped=whole)

    return TaskEvidence(
        "Lip anomaly detection",
        "repaired cleft lip",
        "healthy",
        {"generated": made(effects.pop("generated", 2.5), 0), "deformed": made(1.0, 1)},
        "2026-11-24",
        [
            Control(name, what, expected, made(effects.get(name, effect), 10 + i))
            for i, (name, (what, expected, effect)) in enumerate(CONTROLS.items())
        ],
        {
            images: made(2.5 - 60 / images**0.8, 30 + i)
            for i, images in enumerate((2000, 100, 200, 500, 1000) if whole else ())
        },
        {"name": "MobileNetV2, as the paper", "parameters": 2_387_586},
        leak,
        REPORTED,
        None if photographs else {"inside": 0.71, "area": 0.3, "n": 400},
        photographs,
        chosen=chosen,
    )

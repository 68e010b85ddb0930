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

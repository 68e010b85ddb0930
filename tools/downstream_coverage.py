"""How often the intervals of a classifier's figures hold the truth, where people have several images each.

    python -m diffusioncleft.tools.downstream_coverage --out experiments/downstream_coverage.json

Scores are drawn from a model whose accuracy, AUC and Brier score are known: an image's score is the class, a
part that all images of a person share, and one of its own. Each setting is drawn many times; the share of
intervals that hold the truth stands beside the 95 % that they promise, and beside that of an interval which
takes every image for another person.
"""

from __future__ import annotations

import argparse
import datetime
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import norm

from ..diffusioncleft_core.downstream.compare import COMPARED, compare
from ..diffusioncleft_core.downstream.predictions import Predictions
from ..diffusioncleft_core.downstream.resampling import METRICS, SHARES
from ..diffusioncleft_core.downstream.scores import figures
from ..diffusioncleft_core.files import write_json
from ..diffusioncleft_core.progress import progress
from ..diffusioncleft_core.statistics import beta_interval, clopper_pearson

REPETITIONS = 1000
RESAMPLES = 500
Array = NDArray[np.float64]
NODES, MASS = np.polynomial.hermite_e.hermegauss(60)
"""Of integrals over a standard normal."""


@dataclass(frozen=True)
class Setting:
    """A test set and two classifiers on it.

    Attributes:
        people: half of them of either class, unless each has images of `both`.
        images: a person has 1 to so many.
        shared: share of the variance within a class that all images of a person have in common.
        effect: how far the classes lie apart, in standard deviations; of the second classifier `second`.
        trainings: of each classifier; `jitter` is the standard deviation of the effect between them.
    """

    people: int
    images: int = 8
    shared: float = 0.5
    effect: float = 1.6
    second: float = 1.0
    both: bool = False
    trainings: int = 1
    jitter: float = 0.0


SETTINGS: Mapping[str, Setting] = {
    "one image a person, 100 people": Setting(100, images=1, shared=0.0),
    "12 people": Setting(12),
    "20 people": Setting(20),
    "50 people": Setting(50),
    "100 people": Setting(100),
    "50 people, images of both classes": Setting(50, both=True),
    "50 people, at chance": Setting(50, effect=0.0, second=0.0),
    "50 people, nearly all right": Setting(50, effect=3.5, second=3.0),
    "20 people, nearly all right": Setting(20, effect=3.5, second=3.0),
    "50 people, five trainings": Setting(50, trainings=5, jitter=0.5),
}


def drawn(setting: Setting, rng: np.random.Generator) -> tuple[list[Predictions], list[Predictions]]:
    """Predictions of both classifiers on one test set, one a training."""
    sizes = rng.integers(1, setting.images + 1, setting.people)
    subject = np.repeat(np.arange(setting.people), sizes)
    labels = rng.integers(0, 2, len(subject)) if setting.both else subject % 2
    person = rng.normal(size=setting.people)[subject] * setting.shared**0.5
    image = rng.normal(size=len(subject)) * (1 - setting.shared) ** 0.5

    def of(effect: float) -> list[Predictions]:
        # Half of what an image's own part is comes from the picture, which both see, and half from each.
        own = rng.normal(size=len(subject)) * (1 - setting.shared) ** 0.5
        noise = person + (image + own) * 0.5**0.5
        return [
            Predictions(
                labels.astype(np.int64),
                expit((effect + setting.jitter * rng.normal()) * (labels - 0.5) + noise),
                tuple(f"{number}" for number in subject),
            )
            for _ in range(setting.trainings)
        ]

    return of(setting.effect), of(setting.second)


def truth(effect: float, jitter: float) -> dict[str, float]:
    """The figures of a classifier over all images, people and trainings."""
    found = dict.fromkeys(METRICS, 0.0)
    for shift, mass in zip(effect + jitter * NODES, MASS / MASS.sum(), strict=True):
        right, auc = norm.cdf(shift / 2), norm.cdf(shift / 2**0.5)
        brier = np.sum(MASS / MASS.sum() * (expit(shift / 2 + NODES) - 1) ** 2)
        for name in METRICS:
            found[name] += mass * float({"auc": auc, "brier": brier}.get(name, right))
    return found


def coverage(setting: Setting, repetitions: int, seed: int, description: str = "") -> dict[str, Any]:
    """The share of intervals that hold the truth, by kind and metric, and how wide they are on average."""
    first, second = truth(setting.effect, setting.jitter), truth(setting.second, setting.jitter)
    held: dict[str, dict[str, list[bool]]] = {}
    width: dict[str, dict[str, list[float]]] = {}

    def note(kind: str, metric: str, ends: Sequence[float] | None, value: float) -> None:
        if ends is not None:
            held.setdefault(kind, {}).setdefault(metric, []).append(ends[0] <= value <= ends[1])
            width.setdefault(kind, {}).setdefault(metric, []).append(ends[1] - ends[0])

    for repetition in progress(range(repetitions), description, leave=False):
        rng = np.random.default_rng([seed, repetition])
        a, b = drawn(setting, rng)
        found = figures(a, photographs=False, resamples=RESAMPLES, seed=repetition)
        difference = compare(a, b, resamples=RESAMPLES, seed=repetition)["difference"]
        for metric in METRICS:
            figure = found[metric]
            note("people", metric, figure["ci95"], first[metric])
            note("people and trainings", metric, figure["ci95_trainings"], first[metric])
            if metric in SHARES and figure["value"] is not None:
                ignoring = beta_interval(figure["value"] * figure["n"], figure["n"])
                note("images as if of different people", metric, ignoring, first[metric])
        for metric in COMPARED:
            for kind, ends in (("people", "ci95"), ("people and trainings", "ci95_trainings")):
                note(f"difference, {kind}", metric, difference[metric][ends], first[metric] - second[metric])
    return {
        kind: {
            metric: {
                "coverage": round(float(np.mean(hits)), 4),
                "ci95": [round(end, 4) for end in clopper_pearson(sum(hits), len(hits)).ci95],
                "n": len(hits),
                "mean_width": round(float(np.mean(width[kind][metric])), 4),
            }
            for metric, hits in metrics.items()
        }
        for kind, metrics in held.items()
    }


def measure(out: Path, repetitions: int = REPETITIONS, seed: int = 0) -> None:
    """Write the coverage of every setting, and the command that measures it again, to `out`."""
    settings = {
        name: {**asdict(setting), "intervals": coverage(setting, repetitions, seed, name)}
        for name, setting in SETTINGS.items()
    }
    command = f"python -m diffusioncleft.tools.downstream_coverage --repetitions {repetitions} --seed {seed}"
    write_json(
        out,
        {
            "schema": 1,
            "command": command,
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "repetitions": repetitions,
            "resamples": RESAMPLES,
            "promised": 0.95,
            "settings": settings,
        },
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("experiments/downstream_coverage.json"))
    args = parser.parse_args()
    measure(args.out, args.repetitions, args.seed)
    print(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())

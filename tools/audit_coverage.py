r"""How often the audit's intervals hold the truth, where known leaks are planted among real scores.

    python -m diffusioncleft.tools.audit_coverage --out experiments/audit_coverage.json

A set is put together from faces of phantoms that were drawn and embedded once: training photographs,
hold-out, strangers' images, and images that show a training photograph's person again. The threshold is
that of other people of the same pool. A thousand sets a rate; the truth is the planted rate, of which each
set has a binomial count. The interval is a report's: from the residual risk's lower end to what could be
missed. Beside it stand the residual risk's own, which takes the recogniser to find everybody, and Clopper and
Pearson's, had somebody known the leaks.
"""

import argparse
import datetime
import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..diffusioncleft_core.faces.analyzer import load_face_analyzer
from ..diffusioncleft_core.faces.calibration import StatedThreshold, calibrate
from ..diffusioncleft_core.files import write_json
from ..diffusioncleft_core.metrics.clustered import clustered_pairs
from ..diffusioncleft_core.metrics.fir import fir_pairs
from ..diffusioncleft_core.metrics.leak import Matched, Matches, residual_risk
from ..diffusioncleft_core.metrics.threshold import PACK, PHOTOGRAPHS, AuditThreshold
from ..diffusioncleft_core.progress import progress
from ..diffusioncleft_core.ranges import PAPER_SIMILARITY
from ..diffusioncleft_core.small_counts import FEWEST
from ..diffusioncleft_core.statistics import clopper_pearson
from .calibrate_faces import PEOPLE, SEED, TWICE
from .face_pool import FacePool, face_pool

REPETITIONS = 1000
RATES = (0.0, 0.001, 0.01, 0.1)
CALIBRATING = 1 / 3
"""Share of the people in two pictures who calibrate: of them it is known what the recogniser misses."""
NEW_HOLDOUT = 10
"""Sets that share a hold-out: comparing it anew takes most of the time."""
PROMISED = 0.936
"""What 95 % come to in a thousand repetitions, less two standard errors."""


@dataclass(frozen=True)
class Setting:
    """A set to audit.

    Attributes:
        images: generated.
        photographs: of as many people, that the model learned from.
        holdout: photographs of other people.
        calibrated: whether the pack brings a calibration along; else photographs alone are the control.
        rate: of false matches a pair, that the threshold states.
    """

    images: int
    photographs: int
    holdout: int
    calibrated: bool
    rate: float = 1e-5


SETTINGS: Mapping[str, Setting] = {
    "200 images, 90 photographs, calibrated pack": Setting(200, 90, 10, True),
    "1,000 images, 270 photographs, calibrated pack": Setting(1000, 270, 30, True),
    "2,000 images, 270 photographs, calibrated pack": Setting(2000, 270, 30, True),
    "1,000 images, 270 photographs, photographs alone": Setting(1000, 270, 30, False),
    "200 images, 90 photographs, photographs alone": Setting(200, 90, 10, False),
}


def stated(pool: FacePool, people: NDArray[np.int64], rate: float) -> StatedThreshold:
    """The threshold from the pictures of these people."""
    chosen = np.isin(pool.person, people)
    return calibrate(pool.embeddings[chosen], [str(who) for who in pool.person[chosen]], (rate,))[0]


@dataclass(frozen=True, eq=False)
class Compared:
    """Cosines [again, N] of the first pictures of people with two and of every picture of the pool."""

    pool: FacePool
    again: NDArray[np.int64]
    cosines: NDArray[np.float32]

    @classmethod
    def of(cls, pool: FacePool) -> "Compared":
        again = np.array(sorted(pool.again), np.int64)
        again = again[round(CALIBRATING * len(again)) :]
        return cls(pool, again, pool.embeddings[pool.first[again]] @ pool.embeddings.T)


@dataclass(frozen=True, eq=False)
class Strangers:
    """People who are on no training photograph, the first `held` of them the hold-out.

    unseen: [held, N] whom of the pool each held-out person matches.
    """

    people: NDArray[np.int64]
    held: int
    unseen: NDArray[np.bool_]


def audit_once(
    compared: Compared,
    others: Strangers,
    setting: Setting,
    rate: float,
    threshold: AuditThreshold,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """One set with leaks at `rate`: the audit's interval of it, and that of somebody who knew the leaks."""
    first, second = compared.pool.first, compared.pool.again
    rows = rng.permutation(len(compared.again))[: setting.photographs]
    held, strangers = others.people[: others.held], others.people[others.held :]
    leaks = int(rng.binomial(setting.images, rate))
    leaked = [second[int(compared.again[row])] for row in rng.choice(rows, leaks)]
    drawn = first[rng.choice(strangers, setting.images - leaks)]
    places = np.concatenate([np.array(leaked, np.int64), drawn])
    part = compared.cosines[rows]
    own = part[:, first[compared.again[rows]]]
    np.fill_diagonal(own, -1)
    few = len(rows) // FEWEST * FEWEST
    found = Matches(
        generated=Matched.of((part[:, places] >= threshold.value).T),
        unseen=Matched.of(others.unseen[:, places].T),
        train=np.any(own >= threshold.value, axis=0)[:few],
        holdout=np.any(part[:, first[held]] >= threshold.value, axis=0),
        control=np.zeros(0, bool),
        train_people=[str(row) for row in rows[:few]],
        holdout_people=[str(who) for who in held],
    )
    _, _, risk = residual_risk(found, threshold)
    return {
        "ci95": (risk["ci95"][0], risk["could_be_missed"]),
        "found": risk["ci95"],
        "known": clopper_pearson(leaks, setting.images).ci95,
        "value": risk["value"],
        "paper": float((part[:, places].max(axis=0) >= PAPER_SIMILARITY).mean()),
    }


def of_setting(
    compared: Compared, setting: Setting, repetitions: int, seed: int, about: str
) -> dict[str, Any]:
    """Coverage and width at every rate. People who calibrate are in no set."""
    pool = compared.pool
    twice = np.array(sorted(pool.again), np.int64)
    rest = np.setdiff1d(np.arange(len(pool.first)), twice)
    calibrating, others = np.split(rest, [3 * len(rest) // 4])
    calibrating = np.concatenate([np.setdiff1d(twice, compared.again), calibrating])
    found = stated(pool, calibrating, setting.rate)
    assert found.threshold is not None
    # Who has no calibration of the pack knows neither its rate nor what it misses.
    source, told = (PACK, found) if setting.calibrated else (PHOTOGRAPHS, replace(found, true_match=None))
    threshold = AuditThreshold(found.threshold, source, told, setting.rate)
    rates = {}
    for number, rate in enumerate(progress(RATES, about, unit="rate")):
        rng = np.random.default_rng([seed, number])
        sets = []
        for repetition in range(repetitions):
            if repetition % NEW_HOLDOUT == 0:
                mixed = rng.permutation(others)
                faces = pool.embeddings[pool.first[mixed[: setting.holdout]]]
                unseen = faces @ pool.embeddings.T >= found.threshold
                strangers = Strangers(mixed, setting.holdout, unseen)
            sets.append(audit_once(compared, strangers, setting, rate, threshold, rng))
        held, found_alone, known = (
            [low <= rate <= high for low, high in (item[key] for item in sets)]
            for key in ("ci95", "found", "known")
        )
        width, best = (np.array([item[key][1] - item[key][0] for item in sets]) for key in ("ci95", "known"))
        rates[f"{rate:g}"] = {
            "coverage": round(float(np.mean(held)), 4),
            "coverage_of_what_was_found": round(float(np.mean(found_alone)), 4),
            "coverage_with_known_labels": round(float(np.mean(known)), 4),
            "width": round(float(width.mean()), 5),
            "width_with_known_labels": round(float(best.mean()), 5),
            "times_as_wide": round(float(width.mean() / best.mean()), 3),
            "mean": round(float(np.mean([item["value"] for item in sets])), 5),
            "mean_at_the_papers_threshold": round(float(np.mean([item["paper"] for item in sets])), 5),
            "told_from_no_leak": round(float(np.mean([item["ci95"][0] > 0 for item in sets])), 4),
        }
    return {
        **asdict(setting),
        "threshold": round(found.threshold, 4),
        "rate_ci95": [float(f"{end:.3g}") for end in found.rate_ci95 or ()],
        "true_match": found.true_match,
        "rates": rates,
        "holds": all(row["coverage"] >= PROMISED for row in rates.values()),
        "narrow": all(row["times_as_wide"] <= 1.5 for row in rates.values()),
    }


def of_pairs(pool: FacePool, repetitions: int, seed: int) -> dict[str, Any]:
    """Coverage of a share of pairs, of 200 images and 100 people.

    As strangers match at the paper's threshold; and where one person in twenty is drawn in one image of
    twenty, so that matches come in clusters. The truth is the mean over all people and images there could be.
    """
    first = pool.first
    trained, drawn = np.arange(0, len(first), 2), np.arange(1, len(first), 2)
    cosines = pool.embeddings[first[drawn]] @ pool.embeddings[first[trained]].T
    by_chance = float((cosines >= PAPER_SIMILARITY).mean())
    prone, shown = 0.05, 0.05
    truths = {
        "strangers": by_chance,
        "few people again and again": 1 - (1 - by_chance) * (1 - prone * shown),
    }
    rng = np.random.default_rng(seed)
    held = {name: {"images and people": 0, "pairs as independent": 0} for name in truths}
    for _ in progress(range(repetitions), "pairs"):
        rows, columns = (
            rng.choice(len(drawn), 200, replace=False),
            rng.choice(len(trained), 100, replace=False),
        )
        strangers = cosines[np.ix_(rows, columns)]
        leaks = (rng.random(100) < prone)[None] & (rng.random((200, 100)) < shown)
        people = [str(who) for who in columns]
        for name, part in (("strangers", strangers), ("few people again and again", strangers + leaks)):
            image, photograph = np.argwhere(part >= PAPER_SIMILARITY).T
            intervals = {
                "images and people": clustered_pairs(image, photograph, len(part), people, resamples=200),
                "pairs as independent": fir_pairs(part, PAPER_SIMILARITY),
            }
            for kind, share in intervals.items():
                held[name][kind] += share.ci95[0] <= truths[name] <= share.ci95[1]
    return {
        name: {
            "truth": round(truth, 7),
            "coverage": {kind: round(count / repetitions, 4) for kind, count in held[name].items()},
        }
        for name, truth in truths.items()
    }


def of_thresholds(pool: FacePool, repetitions: int, seed: int) -> dict[str, Any]:
    """How often the interval of a threshold holds the threshold of the whole pool, and how it is found."""
    rates = (1e-2, 1e-3, 1e-4)
    names = [str(who) for who in range(len(pool.first))]
    faces = pool.embeddings[pool.first]
    truth = {row.rate: row.threshold for row in calibrate(faces, names, rates)}
    rng = np.random.default_rng(seed)
    found: dict[str, Any] = {}
    for people in (100, 300):
        rows: dict[float, list[StatedThreshold]] = {rate: [] for rate in rates}
        for _ in progress(range(repetitions), f"thresholds of {people} people"):
            chosen = rng.choice(len(faces), people, replace=False)
            for row in calibrate(faces[chosen], [names[place] for place in chosen], rates):
                rows[row.rate].append(row)
        found[f"{people} people"] = {
            f"{rate:g}": {
                "methods": {
                    method: sum(r.method == method for r in part)
                    for method in sorted({str(r.method) for r in part})
                },
                "stated": sum(r.threshold is not None for r in part),
                "coverage": _held(part, float(truth[rate] or 0)),
                "mean_width": _width(part),
            }
            for rate, part in rows.items()
        }
    return {"truth": {f"{rate:g}": round(float(value or 0), 4) for rate, value in truth.items()}, **found}


def _held(rows: list[StatedThreshold], truth: float) -> float | None:
    ends = [row.ci95 for row in rows if row.ci95 is not None]
    return round(float(np.mean([low <= truth <= high for low, high in ends])), 3) if ends else None


def _width(rows: list[StatedThreshold]) -> float | None:
    ends = [row.ci95 for row in rows if row.ci95 is not None]
    return round(float(np.mean([high - low for low, high in ends])), 3) if ends else None


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=REPETITIONS)
    parser.add_argument("--kept", type=Path, metavar="FILE", help="faces kept by tools.calibrate_faces")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    pool = face_pool(load_face_analyzer("phantom"), PEOPLE, TWICE, SEED, args.kept)
    options = ["--repetitions", str(args.repetitions), "--seed", str(args.seed)]
    compared = Compared.of(pool)
    document: dict[str, Any] = {
        "schema": 1,
        "command": shlex.join(["python", "-m", "diffusioncleft.tools.audit_coverage", *options]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "repetitions": args.repetitions,
        "promised": PROMISED,
        "settings": {},
    }
    for number, (name, setting) in enumerate(SETTINGS.items()):
        document["settings"][name] = of_setting(compared, setting, args.repetitions, args.seed + number, name)
        write_json(args.out, document)
    document["pairs"] = of_pairs(pool, args.repetitions, args.seed)
    document["thresholds"] = of_thresholds(pool, max(20, args.repetitions // 10), args.seed)
    write_json(args.out, document)
    print(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Coverage of every interval of the rater study on simulated raters whose truth is known.

    python -m diffusioncleft.tools.study_coverage --out experiments/study_coverage.json

Each scenario is one kind of raters (`study/statistics/simulate`), from agreement by chance to a ceiling
at 4.9, with few raters who stay the same and with more who are drawn anew for each study. A tenth of its
studies has each of ten true means around the scenario's: at one fixed truth the coverage of any interval
of so few discrete answers jumps by some per cent as the truth moves (Brown, Cai & DasGupta, Stat Sci 16,
2001). The ordinal model is fitted in the scenarios of `ORDINAL` alone: it takes most of the time. Nobody
rated anything.

The constants of `intervals` and `agreement` were chosen on these scenarios, with other seeds. So
`OTHER_MODELS` has raters and pictures that nothing was chosen on: a few very poor pictures, or qualities
with heavy tails.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from ..diffusioncleft_core.files import write_json
from ..diffusioncleft_core.progress import progress
from ..diffusioncleft_core.study.design import GENERATED, REAL
from ..diffusioncleft_core.study.statistics.agreement import agreement
from ..diffusioncleft_core.study.statistics.detection import detection
from ..diffusioncleft_core.study.statistics.grid import Grid
from ..diffusioncleft_core.study.statistics.intervals import (
    LIKERT_DISPERSION,
    SHARE_DISPERSION,
    Array,
    cell_of,
    difference_interval,
    dispersion,
    mean_interval,
    percentile_interval,
)
from ..diffusioncleft_core.study.statistics.ordinal import ordinal_effect
from ..diffusioncleft_core.study.statistics.simulate import (
    CATEGORIES,
    CUTS,
    Raters,
    draw_sets,
    quality_for,
    same_bias,
    true_agreement,
    true_mean,
    true_share,
)

SEED = 90_417
"""Of the kept figures: no constant was chosen on its draws."""
MARGIN = 0.5
LOW, HIGH = 1.0, 5.0
GOAL = (0.93, 0.97)
SCARCE = 5.0
"""Answers, or points, off the end of the scale that a cell is expected to have: with fewer of them an
interval can be sound, but not exact, so that at least `GOAL[0]` is asked of it."""
TOLD = 0.05
"""Share of the studies that tell an interval from which its coverage is judged."""
REPEATED = 15
"""Pictures shown twice."""
DESIGNS = {"paper": (50, 10), "even": (50, 50)}
"""Generated and real images."""
AROUND = 0.05
"""How far the true means of a scenario lie from its own, either way; chances in `TOLD_APART` likewise."""
TRUTHS = 10
MEANS = {
    "middle": (3.5, Raters(0.6, 0.6)),
    "by_chance": (3.5, Raters(0.0, 0.8)),
    "agreeing": (4.2, Raters(0.9, 0.3)),
    "high": (4.7, Raters(0.6, 0.6)),
    "ceiling": (4.9, Raters(0.6, 0.6)),
    "ceiling_agreeing": (4.9, Raters(0.8, 0.2)),
    "ceiling_by_chance": (4.9, Raters(0.0, 0.8)),
    "ceiling_biased": (4.9, Raters(0.6, 0.6, bias=(0.4, -0.4))),
    "ceiling_far_apart": (4.9, Raters(0.6, 0.6, bias=(0.5, -0.5))),
    "ceiling_three": (4.9, Raters(0.6, 0.6, bias=(0.3, 0.0, -0.3))),
}
NEW_RATERS = (6, 8, 12)
ORDINAL = ("middle", "high", "ceiling")
OTHER_MODELS = {"few_poor_pictures": (1.2, 2.0, 2.6), "heavy_tails": (1.2, 2.0, 2.6)}
"""Mean quality of the pictures, by model: ratings around 4.1, 4.6 and 4.8."""
POOR = 0.06
"""Share of the poor pictures."""
TOLD_APART = {
    "by_chance": ((0.6, 0.4), (0.6, 0.4)),
    "a_little": ((0.7, 0.6), (0.4, 0.5)),
    "well": ((0.9, 0.85), (0.15, 0.2)),
    "all_called_real": ((0.2, 0.1), (0.1, 0.05)),
}
"""Chance that each rater calls a generated, and a real picture generated."""
ALIKE = 0.5
"""How far the raters' errors on one picture go together."""


@dataclass(frozen=True)
class Covered:
    """One interval over many studies: limits [S], NaN where none is told."""

    low: Array
    high: Array
    truth: float | Array
    off_end: float = math.inf

    def as_dict(self) -> dict[str, Any]:
        told = ~np.isnan(self.low)
        if not told.any():
            return {"truth": round(float(np.mean(self.truth)), 4), "coverage": None, "told": 0.0}
        inside = (self.low <= np.asarray(self.truth) + 1e-12) & (np.asarray(self.truth) <= self.high + 1e-12)
        return {
            "truth": round(float(np.mean(self.truth)), 4),
            "coverage": round(float(inside[told].mean()), 4),
            "told": round(float(told.mean()), 4),
            **({"off_end": round(self.off_end, 1)} if math.isfinite(self.off_end) else {}),
            "width": round(float(np.median((self.high - self.low)[told])), 4),
        }


def together(parts: Sequence[Mapping[str, Covered]]) -> dict[str, Covered]:
    """The same intervals at several truths as one."""
    return {
        name: Covered(
            np.concatenate([part[name].low for part in parts]),
            np.concatenate([part[name].high for part in parts]),
            np.concatenate([np.full(len(part[name].low), part[name].truth) for part in parts]),
            float(np.mean([part[name].off_end for part in parts])),
        )
        for name in parts[0]
    }


def raters_in(mean: float, raters: Raters) -> Iterator[tuple[str, float, Raters]]:
    """The scenario's own raters, and more of them who are drawn anew for each study."""
    yield f"{raters.n}_raters", mean, raters
    for number in NEW_RATERS if raters.n == 2 else ():
        yield f"{number}_raters_drawn_anew", mean, same_bias(raters, number)


def likert(
    studies: int, images: tuple[int, int], mean: float, raters: Raters, rng: np.random.Generator
) -> dict[str, Covered]:
    """Means, shares and their difference, where generated and real are alike."""
    quality = quality_for(mean, raters)
    generated, real = draw_sets(studies, [(n, quality) for n in images], raters, rng)
    cells = [cell_of(scores) for scores in (generated, real)]
    pooled = dispersion(cells, LOW, HIGH, LIKERT_DISPERSION)
    high = [cell_of((scores >= 4).astype(np.float64)) for scores in (generated, real)]
    spread = dispersion(high, 0.0, 1.0, SHARE_DISPERSION)
    exact, share = true_mean(quality, raters), true_share(quality, raters)
    ratings = [n * raters.n for n in images]
    points, low = HIGH - exact, 1 - share
    return {
        "mean_generated": Covered(*mean_interval(cells[0], LOW, HIGH, pooled), exact, ratings[0] * points),
        "mean_real": Covered(*mean_interval(cells[1], LOW, HIGH, pooled), exact, ratings[1] * points),
        "share_generated": Covered(*mean_interval(high[0], 0.0, 1.0, spread), share, ratings[0] * low),
        "share_real": Covered(*mean_interval(high[1], 0.0, 1.0, spread), share, ratings[1] * low),
        "difference": Covered(
            *difference_interval(cells[0], cells[1], LOW, HIGH, pooled), 0.0, min(ratings) * points
        ),
    }


def false_equivalence(
    studies: int, images: tuple[int, int], mean: float, raters: Raters, rng: np.random.Generator
) -> dict[str, float]:
    """Share of studies that claim equivalence where the difference is just the margin, either way."""
    found = {}
    for name, means in {
        "real_better": (mean - MARGIN, mean),
        "generated_better": (mean, mean - MARGIN),
    }.items():
        sets = [(n, quality_for(each, raters)) for n, each in zip(images, means, strict=True)]
        cells = [cell_of(scores) for scores in draw_sets(studies, sets, raters, rng)]
        low, high = difference_interval(
            cells[0], cells[1], LOW, HIGH, dispersion(cells, LOW, HIGH, LIKERT_DISPERSION)
        )
        found[name] = round(float(np.mean((low > -MARGIN) & (high < MARGIN))), 4)
    return found


def agreeing(
    studies: int, images: int, mean: float, raters: Raters, rng: np.random.Generator
) -> dict[str, Covered]:
    """The coefficients of agreement, and a rater's with himself; for raters who stay the same."""
    quality = quality_for(mean, raters)
    (scores,) = draw_sets(studies, [(images, quality)], raters, rng)
    truth = true_agreement([(1.0, quality)], raters)
    found = {
        name: Covered(each.low, each.high, truth[name])
        for name, each in agreement(scores - 1, CATEGORIES).items()
    }
    twice = Raters(raters.picture, raters.noise, tuple(np.repeat(raters.bias, 2)))
    (answers,) = draw_sets(studies, [(REPEATED, quality)], twice, rng)
    same = (answers[..., ::2] == answers[..., 1::2]).astype(np.float64)
    exact = [
        true_agreement([(1.0, quality)], Raters(raters.picture, raters.noise, (bias, bias)))["agreement"]
        for bias in raters.bias
    ]
    again = float(np.mean(exact))
    low, high = mean_interval(cell_of(same), 0.0, 1.0, SHARE_DISPERSION / raters.n)
    return {**found, "same_answer_again": Covered(low, high, again, REPEATED * raters.n * (1 - again))}


def told_apart(
    studies: int,
    images: tuple[int, int],
    chances: tuple[tuple[float, ...], tuple[float, ...]],
    rng: np.random.Generator,
) -> dict[str, Covered]:
    """Accuracy, d′ and bias of raters who call generated and real pictures generated by these chances."""
    answers = []
    for n, each in zip(images, chances, strict=True):
        picture = rng.standard_normal((studies, n, 1))
        own = rng.standard_normal((studies, n, len(each)))
        seen = np.sqrt(ALIKE) * picture + np.sqrt(1 - ALIKE) * own
        answers.append((seen < norm.ppf(np.array(each))).astype(np.float64))
    found = detection(answers[0], answers[1])
    hits, alarms = (np.array(each) for each in chances)
    z = norm.ppf(hits), norm.ppf(alarms)
    off = min(
        float(n * np.minimum(each, 1 - each).sum()) for n, each in zip(images, (hits, alarms), strict=True)
    )
    return {
        "accuracy": Covered(*found.accuracy[1], float((1 + (hits - alarms).mean()) / 2), off),
        "d_prime": Covered(*found.sensitivity[1], float((z[0] - z[1]).mean()), off),
        "bias": Covered(*found.bias[1], float(-(z[0] + z[1]).mean() / 2), off),
    }


def resampled(
    studies: int, images: int, mean: float, raters: Raters, rng: np.random.Generator
) -> dict[str, Covered]:
    """The percentile interval of images and raters resampled together, for comparison."""
    quality = quality_for(mean, raters)
    (scores,) = draw_sets(studies, [(images, quality)], raters, rng)
    limits = np.array([percentile_interval(each, 500, rng) for each in scores])
    return {"resampled_mean": Covered(limits[:, 0], limits[:, 1], true_mean(quality, raters))}


def ordinal(
    studies: int, images: tuple[int, int], mean: float, raters: Raters, rng: np.random.Generator
) -> dict[str, Covered]:
    """The ordinal model's shift, where the real images are better by a third of a point."""
    quality = quality_for(mean - 1 / 3, raters), quality_for(mean, raters)
    sets = draw_sets(studies, list(zip(images, quality, strict=True)), raters, rng)
    limits = np.full((studies, 2), np.nan)
    for study in progress(range(studies), "ordinal models", leave=False):
        found = ordinal_effect(as_grid([scores[study] for scores in sets]))
        if "shift" in found:
            limits[study] = found["shift"]["ci95"]
    truth = (quality[0] - quality[1]) / float(np.hypot(raters.picture, raters.noise))
    return {"ordinal_shift": Covered(limits[:, 0], limits[:, 1], truth)}


def other_pictures(model: str, shape: tuple[int, int], quality: float, rng: np.random.Generator) -> Array:
    """Qualities [S, I, 1] that are not normal."""
    if model == "heavy_tails":
        return np.asarray(quality + 0.4 * rng.standard_t(3, (*shape, 1)), np.float64)
    usual = quality + 0.5 * rng.standard_normal((*shape, 1))
    return np.where(rng.random((*shape, 1)) < POOR, usual - 4, usual)


def other_model(
    studies: int, images: tuple[int, int], model: str, quality: float, raters: int, rng: np.random.Generator
) -> dict[str, Covered]:
    """Likert figures and agreement under another model; the truth is that of very many pictures."""

    def drawn(count: int, n: int, bias: Array) -> Array:
        seen = other_pictures(model, (count, n), quality, rng) + bias
        noise = 0.5 * rng.standard_normal((count, n, raters))
        return np.asarray(1.0 + np.searchsorted(CUTS, seen + noise), np.float64)

    few = raters < NEW_RATERS[0]

    def biases(count: int) -> Array:
        if few:
            return np.broadcast_to(np.linspace(0.2, -0.2, raters), (count, 1, raters))
        return np.asarray(0.2 * rng.standard_normal((count, 1, raters)), np.float64)

    many = drawn(20_000, 20, biases(20_000))
    bias = biases(studies)
    sets = [drawn(studies, n, bias) for n in images]
    cells = [cell_of(scores) for scores in sets]
    pooled = dispersion(cells, LOW, HIGH, LIKERT_DISPERSION)
    high = [cell_of((scores >= 4).astype(np.float64)) for scores in sets]
    spread = dispersion(high, 0.0, 1.0, SHARE_DISPERSION)
    mean = float(many.mean())
    found = {
        "mean_generated": Covered(*mean_interval(cells[0], LOW, HIGH, pooled), mean),
        "mean_real": Covered(*mean_interval(cells[1], LOW, HIGH, pooled), mean),
        "share_generated": Covered(*mean_interval(high[0], 0.0, 1.0, spread), float((many >= 4).mean())),
        "difference": Covered(*difference_interval(cells[0], cells[1], LOW, HIGH, pooled), 0.0),
    }
    if few:
        truth = agreement(many.reshape(1, -1, raters) - 1, CATEGORIES)
        each = agreement(np.concatenate(sets, 1) - 1, CATEGORIES)
        found |= {name: Covered(one.low, one.high, float(truth[name].value[0])) for name, one in each.items()}
    return found


def as_grid(sets: list[Array]) -> Grid:
    """Generated and real scores [I, R] as the analysis has them."""
    scores = np.concatenate(sets)
    role = np.repeat(np.array([GENERATED, REAL], object), [len(each) for each in sets])
    nothing: npt.NDArray[np.object_] = np.full(len(scores), None, object)
    names = tuple(f"R{place + 1}" for place in range(scores.shape[1]))
    return Grid(scores, names, np.arange(len(scores)).astype(object), role, role, nothing, {})


def measured(studies: int, seed: int, *, with_ordinal: bool) -> dict[str, Any]:
    """Every interval in every scenario."""
    document: dict[str, Any] = {"scenarios": {}, "told_apart": {}, "other_models": {}}
    around = np.linspace(-AROUND, AROUND, TRUTHS)
    each, fewer = studies // TRUTHS, min(studies, 1000) // TRUTHS
    for name, (mean, base) in progress(list(MEANS.items()), "scenarios"):
        for label, target, raters in raters_in(mean, base):
            for design, images in DESIGNS.items():
                rng = np.random.default_rng([seed, *map(ord, name + label + design)])
                parts, false = [], []
                for moved in target + around:
                    found = likert(each, images, moved, raters, rng)
                    if not raters.number:
                        found |= agreeing(each, sum(images), moved, raters, rng)
                    found |= resampled(fewer, images[0], moved, raters, rng)
                    if with_ordinal and name in ORDINAL and not raters.number:
                        found |= ordinal(fewer, images, moved, raters, rng)
                    parts.append(found)
                    false.append(false_equivalence(each, images, moved, raters, rng))
                document["scenarios"][f"{name}, {label}, {design}"] = {
                    "intervals": {key: one.as_dict() for key, one in together(parts).items()},
                    "false_equivalence": {
                        key: round(float(np.mean([one[key] for one in false])), 4) for key in false[0]
                    },
                }
    for name, chances in TOLD_APART.items():
        for design, images in DESIGNS.items():
            rng = np.random.default_rng([seed, *map(ord, name + design)])
            parts = []
            for moved in around * 0.8:
                generated, real = (tuple(np.array(side) + moved) for side in chances)
                parts.append(told_apart(each, images, (generated, real), rng))
            document["told_apart"][f"{name}, 2_raters, {design}"] = {
                "intervals": {key: one.as_dict() for key, one in together(parts).items()}
            }
    for model, qualities in OTHER_MODELS.items():
        for quality in qualities:
            for number in (2, 8):
                for design, images in DESIGNS.items():
                    label = f"{model}, quality {quality:g}, {number}_raters, {design}"
                    rng = np.random.default_rng([seed, *map(ord, label)])
                    covered = other_model(studies, images, model, quality, number, rng)
                    document["other_models"][label] = {
                        "intervals": {key: one.as_dict() for key, one in covered.items()}
                    }
    return document


def verdict(document: dict[str, Any]) -> dict[str, Any]:
    """How many intervals lie within the goal, which do not, and the most false equivalence."""
    rows = {
        f"{scenario}: {name}": found
        for part in ("scenarios", "told_apart")
        for scenario, entry in document[part].items()
        for name, found in entry["intervals"].items()
        if found["told"] >= TOLD and name != "resampled_mean"
    }
    few = {name for name, found in rows.items() if found.get("off_end", math.inf) < SCARCE}
    coverage = {name: found["coverage"] for name, found in rows.items()}
    false = [
        value for entry in document["scenarios"].values() for value in entry["false_equivalence"].values()
    ]
    low, high = GOAL
    other = {
        f"{scenario}: {name}": found["coverage"]
        for scenario, entry in document["other_models"].items()
        for name, found in entry["intervals"].items()
        if found["told"] >= TOLD
    }
    exact = {name: value for name, value in coverage.items() if name not in few}
    scarce = {name: value for name, value in coverage.items() if name in few}
    return {
        "all_intervals": len(coverage),
        "all_within_goal": sum(low <= value <= high for value in coverage.values()),
        "other_models": len(other),
        "other_models_within_goal": sum(low <= value <= high for value in other.values()),
        "other_models_range": [min(other.values()), max(other.values())],
        "intervals": len(exact),
        "within_goal": sum(low <= value <= high for value in exact.values()),
        "below": {name: value for name, value in exact.items() if value < low},
        "above": {name: value for name, value in exact.items() if value > high},
        "scarce_intervals": len(scarce),
        "scarce_below": {name: value for name, value in scarce.items() if value < low},
        "scarce_range": [min(scarce.values()), max(scarce.values())] if scarce else None,
        "most_false_equivalence": max(false),
    }


def main() -> int:
    """Measure, and keep the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, metavar="JSON")
    parser.add_argument("--studies", type=int, default=4000, help="a scenario (default 4000)")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--no-ordinal", action="store_true", help="leave the ordinal model out")
    args = parser.parse_args()
    document = measured(args.studies, args.seed, with_ordinal=not args.no_ordinal)
    summary = verdict(document)
    facts: Mapping[str, Any] = {
        "schema": 1,
        "command": "python -m diffusioncleft.tools.study_coverage",
        "simulated": True,
        "studies": args.studies,
        "true_means_each": TRUTHS,
        "studies_of_resampling_and_ordinal_model": min(args.studies, 1000),
        "seed": args.seed,
        "goal": list(GOAL),
    }
    write_json(args.out, {**facts, "summary": summary, **document})
    print(f"{summary['within_goal']} of {summary['intervals']} intervals within {GOAL}; {args.out}")
    print(f"all, few answers off the end or not: {summary['all_within_goal']} of {summary['all_intervals']}")
    print(
        f"other models: {summary['other_models_within_goal']} of {summary['other_models']} within, "
        f"{summary['other_models_range']}"
    )
    print(f"{summary['scarce_intervals']} with too few answers off the end: {summary['scarce_range']}")
    for side in ("below", "above", "scarce_below"):
        for name, value in summary[side].items():
            print(f"{side}: {value:.3f}  {name}")
    print(f"most false equivalence: {summary['most_false_equivalence']:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

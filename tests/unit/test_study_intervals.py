"""Intervals of the study cover their truth as often as they say: a small sample of tools/study_coverage."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t as student

from diffusioncleft.diffusioncleft_core.study.statistics.agreement import agreement
from diffusioncleft.diffusioncleft_core.study.statistics.detection import detection
from diffusioncleft.diffusioncleft_core.study.statistics.equivalence import tost_p
from diffusioncleft.diffusioncleft_core.study.statistics.intervals import (
    ENOUGH_RATERS,
    LIKERT_DISPERSION,
    cell_of,
    difference_interval,
    dispersion,
    mean_interval,
    percentile_interval,
)
from diffusioncleft.diffusioncleft_core.study.statistics.power import Plan, plan_words, planned
from diffusioncleft.diffusioncleft_core.study.statistics.scale import Scale
from diffusioncleft.diffusioncleft_core.study.statistics.simulate import (
    Raters,
    draw,
    draw_sets,
    quality_for,
    same_bias,
    true_agreement,
    true_mean,
)
from diffusioncleft.tools.study_coverage import TOLD

ROOT = Path(__file__).resolve().parents[2]
STUDIES = 1000
SLACK = 0.025
"""Around 95 %: the goal's 2 points, and a little for a thousand studies."""
TWO = Raters(0.6, 0.6)


def test_the_documentation_tells_the_coverage_that_was_counted():
    """How many intervals are within 93 to 97 %, from where to where, and the most false equivalence."""
    found = json.loads((ROOT / "experiments" / "study_coverage.json").read_text("utf-8"))
    told = (ROOT / "docs" / "study-statistics.md").read_text("utf-8")
    for raters, label in (("two or three", False), ("six, eight or twelve", True)):
        entries = [
            entry
            for part in ("scenarios", "told_apart")
            for name, entry in found[part].items()
            if ("drawn_anew" in name) == label
        ]
        values = [
            one["coverage"]
            for entry in entries
            for name, one in entry["intervals"].items()
            if name != "resampled_mean" and one["told"] >= TOLD
        ]
        false = max(
            value for entry in entries for value in entry.get("false_equivalence", {"": 0.0}).values()
        )
        within = sum(0.93 <= value <= 0.97 for value in values)
        (row,) = [line for line in told.splitlines() if line.startswith(f"| {raters}")]
        ends = f"{100 * min(values):.1f} to {100 * max(values):.1f} %"
        assert [part.strip() for part in row.split("|")[2:6]] == [
            str(len(values)),
            str(within),
            ends,
            f"{100 * false:.1f} %",
        ]


def covered(limits, truth):
    return float(np.mean((limits[0] <= truth) & (truth <= limits[1])))


def cells(sets):
    found = [cell_of(scores) for scores in sets]
    return found, dispersion(found, 1, 5, LIKERT_DISPERSION)


@pytest.mark.parametrize("mean", [3.5, 4.7, 4.9])
@pytest.mark.parametrize("raters", [TWO, same_bias(TWO, 8)], ids=["two", "eight drawn anew"])
def test_means_and_their_difference_cover_the_truth(mean, raters):
    rng = np.random.default_rng(0)
    quality = quality_for(mean, raters)
    (one, other), pooled = cells(draw_sets(STUDIES, [(50, quality), (50, quality)], raters, rng))
    assert true_mean(quality, raters) == pytest.approx(mean)
    for limits, truth in (
        (mean_interval(one, 1, 5, pooled), mean),
        (difference_interval(one, other, 1, 5, pooled), 0.0),
    ):
        assert abs(covered(limits, truth) - 0.95) <= SLACK


def test_the_resampled_interval_falls_short_at_a_ceiling_and_ours_does_not():
    rng = np.random.default_rng(1)
    scores = draw(400, 10, quality_for(4.9, TWO), TWO, rng)
    resampled = np.array([percentile_interval(each, 300, rng) for each in scores]).T
    cell = cell_of(scores)
    ours = mean_interval(cell, 1, 5, dispersion([cell], 1, 5, LIKERT_DISPERSION))
    assert covered(resampled, 4.9) < 0.88
    assert covered(ours, 4.9) > 0.93


@pytest.mark.parametrize("means", [(4.4, 4.9), (4.9, 4.4), (3.3, 3.8)])
def test_equivalence_at_the_margin_is_claimed_in_five_per_cent_at_most(means):
    rng = np.random.default_rng(2)
    sets = [(n, quality_for(mean, TWO)) for n, mean in zip((50, 10), means, strict=True)]
    (one, other), pooled = cells(draw_sets(2000, sets, TWO, rng))
    low, high = difference_interval(one, other, 1, 5, pooled)
    assert np.mean((low > -0.5) & (high < 0.5)) <= 0.05


@pytest.mark.parametrize(("mean", "picture", "noise"), [(3.5, 0.6, 0.6), (3.5, 0.0, 0.8), (4.9, 0.6, 0.6)])
def test_agreement_covers_the_truth_from_chance_to_a_ceiling(mean, picture, noise):
    raters = Raters(picture, noise)
    quality = quality_for(mean, raters)
    truth = true_agreement([(1.0, quality)], raters)
    scores = draw(STUDIES, 60, quality, raters, np.random.default_rng(3)) - 1
    for name, found in agreement(scores, 5).items():
        told = ~np.isnan(found.low)
        if name in ("agreement", "ac2"):
            assert told.all()
        if told.mean() > 0.5:
            assert abs(covered((found.low[told], found.high[told]), truth[name]) - 0.95) <= SLACK, name


def test_raters_who_agree_by_chance_have_a_true_kappa_of_zero():
    truth = true_agreement([(1.0, quality_for(4.9, Raters(0.0, 0.8)))], Raters(0.0, 0.8))
    assert truth["kappa"] == pytest.approx(0, abs=1e-9)
    assert truth["ac2"] > 0.9


def test_d_prime_and_bias_are_macmillan_and_creelmans():
    """Detection Theory, 2nd ed. (2005), chapter 1: hits and false alarms of 0.69 and 0.31, 0.89 and 0.59."""
    for hits, alarms, d_prime, bias in ((0.69, 0.31, 0.99, 0.0), (0.89, 0.59, 1.0, -0.73)):
        n = 10_000
        answers = [(np.arange(n) < share * n).astype(float)[:, None] for share in (hits, alarms)]
        found = detection(*answers)
        assert round(float(found.sensitivity[0]), 2) == d_prime
        assert float(found.bias[0]) == pytest.approx(bias, abs=0.005)


def test_d_prime_is_finite_where_a_rater_calls_everything_generated():
    found = detection(np.ones((50, 2)), np.ones((10, 2)))
    low, high = found.sensitivity[1]
    assert np.isfinite([low, high]).all() and low < 0 < high
    assert float(found.accuracy[0]) == pytest.approx(0.5)


def test_all_fives_still_have_a_width():
    cell = cell_of(np.full((10, 2), 5.0))
    low, high = mean_interval(cell, 1, 5, dispersion([cell], 1, 5, LIKERT_DISPERSION))
    assert high == 5 and 4 < low < 4.8


def test_in_the_middle_of_the_scale_the_interval_is_students():
    scores = np.random.default_rng(4).integers(1, 6, (400, 2)).astype(float)
    cell = cell_of(scores)
    low, high = mean_interval(cell, 1, 5, dispersion([cell], 1, 5, LIKERT_DISPERSION))
    each = scores.mean(-1)
    half = student.ppf(0.975, 399) * each.std(ddof=1) / np.sqrt(400)
    assert (low, high) == pytest.approx((each.mean() - half, each.mean() + half), abs=0.003)


def test_few_raters_stay_these_raters_and_more_stand_for_others():
    scores = np.clip(np.round(np.random.default_rng(5).normal(3, 1, (50, ENOUGH_RATERS))), 1, 5)
    scores = np.clip(scores + np.linspace(-1, 1, ENOUGH_RATERS), 1, 5)
    few, more = cell_of(scores[:, :-1]), cell_of(scores)
    width = [float(np.diff(mean_interval(cell, 1, 5, 0.2))[0]) for cell in (few, more)]
    assert width[1] > 2 * width[0]


def test_missing_ratings_leave_the_mean_of_the_images():
    scores = np.array([[5.0, np.nan], [3.0, 4.0], [np.nan, 2.0]])
    assert float(cell_of(scores).mean) == pytest.approx((5 + 3.5 + 2) / 3)


def test_the_p_of_equivalence_is_that_of_the_interval():
    rng = np.random.default_rng(6)
    one, other = rng.integers(3, 6, (50, 2)).astype(float), rng.integers(3, 6, (30, 2)).astype(float)
    scale = Scale(1, 5, 0.2)
    p = tost_p(one, other, scale, 0.5)
    at = scale.difference(one, other, 1 - 2 * p)
    assert min(0.5 - at.high, at.low + 0.5) == pytest.approx(0, abs=1e-6)


def test_a_plan_says_what_ten_real_images_can_show():
    ten, fifty = (planned(Plan(real=real)) for real in (10, 50))
    assert fifty["power"] > ten["power"] and fifty["detectable"] < ten["detectable"]
    assert any("nothing follows on others" in line for line in plan_words(ten))
    assert not re.search(r"\d%", " ".join(plan_words(ten))), "everywhere else it is `80 %`"
    needed = {row["margin"]: row["real"] for row in ten["needed"]}
    assert needed[1.0] <= needed[0.5] <= needed[0.25]

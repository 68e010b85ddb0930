"""Intervals over people hold the truth as often as they say where people have several images."""

import json
from pathlib import Path

import pytest

from diffusioncleft.diffusioncleft_core.downstream.resampling import METRICS, SHARES
from diffusioncleft.tools.downstream_coverage import SETTINGS, Setting, coverage, truth


@pytest.fixture(scope="module")
def found():
    return coverage(Setting(24, images=8, shared=0.7), 150, seed=0)


def test_intervals_over_people_hold_the_truth(found):
    for metric in METRICS:
        assert found["people"][metric]["coverage"] >= 0.90, metric
    for metric, figure in found["difference, people"].items():
        assert figure["coverage"] >= 0.90, metric


def test_an_interval_that_ignores_people_does_not(found):
    for metric in SHARES:
        assert found["images as if of different people"][metric]["coverage"] < 0.85, metric


def test_intervals_are_not_wide_for_nothing(found):
    """With one image a person they are about as wide as the textbook's."""
    once = coverage(Setting(100, images=1, shared=0.0), 40, seed=1)
    exact = once["images as if of different people"]["accuracy"]["mean_width"]
    assert once["people"]["accuracy"]["mean_width"] == pytest.approx(exact)
    assert once["people"]["balanced_accuracy"]["mean_width"] < 1.1 * exact


@pytest.mark.long
def test_only_an_interval_that_covers_trainings_holds_what_another_training_would_give():
    spread = coverage(Setting(50, trainings=5, jitter=1.0), 60, seed=2)
    for metric in ("accuracy", "balanced_accuracy"):
        assert spread["people"][metric]["coverage"] < 0.85
        assert spread["people and trainings"][metric]["coverage"] >= 0.9


def test_the_truth_that_coverage_is_measured_against():
    known = truth(1.6, 0.0)
    assert known["accuracy"] == pytest.approx(0.78814, abs=1e-5)
    assert known["auc"] == pytest.approx(0.87105, abs=1e-5)
    assert truth(0.0, 0.0)["auc"] == pytest.approx(0.5)
    assert truth(0.0, 2.0)["accuracy"] == pytest.approx(0.5)


def test_the_kept_figures_are_of_a_thousand_repetitions_of_every_setting():
    path = Path(__file__).resolve().parents[2] / "experiments" / "downstream_coverage.json"
    kept = json.loads(path.read_text("utf-8"))
    assert kept["repetitions"] == 1000 and set(kept["settings"]) == set(SETTINGS)
    assert "downstream_coverage" in kept["command"] and kept["date"]
    for name, setting in kept["settings"].items():
        kind = "people and trainings" if setting["trainings"] > 1 else "people"
        for metric, figure in setting["intervals"][kind].items():
            assert figure["coverage"] >= 0.90, (name, metric)

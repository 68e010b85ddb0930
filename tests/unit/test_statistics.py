"""Intervals cover what they promise, and the correction undoes a test's known errors."""

from __future__ import annotations

import numpy as np
import pytest

from diffusioncleft.diffusioncleft_core.statistics import DiagnosticAccuracy, clopper_pearson, corrected


def test_the_papers_five_of_two_thousand() -> None:
    share = clopper_pearson(5, 2000)
    assert share.ci95 == pytest.approx((0.00081, 0.00582), abs=1e-5)


def test_none_of_two_thousand_proves_less_than_two_in_a_thousand_only() -> None:
    share = clopper_pearson(0, 2000)
    assert share.value == 0
    assert share.ci95[0] == 0
    assert 0.0015 < share.ci95[1] < 0.002


def test_a_share_of_nothing_has_no_value() -> None:
    assert clopper_pearson(0, 0).value is None
    assert corrected(0, 0, DiagnosticAccuracy(9, 10, 9, 10)).value is None


def test_the_interval_covers_at_least_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    for truth in (0.02, 0.5, 0.95):
        draws = rng.binomial(60, truth, size=800)
        covered = [low <= truth <= high for low, high in (clopper_pearson(int(k), 60).ci95 for k in draws)]
        assert np.mean(covered) >= 0.95


def test_a_faultless_test_needs_no_correction() -> None:
    share = corrected(180, 200, DiagnosticAccuracy(10**6, 10**6, 10**6, 10**6))
    assert share.value == pytest.approx(0.9, abs=1e-4)


def test_the_correction_recovers_the_true_share_and_covers_it() -> None:
    rng = np.random.default_rng(1)
    truth, sensitivity, specificity, n = 0.30, 0.90, 0.95, 400
    values, covered = [], []
    for _ in range(600):
        accuracy = DiagnosticAccuracy(
            int(rng.binomial(500, sensitivity)), 500, int(rng.binomial(500, specificity)), 500
        )
        sick = rng.binomial(n, truth)
        k = rng.binomial(sick, sensitivity) + rng.binomial(n - sick, 1 - specificity)
        share = corrected(int(k), n, accuracy)
        values.append(share.value)
        covered.append(share.ci95[0] <= truth <= share.ci95[1])
    assert np.mean(values) == pytest.approx(truth, abs=0.005)
    assert np.mean(covered) >= 0.93


def test_a_test_no_better_than_chance_is_refused() -> None:
    with pytest.raises(ValueError, match="chance"):
        corrected(5, 10, DiagnosticAccuracy(5, 10, 5, 10))

"""Coefficients of agreement are those of published examples, and their intervals are honest at a ceiling."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from diffusioncleft.diffusioncleft_core.study.statistics.agreement import (
    Sums,
    agreement,
    chance_agreement,
    ordinal_weights,
)

NAN = np.nan
FOUR_RATERS = (
    np.array(
        [
            [1, 1, NAN, 1],
            [2, 2, 3, 2],
            [3, 3, 3, 3],
            [3, 3, 3, 3],
            [2, 2, 2, 2],
            [1, 2, 3, 4],
            [4, 4, 4, 4],
            [1, 1, 2, 1],
            [2, 2, 2, 2],
            [NAN, 5, 5, 5],
            [NAN, NAN, 1, 1],
            [NAN, NAN, 3, NAN],
        ]
    )
    - 1
)
"""Twelve units, four raters, some missing: Gwet, Handbook of Inter-Rater Reliability, 4th ed., p. 55."""
TWO_RATERS = np.array(
    [(0, NAN), (1, 2), (2, 2), (2, 2), (1, 1), (1, NAN), (0, 0), (0, 1), (1, 1), (1, 1), (NAN, 2)]
)
"""Gwet (2014), Table 3.5."""
ABSTRACTORS = ((13, 0, 0), (0, 20, 7), (0, 4, 56))
"""`cont3x3abstractors` of Gwet's own irrCAC (R, CRAN)."""
JUDGES = np.array(
    [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]], float
)
"""Six targets, four judges: Shrout & Fleiss, Psychol Bull 86 (1979), Table 2."""


def expanded(table):
    """The ratings behind a table of two raters."""
    cells = [(row, column, n) for row, counts in enumerate(table) for column, n in enumerate(counts)]
    return np.array([(row, column) for row, column, n in cells for _ in range(n)], float)


def coefficients(scores, categories, *, identity=False):
    weights = (np.eye(categories), np.eye(categories)) if identity else None
    sums = Sums(scores, categories, weights)
    return {name: float(value) for name, value in sums.coefficients(sums.total).items()}


def test_unweighted_coefficients_are_those_of_gwets_handbook():
    found = coefficients(FOUR_RATERS, 5, identity=True)
    assert round(found["agreement"], 4) == 0.8182
    assert round(found["ac2"], 4) == 0.7754  # AC1
    assert round(found["kappa"], 4) == 0.7628  # Conger's


def test_ordinal_ac2_is_irrcacs():
    """irrCAC with weights "ordinal", to the digits that it prints: 0.899 and 0.925."""
    assert round(coefficients(FOUR_RATERS, 5)["ac2"], 3) == 0.899
    assert round(coefficients(expanded(ABSTRACTORS), 3)["ac2"], 3) == 0.925


def test_quadratic_kappa_is_gwets_and_irrcacs():
    """Gwet (2014) Example 3.2: 0.7772; irrCAC on the abstractors: 0.8921569."""
    assert round(coefficients(TWO_RATERS, 3)["kappa"], 4) == 0.7772
    assert round(coefficients(expanded(ABSTRACTORS), 3)["kappa"], 7) == 0.8921569


def test_ordinal_weights_are_gwets():
    assert ordinal_weights(3) == pytest.approx(np.array([[1, 2 / 3, 0], [2 / 3, 1, 2 / 3], [0, 2 / 3, 1]]))
    assert ordinal_weights(5)[0] == pytest.approx([1, 0.9, 0.7, 0.4, 0])


def test_icc_is_shrout_and_fleisss():
    assert round(coefficients(JUDGES, 11)["icc"], 2) == 0.29


def test_kappa_of_two_raters_is_scikit_learns():
    rng = np.random.default_rng(0)
    first = rng.integers(0, 5, 80)
    second = np.clip(first + rng.integers(-1, 2, 80), 0, 4)
    expected = cohen_kappa_score(first, second, labels=range(5), weights="quadratic")
    found = coefficients(np.stack([first, second], -1).astype(float), 5)["kappa"]
    assert found == pytest.approx(expected, abs=1e-12)


def at_the_ceiling():
    """Sixty images, two raters, all fives but one four each on another image: 96.7 % the same answer."""
    scores = np.full((60, 2), 4.0)
    scores[0, 0] = scores[1, 1] = 3.0
    return scores


def test_at_a_ceiling_kappa_falls_and_ac2_stays():
    found = agreement(at_the_ceiling(), 5)
    assert float(found["agreement"].value) == pytest.approx(58 / 60)
    assert float(found["kappa"].value) == pytest.approx(-0.017, abs=5e-4)
    assert float(found["ac2"].value) == pytest.approx(0.997, abs=5e-4)
    assert 0.97 < found["ac2"].low < 0.997 <= found["ac2"].high <= 1


def test_kappa_has_no_interval_where_nearly_all_answers_are_the_same():
    found = agreement(at_the_ceiling(), 5)
    assert np.isnan(found["kappa"].low) and np.isnan(found["icc"].high)
    middle = np.random.default_rng(1).integers(0, 5, (60, 2)).astype(float)
    assert agreement(middle, 5)["kappa"].low < 0 < agreement(middle, 5)["kappa"].high


def test_where_all_say_five_ac2_is_one_with_a_width_and_kappa_is_none():
    found = agreement(np.full((20, 2), 4.0), 5)
    assert np.isnan(found["kappa"].value) and np.isnan(found["icc"].value)
    assert float(found["ac2"].value) == 1
    assert found["ac2"].low < 0.97


def test_chance_agreement_is_that_of_the_raters_own_frequencies():
    scores = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], float)
    assert float(chance_agreement(scores, 2)) == pytest.approx(0.5)


def test_one_rater_can_not_agree():
    with pytest.raises(ValueError, match="two raters"):
        agreement(np.zeros((5, 1)), 5)

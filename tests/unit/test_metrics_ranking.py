"""Sets in order: what their differences are worth when both are compared with the same photographs."""

import numpy as np
import pytest

from diffusioncleft.cli.figures import summary
from diffusioncleft.diffusioncleft_core.metrics.distributions import Sides, distribution_figures
from diffusioncleft.diffusioncleft_core.metrics.features import PopulationFeatures
from diffusioncleft.diffusioncleft_core.metrics.ranking import ranking, rankings
from diffusioncleft.diffusioncleft_core.metrics.sets import Group, Population
from diffusioncleft.diffusioncleft_core.statistics import (
    beyond_chance,
    chance_of,
    clopper_pearson,
    difference_interval,
)

NETWORK = {"name": "a network", "sha256": "0" * 64, "phantom": False, "licence": "none"}


def distributions(images, photographs):
    group = Group("x", np.ones(len(images), bool), None)
    features = PopulationFeatures(
        Population([None] * len(images), [group]), {"fid": images}, {}, None, {}, np.zeros(len(images), bool)
    )
    return distribution_figures(group, features, Sides("fid", photographs, None, NETWORK, 0))


def test_a_difference_over_the_same_photographs_is_narrower_than_of_independent_figures():
    rng = np.random.default_rng(0)
    photographs = rng.normal(size=(30, 8)) * 3
    first, second = (rng.normal(size=(400, 8)) + shift for shift in (0.5, 0.0))
    found = [distributions(images, photographs) for images in (first, second)]
    for metric in ("fid", "kid"):
        one, other = (part.estimates[metric] for part in found)
        value, (low, high) = one.less(other)
        apart = difference_interval(one.value, one.interval(), other.value, other.interval())
        assert value == pytest.approx(one.value - other.value)
        assert high - low < 0.8 * (apart[1] - apart[0]), metric


@pytest.mark.long
def test_the_interval_of_a_difference_holds_the_true_one():
    """FID and KID of two samplers, one of them shifted; the truth is the mean over many drawings."""
    rng = np.random.default_rng(1)
    values, intervals = {"fid": [], "kid": []}, {"fid": [], "kid": []}
    for _ in range(120):
        photographs = rng.normal(size=(40, 6))
        found = [
            distributions(rng.normal(size=(60, 6)) + shift, photographs).estimates for shift in (0.6, 0.4)
        ]
        for metric, ends in intervals.items():
            value, interval = found[0][metric].less(found[1][metric])
            values[metric].append(value)
            ends.append(interval)
    for metric, ends in intervals.items():
        truth = np.mean(values[metric])
        held = np.mean([low <= truth <= high for low, high in ends])
        assert 0.90 <= held <= 1.0, (metric, held)


def test_shares_of_images_differ_as_independent_ones_do():
    one, other = clopper_pearson(30, 200), clopper_pearson(8, 200)
    low, high = difference_interval(one.value, one.ci95, other.value, other.ci95)
    assert low < 0.11 < high and low > 0
    assert chance_of(0.11, (low, high)) < 0.05
    assert chance_of(0.0, (-0.1, 0.1)) == 1.0
    assert chance_of(1.0, (0.0, 2.0)) == pytest.approx(0.05)


def test_holm_allows_for_how_many_differences_are_looked_at():
    assert beyond_chance([0.01, 0.04, 0.03]) == [True, False, False]
    assert beyond_chance([0.01, 0.02, 0.04]) == [True, True, True]
    assert beyond_chance([]) == []


def test_sets_are_ordered_and_only_those_surely_behind_are_not_beside_the_best():
    figures = {
        "far": {"value": 0.4, "ci95": [0.35, 0.45]},
        "near": {"value": 0.11, "ci95": [0.07, 0.15]},
        "best": {"value": 0.1, "ci95": [0.06, 0.14]},
    }
    found = ranking(figures, dict.fromkeys(figures), lower_is_better=True)
    assert [(item["name"], item["beside_best"]) for item in found["sets"]] == [
        ("best", True),
        ("near", True),
        ("far", False),
    ]
    assert [item["beyond_chance"] for item in found["differences"]] == [False, True, True]
    upward = ranking(figures, dict.fromkeys(figures), lower_is_better=False)
    assert upward["sets"][0]["name"] == "far"


def test_only_sets_that_were_compared_with_the_same_photographs_are_ranked():
    def figures(value):
        return {
            "fid": {
                "paper": {
                    "raw": {"value": value, "ci95": [value - 1, value + 1], "n": 9, "extractor": NETWORK}
                }
            }
        }

    sets = {"ours": figures(50.0), "theirs": figures(90.0), "post_op": figures(10.0)}
    found = rankings(sets, {"ours": "pre_op", "theirs": "pre_op", "post_op": "post_op"}, {})
    assert list(found) == ["pre_op"]
    assert [item["name"] for item in found["pre_op"]["fid"]["sets"]] == ["ours", "theirs"]
    lines = summary(sets, found)
    assert "theirs is 40.00 (38.59 to 41.41) above ours: beyond chance" in " ".join(lines)
    assert "no control" in lines[0]

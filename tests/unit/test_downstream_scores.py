"""Figures of a classifier: right by hand, intervals over people, and nothing of fewer than five of them."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from downstream_sets import counted, of, people

from diffusioncleft.diffusioncleft_core.downstream.resampling import (
    METRICS,
    Subjects,
    interval_of,
    observed,
    statistics_of,
    with_trainings,
)
from diffusioncleft.diffusioncleft_core.downstream.scores import (
    UNKNOWN,
    by_group,
    figures,
    reliability,
    spread,
)
from diffusioncleft.diffusioncleft_core.statistics import clopper_pearson

SIX = of([1, 1, 1, 0, 0, 0], [0.9, 0.5, 0.49, 0.5, 0.1, 0.3])


def brute_auc(item):
    pairs = list(itertools.product(item.scores[item.labels == 1], item.scores[item.labels == 0]))
    return float(np.mean([(a > b) + 0.5 * (a == b) for a, b in pairs]))


def test_figures_are_those_that_one_counts_by_hand():
    found = observed([SIX])
    assert found["sensitivity"] == pytest.approx(2 / 3)  # 0.9 and exactly 0.5 are called positive
    assert found["specificity"] == pytest.approx(2 / 3)  # exactly 0.5 is not negative
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert found["balanced_accuracy"] == pytest.approx(2 / 3)
    assert found["auc"] == pytest.approx((3 + 2.5 + 2) / 9)
    assert found["brier"] == pytest.approx(np.mean([0.01, 0.25, 0.2601, 0.25, 0.01, 0.09]))


def test_balanced_accuracy_weighs_the_classes_alike():
    few = of([1] + [0] * 9, [0.1] * 10)
    assert observed([few])["accuracy"] == pytest.approx(0.9)
    assert observed([few])["balanced_accuracy"] == pytest.approx(0.5)


def test_the_auc_counts_ties_half_whatever_the_order_of_the_images():
    rng = np.random.default_rng(0)
    item = of(rng.integers(0, 2, 60), rng.integers(0, 8, 60) / 8)
    turned = of(item.labels[::-1], item.scores[::-1])
    assert observed([item])["auc"] == pytest.approx(brute_auc(item), abs=1e-12)
    assert observed([turned])["auc"] == pytest.approx(brute_auc(item), abs=1e-12)


def test_a_person_who_is_drawn_twice_counts_like_two():
    rng = np.random.default_rng(1)
    subject = np.repeat(np.arange(6), 3)
    item = of(rng.integers(0, 2, 18), rng.integers(0, 5, 18) / 5, subject)
    weights = np.array([[2.0, 1, 0, 3, 1, 1]])
    places = np.repeat(np.arange(18), weights[0].astype(int)[subject])
    copied = of(item.labels[places], item.scores[places])
    drawn = statistics_of([item], weights)
    for name, value in observed([copied]).items():
        assert drawn[name][0] == pytest.approx(value, abs=1e-12), name


def test_many_draws_are_the_same_as_one_by_one(monkeypatch):
    from diffusioncleft.diffusioncleft_core.downstream import resampling

    item = people(12, 3, effect=1, seed=0)[0]
    weights = Subjects.of([item]).draws(50, 0)
    whole = statistics_of([item], weights)
    monkeypatch.setattr(resampling, "_CELLS", 100)
    parts = statistics_of([item], weights)
    assert all(np.allclose(whole[name], parts[name]) for name in METRICS)


@pytest.mark.parametrize(
    ("right", "low", "high"), [(79, 0.697, 0.865), (84, 0.753, 0.906), (66, 0.558, 0.752)]
)
def test_a_hundred_people_with_one_image_each_get_the_exact_interval(right, low, high):
    figure = figures([counted(right, 100)], photographs=True)["accuracy"]
    assert figure["value"] == pytest.approx(right / 100)
    assert figure["ci95"] == pytest.approx(list(clopper_pearson(right, 100).ci95), abs=1e-12)
    assert figure["ci95"] == pytest.approx([low, high], abs=5e-4)
    assert (figure["n"], figure["n_subjects"]) == (100, 100)


def test_more_images_of_the_same_people_say_no_more_when_they_all_say_the_same():
    once = people(40, 1, effect=1.5, seed=3)[0]
    often = of(np.repeat(once.labels, 6), np.repeat(once.scores, 6), np.repeat(np.arange(40), 6))
    one, many = (figures([item], photographs=False) for item in (once, often))
    for name in METRICS:
        assert many[name]["value"] == pytest.approx(one[name]["value"])
        width = [figure["ci95"][1] - figure["ci95"][0] for figure in (one[name], many[name])]
        assert width[1] > 0.9 * width[0], name


def test_all_right_is_as_sure_as_its_people_are_many_and_not_its_images():
    subject = np.repeat(np.arange(8), 5)
    found = figures([of(subject % 2, 0.1 + 0.8 * (subject % 2), subject)], photographs=False)
    assert found["accuracy"]["ci95"] == pytest.approx(list(clopper_pearson(8, 8).ci95))
    assert found["sensitivity"]["ci95"] == pytest.approx(list(clopper_pearson(4, 4).ci95))
    assert found["auc"]["ci95"] == pytest.approx(list(clopper_pearson(4, 4).ci95))
    assert found["balanced_accuracy"]["ci95"] == pytest.approx(list(clopper_pearson(4, 4).ci95))
    wrong = figures([of(subject % 2, 0.9 - 0.8 * (subject % 2), subject)], photographs=False)
    assert wrong["accuracy"]["ci95"] == pytest.approx(list(clopper_pearson(0, 8).ci95))


def test_images_of_a_person_that_differ_are_worth_more_than_the_person():
    rng = np.random.default_rng(2)
    subject = np.repeat(np.arange(40), 6)
    labels = subject % 2
    item = of(labels, np.where(rng.random(240) < 0.8, labels, 1 - labels) * 0.6 + 0.2, subject)
    for name, found in figures([item], photographs=False).items():
        by_people = clopper_pearson(round(found["value"] * found["n_subjects"]), found["n_subjects"]).ci95
        assert np.diff(found["ci95"])[0] < 0.7 * np.diff(by_people)[0], name


def test_an_interval_is_never_narrower_than_that_of_as_many_independent_images():
    rng = np.random.default_rng(5)
    subject = np.repeat(np.arange(30), 4)
    labels = np.tile([0, 0, 1, 1], 30)
    right = np.tile([1, 0, 1, 0], 30)  # every person the same share: people do not vary at all
    item = of(labels, np.where(right, labels, 1 - labels) * 0.6 + 0.2 + 0.001 * rng.random(120), subject)
    low, high = figures([item], photographs=False)["accuracy"]["ci95"]
    exact = clopper_pearson(60, 120).ci95
    assert low <= exact[0] + 1e-12 and high >= exact[1] - 1e-12


def test_each_draw_has_as_many_people_of_each_class_as_there_are():
    subject = np.array([0, 0, 1, 2, 3, 3, 4, 5, 6, 7])
    labels = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0])
    test = Subjects(subject, labels == 1)
    weights = test.draws(200, 0)
    assert np.allclose(weights[:, :3].sum(axis=1), 3) and np.allclose(weights[:, 3:].sum(axis=1), 5)
    assert len({tuple(row) for row in weights}) > 20


def test_people_of_either_class_and_of_both_are_drawn_apart():
    subject = np.array([0, 1, 2, 3, 4, 4, 5, 5])
    test = Subjects(subject, np.array([1, 1, 0, 0, 1, 0, 0, 1], bool))
    strata = test.strata.tolist()
    assert strata[0] == strata[1] and strata[2] == strata[3] and strata[4] == strata[5]
    assert len(set(strata)) == 3


def test_one_person_alone_in_a_stratum_is_drawn_with_the_largest():
    test = Subjects(np.array([0, 1, 1, 2, 2, 3, 3]), np.array([1, 1, 0, 1, 0, 1, 0], bool))
    assert len(set(test.strata.tolist())) == 1
    assert test.draws(100, 0)[:, 0].std() > 0


def test_variance_of_the_draws_is_that_of_a_mean_over_people():
    """Rao and Wu's draws: without their weight it would be a fifth too small for five people."""
    values = np.array([0.0, 0.2, 0.5, 0.6, 1.0])
    test = Subjects(np.arange(5), np.ones(5, bool))
    means = test.draws(20000, 0) @ values / 5
    assert means.var() == pytest.approx(values.var(ddof=1) / 5, rel=0.05)


def test_the_same_predictions_give_the_same_interval_whatever_the_people_are_called():
    item = people(20, 3, effect=1, seed=2)[0]
    renamed = replace(item, subjects=tuple(f"p-{name}" for name in item.subjects))
    assert figures([item], photographs=False) == figures([renamed], photographs=False)


def test_a_figure_of_nothing_has_no_value():
    empty = figures([of([], [])], photographs=True)
    assert all(figure["value"] is None and figure["n"] == 0 for figure in empty.values())
    found = figures([of([1] * 9, [0.7] * 9)], photographs=True)
    assert found["sensitivity"]["value"] == 1
    for name in ("specificity", "balanced_accuracy", "auc"):
        assert found[name]["value"] is None and found[name]["ci95"] is None


def test_one_person_of_a_class_leaves_nearly_everything_open():
    item = of([1, 1, 1, *[0] * 10], [0.9, 0.9, 0.1, *[0.2] * 10], [0, 0, 0, *range(1, 11)])
    found = figures([item], photographs=False)
    low, high = found["sensitivity"]["ci95"]
    assert low < 0.1 and high > 0.95
    ranked = of([1, *[0] * 12], [0.6, *np.linspace(0, 0.8, 12)])  # one positive person, above most
    low, high = figures([ranked], photographs=False)["auc"]["ci95"]
    assert low < 0.1 and high > 0.95


# Trainings


def test_of_several_trainings_the_mean_is_told_and_their_spread_apart_from_chance():
    trainings = people(30, 2, effect=1, seed=0, trainings=5)
    found = figures(trainings, photographs=False)
    single = [observed([item]) for item in trainings]
    for name, figure in found.items():
        values = [values[name] for values in single]
        assert figure["value"] == pytest.approx(np.mean(values))
        assert figure["sd_trainings"] == pytest.approx(np.std(values, ddof=1))
        low, high = figure["ci95"]
        assert figure["ci95_trainings"][0] < low and figure["ci95_trainings"][1] > high
    told = spread(trainings)
    assert told["n"] == 5 and told["metric"] == "balanced_accuracy"
    assert told["mean"] == pytest.approx(found["balanced_accuracy"]["value"])
    assert told["sd"] == pytest.approx(found["balanced_accuracy"]["sd_trainings"])
    assert told["low"] == min(values["balanced_accuracy"] for values in single)
    assert told["high"] == max(values["balanced_accuracy"] for values in single)


def test_one_training_has_no_spread():
    trainings = people(30, 2, effect=1, seed=0)
    figure = figures(trainings, photographs=False)["auc"]
    assert figure["sd_trainings"] is None and figure["ci95_trainings"] is None
    assert spread(trainings)["sd"] is None
    assert with_trainings((0.4, 0.6), [0.5]) is None


def test_trainings_that_agree_leave_the_interval_as_it_is_and_others_widen_it_on_both_sides():
    assert with_trainings((0.4, 0.7), [0.5, 0.5, 0.5]) == pytest.approx((0.4, 0.7))
    low, high = with_trainings((0.4, 0.7), [0.4, 0.5, 0.6])
    wide = 4.302653 * 0.1 / 3**0.5
    assert (low, high) == pytest.approx((0.5 - np.hypot(0.1, wide), 0.5 + np.hypot(0.2, wide)))
    assert with_trainings((0.1, 0.95), [0.0, 1.0]) == (0.0, 1.0)


def test_predictions_of_different_images_are_never_taken_together():
    one = people(10, 2, effect=1, seed=0, keys=tuple(f"k{i}" for i in range(20)))[0]
    for other in (
        replace(one, subjects=one.subjects[::-1]),
        replace(one, labels=1 - one.labels),
        replace(one, keys=one.keys[::-1]),
        one.where(np.arange(20) < 10),
    ):
        with pytest.raises(ValueError, match="different test sets"):
            figures([one, other], photographs=False)
    with pytest.raises(ValueError, match="no predictions"):
        figures([], photographs=False)


def test_a_wider_level_gives_a_wider_interval():
    item = people(30, 2, effect=1, seed=0)
    for name in METRICS:
        narrow, wide = (figures(item, photographs=False, level=level)[name]["ci95"] for level in (0.95, 0.99))
        assert wide[0] < narrow[0] and wide[1] > narrow[1], name


def test_an_interval_holds_its_value():
    test = Subjects(np.arange(4), np.array([1, 1, 0, 0], bool))
    for value in (0.0, 0.01, 0.99, 1.0):
        low, high = interval_of("brier", value, np.array([value, value + 1e-3, value]), test)
        assert low <= value <= high


# Groups, and what is not told of few people


def grouped(sizes, positive=None):
    """One image a person, groups of these sizes; `positive` of each group are of the positive class."""
    names = [name for name, size in sizes.items() for _ in range(size)]
    labels = [
        int(i < (positive or {}).get(name, size // 2)) for name, size in sizes.items() for i in range(size)
    ]
    return of(labels, [0.7 if label else 0.2 for label in labels], groups={"skin_tone": tuple(names)})


def told_groups(found):
    return {name for name, metrics in found.items() if metrics["accuracy"]["value"] is not None}


def test_a_group_is_told_from_five_people_of_each_class_on():
    item = grouped({"dark": 10, "light": 30, "olive": 12}, {"dark": 5, "light": 15, "olive": 6})
    assert told_groups(by_group([item], "skin_tone", photographs=True)) == {"dark", "light", "olive"}
    for positive in (1, 4):  # four of the one class, or of the other
        few = grouped({"dark": 10, "light": 30, "olive": 14}, {"dark": 5, "light": 15, "olive": positive})
        found = by_group([few], "skin_tone", photographs=True)
        assert told_groups(found) == {"light"}, "the smaller one goes along, or it would follow"
        assert all(
            figure[key] is None for figure in found["olive"].values() for key in ("n", "n_subjects", "ci95")
        )
        assert "fewer than 5" in found["olive"]["auc"]["note"]
    none = grouped({"dark": 10, "light": 30, "olive": 14}, {"dark": 5, "light": 15, "olive": 0})
    assert told_groups(by_group([none], "skin_tone", photographs=True)) == {"dark", "light", "olive"}


def test_untold_groups_that_are_five_together_let_the_others_be_told():
    item = grouped({"a": 4, "b": 4, "c": 20, "d": 30}, {"a": 0, "b": 0})
    assert told_groups(by_group([item], "skin_tone", photographs=True)) == {"c", "d"}


def test_people_and_not_images_are_counted_for_what_may_be_told():
    subject = np.repeat(np.arange(24), 6)
    names = tuple("dark" if who < 8 else "light" for who in subject)
    item = of(subject % 2, 0.2 + 0.6 * (subject % 2), subject, groups={"skin_tone": names})
    found = by_group([item], "skin_tone", photographs=True)
    assert told_groups(found) == set(), "dark has four people of each class with six images each"
    assert told_groups(by_group([item], "skin_tone", photographs=False)) == {"dark", "light"}


def test_an_image_whose_group_is_not_known_is_a_group_of_its_own():
    item = grouped({"dark": 20, "light": 20})
    item = replace(item, groups={"skin_tone": (None,) * 4 + item.groups["skin_tone"][4:]})
    found = by_group([item], "skin_tone", photographs=False)
    assert found[UNKNOWN]["accuracy"]["n"] == 4 and found["dark"]["accuracy"]["n"] == 16
    assert told_groups(by_group([item], "skin_tone", photographs=True)) == {"light"}
    with pytest.raises(KeyError):
        by_group([item], "age_group", photographs=False)


def test_a_group_has_its_own_figures():
    labels = [1, 0] * 10
    item = of(labels, [0.9, 0.1] * 5 + [0.1, 0.9] * 5, groups={"gender": ("f",) * 10 + ("m",) * 10})
    found = by_group([item], "gender", photographs=True)
    assert (found["f"]["accuracy"]["value"], found["m"]["accuracy"]["value"]) == (1, 0)


def test_nothing_is_told_of_photographs_of_fewer_than_five_people_of_a_class():
    four = of([1] * 4 + [0] * 20, [0.9] * 4 + [0.1] * 20)
    assert all(
        figure["value"] is None and figure["n"] is None
        for figure in figures([four], photographs=True).values()
    )
    assert figures([four], photographs=False)["sensitivity"]["value"] == 1
    five = of([1] * 5 + [0] * 20, [0.9] * 5 + [0.1] * 20)
    assert figures([five], photographs=True)["sensitivity"]["n"] == 5


# Reliability


def test_scores_on_the_edge_of_a_bin_belong_to_the_upper_one_and_one_to_the_last():
    table = reliability([of([1, 0, 1, 1], [0.0, 0.1, 0.99, 1.0])], photographs=False)
    assert [(row["from"], row["n"]) for row in table] == [(0.0, 1), (0.1, 1), (0.9, 2)]
    assert table[2]["score"] == pytest.approx(0.995) and table[2]["value"] == 1


def test_a_bin_of_fewer_than_five_people_keeps_its_bounds_alone():
    scores = [0.05] * 4 + [0.55] * 6 + [0.95] * 9
    found = reliability([of([0, 1] * 9 + [1], scores)], photographs=True)
    assert [row["n"] for row in found] == [None, None, 9]
    assert found[0] == {
        "from": 0.0,
        "to": 0.1,
        **dict.fromkeys(("n", "n_subjects", "score", "value", "ci95")),
    }
    assert [row["n"] for row in reliability([of([0, 1] * 9 + [1], scores)], photographs=False)] == [4, 6, 9]


def test_no_bin_is_told_where_a_class_has_fewer_than_five_people():
    small = of([1] * 3 + [0] * 30, [0.55] * 18 + [0.95] * 15)
    table = reliability([small], photographs=True)
    assert [row["from"] for row in table] == [0.5, 0.9]
    assert all(row[name] is None for row in table for name in ("n", "n_subjects", "score", "value", "ci95"))
    assert [row["n"] for row in reliability([small], photographs=False)] == [18, 15]


def test_a_bins_interval_is_over_people():
    subject = np.repeat(np.arange(20), 5)
    labels = (subject % 2).astype(int)
    (row,) = reliability([of(labels, [0.55] * 100, subject)], photographs=True)
    exact = clopper_pearson(50, 100).ci95
    assert (row["n"], row["n_subjects"]) == (100, 20)
    assert row["ci95"][0] < exact[0] - 0.05 and row["ci95"][1] > exact[1] + 0.05
    alone = of([0, 1] * 50, [0.55] * 100)
    assert reliability([alone], photographs=True)[0]["ci95"] == pytest.approx(list(exact))


def test_trainings_are_pooled_over_the_same_people():
    first = of([0, 1] * 10, [0.55] * 20)
    second = of([0, 1] * 10, [0.85] * 20)
    table = reliability([first, second], photographs=True)
    assert [(row["from"], row["n"], row["n_subjects"]) for row in table] == [(0.5, 20, 20), (0.8, 20, 20)]

"""Two classifiers on the same images: exact p, differences over people, and how many images would tell."""

import numpy as np
import pytest
from downstream_sets import of, people

from diffusioncleft.diffusioncleft_core.downstream.compare import (
    COMPARED,
    compare,
    discordant_people,
    exact_mcnemar,
    images_needed,
    mcnemar_power,
)
from diffusioncleft.diffusioncleft_core.downstream.resampling import observed


def pair(only_a, only_b, both, neither=0):
    """Two classifiers, one image a person, of which so many are right for one alone, both or none."""
    right_a = [1] * only_a + [0] * only_b + [1] * both + [0] * neither
    right_b = [0] * only_a + [1] * only_b + [1] * both + [0] * neither
    labels = np.arange(len(right_a)) % 2
    return [[of(labels, 0.2 + 0.6 * np.where(right, labels, 1 - labels))] for right in (right_a, right_b)]


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [(19, 6, 0.01463), (33, 20, 0.09837), (5, 0, 0.0625), (6, 0, 0.03125), (0, 0, 1), (4, 4, 1), (3, 4, 1)],
)
def test_the_exact_p_of_79_against_66_and_of_small_numbers(only_a, only_b, p):
    assert exact_mcnemar(only_a, only_b) == pytest.approx(p, abs=1e-5)
    assert exact_mcnemar(only_b, only_a) == pytest.approx(p, abs=1e-5)


def test_the_papers_two_figures_on_the_same_hundred_images():
    found = compare(*pair(19, 6, 60, 15))
    assert (found["only_a"], found["only_b"], found["n"], found["n_subjects"]) == (19, 6, 100, 100)
    assert found["mcnemar_p"] == pytest.approx(0.01463, abs=1e-5)
    difference = found["difference"]["accuracy"]
    assert difference["value"] == pytest.approx(0.13)
    # Agresti and Min's variance of a difference of pairs, by hand.
    half = (difference["ci95"][1] - difference["ci95"][0]) / 2
    assert half == pytest.approx(1.9845 * ((25 / 100 - 0.13**2) / 99 + 1e-4) ** 0.5, rel=0.04)
    turned = compare(*pair(6, 19, 60, 15))["difference"]["accuracy"]
    assert turned["value"] == pytest.approx(-0.13) and turned["ci95"][1] < 0


def test_what_both_get_right_or_wrong_does_not_count_and_pairs_tell_more_than_their_two_intervals():
    assert discordant_people(*pair(3, 1, 50, 20)) == (3, 1)
    a, b = people(80, 1, effect=2.0, seed=4), people(80, 1, effect=2.0, seed=4)
    b = [of(item.labels, np.clip(item.scores - 0.02, 0, 1), item.subjects) for item in b]
    found = compare(a, b)["difference"]["accuracy"]["ci95"]
    assert found[1] - found[0] < 0.1


def test_two_that_never_differ_may_still_differ_a_little():
    found = compare(*pair(0, 0, 30, 10))
    assert found["mcnemar_p"] == 1
    for metric in COMPARED:
        low, high = found["difference"][metric]["ci95"]
        assert found["difference"][metric]["value"] == 0 and low < 0 < high and high < 0.1


def test_a_person_counts_once_however_many_images_there_are():
    a, b = pair(6, 1, 9)
    often = [
        [of(np.repeat(i.labels, 8), np.repeat(i.scores, 8), np.repeat(i.subjects, 8)) for i in side]
        for side in (a, b)
    ]
    assert discordant_people(*often) == discordant_people(a, b) == (6, 1)
    once, many = compare(a, b), compare(*often)
    assert once["mcnemar_p"] == many["mcnemar_p"]
    width = [np.diff(found["difference"]["accuracy"]["ci95"])[0] for found in (once, many)]
    assert width[1] > 0.8 * width[0]


def test_a_person_with_images_won_and_lost_goes_to_who_has_more_of_them():
    labels, subject = [1] * 5, [0, 0, 0, 1, 1]
    a = [of(labels, [0.9, 0.9, 0.1, 0.9, 0.1], subject)]
    b = [of(labels, [0.1, 0.1, 0.9, 0.1, 0.9], subject)]
    assert discordant_people(a, b) == (1, 0)  # the second person is even


def test_of_several_trainings_an_image_counts_by_the_share_that_is_right():
    labels = [1, 1]
    a = [of(labels, [0.9, 0.9]), of(labels, [0.9, 0.1]), of(labels, [0.1, 0.1])]
    b = [of(labels, [0.9, 0.1]), of(labels, [0.1, 0.1]), of(labels, [0.1, 0.9])]
    assert discordant_people(a, b) == (1, 0)


def test_equally_good_classifiers_are_rarely_told_apart_with_many_images_a_person():
    """By people 5 % at most; by images, as if each were of another person, it would be several times that."""
    rejected, by_images = 0, 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        subject = np.repeat(np.arange(25), 8)
        labels = subject % 2
        person = [rng.normal(size=25)[subject] for _ in range(2)]
        a, b = (
            [of(labels, 1 / (1 + np.exp(-(labels - 0.5) - part - rng.normal(size=200))), subject)]
            for part in person
        )
        rejected += exact_mcnemar(*discordant_people(a, b)) <= 0.05
        images = [np.round(side[0].scores) == labels for side in (a, b)]
        by_images += exact_mcnemar((images[0] & ~images[1]).sum(), (images[1] & ~images[0]).sum()) <= 0.05
    assert rejected / 300 <= 0.06
    assert by_images / 300 > 0.2


def test_trainings_widen_a_difference():
    a, b = (people(30, 2, effect=e, seed=1, trainings=4) for e in (1.5, 1.0))
    for figure in compare(a, b)["difference"].values():
        low, high = figure["ci95"]
        assert figure["ci95_trainings"][0] < low and figure["ci95_trainings"][1] > high
    one = compare(a[:1], b[:1])["difference"]["auc"]
    assert one["ci95_trainings"] is None
    assert compare(a, b[:1])["difference"]["auc"]["ci95_trainings"] is not None
    for two in (compare(a[:2], b[:2]), compare(a[:1], b[:2])):
        figure = two["difference"]["auc"]
        assert figure["ci95_trainings"][0] < figure["ci95"][0] - 1e-6


def test_a_single_training_beside_several_takes_no_freedom_from_their_spread():
    a, b = people(30, 2, effect=1.5, seed=1, trainings=4), people(30, 2, effect=1.4, seed=2)
    figure = compare(a, b)["difference"]["auc"]
    half, wide = ((ends[1] - ends[0]) / 2 for ends in (figure["ci95"], figure["ci95_trainings"]))
    sd = np.std([observed([item])["auc"] for item in a], ddof=1)
    assert wide**2 - half**2 == pytest.approx((3.182446 * sd / 2) ** 2, rel=1e-4)


def test_a_difference_stays_between_minus_one_and_one():
    low, high = compare(*pair(8, 0, 0))["difference"]["accuracy"]["ci95"]
    assert low > 0 and high == 1
    low, high = compare(*pair(0, 8, 0))["difference"]["accuracy"]["ci95"]
    assert low == -1 and high < 0


def test_only_the_same_images_are_compared():
    a, b = pair(1, 1, 8)
    with pytest.raises(ValueError, match="same images"):
        compare(a, [b[0].where(np.arange(10) < 9)])
    with pytest.raises(ValueError, match="same images"):
        compare(a, [])


def test_a_class_that_is_not_there_leaves_the_balanced_difference_out():
    a, b = of([1] * 9, [0.9] * 9), of([1] * 9, [0.1] * 9)
    found = compare([a], [b])["difference"]
    assert found["accuracy"]["value"] == 1
    assert found["auc"] == {"value": None, "ci95": None, "ci95_trainings": None}


# How many images would tell


@pytest.mark.parametrize(
    ("n", "gain", "power"), [(100, 0.10, 0.54), (100, 0.13, 0.74), (100, 0.20, 0.96), (400, 0.10, 0.995)]
)
def test_power_where_the_worse_one_alone_is_right_on_one_image_in_twenty(n, gain, power):
    assert mcnemar_power(n, gain + 0.05, 0.05) == pytest.approx(power, abs=0.005)


def test_power_is_the_share_of_simulated_comparisons_that_tell():
    rng = np.random.default_rng(0)
    counts = rng.multinomial(60, [0.25, 0.10, 0.65], size=4000)
    told = [exact_mcnemar(int(a), int(b)) <= 0.05 and a > b for a, b, _ in counts]
    assert mcnemar_power(60, 0.25, 0.10) == pytest.approx(np.mean(told), abs=0.025)


def test_power_of_few_images_by_hand():
    assert mcnemar_power(5, 1.0, 0.0) == 0  # five won images have p 0.0625
    assert mcnemar_power(6, 1.0, 0.0) == pytest.approx(1)
    assert mcnemar_power(6, 0.9, 0.1) == pytest.approx(0.9**6)
    assert mcnemar_power(5, 1.0, 0.0, alpha=0.0625) == pytest.approx(1)
    assert mcnemar_power(0, 0.5, 0.1) == 0 and mcnemar_power(50, 0.0, 0.0) == 0


def test_images_needed_to_tell_79_from_66_percent():
    """114 where both err on mostly the same images, 200 where they err independently of each other."""
    assert images_needed(0.79, 0.66) == 114
    assert images_needed(0.79, 0.66, only_worse=0.66 * 0.21) == 200
    for only_worse, needed in ((0.05, 114), (0.66 * 0.21, 200)):
        assert mcnemar_power(needed, 0.13 + only_worse, only_worse) >= 0.8
        assert mcnemar_power(needed - 1, 0.13 + only_worse, only_worse) < 0.8


def test_a_smaller_difference_or_more_power_needs_more_images():
    assert images_needed(0.84, 0.79) > images_needed(0.90, 0.79)
    assert images_needed(0.79, 0.66, power=0.9) > images_needed(0.79, 0.66)
    assert images_needed(0.79, 0.66, alpha=0.01) > images_needed(0.79, 0.66)
    assert images_needed(1.0, 0.5, only_worse=0.0) < 20


def test_equal_accuracies_need_more_images_than_there_are():
    assert images_needed(0.79, 0.79) is None
    assert images_needed(0.8001, 0.80) is None


def test_what_can_not_be_is_refused():
    with pytest.raises(ValueError, match="no share"):
        images_needed(0.66, 0.79)
    with pytest.raises(ValueError, match="no share"):
        images_needed(0.99, 0.5)  # the better one errs on less than five in a hundred
    with pytest.raises(ValueError, match="no share"):
        images_needed(0.5, 0.03)
    with pytest.raises(ValueError, match="no share"):
        images_needed(0.8, 0.7, only_worse=-0.01)

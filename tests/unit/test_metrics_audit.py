"""The leak audit: attacks beside controls, residual risk, and intervals that hold what was planted."""

import itertools

import numpy as np
import pytest
from scipy.stats import hypergeom

from diffusioncleft.diffusioncleft_core.audit.cliques import largest_clique
from diffusioncleft.diffusioncleft_core.faces.calibration import StatedThreshold
from diffusioncleft.diffusioncleft_core.metrics.clustered import clustered_pairs
from diffusioncleft.diffusioncleft_core.metrics.fir import fir_pairs
from diffusioncleft.diffusioncleft_core.metrics.gallery import Gallery, People, side_by_side
from diffusioncleft.diffusioncleft_core.metrics.leak import (
    Control,
    Matches,
    among,
    bounded_by_unassessed,
    headline_of,
    leak_figures,
)
from diffusioncleft.diffusioncleft_core.metrics.nearest import authentic, distance_ratios
from diffusioncleft.diffusioncleft_core.metrics.threshold import PACK, PAPER, AuditThreshold
from diffusioncleft.diffusioncleft_core.metrics.untold import without_small_counts
from diffusioncleft.diffusioncleft_core.statistics import clopper_pearson, clustered_share, residual

COUNTS = {"n_images": 200, "n_no_face": 0, "n_unreadable": 0, "n_several": 0, "extractor": {"name": "pack"}}
TRUE_MATCH = {"value": 0.99, "ci95": [0.98, 0.999], "k": 99, "n": 100}
CALIBRATED = AuditThreshold(
    0.8,
    PACK,
    StatedThreshold(1e-5, 0.8, (0.79, 0.81), (5e-6, 2e-5), "counted", 10**6, 1500, "", TRUE_MATCH),
    1e-5,
)
UNKNOWN = AuditThreshold(0.8, PAPER, None, 1e-5)


def strangers(n: int, seed: int) -> np.ndarray:
    faces = np.random.default_rng(seed).normal(size=(n, 512)).astype(np.float32)
    return faces / np.linalg.norm(faces, axis=1, keepdims=True)


def people(faces: np.ndarray) -> People:
    return People(faces, tuple(str(place) for place in range(len(faces))))


TRAIN, HOLDOUT = strangers(100, 1), strangers(20, 2)
GALLERY = Gallery(people(TRAIN), people(HOLDOUT), People.strangers(strangers(50, 3)))


def audited(leaks: int, threshold: AuditThreshold = CALIBRATED, images: int = 200) -> dict:
    generated = np.concatenate([TRAIN[:leaks], strangers(images - leaks, 4)])
    return leak_figures(generated, GALLERY, threshold, COUNTS)


def test_nothing_planted_is_nothing_found_and_says_how_much_could_be_missed():
    risk = audited(0)["residual_risk"]
    assert (risk["value"], risk["ci95"][0], risk["attack"]["k"]) == (0, 0, 0)
    assert 0.015 < risk["ci95"][1] < 0.02
    assert risk["could_be_missed"] == pytest.approx(risk["ci95"][1] / 0.98)


def test_planted_people_are_found_beyond_chance_with_their_share_in_the_interval():
    risk = audited(10)["residual_risk"]
    assert risk["value"] == pytest.approx(0.05, abs=0.002)
    assert 0 < risk["ci95"][0] < 0.05 < risk["ci95"][1]
    assert risk["control"]["name"] == "calibration"


def test_without_a_calibration_other_people_are_the_control():
    found = audited(10, UNKNOWN)
    assert found["residual_risk"]["control"]["name"] == "photographs"
    assert set(found["leak_control"]) == {"photographs", "holdout", "control_faces", "unseen"}
    assert found["leak_control"]["photographs"]["n"] == 120
    low = found["residual_risk"]["ci95"][0]
    assert low < audited(10)["residual_risk"]["ci95"][0], "fewer controls, wider interval"


def test_a_control_that_finds_more_than_a_calibration_allows_takes_its_place():
    expected, attack = Control(clopper_pearson(1, 10**4), clopper_pearson(5, 100)), clopper_pearson(5, 100)
    higher = {"calibration": expected, "photographs": Control(clopper_pearson(10, 100), attack)}
    as_high = {"calibration": expected, "photographs": Control(clopper_pearson(0, 100), attack)}
    assert headline_of(higher) == "photographs" and headline_of(as_high) == "calibration"
    assert headline_of({}) is None


def test_a_training_photograph_is_no_stranger_to_its_own_person():
    twice = People(np.concatenate([TRAIN[:50], TRAIN[:50]]), (*map(str, range(50)), *map(str, range(50))))
    found = Matches.of(strangers(5, 5), Gallery(twice, People.nobody()), 0.8)
    assert found.generated.people == 50 and found.other_people().k == 0
    as_strangers = Matches.of(strangers(5, 5), Gallery(people(twice.faces), People.nobody()), 0.8)
    assert as_strangers.other_people().k == 100


def test_images_of_two_conditions_are_compared_with_their_own_photographs_alone():
    other = Gallery(people(strangers(30, 6)), people(strangers(10, 7)))
    generated, both = side_by_side([(TRAIN[:3], other), (other.train.faces[:4], GALLERY)])
    assert Matches.of(generated, both, 0.8).attack.k == 0
    generated, both = side_by_side([(TRAIN[:3], GALLERY), (other.train.faces[:4], other)])
    found = Matches.of(generated, both, 0.8)
    assert (found.attack.k, found.attack.n, found.other_people().n) == (7, 7, 160)


def test_galleries_are_brought_to_one_size_as_draws_without_replacement_would():
    matched = np.array([0, 1, 3, 100])
    expected = [1 - hypergeom(100, int(k), 12).pmf(0) for k in matched]
    assert np.allclose(among(matched, 100, 12), expected)
    assert np.array_equal(among(matched, 100, 100), matched > 0)


def test_images_that_could_not_be_assessed_bound_the_answer_from_above():
    risk = {"could_be_missed": 0.02, "n_images": 90, "n_no_face": 8, "n_unreadable": 2}
    assert bounded_by_unassessed(risk)["upper_of_all"] == pytest.approx((0.02 * 90 + 10) / 100)
    none = {"could_be_missed": None, "n_images": 90, "n_no_face": 8, "n_unreadable": 2}
    assert bounded_by_unassessed(none)["upper_of_all"] is None


def test_residual_risk_is_anonymeters_and_its_interval_closes_on_the_attacks():
    found = residual(clopper_pearson(30, 100), clopper_pearson(10, 100))
    assert found.value == pytest.approx((0.3 - 0.1) / 0.9)
    assert found.ci95[0] < found.value < found.ci95[1]
    certain = residual(clopper_pearson(30, 100), clopper_pearson(0, 10**7))
    assert certain.ci95 == pytest.approx(clopper_pearson(30, 100).ci95, abs=1e-5)
    assert residual(clopper_pearson(1, 100), clopper_pearson(50, 100)).value == 0


def test_a_share_of_clusters_is_worth_fewer_trials_and_of_single_ones_all():
    one_each = clustered_share(np.repeat([1.0, 0.0], [10, 90]), np.ones(100))
    in_tens = clustered_share(np.repeat([10.0, 0.0], [1, 9]), np.full(10, 10.0))
    plain = clopper_pearson(10, 100)
    assert one_each.ci95 == pytest.approx(plain.ci95, abs=0.005)
    assert in_tens.ci95[1] > plain.ci95[1] + 0.1
    assert clustered_share(np.zeros(40), np.ones(40), worth=0.5).ci95 == clopper_pearson(0, 20).ci95


def test_the_interval_of_pairs_holds_the_truth_where_matches_cluster():
    rng = np.random.default_rng(3)
    held = {"clustered": 0, "plain": 0}
    for _ in range(60):
        cosines = ((rng.random(40) < 0.1)[None] & (rng.random((60, 40)) < 0.2)).astype(float)
        clustered = clustered_pairs(
            *np.nonzero(cosines >= 0.5), len(cosines), [str(place) for place in range(40)], resamples=100
        )
        held["clustered"] += clustered.ci95[0] <= 0.02 <= clustered.ci95[1]
        plain = fir_pairs(cosines, 0.5)
        held["plain"] += plain.ci95[0] <= 0.02 <= plain.ci95[1]
    assert held["clustered"] >= 52 > 45 > held["plain"]


def test_no_matching_pair_still_leaves_what_the_number_of_images_leaves():
    found = clustered_pairs(np.zeros(0, int), np.zeros(0, int), 50, [str(place) for place in range(30)])
    assert found.ci95 == clopper_pearson(0, 50).ci95


def test_authenticity_is_that_of_a_plain_double_loop():
    rng = np.random.default_rng(5)
    train, generated = rng.normal(size=(30, 8)), rng.normal(size=(40, 8))
    generated[:5] = train[:5] + 1e-3

    def is_authentic(image: np.ndarray) -> bool:
        distances = [float(np.linalg.norm(image - real)) for real in train]
        nearest = int(np.argmin(distances))
        own = min(float(np.linalg.norm(train[nearest] - train[j])) for j in range(30) if j != nearest)
        return own < distances[nearest]

    found = authentic(generated, train)
    assert found.tolist() == [is_authentic(image) for image in generated]
    assert not found[:5].any() and found.any()


def test_the_distance_ratio_of_a_copy_is_small_and_a_persons_own_photographs_do_not_count():
    subjects = [str(place // 2) for place in range(100)]
    assert distance_ratios(TRAIN[:1], TRAIN, subjects)[0] < 0.01
    assert distance_ratios(strangers(1, 8), TRAIN, subjects)[0] > 0.8
    assert distance_ratios(TRAIN[:1], TRAIN, subjects, ["0"])[0] > 0.8


@pytest.mark.parametrize("n", [4, 9, 14])
def test_the_audit_says_the_same_of_any_few_photographs_without_a_face(n):
    def said(with_face: int) -> str:
        gallery = Gallery(people(TRAIN[:with_face]), people(HOLDOUT))
        figures = leak_figures(strangers(50, 9), gallery, CALIBRATED, COUNTS | {"n_images": 50})
        sets = {
            "pre_op": {
                metric: {"robust": part if metric == "leak_control" else {"raw": part}}
                for metric, part in figures.items()
            }
        }
        shown = without_small_counts(
            {"sets": sets, "figures": {"similarity": {}, "pca": None}},
            {"pre_op": n + 1},
            {"pre_op": with_face},
        )
        counted = shown["sets"]["pre_op"]
        return str(
            {name: counted[name] for name in ("leak_images", "leak_control", "residual_risk", "fir_pairs")}
        )

    assert said(n) == said(n - 1)


def test_the_largest_clique_is_that_of_every_subset():
    rng = np.random.default_rng(6)
    for _ in range(20):
        joined = np.triu(rng.random((7, 7)) < 0.5, 1)
        joined = joined | joined.T
        sizes = [
            len(part)
            for size in range(1, 8)
            for part in itertools.combinations(range(7), size)
            if all(joined[i, j] for i, j in itertools.combinations(part, 2))
        ]
        found = largest_clique(joined)
        assert len(found) == max(sizes)
        assert all(joined[i, j] for i, j in itertools.combinations(found, 2))
    assert largest_clique(np.zeros((0, 0), bool)) == []

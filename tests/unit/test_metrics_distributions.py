"""Figures over vectors: parity with the packages that define them, and intervals that hold."""

import numpy as np
import pytest

from diffusioncleft.diffusioncleft_core.metrics.distributions import (
    Sides,
    distribution_figures,
    frechet_to,
)
from diffusioncleft.diffusioncleft_core.metrics.features import PopulationFeatures
from diffusioncleft.diffusioncleft_core.metrics.fid import frechet_distance
from diffusioncleft.diffusioncleft_core.metrics.kid import kernel_distance
from diffusioncleft.diffusioncleft_core.metrics.lpips import draw_pairs, perceptual_pass
from diffusioncleft.diffusioncleft_core.metrics.prdc import manifold_scores, vendi_score
from diffusioncleft.diffusioncleft_core.metrics.sets import Group, Population

REAL = {"name": "a network", "sha256": "0" * 64, "phantom": False, "licence": "none"}


@pytest.fixture
def rng():
    return np.random.default_rng(5)


@pytest.fixture
def two(rng):
    """Features [120, 48] and [150, 48] of two distributions that overlap."""
    return rng.normal(size=(120, 48)), rng.normal(size=(150, 48)) * 1.2 + 0.2


def test_kid_is_torch_fidelitys_over_one_subset_of_everything(two):
    torch = pytest.importorskip("torch")
    peer = pytest.importorskip("torch_fidelity.metric_kid")
    a, b = two[0], two[1][:120]
    theirs = peer.kid_features_to_metric(
        torch.from_numpy(a),
        torch.from_numpy(b),
        kid_subsets=1,
        kid_subset_size=120,
        kid_kernel="poly",
        kid_kernel_poly_degree=3,
        kid_kernel_poly_gamma=None,
        kid_kernel_poly_coef0=1,
        rng_seed=0,
        verbose=False,
    )
    assert kernel_distance(a, b).value == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-9)


def test_kids_leave_one_out_values_are_those_of_the_smaller_sets(two):
    """The interval's closed form against leaving every image out by hand."""
    a, b = two[0][:14], two[1][:11]
    without = [
        np.array([kernel_distance(np.delete(a, i, 0), b).value for i in range(len(a))]),
        np.array([kernel_distance(a, np.delete(b, i, 0)).value for i in range(len(b))]),
    ]
    from scipy.stats import t

    variance = sum((len(x) - 1) / len(x) * ((x - x.mean()) ** 2).sum() for x in without)
    found = kernel_distance(a, b)
    reach = t.ppf(0.975, 10) * np.sqrt(variance)
    assert found.ci95 == pytest.approx((found.value - reach, found.value + reach), rel=1e-9)


def test_kid_of_one_distribution_is_zero_on_average_at_any_size(rng):
    values = [kernel_distance(rng.normal(size=(8, 16)), rng.normal(size=(9, 16))).value for _ in range(400)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(400)
    assert np.std(values) > 0.01


@pytest.mark.parametrize("size", [70, 120])
def test_neighbourhoods_are_those_of_the_prdc_package(two, size, capsys):
    peer = pytest.importorskip("prdc")
    real, generated = two[0][:size], two[1]
    theirs = peer.compute_prdc(real, generated, 5)
    ours = manifold_scores(real, generated)
    for name, value in theirs.items():
        assert getattr(ours, name) == pytest.approx(value, abs=1e-12), name
    assert 0 < ours.precision < ours.coverage < 1


def test_blocks_change_nothing(two, monkeypatch):
    from diffusioncleft.diffusioncleft_core.metrics import pairs

    whole = manifold_scores(*two), kernel_distance(*two)
    monkeypatch.setattr(pairs, "DISTANCES", 7 * len(two[1]))
    blocks = manifold_scores(*two), kernel_distance(*two)
    assert whole[0] == blocks[0]
    assert blocks[1].value == pytest.approx(whole[1].value, rel=1e-12)
    assert blocks[1].ci95 == pytest.approx(whole[1].ci95, rel=1e-9)


def test_vendi_counts_what_differs(rng):
    apart = np.eye(12)[:7]
    assert vendi_score(apart) == pytest.approx(7)
    assert vendi_score(np.repeat(apart[:1], 9, axis=0)) == pytest.approx(1)
    assert vendi_score(np.repeat(apart, 3, axis=0)) == pytest.approx(7)
    wide, narrow = rng.normal(size=(20, 50)), rng.normal(size=(50, 20))
    for features in (wide, narrow):  # both ways to the eigenvalues
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        shares = np.linalg.eigvalsh(unit @ unit.T / len(unit))
        shares = shares[shares > 1e-12]
        assert vendi_score(features) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))


def test_the_interval_of_a_frechet_distance_holds_at_its_size(rng):
    """150 draws of 60 against 60: the mean over draws lies in at least 90 % of the intervals, which are not
    wider than they need be.
    """
    draws, inside = [], []
    for _ in range(150):
        a, b = rng.normal(size=(60, 12)), rng.normal(size=(60, 12)) + 0.4
        found = frechet_to(a, b, Sides("fid", b, None, REAL, 0), "")
        draws.append(found["value"])
        inside.append(found["ci95"])
    low, high = np.array(inside).T
    assert np.mean((low <= np.mean(draws)) & (np.mean(draws) <= high)) >= 0.9
    assert np.mean(high - low) < 2 * 2 * 1.96 * np.std(draws)


def test_the_intervals_of_lpips_hold(rng):
    """300 sets of 40 images with 120 random pairs: the true mean distance lies in 85 % of both."""
    torch = pytest.importorskip("torch")
    held = []
    for seed in range(300):
        scale = rng.gamma(3, 1 / 3, size=(40, 1))  # images differ in how far they are from all others
        phis = (rng.normal(size=(40, 10)) * scale).astype(np.float32)
        members = {"all": np.ones(40, bool)}
        pairs = draw_pairs(members, 120, seed)
        wanted = pairs["all"].tolist()
        found = perceptual_pass(lambda place, phis=phis: torch.from_numpy(phis[place]), members, wanted)
        figures = found.perceptual("all", pairs["all"])
        truth = 2 * 10 * (3 + 9) / 9  # E|a - b|^2 = 2 D E[scale^2]
        held.append(
            [low <= truth <= high for low, high in (figures.pairs_interval(), figures.all_pairs_interval())]
        )
    assert (np.mean(held, axis=0) >= 0.85).all()
    assert (np.mean(held, axis=0) <= 0.99).all()


def features_of(vectors, condition="pre_op"):
    n = len(vectors)
    group = Group(condition, np.ones(n, bool), np.arange(n) % 2 == 0)
    return PopulationFeatures(
        Population([None] * n, [group]), {"fid": vectors}, {}, None, {}, np.zeros(n, bool)
    ), group


def test_a_copier_looks_good_against_the_training_images_and_bad_against_the_hold_out(rng):
    """What the hold-out is for: the distance to the training images alone rewards copies."""
    training, holdout = rng.normal(size=(60, 16)), rng.normal(size=(60, 16))
    copies = training + rng.normal(size=(60, 16)) * 0.05
    honest = rng.normal(size=(60, 16))
    found = {}
    for name, images in {"copies": copies, "honest": honest}.items():
        drawn, group = features_of(images)
        found[name] = distribution_figures(group, drawn, Sides("fid", training, holdout, REAL, 0)).figures

    def value(name, metric):
        return found[name][metric]["robust" if metric != "fid" else "paper"]["raw"]["value"]

    assert value("copies", "fid") < 0.1 * value("honest", "fid")
    assert value("copies", "fid_holdout") == pytest.approx(value("honest", "fid_holdout"), rel=0.3)
    low, high = found["honest"]["kid_holdout"]["robust"]["raw"]["ci95"]
    assert low < 0 < high
    floor = found["honest"]["fid_floor"]["robust"]["real"]
    matched = found["honest"]["fid_matched"]["robust"]["raw"]
    assert floor["n"] == matched["n"] == 30
    assert matched["value"] == pytest.approx(floor["value"], rel=0.2)
    assert frechet_distance(honest, training) < 0.8 * floor["value"]  # sizes that differ can't be compared
    assert set(found["honest"]["kid"]["robust"]) == {"raw", "filtered"}


def test_too_few_images_have_a_note_and_no_value(rng):
    drawn, group = features_of(rng.normal(size=(4, 6)))
    few = distribution_figures(group, drawn, Sides("fid", rng.normal(size=(4, 6)), None, REAL, 0)).figures
    assert few["kid"]["robust"]["raw"]["value"] is not None
    assert few["precision"]["robust"]["raw"]["value"] is None
    assert few["precision"]["robust"]["raw"]["note"] == "It takes 6 images that can be read on each side."
    assert few["kid"]["robust"]["filtered"]["value"] is None
    assert "fid_holdout" not in few and "kid_floor" not in few and "fid_floor" not in few
    none = distribution_figures(group, drawn, Sides("fid", np.zeros((0, 6)), None, REAL, 0)).figures
    assert none["fid"]["paper"]["raw"]["note"] == none["recall"]["robust"]["raw"]["note"]
    assert none["vendi"]["robust"]["raw"]["value"] > 1


def test_another_extractors_figures_carry_its_name(rng):
    drawn, group = features_of(rng.normal(size=(12, 6)))
    features = PopulationFeatures(
        drawn.population, {"dinov2": drawn.vectors["fid"]}, {}, None, {}, np.zeros(24, bool)
    )
    sides = Sides("dinov2", rng.normal(size=(24, 6)), rng.normal(size=(8, 6)), REAL, 0)
    found = distribution_figures(group, features, sides).figures
    assert {"dinov2", "dinov2_holdout", "dinov2_kid", "dinov2_floor", "dinov2_vendi_reference"} <= set(found)
    assert not any(name.startswith(("fid", "kid")) for name in found)

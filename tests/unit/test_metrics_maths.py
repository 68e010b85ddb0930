"""The measurements' formulas, each against an independent way to the same number."""

import itertools

import numpy as np
import pytest
import torch
from pytorch_fid.fid_score import calculate_frechet_distance
from scipy.linalg import sqrtm

from diffusioncleft.diffusioncleft_core.metrics import lpips, pairs
from diffusioncleft.diffusioncleft_core.metrics.faces import embedding_plane, suppressed
from diffusioncleft.diffusioncleft_core.metrics.fid import frechet_distance, split_floor
from diffusioncleft.diffusioncleft_core.metrics.fir import (
    SWEEP,
    fir_images,
    fir_pairs,
    fir_sweep,
    similarity_histogram,
)
from diffusioncleft.diffusioncleft_core.metrics.lpips import all_pairs_mean, draw_pairs, perceptual_pass
from diffusioncleft.diffusioncleft_core.report.blocks import labels_of


def moments(features):
    return features.mean(axis=0), np.cov(features, rowvar=False)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def unit_rows(rng, n, centre=None):
    rows = rng.normal(size=(n, 512)) + (0 if centre is None else centre)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize(("n", "m"), [(200, 150), (3000, 150), (300, 2000)])
def test_fid_is_pytorch_fids_own(rng, n, m):
    a, b = rng.normal(size=(n, 64)) @ rng.normal(size=(64, 64)), rng.normal(size=(m, 64)) + 0.3
    theirs = calculate_frechet_distance(*moments(a), *moments(b))
    assert frechet_distance(a, b) == pytest.approx(theirs, rel=1e-6)


def test_fid_of_fewer_images_than_dimensions_is_the_matrix_square_roots(rng):
    a, b = rng.normal(size=(30, 100)), rng.normal(size=(40, 100)) * 1.5 + 1
    (mean_a, cov_a), (mean_b, cov_b) = moments(a), moments(b)
    half = sqrtm(cov_a).real
    root = sqrtm(half @ cov_b @ half).real
    expected = ((mean_a - mean_b) ** 2).sum() + np.trace(cov_a + cov_b - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_fid_of_a_set_to_itself_is_zero_and_to_its_shifted_self_the_shift(rng):
    a = rng.normal(size=(50, 80)).astype(np.float32)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a.astype(float), a + 2.0) == pytest.approx(80 * 4, rel=1e-6)


def test_fid_of_one_image_or_of_unlike_features_is_refused(rng):
    with pytest.raises(ValueError, match="two images"):
        frechet_distance(rng.normal(size=(1, 8)), rng.normal(size=(5, 8)))
    with pytest.raises(ValueError, match="features"):
        frechet_distance(rng.normal(size=(5, 8)), rng.normal(size=(5, 9)))


def test_the_floor_of_one_distribution_is_above_zero(rng):
    values = split_floor(rng.normal(size=(60, 32)), 5, 0, 30)
    assert len(values) == 5
    assert min(values) > 1


def test_the_papers_fir_in_both_units():
    """Five of 2,000 x 100 pairs: 0.0025 % of the pairs, and 0.25 % of the images."""
    similarities = np.full((2000, 100), 0.18)
    similarities[:5, 7] = 0.6
    pairs, images = fir_pairs(similarities, 0.6), fir_images(similarities, 0.6)
    assert pairs.value == pytest.approx(0.000025)
    assert images.value == pytest.approx(0.0025)
    assert images.ci95 == pytest.approx((0.00081, 0.00582), abs=1e-5)


def test_a_person_met_twice_is_two_pairs_and_one_image():
    similarities = np.array([[0.9, 0.7, 0.1], [0.2, 0.1, 0.0]])
    assert (fir_pairs(similarities, 0.6).k, fir_pairs(similarities, 0.6).n) == (2, 6)
    assert (fir_images(similarities, 0.6).k, fir_images(similarities, 0.6).n) == (1, 2)


def test_the_sweep_goes_from_030_to_070_and_never_rises(rng):
    rows = fir_sweep(rng.uniform(0, 1, (20, 30)))
    assert (
        [row["threshold"] for row in rows] == list(SWEEP) == [0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7]
    )
    for unit in ("pairs", "images"):
        values = [row[unit]["value"] for row in rows]
        assert values == sorted(values, reverse=True)


def test_a_share_of_no_faces_has_no_value():
    assert fir_pairs(np.zeros((0, 5)), 0.6).value is None
    assert fir_images(np.zeros((5, 0)), 0.6).value is None
    assert fir_sweep(np.zeros((0, 5)))[0]["pairs"] == {"value": None, "ci95": None, "k": 0, "n": 0}


def brute_force(phis, places):
    distances = [float(((phis[i] - phis[j]) ** 2).sum()) for i, j in itertools.combinations(places, 2)]
    return float(np.mean(distances))


def test_the_mean_over_all_pairs_needs_no_pair(rng):
    phis = rng.normal(size=(40, 300))
    total, squares = phis.sum(axis=0), float((phis**2).sum())
    assert all_pairs_mean(40, total, squares) == pytest.approx(brute_force(phis, range(40)), rel=1e-12)
    assert all_pairs_mean(1, phis[0], 1.0) is None


@pytest.mark.parametrize("budget", [1 << 30, 3000, 0])
def test_one_pass_gives_pairs_and_means_whatever_fits_in_memory(rng, budget):
    phis = rng.normal(size=(12, 100)).astype(np.float32)
    members = {"raw": np.arange(12) < 9, "filtered": np.arange(12) % 2 == 0}
    pairs = draw_pairs(members, 20, seed=1)
    calls = []

    def features(place):
        calls.append(place)
        return None if place == 4 else torch.from_numpy(phis[place])

    wanted = [tuple(pair) for item in pairs.values() for pair in item.tolist()]
    found = perceptual_pass(features, members, wanted, budget=budget)
    for name, mask in members.items():
        whole = [place for place in np.flatnonzero(mask).tolist() if place != 4]
        figures = found.perceptual(name, pairs[name])
        assert figures.all_pairs_mean == pytest.approx(brute_force(phis, whole), rel=1e-6)
        assert figures.n_images == len(whole)
        kept = [(i, j) for i, j in pairs[name].tolist() if 4 not in (i, j)]
        mean, n = figures.pairs_mean, figures.n_pairs
        assert n == len(kept)
        assert mean == pytest.approx(np.mean([((phis[i] - phis[j]) ** 2).sum() for i, j in kept]), rel=1e-6)
    if budget == 1 << 30:
        assert sorted(calls) == list(range(12))


def test_pairs_are_distinct_seeded_shared_and_inside_their_set():
    raw, kept = np.ones(300, bool), np.arange(300) % 10 != 0
    pairs = draw_pairs({"raw": raw, "filtered": kept}, 500, seed=3)
    for name, mask in (("raw", raw), ("filtered", kept)):
        found = pairs[name]
        assert found.shape == (500, 2)
        assert mask[found].all()
        assert (found[:, 0] < found[:, 1]).all()
        assert len({tuple(pair) for pair in found.tolist()}) == 500
    shared = {tuple(p) for p in pairs["raw"].tolist()} & {tuple(p) for p in pairs["filtered"].tolist()}
    assert len(shared) > 350
    again = draw_pairs({"raw": raw, "filtered": kept}, 500, seed=3)
    assert (again["raw"] == pairs["raw"]).all()
    assert (draw_pairs({"raw": raw}, 500, seed=4)["raw"] != pairs["raw"]).any()


def test_a_small_set_has_all_its_pairs():
    mask = np.zeros(5000, bool)
    mask[[3, 17, 2000, 4999]] = True
    pairs = draw_pairs({"all": np.ones(5000, bool), "few": mask, "one": np.arange(5000) == 7}, 100, seed=0)
    assert sorted(map(tuple, pairs["few"].tolist())) == sorted(itertools.combinations([3, 17, 2000, 4999], 2))
    assert len(pairs["one"]) == 0
    assert len(pairs["all"]) == 100
    assert len(draw_pairs({"set": np.ones(6, bool)}, 14, seed=0)["set"]) == 14  # of 15


def test_a_small_set_among_very_many_images_has_its_pairs_too(monkeypatch):
    """The common stream ends before enough pairs of it have come."""
    monkeypatch.setattr(lpips, "_LONGEST_DRAW", 1 << 12)
    few = np.arange(5000) % 250 == 0
    pairs = draw_pairs({"all": np.ones(5000, bool), "few": few}, 100, seed=0)
    assert len({tuple(pair) for pair in pairs["few"].tolist()}) == len(pairs["all"]) == 100
    assert few[pairs["few"]].all() and (pairs["few"][:, 0] < pairs["few"][:, 1]).all()


def test_every_pair_is_as_likely_as_another():
    counts = np.zeros((6, 6), int)
    for seed in range(600):
        for i, j in draw_pairs({"set": np.ones(6, bool)}, 5, seed)["set"].tolist():
            counts[i, j] += 1
    drawn = counts[np.triu_indices(6, 1)]
    assert drawn.sum() == 3000
    assert drawn.min() > 140  # 200 expected, standard deviation 12


def test_a_histogram_holds_every_pair_and_hides_few_photographs(rng):
    similarities = rng.uniform(-1, 1, (50, 8))
    figure = similarity_histogram(similarities, 0.6)
    assert sum(figure["counts"]) == figure["n_pairs"] == 400
    assert len(figure["edges"]) == len(figure["counts"]) + 1
    assert figure["mean"] == pytest.approx(similarities.mean(), abs=1e-4)
    hidden = similarity_histogram(similarities[:, :4], 0.6)
    assert hidden["counts"] is hidden["mean"] is None


def test_photographs_are_counts_in_the_plane_and_small_cells_are_empty(rng):
    centres = {name: rng.normal(size=512) * 0.8 for name in ("pre_op", "post_op")}
    real = {name: unit_rows(rng, 40, centre) for name, centre in centres.items()}
    generated = {name: unit_rows(rng, 30, centre) for name, centre in centres.items()}
    control = unit_rows(rng, 25, rng.normal(size=512))
    figure = embedding_plane(real, generated, control, control_is_synthetic=False)
    assert figure["control"] is None and figure["n_control"] == 25
    assert {name: len(points) for name, points in figure["generated"].items()} == {
        "pre_op": 30,
        "post_op": 30,
    }
    assert len(figure["real"]["pre_op"]) == len(figure["edges_x"]) - 1
    cells = [
        cell
        for table in (*figure["real"].values(), figure["control_counts"])
        for column in table
        for cell in column
    ]
    assert None in cells
    assert all(cell is None or cell >= 5 for cell in cells)
    assert 0 < figure["explained"][1] < figure["explained"][0] < 1
    assert 0.5 < figure["overlap"]["pre_op"] <= 1
    assert set(figure["spread"]) == {"real", "generated", "control"}
    shown = embedding_plane(real, generated, control, control_is_synthetic=True)
    assert len(shown["control"]) == 25


def test_spread_falls_when_all_faces_are_one(rng):
    one = np.repeat(unit_rows(rng, 1), 20, axis=0)
    figure = embedding_plane({}, {"pre_op": one, "post_op": unit_rows(rng, 20)})
    assert figure["spread"]["generated"]["pre_op"] == pytest.approx(0, abs=1e-6)
    assert figure["spread"]["generated"]["post_op"] > 0.9


def test_a_distance_between_sets_shows_as_no_overlap(rng):
    east, west = np.eye(512)[0] * 30, -np.eye(512)[0] * 30
    figure = embedding_plane({"pre_op": unit_rows(rng, 30, east)}, {"pre_op": unit_rows(rng, 30, west)})
    assert figure["overlap"]["pre_op"] == 0


def test_few_faces_give_no_plane_and_few_photographs_no_numbers(rng):
    assert embedding_plane({}, {"pre_op": unit_rows(rng, 2)}) is None
    figure = embedding_plane({"pre_op": unit_rows(rng, 4)}, {"pre_op": unit_rows(rng, 9)})
    assert figure["n_real"] == {"pre_op": None}
    assert figure["spread"]["real"] == {"pre_op": None}
    assert figure["overlap"] == {}
    assert sum(map(len, figure["real"]["pre_op"])) == 9


def test_a_blank_cell_of_the_plane_does_not_follow_from_the_others():
    assert suppressed(np.array([[4, 6], [1, 12]])) == [[None, 6], [None, 12]]
    assert suppressed(np.array([[4, 6], [0, 12]])) == [[None, None], [None, 12]]
    assert suppressed(np.array([[5, 6], [0, 12]])) == [[5, 6], [None, 12]]
    assert suppressed(np.array([[3, 0], [0, 0]])) == [[None, None], [None, None]]


def test_what_others_reported_is_in_our_units():
    labels = labels_of({})
    assert {row.metric for row in labels.reported} == {"fir_pairs", "fid", "lpips", "similarity_mean"}
    assert labels.of("fir_pairs", "pre_op")[0].value == pytest.approx(5 / (2000 * 100))
    assert [row.value for row in labels.of("lpips", "all")] == [0.556, 0.335]


def test_pairs_are_counted_in_blocks_as_over_the_whole_matrix(monkeypatch):
    """Blocks that divide neither side, parts of both sides, and every figure that FIR takes from them."""
    monkeypatch.setattr(pairs, "ROWS", 7)
    monkeypatch.setattr(pairs, "COLUMNS", 5)
    monkeypatch.setattr(pairs, "_PIECE", 11)
    draw = np.random.default_rng(4)
    first, second = (draw.normal(size=(n, 6)).astype(np.float32) for n in (40, 23))
    first, second = (item / np.linalg.norm(item, axis=1, keepdims=True) for item in (first, second))
    rows, columns = np.flatnonzero(np.arange(40) % 3), np.arange(4, 23)
    whole = first[rows] @ second[columns].T
    found = pairs.count_pairs(first, second, (0.3, 0.6), rows=rows, columns=columns)
    assert found.at_least == {t: int((whole >= t).sum()) for t in (0.3, 0.6)}
    assert np.allclose(found.best, whole.max(axis=1), atol=1e-6)
    assert found.total == pytest.approx(whole.sum(), abs=1e-3)
    assert found.bins.tolist() == np.histogram(np.clip(whole, -1, 1), np.linspace(-1, 1, 101))[0].tolist()
    rest = pairs.count_pairs(first, second, (0.3, 0.6), rows=rows, columns=np.arange(4))
    both = found.beside(rest)
    assert both.at_least[0.3] == int((first[rows] @ second.T >= 0.3).sum()) and both.shape == (len(rows), 23)
    row, column = pairs.pairs_at_least(first, second, 0.6)
    assert set(zip(row.tolist(), column.tolist(), strict=True)) == set(
        zip(*(side.tolist() for side in np.nonzero(first @ second.T >= 0.6)), strict=True)
    )

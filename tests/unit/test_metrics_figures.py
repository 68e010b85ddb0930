"""The figures' numbers, each computed by hand or another way."""

import numpy as np
import pytest
import torch

from diffusioncleft.diffusioncleft_core.metrics.faces import embedding_plane
from diffusioncleft.diffusioncleft_core.metrics.fid import frechet_distance, split_floor
from diffusioncleft.diffusioncleft_core.metrics.fir import fir_images, fir_sweep, similarity_histogram
from diffusioncleft.diffusioncleft_core.metrics.lpips import (
    draw_pairs,
    halved,
    perceptual_pass,
    squared_distance,
)
from diffusioncleft.diffusioncleft_core.metrics.pair_order import pair_order


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_the_distance_of_two_pairs_of_points_is_known_in_closed_form():
    """Variances 2 and 8 along x, 0 along y, means 0 and 3: 9 + 2 + 8 - 2 * 4."""
    first, second = np.array([[-1.0, 0], [1, 0]]), np.array([[1.0, 0], [5, 0]])
    assert frechet_distance(first, second) == pytest.approx(9 + 2 + 8 - 8)
    with pytest.raises(ValueError, match="two images"):
        frechet_distance(first, second[:1])
    with pytest.raises(ValueError, match="features"):
        frechet_distance(first, second[0])
    with pytest.raises(ValueError, match="features"):
        frechet_distance(first[0], second)


@pytest.mark.parametrize("n", [4, 5, 21])
def test_the_floor_is_the_distance_of_two_halves_that_share_no_image(rng, n):
    features = rng.normal(size=(n, 6))
    draws = np.random.default_rng(7)
    expected = []
    for _ in range(3):
        order = draws.permutation(n)
        expected.append(frechet_distance(features[order[: n // 2]], features[order[n // 2 : n // 2 * 2]]))
    assert split_floor(features, 3, 7, n // 2) == expected
    assert len(set(expected)) > 1
    for rows, size in ((3, 2), (8, 1)):
        with pytest.raises(ValueError, match="need two rows each"):
            split_floor(features[:rows], 1, 0, size)


def test_the_sweep_counts_what_is_at_the_threshold_or_above():
    similarities = np.array([[0.5, 0.2], [0.49, 0.6]])
    row = next(row for row in fir_sweep(similarities) if row["threshold"] == 0.5)
    assert (row["pairs"]["value"], row["pairs"]["k"], row["pairs"]["n"]) == (0.5, 2, 4)
    assert (row["images"]["value"], row["images"]["k"], row["images"]["n"]) == (1.0, 2, 2)
    low, high = row["pairs"]["ci95"]
    assert (low, high) == pytest.approx((0.0676, 0.9324), abs=1e-4)  # Clopper and Pearson, 2 of 4
    assert [r["threshold"] for r in fir_sweep(similarities, (0.1, 0.9))] == [0.1, 0.9]
    assert (fir_images(np.zeros((5, 0)), 0.6).k, fir_images(np.zeros((5, 0)), 0.6).n) == (0, 0)
    assert fir_images(np.array([[0.9], [0.1]]), 0.6).value == 0.5  # one photograph is enough


def test_the_histogram_has_bins_of_two_hundredths_from_minus_one_to_one():
    values = np.array([[-1.0000001, -1.0, 1.0, 1.0000001, 0.61, 0.61]])
    figure = similarity_histogram(values, 0.35)
    edges = figure["edges"]
    assert (len(edges), edges[0], edges[50], edges[-1]) == (101, -1.0, 0.0, 1.0)
    assert np.allclose(np.diff(edges), 0.02)
    filled = {edges[place]: count for place, count in enumerate(figure["counts"]) if count}
    assert filled == {-1.0: 2, 0.98: 2, 0.6: 2}
    assert (figure["mean"], figure["threshold"], figure["n_pairs"]) == (round(values.mean(), 4), 0.35, 6)
    assert similarity_histogram(values[:, :4], 0.35)["counts"] is None
    empty = similarity_histogram(np.zeros((0, 7)), 0.35)
    assert (empty["counts"], empty["mean"], empty["n_pairs"]) == (None, None, 0)


def plane_faces(places, wide=6):
    """Embeddings whose first two coordinates are the places; no others vary."""
    faces = np.zeros((len(places), wide), np.float32)
    faces[:, :2] = places
    return faces


CORNERS = [[-1.0, 0.0], [1.0, 0.0], [0.0, -0.5], [0.0, 0.5]]


def test_the_plane_is_that_of_the_largest_variances_with_a_fixed_sign(rng):
    figure = embedding_plane({}, {"pre_op": plane_faces(CORNERS)})
    assert figure["explained"] == [0.8, 0.2]
    assert figure["generated"]["pre_op"] == CORNERS
    assert embedding_plane({}, {"pre_op": plane_faces(CORNERS) / 10})["explained"] == [0.8, 0.2]
    turned = np.linalg.qr(rng.normal(size=(40, 40)))[0]
    faces = rng.normal(size=(30, 40)) * np.linspace(3, 0.1, 40) @ turned
    found = embedding_plane(
        {"pre_op": faces[:12]}, {"pre_op": faces[12:25]}, faces[25:], control_is_synthetic=True
    )
    values, axes = np.linalg.eigh(np.cov(faces, rowvar=False))
    places = (faces - faces.mean(axis=0)) @ axes[:, ::-1][:, :2]
    assert found["explained"] == pytest.approx(values[::-1][:2] / values.sum(), abs=1e-4)
    shown = np.array(found["generated"]["pre_op"] + found["control"])
    assert np.abs(shown) == pytest.approx(np.abs(places[12:]), abs=1e-3)
    signs = np.sign(axes[:, ::-1][np.abs(axes[:, ::-1][:, :2]).argmax(axis=0), [0, 1]])
    assert shown == pytest.approx(places[12:] * signs, abs=1e-3)


@pytest.mark.parametrize(("n_real", "bins"), [(0, 3), (4, 3), (36, 4), (100, 7), (600, 12), (4000, 12)])
def test_the_grid_is_the_finest_that_shows_three_quarters_and_spans_the_generated(rng, n_real, bins):
    drawn = rng.normal(0, 0.2, (n_real, 2))
    real = {"pre_op": plane_faces(drawn - drawn.mean(axis=0))} if n_real else {}
    generated = plane_faces([[-1.03, 0.0], [1.0, 0.0], [0.0, -0.51], [0.0, 0.5], [0.03, 0.01]])
    figure = embedding_plane(real, {"pre_op": generated})
    places = np.array(figure["generated"]["pre_op"])
    for edges, values in ((figure["edges_x"], places[:, 0]), (figure["edges_y"], places[:, 1])):
        assert len(edges) == bins + 1
        for end in (edges[0], edges[-1]):
            assert end / 0.05 == pytest.approx(round(end / 0.05), abs=1e-2)
        assert values.min() - 0.05 < edges[0] <= values.min()
        assert values.max() <= edges[-1] < values.max() + 0.05
        assert np.allclose(np.diff(edges), (edges[-1] - edges[0]) / bins, atol=2e-4)
    shown = sum(cell or 0 for column in figure["real"].get("pre_op", []) for cell in column)
    assert shown >= 0.7 * n_real or bins == 3


def test_photographs_are_counted_in_their_cell_and_beyond_the_grid_in_the_outermost():
    # The grid is 3 by 3 over x -0.9 ... 0.9, y -0.6 ... 0.6, and all means are 0.
    generated = plane_faces([[-0.88, 0.0], [0.88, 0.0], [0.0, -0.58], [0.0, 0.58]])
    cells = {(-0.6, 0.0): 6, (0.6, 0.0): 6, (-5.0, 0.0): 5, (5.0, 0.0): 5, (0.0, 0.5): 4, (0.0, -0.5): 4}
    places = [place for place, count in cells.items() for _ in range(count)]
    figure = embedding_plane({"pre_op": plane_faces(places)}, {"pre_op": generated}, plane_faces(places))
    assert figure["edges_x"] == [-0.9, -0.3, 0.3, 0.9]
    assert figure["edges_y"] == [-0.6, -0.2, 0.2, 0.6]
    expected = [[None, 11, None], [None, None, None], [None, 11, None]]
    assert figure["real"] == {"pre_op": expected}
    assert figure["control_counts"] == expected
    assert figure["n_real"] == {"pre_op": 30}
    assert (figure["n_control"], figure["control"]) == (30, None)
    # Only x in the middle, and y above and below: 8 of 30 photographs, 2 of 4 generated; 12 beside, 2 beside.
    assert figure["overlap"] == {"pre_op": round(8 / 30 + 12 / 30, 2)}


def test_the_overlap_is_the_smaller_share_of_either():
    """All photographs lie where one of the four generated faces does."""
    generated = plane_faces([[-0.88, 0.0], [0.88, 0.0], [0.0, -0.58], [0.0, 0.58]])
    figure = embedding_plane({"pre_op": plane_faces([[-0.88, 0.0]] * 5)}, {"pre_op": generated})
    assert figure["overlap"] == {"pre_op": 0.25}


@pytest.mark.parametrize(("n", "synthetic", "shown"), [(4, False, None), (4, True, 4), (5, False, 5)])
def test_few_photographs_of_a_control_have_no_number(n, synthetic, shown):
    control = plane_faces([*CORNERS, [0.1, 0.1]])[:n]
    figure = embedding_plane({}, {"pre_op": plane_faces(CORNERS)}, control, control_is_synthetic=synthetic)
    assert figure["n_control"] == shown
    assert (figure["control"] is not None) == synthetic
    assert (figure["spread"]["control"]["control"] is None) == (n < 5)
    none = embedding_plane({}, {"pre_op": plane_faces(CORNERS)}, plane_faces(CORNERS)[:0])
    assert none["n_control"] is None and "control" not in none["spread"]


@pytest.mark.parametrize("synthetic", [True, False])
def test_the_grid_reaches_synthetic_controls_and_tells_nothing_of_the_outermost_photograph(synthetic):
    far = plane_faces([[-2.02, 0], [2.02, 0]] * 3)
    figure = embedding_plane({}, {"pre_op": plane_faces(CORNERS)}, far, control_is_synthetic=synthetic)
    assert (figure["edges_x"][0], figure["edges_x"][-1]) == ((-2.05, 2.05) if synthetic else (-1.0, 1.0))
    assert embedding_plane({}, {"pre_op": plane_faces(CORNERS[:3])}) is not None


def test_the_spread_is_the_root_mean_square_distance_from_the_mean():
    faces = plane_faces([*CORNERS, [0.0, 0.0]])
    figure = embedding_plane({"pre_op": faces}, {"pre_op": faces[:3], "post_op": faces, "none": faces[:0]})
    assert figure["spread"]["real"] == {"pre_op": round(np.sqrt(2.5 / 5), 3)}
    assert figure["spread"]["generated"] == {"pre_op": None, "post_op": round(np.sqrt(2.5 / 5), 3)}
    assert embedding_plane({"pre_op": faces}, {"pre_op": faces[:2]}) is None
    assert figure["overlap"].keys() == {"pre_op"}


def test_equal_faces_have_a_plane_too():
    figure = embedding_plane({}, {"pre_op": plane_faces([[0.3, 0.4]] * 5)})
    assert figure["explained"] == [0.0, 0.0]
    assert figure["generated"]["pre_op"] == [[0.0, 0.0]] * 5
    assert figure["edges_x"][-1] - figure["edges_x"][0] == pytest.approx(0.05)


def test_features_are_computed_once_and_kept_only_while_a_pair_waits(rng, tmp_path):
    phis = torch.from_numpy(rng.normal(size=(6, 10)).astype(np.float32))
    calls = []

    def features(place):
        calls.append(place)
        return phis[place]

    everything = {"all": np.ones(6, bool)}
    found = perceptual_pass(features, everything, [(0, 5), (1, 2), (5, 1)], order=[5, 4, 3, 2, 1, 0])
    assert calls == [0, 5, 1, 2, 4, 3]  # a chain of pairs, of which one image waits at a time
    assert found.distances == {
        (i, j): pytest.approx(float(((phis[i] - phis[j]).double() ** 2).sum()), rel=1e-6)
        for i, j in ((0, 5), (1, 2), (1, 5))
    }
    assert squared_distance(halved(phis[0]), halved(phis[5])) == found.distances[0, 5]
    calls.clear()
    star = [(0, 1), (1, 2), (2, 0), (2, 3), (3, 0)]
    perceptual_pass(features, everything, star, budget=phis[0].nbytes)
    assert sorted(set(calls)) == [0, 1, 2, 3, 4, 5] and len(calls) > 6  # one place in memory
    calls.clear()
    spilled = perceptual_pass(features, everything, star, budget=phis[0].nbytes, spill=tmp_path)
    assert sorted(calls) == [0, 1, 2, 3, 4, 5]  # the others wait in a file, which is gone again
    assert spilled.distances == perceptual_pass(features, everything, star).distances
    assert not any(tmp_path.iterdir())
    calls.clear()
    assert perceptual_pass(features, {}, []).distances == {}
    assert calls == []


def test_a_set_of_no_image_has_no_mean():
    found = perceptual_pass(
        lambda place: torch.ones(3), {"none": np.zeros(2, bool), "one": np.arange(2) < 1}, []
    )
    for name, n in (("none", 0), ("one", 1)):
        nothing = found.perceptual(name, np.zeros((0, 2), np.int64))
        assert (nothing.pairs_mean, nothing.n_pairs, nothing.all_pairs_mean) == (None, 0, None)
        assert (nothing.n_images, nothing.pairs_interval(), nothing.all_pairs_interval()) == (n, None, None)
    assert draw_pairs({}, 5, 0) == {}


def test_the_order_of_pairs_leaves_few_images_waiting():
    rng = np.random.default_rng(0)
    pairs = {tuple(sorted(rng.choice(500, 2, replace=False).tolist())) for _ in range(500)}

    def most_waiting(order):
        left = {place: {j if i == place else i for i, j in pairs if place in (i, j)} for place in order}
        visited, most = set(), 0
        for place in order:
            visited.add(place)
            most = max(most, sum(bool(left[each] - visited) for each in visited))
        return most

    order = pair_order(pairs)
    assert sorted(order) == sorted({place for pair in pairs for place in pair})
    assert most_waiting(order) < 0.3 * most_waiting(sorted(order))


def test_many_features_are_compared_in_half_precision_with_hardly_a_difference(rng):
    first, second = (torch.from_numpy(rng.normal(size=1 << 20).astype(np.float32)) * 1e-3 for _ in range(2))
    assert halved(first).dtype == torch.float16 and halved(first[:1000]).dtype == torch.float32
    exact = float((first - second).square().sum(dtype=torch.float64))
    assert squared_distance(halved(first), halved(second)) == pytest.approx(exact, rel=1e-5)

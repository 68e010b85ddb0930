"""FIR of a set's groups, its control, and whose faces it takes them from."""

import itertools

import numpy as np
import pytest
from PIL import Image

from diffusioncleft.diffusioncleft_core.dataset.folder import create_dataset_folder
from diffusioncleft.diffusioncleft_core.dataset.references import ReferenceSet
from diffusioncleft.diffusioncleft_core.faces.records import FaceRecord, record_of
from diffusioncleft.diffusioncleft_core.files import sha256_file, write_json
from diffusioncleft.diffusioncleft_core.imageset.decode import read_image
from diffusioncleft.diffusioncleft_core.imageset.manifest import ImageRow, write_image_set
from diffusioncleft.diffusioncleft_core.metrics.faces import (
    MeasuredFaces,
    face_figures,
    faces_of,
    holdout_faces,
    look_at_faces,
)
from diffusioncleft.diffusioncleft_core.metrics.fir import (
    BY_CONSTRUCTION,
    HELD_OUT,
    NO_FACE,
    NO_REFERENCE,
    Faces,
    control_figures,
    embedder_info,
    fir_sweep,
    identity_figures,
)
from diffusioncleft.diffusioncleft_core.metrics.gallery import People
from diffusioncleft.diffusioncleft_core.metrics.sets import (
    Group,
    Population,
    generated_population,
)
from diffusioncleft.diffusioncleft_core.phantom.face import random_face
from diffusioncleft.diffusioncleft_core.phantom.render import render

PACK = {"name": "pack", "sha256": "0" * 64, "phantom": True, "licence": "none"}


def direction(**parts):
    """A face [512] of L2 norm 1; the rest of it lies in a direction of no other."""
    vector = np.zeros(512, np.float32)
    for place, part in parts.items():
        vector[int(place[1:])] = part
    vector[500] = np.sqrt(1 - np.square(vector).sum())
    return vector


def marks(places, n=8):
    return np.isin(np.arange(n), places)


PHOTOGRAPHS = ReferenceSet(np.eye(512, dtype=np.float32)[:7], ("pre_op",) * 5 + ("post_op",) * 2)
FACES = Faces.of(
    [
        FaceRecord(9, 9, 1, embedding=direction(e0=0.7)),
        FaceRecord(9, 9, 1, embedding=direction(e0=0.7, e1=0.7)),
        FaceRecord(9, 9, 1, embedding=direction(e5=0.7)),
        FaceRecord(9, 9, 2, embedding=direction(e20=1), second_share=0.5),
        FaceRecord(9, 9, 0),
        FaceRecord(0, 0, unreadable="torn"),
        FaceRecord(9, 9, 1, embedding=direction(e21=1)),
        FaceRecord(9, 9, 1, embedding=direction(e0=1)),
    ]
)


def test_a_groups_fir_says_who_entered_and_who_did_not():
    group = Group("pre_op", marks(range(7)), marks([2, 3, 4]))
    metrics, histograms = identity_figures(group, FACES, PHOTOGRAPHS, PACK, 0.65)
    counted = ("k", "n", "n_reference", "n_images", "n_unreadable", "n_no_face", "n_several")
    found = {
        (name, variant): tuple(metrics[name]["paper"][variant][key] for key in counted)
        for name, variant in itertools.product(
            ("fir_pairs", "fir_images", "fir_images_any"), ("raw", "filtered")
        )
    }
    assert found == {
        ("fir_pairs", "raw"): (3, 25, 5, 5, 1, 1, 1),
        ("fir_images", "raw"): (2, 5, 5, 5, 1, 1, 1),
        ("fir_images_any", "raw"): (3, 5, 7, 5, 1, 1, 1),
        ("fir_pairs", "filtered"): (0, 10, 5, 2, 0, 1, 1),
        ("fir_images", "filtered"): (0, 2, 5, 2, 0, 1, 1),
        ("fir_images_any", "filtered"): (1, 2, 7, 2, 0, 1, 1),
    }
    raw, filtered = (metrics["fir_pairs"]["paper"][variant] for variant in ("raw", "filtered"))
    assert (raw["threshold"], raw["extractor"], raw["value"]) == (0.65, PACK, 3 / 25)
    assert "note" not in raw and filtered["note"] == BY_CONSTRUCTION
    own = FACES.embeddings[[0, 1, 2, 3, 6]] @ PHOTOGRAPHS.embeddings[:5].T
    assert metrics["fir_sweep"]["paper"]["raw"] == fir_sweep(own)
    assert (histograms["raw"]["n_pairs"], histograms["raw"]["threshold"]) == (25, 0.65)
    assert histograms["raw"]["extractor"] == PACK


def test_all_conditions_together_are_compared_with_every_photograph():
    metrics, histograms = identity_figures(
        Group("all", marks(range(8)), None), FACES, PHOTOGRAPHS, PACK, 0.65
    )
    found = {name: metrics[name]["paper"]["raw"] for name in ("fir_pairs", "fir_images", "fir_images_any")}
    assert {name: (figure["k"], figure["n"]) for name, figure in found.items()} == {
        "fir_pairs": (5, 6 * 7),
        "fir_images": (4, 6),
        "fir_images_any": (4, 6),
    }
    assert histograms.keys() == {"raw"} == metrics["fir_pairs"]["paper"].keys()


@pytest.mark.parametrize("known", [None, ReferenceSet(PHOTOGRAPHS.embeddings[5:], ("post_op",) * 2)])
def test_without_photographs_of_the_condition_fir_has_words_and_no_value(known):
    metrics, histograms = identity_figures(
        Group("pre_op", marks(range(7)), marks([2])), FACES, known, PACK, 0.65
    )
    for variant, n_images in (("raw", 5), ("filtered", 1)):
        figure = metrics["fir_images"]["paper"][variant]
        assert (figure["value"], figure["ci95"], figure["k"], figure["n"]) == (None, None, None, 0)
        assert (figure["n_reference"], figure["n_images"], figure["note"]) == (0, n_images, NO_REFERENCE)
    assert histograms == {} and "fir_sweep" not in metrics
    assert metrics["fir_images_any"]["paper"]["raw"]["k"] == (None if known is None else 1)


def test_a_set_without_a_face_has_words_and_no_value():
    metrics, histograms = identity_figures(
        Group("pre_op", marks([4, 5]), None), FACES, PHOTOGRAPHS, PACK, 0.6
    )
    figure = metrics["fir_pairs"]["paper"]["raw"]
    assert (figure["value"], figure["n"], figure["n_reference"], figure["note"]) == (None, 0, 5, NO_FACE)
    assert (figure["n_images"], figure["n_unreadable"], figure["n_no_face"]) == (0, 1, 1)
    assert histograms == {} and "fir_sweep" not in metrics


def test_the_control_is_what_people_who_were_not_trained_on_score():
    strangers = np.stack([direction(e0=0.7), direction(e5=0.7), *(direction(e30=1),) * 3])
    found = control_figures("pre_op", strangers, PHOTOGRAPHS, PACK, 0.65)
    pairs, images = (found[f"fir_control_{unit}"]["robust"]["holdout"] for unit in ("pairs", "images"))
    assert (pairs["k"], pairs["n"], images["k"], images["n"]) == (1, 25, 1, 5)
    assert (pairs["n_images"], pairs["n_reference"], pairs["threshold"]) == (5, 5, 0.65)
    assert (pairs["extractor"], pairs["note"]) == (PACK, HELD_OUT)
    whole = control_figures("all", strangers, PHOTOGRAPHS, PACK, 0.65)["fir_control_images"]["robust"][
        "holdout"
    ]
    assert (whole["k"], whole["n"], whole["n_reference"]) == (2, 5, 7)
    assert control_figures("pre_op", strangers[:4], PHOTOGRAPHS, PACK, 0.65) == {}


def test_fir_names_the_pack_and_the_file_of_its_recogniser(analyzer):
    assert embedder_info(analyzer) == {
        "name": "phantom-faces",
        "sha256": sha256_file(analyzer.pack.folder / "rec.onnx"),
        "phantom": True,
        "licence": "Apache-2.0",
    }


def test_each_condition_has_its_own_held_out_people_and_all_have_everyones():
    population = Population(
        [], [Group("pre_op", marks(range(4)), None), Group("post_op", marks([6, 7]), None)]
    )
    population.groups.append(Group("all", marks(range(8)), None))
    held = {
        "pre_op": People.strangers(np.stack([direction(e0=0.7)] * 5)),
        "post_op": People.strangers(np.stack([direction(e30=1)] * 6)),
        "other": People.nobody(),
    }
    others = np.eye(512, dtype=np.float32)[40:46]
    faces = MeasuredFaces(FACES, PHOTOGRAPHS, held, others, False, PACK)
    found = face_figures(population, faces, 0.65)
    counts = {}
    for name, metrics in found["sets"].items():
        figure = metrics["fir_control_images"]["robust"]["holdout"]
        counts[name] = (figure["k"], figure["n"])
    assert counts == {"pre_op": (5, 5), "post_op": (0, 6), "all": (5, 11)}
    assert found["figures"]["similarity"].keys() == {"pre_op", "post_op", "all"}
    plane = found["figures"]["pca"]
    assert plane["generated"].keys() == plane["n_real"].keys() == {"pre_op", "post_op"}
    assert [len(points) for points in plane["generated"].values()] == [4, 2]
    assert (plane["n_real"], plane["n_control"]) == ({"pre_op": 5, "post_op": None}, 6)
    assert plane["extractor"] == PACK
    alone = Population([], population.groups[2:])
    unknown = MeasuredFaces(FACES, None, held, None, False, PACK)
    found = face_figures(alone, unknown, 0.65)
    assert "fir_control_images" not in found["sets"]["all"] and found["figures"]["similarity"] == {}
    assert [len(points) for points in found["figures"]["pca"]["generated"].values()] == [6]


def phantom(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(render(random_face(np.random.default_rng(seed)), 96).image).save(path)


@pytest.mark.parametrize(
    ("roles", "synthetic"),
    [(("generated", "control"), True), (("generated",) * 2, True), (("control", None), False), ((), False)],
)
def test_faces_belong_to_their_images_and_lie_with_their_owner(tmp_path, analyzer, roles, synthetic):
    """Two sets and a control; without rows (a bare folder) or with one of no role, it may be photographs."""
    sets = {name: tmp_path / name for name in ("pre_op", "post_op")}
    for place, folder in enumerate(sets.values()):
        for seed in (0, 1):
            phantom(folder / f"{seed}.png", 10 * place + seed)
    (sets["post_op"] / "2.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    control, cache, told = tmp_path / "control", tmp_path / "cache", []
    for seed in (0, 1):
        phantom(control / f"{seed}.png", 50 + seed)
    if roles:
        rows = [ImageRow(f"{place}.png", role=role, prompt="") for place, role in enumerate(roles)]
        write_image_set(control, rows)
    (control / "2.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    population = generated_population(sets, told.append)
    held, rows = tmp_path / "photographs", []
    create_dataset_folder(held)
    for place, role in enumerate(("train", "holdout")):
        file = f"images/{place}.png"
        phantom(held / file, 70 + place)
        rows.append(ImageRow(file, condition="pre_op", role=role, caption="a face"))
    write_json(held / "dataset.json", {"settings": {"phantom": True}})
    write_image_set(held, rows)
    found = look_at_faces(population, [held], control, analyzer, cache, told.append)

    def embedding(path):
        pixels = read_image(path)
        return record_of(pixels, analyzer.analyze(pixels)).embedding

    paths = [sets[name] / f"{seed}.png" for name in sets for seed in (0, 1)]
    assert found.generated.found.tolist() == [True] * 4 + [False]
    assert found.generated.unreadable.tolist() == [False] * 4 + [True]
    for path, vector in zip(paths, found.generated.embeddings, strict=False):
        assert np.allclose(vector, embedding(path), atol=1e-5)
    others = np.stack([embedding(control / f"{seed}.png") for seed in (0, 1)])
    assert np.allclose(found.control, others, atol=1e-5) and found.control_is_synthetic is synthetic
    assert len(found.holdout["pre_op"]) == len(found.references.embeddings) == 1
    assert np.allclose(found.holdout["pre_op"].faces, embedding(held / "images" / "1.png")[None], atol=1e-5)
    assert np.allclose(found.references.embeddings, embedding(held / "images" / "0.png")[None], atol=1e-5)
    assert any(cache.iterdir()) and not list(tmp_path.glob("*/.faces"))
    again = faces_of(population.images, analyzer, None, "faces")
    assert np.array_equal(again.embeddings, found.generated.embeddings)
    assert sorted(folder.parent for folder in tmp_path.glob("*/.faces")) == sorted(sets.values())
    assert sum(str(sets["post_op"]) in line and "2.png" in line for line in told) == 1
    assert sum(str(control) in line and "2.png" in line for line in told) == 1


def test_hold_outs_of_two_datasets_of_one_condition_count_together(tmp_path, analyzer):
    """Each clinic's `p0` is somebody else; a dataset that is named twice counts once."""
    datasets = []
    for clinic, seeds in (("a", (1, 2, 3)), ("b", (11, 12))):
        folder, rows = tmp_path / clinic, []
        create_dataset_folder(folder)
        for place, seed in enumerate(seeds):
            file = f"images/{place}.png"
            phantom(folder / file, seed)
            shown = "post_op" if seed == 3 else "pre_op"
            rows.append(ImageRow(file, condition=shown, role="holdout", caption="", subject=f"p{place}"))
        write_json(folder / "dataset.json", {"settings": {"phantom": True}})
        write_image_set(folder, rows)
        datasets.append(folder)
    found = holdout_faces([*datasets, datasets[0]], analyzer)
    assert {name: (len(people), people.n_people) for name, people in found.items()} == {
        "pre_op": (4, 4),
        "post_op": (1, 1),
    }

"""A count of fewer than five photographs is told nowhere, and follows from nothing that is."""

import json
from collections import Counter

import numpy as np
import pytest
from recipes import recipe_of

from diffusioncleft.diffusioncleft_core.dataset.references import ReferenceSet
from diffusioncleft.diffusioncleft_core.metrics.fir import Faces, identity_figures
from diffusioncleft.diffusioncleft_core.metrics.gallery import Gallery, People, side_by_side
from diffusioncleft.diffusioncleft_core.metrics.sets import Group
from diffusioncleft.diffusioncleft_core.metrics.untold import seen_by_both, without_small_counts
from diffusioncleft.diffusioncleft_core.recipe.presets import told_recipe
from diffusioncleft.diffusioncleft_core.recipe.recipe import STEPS_PER_IMAGE
from diffusioncleft.diffusioncleft_core.run.evaluation import training_facts
from diffusioncleft.diffusioncleft_core.small_counts import is_small, told, told_parts
from diffusioncleft.nodes.counts import faces_told, photographs_told, reasons_told
from diffusioncleft.trainer.data import Collected, TrainImage
from diffusioncleft.trainer.metadata import lora_metadata
from diffusioncleft.trainer.prepare import Prepared

IMAGES = 20
EXTRACTOR = {"name": "pack", "sha256": "ab" * 32, "phantom": False, "licence": "MIT"}


def test_one_to_four_are_not_told():
    assert [told(n) for n in (0, 1, 4, 5, 100)] == [0, None, None, 5, 100]
    assert [is_small(n) for n in (-1, 0, 1, 4, 5)] == [False, False, True, True, False]


def test_the_texts_of_nodes_tell_no_count_of_one_to_four_photographs_of_people():
    people, phantoms = {"phantom": False}, {"phantom": True}
    assert [photographs_told(n, **people) for n in (0, 1, 4, 5)] == ["0", "fewer than 5", "fewer than 5", "5"]
    assert photographs_told(1, **phantoms) == "1"
    assert faces_told(46, 40, 6, **people) == "40 faces of 46 photographs, 6 without a face found"
    assert faces_told(46, 46, 0, **people) == "46 faces of 46 photographs, 0 without a face found"
    assert faces_told(42, 40, 2, **people) == "42 photographs, fewer than 5 without a face found"
    assert faces_told(42, 2, 40, **people) == "42 photographs, fewer than 5 with a face found"
    assert faces_told(3, 2, 1, **people) == "fewer than 5 photographs"
    assert faces_told(3, 2, 1, **phantoms) == "2 faces of 3 photographs, 1 without a face found"
    assert reasons_told({"no_face": 3, "duplicate": 7, "too_small": 9}, **people) == [
        "duplicate",
        "no_face",
        "too_small: 9",
    ]
    assert reasons_told({"no_face": 1, "duplicate": 2}, **people) == []
    assert reasons_told({"no_face": 1, "duplicate": 2}, **phantoms) == ["duplicate: 2", "no_face: 1"]


def faces(n: int) -> np.ndarray:
    """[n, 512] of one and the same face, so that no value depends on n."""
    return np.repeat(np.eye(512, dtype=np.float32)[:1], n, axis=0)


def measured(photographs: dict[str, int], with_face: dict[str, int]) -> dict:
    """What `measure_sets` tells of 20 generated images a condition and so many training photographs."""
    conditions = [name for name, n in with_face.items() for _ in range(n)]
    known = ReferenceSet(faces(len(conditions)), tuple(conditions))
    none = np.zeros(2 * IMAGES, bool)
    generated = Faces(faces(2 * IMAGES), ~none, none, none)
    first = np.arange(2 * IMAGES) < IMAGES
    sets, similarity = {}, {}
    for name, raw in (("pre_op", first), ("post_op", ~first), ("all", ~none)):
        group = Group(name, raw, None)
        sets[name], similarity[name] = identity_figures(group, generated, known, EXTRACTOR, 0.6)
        n = sum(photographs.values()) if name == "all" else photographs[name]
        sets[name] |= features(n)
    figures = {"similarity": similarity, "pca": {"n_real": {name: told(n) for name, n in with_face.items()}}}
    return without_small_counts({"sets": sets, "figures": figures}, photographs, Counter(conditions))


def features(n: int) -> dict:
    """`fid`, `fid_floor` and `lpips_reference` of n photographs, in the shape of metrics/measure.py."""
    base = {"value": 1.5, "ci95": None, "n_images": IMAGES, "n_unreadable": 0, "extractor": EXTRACTOR}
    own = {**base, "n_images": n, "n_reference": n, "n_resized": n}
    figures = {
        "fid": {"paper": {"raw": {**base, "n": IMAGES, "n_reference": n}}},
        "lpips": {"paper": {"raw": {**base, "n": 190, "n_reference": None, "n_resized": 0}}},
        "lpips_reference": {"robust": {"real": {**own, "n": n * (n - 1) // 2}}},
    }
    if n >= 20:
        figures["fid_floor"] = {"robust": {"real": {**own, "n": n // 2, "range": [1.0, 2.0]}}}
    return figures


@pytest.mark.parametrize("n", [1, 2, 4])
def test_figures_are_the_same_for_any_small_number_of_photographs(n):
    def said(few: int) -> str:
        counts = {"pre_op": few, "post_op": 30}
        return json.dumps(measured(counts, counts), sort_keys=True)

    assert said(n) == said(3)


@pytest.mark.parametrize("faceless", [1, 2, 4])
def test_figures_are_the_same_for_any_small_number_of_photographs_without_a_face(faceless):
    def said(lost: int) -> str:
        return json.dumps(measured({"pre_op": 30, "post_op": 40}, {"pre_op": 30 - lost, "post_op": 40}))

    assert said(faceless) == said(3)


def test_what_is_not_small_is_told():
    counts = {"pre_op": 30, "post_op": 40}
    found = measured(counts, counts)
    assert found["sets"]["pre_op"]["fir_pairs"]["paper"]["raw"]["n"] == IMAGES * 30
    assert found["sets"]["all"]["fir_images"]["paper"]["raw"]["n_reference"] == 70
    assert found["figures"]["similarity"]["pre_op"]["raw"]["n_pairs"] == IMAGES * 30
    assert found["sets"]["all"]["lpips_reference"]["robust"]["real"]["n"] == 70 * 69 // 2


def test_shares_of_images_are_told_of_few_photographs_too():
    counts = {"pre_op": 3, "post_op": 40}
    figure = measured(counts, counts)["sets"]["pre_op"]["fir_images"]["paper"]["raw"]
    assert (figure["k"], figure["n"], figure["n_reference"]) == (IMAGES, IMAGES, None)


def test_a_second_recogniser_tells_no_more_than_the_first():
    pairs = {"value": 0.0, "ci95": [0.0, 0.1], "k": 0, "n": 3800, "n_images": 100, "n_reference": 38}
    sets = {"pre_op": {name: {"robust": {"raw": pairs}} for name in ("fir_pairs", "fir_pairs_second")}}
    found = without_small_counts(
        {"sets": sets, "figures": {"similarity": {}, "pca": None}},
        {"pre_op": 40},
        seen_by_both({"pre_op": 40}, {"pre_op": 40}, {"pre_op": 38}),
    )
    for metric in found["sets"]["pre_op"].values():
        assert (metric["robust"]["raw"]["n"], metric["robust"]["raw"]["n_reference"]) == (None, None)


def test_what_is_compared_with_all_photographs_tells_no_count_of_a_small_condition():
    copies = {"value": 0.0, "ci95": [0.0, 0.1], "k": 0, "n": 20, "n_images": 20, "n_reference": 43}
    sets = {
        "pre_op": {name: {"robust": {"raw": copies}} for name in ("near_copies", "residual_copies", "fid")}
    }
    told_of = without_small_counts(
        {"sets": sets, "figures": {"similarity": {}, "pca": None}}, {"pre_op": 40, "post_op": 3}, {}
    )["sets"]["pre_op"]
    shown = {name: metric["robust"]["raw"]["n_reference"] for name, metric in told_of.items()}
    assert shown == {"near_copies": None, "residual_copies": None, "fid": 43}


def test_a_union_has_no_held_out_people_where_one_of_its_parts_has_few():
    def union(few: int) -> int:
        parts = [
            (faces(2), Gallery(People.strangers(faces(9)), People.strangers(faces(n)))) for n in (10, few)
        ]
        return len(side_by_side(parts)[1].holdout.faces)

    assert [union(n) for n in (0, 2, 5)] == [10, 0, 15]


def test_a_few_photographs_of_another_size_are_not_told():
    def resized(n: int) -> object:
        own = {"value": 1.0, "n_images": 30, "n_unreadable": 0, "n_resized": n}
        sets = {"pre_op": {"lpips_reference": {"robust": {"real": own}}}}
        found = without_small_counts(
            {"sets": sets, "figures": {"similarity": {}, "pca": None}}, {"pre_op": 30}, {}
        )
        return found["sets"]["pre_op"]["lpips_reference"]["robust"]["real"]["n_resized"]

    assert [resized(n) for n in (0, 3, 12, 28, 30)] == [0, None, 12, None, 30]


def test_a_part_of_a_whole_that_is_told_does_not_follow_from_the_others():
    assert told_parts({"512x768": 90, "768x512": 3, "512x512": 20}) == {
        "512x768": 90,
        "768x512": None,
        "512x512": None,
    }
    assert told_parts({"a": 3, "b": 4, "c": 9}) == {"a": None, "b": None, "c": 9}
    assert told_parts({"a": 0, "b": 9}) == {"a": 0, "b": 9}
    assert told_parts({"a": 3}) == {"a": None}


def lora_says(tmp_path, images: int, **chosen) -> dict[str, str]:
    """The metadata of a LoRA after the last step of a training on so many images of one bucket."""
    recipe = recipe_of(phantom=True, train_data_dir=tmp_path, **chosen)
    image = TrainImage(tmp_path / "a.png", tmp_path, "[CLP] A girl.", False, 1, "00", (64, 64))
    prints = {"images": "keyed", "base model": "cd"}
    prepared = Prepared(Collected((image,) * images), [], {}, [], prints, "CLP")
    made_from = {"optimizer": "AdamW", "number format": "float32", "training adapter": None}
    total = recipe.optimizer.steps or STEPS_PER_IMAGE * images
    return lora_metadata(recipe, prepared, made_from, total, total)


@pytest.mark.parametrize("images", [1, 2, 4])
def test_a_lora_says_the_same_of_any_small_number_of_images(tmp_path, images):
    """Whether the run or the trainer itself multiplied the images by ten."""
    for given in (False, True):
        few, three = (
            lora_says(
                tmp_path,
                n,
                max_train_steps=10 * n if given else 0,
                sample_every_n_steps=10 * n // 4 if given else 0,
            )
            for n in (images, 3)
        )
        assert few == three
        assert not {"ss_steps", "ss_max_train_steps", "ss_num_train_images"} & few.keys()


def test_a_lora_of_more_images_or_of_chosen_steps_says_its_steps(tmp_path):
    said = lora_says(tmp_path, 6)
    assert (said["ss_steps"], said["ss_num_train_images"]) == ("60", "6")
    chosen = lora_says(tmp_path, 3, max_train_steps=500)
    assert chosen["ss_steps"] == "500" and "ss_num_train_images" not in chosen
    assert json.loads(chosen["bucket_counts"]) == {"64x64": None}


def test_the_recipe_beside_a_lora_of_few_images_trains_the_same_again(tmp_path):
    recipe = recipe_of(phantom=True, train_data_dir=tmp_path, max_train_steps=30)
    assert told_recipe(recipe, 3).optimizer.steps == 0
    assert told_recipe(recipe, 30) is recipe


def stages(images: int, holdout: int, subjects: int) -> dict:
    steps = STEPS_PER_IMAGE * images
    recipe = {"optimizer": {"steps": steps, "learning_rate": 1e-4}, "previews": {"every_n_steps": steps // 4}}
    return {
        "dataset": {
            "holdout_images": holdout,
            "subjects": subjects,
            "set_aside": {"no_consent": images, "too_small": 12},
        },
        "training": {
            "training_images": images,
            "last_step": {"step": steps, "loss": 0.3, "lr": 1e-4 / images},
            "recipe": recipe,
        },
    }


def test_a_run_says_the_same_of_any_small_number_of_photographs():
    said = [training_facts(stages(n, n, n), phantom=False) for n in (1, 2, 4)]
    assert said[0] == said[1] == said[2]
    assert said[0]["set_aside"] == {"no_consent": None, "too_small": 12}
    assert said[0]["recipe"]["optimizer"]["steps"] == 0
    whole = training_facts(stages(40, 5, 45), phantom=False)
    assert (whole["training_images"], whole["subjects"], whole["last_step"]["step"]) == (40, 45, 400)

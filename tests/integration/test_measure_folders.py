"""Measuring bare folders of images against a bare folder, as one who has no dataset does."""

import json
import os
import stat

import numpy as np
import pytest
from PIL import Image

from diffusioncleft.cli import main as cli
from diffusioncleft.diffusioncleft_core.phantom.face import random_face
from diffusioncleft.diffusioncleft_core.phantom.render import render

REFERENCE = 12


def drawn(n, seed):
    rng = np.random.default_rng(seed)
    return [render(random_face(rng), 96).image for _ in range(n)]


def write_folder(folder, pictures):
    folder.mkdir(parents=True)
    for place, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{place}.png")
    return folder


def measure(*arguments):
    return cli.main(["measure", *map(str, arguments), "--phantom", "--device", "cpu"])


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Jane's photographs, a set with two copies of them among its twelve images, and an honest set."""
    root = tmp_path_factory.mktemp("bare")
    photographs = drawn(REFERENCE, 1)
    honest = drawn(12, 2)
    return {
        "reference": write_folder(root / "Jane Doe", photographs),
        "copier": write_folder(root / "a", [*photographs[:2], *honest[2:]]),
        "honest": write_folder(root / "b", drawn(12, 3)),
    }


@pytest.fixture(scope="module")
def report(folders):
    out = folders["reference"].parent / "out.json"
    given = [f"copier={folders['copier']}", folders["honest"], "--reference", folders["reference"]]
    assert measure(*given, "--threshold", "0.95", "--out", out) == 0
    return out


@pytest.fixture(scope="module")
def document(report):
    return json.loads(report.read_text(encoding="utf-8"))


def test_bare_folders_have_every_figure_that_needs_no_dataset(document):
    assert list(document["sets"]) == ["copier", "set_2"]
    for metrics in document["sets"].values():
        for metric in ("fir_pairs", "fir_images", "fid", "lpips"):
            assert metrics[metric]["paper"]["raw"]["value"] is not None, metric
        for metric in (
            *("kid", "fid_matched", "precision", "recall", "density", "coverage", "vendi"),
            *("near_copies", "leak_images", "authenticity", "lpips_all_pairs"),
        ):
            if metric != "fid_matched":  # it takes 20 photographs
                assert metrics[metric]["robust"]["raw"]["value"] is not None, metric
        assert metrics["lpips_reference"]["robust"]["real"]["n"] == REFERENCE * (REFERENCE - 1) // 2
        assert metrics["fid"]["paper"]["raw"]["n_reference"] == REFERENCE


def test_copies_of_a_bare_folder_are_found(document):
    assert document["sets"]["copier"]["fir_images"]["paper"]["raw"]["k"] == 2
    assert document["sets"]["set_2"]["fir_images"]["paper"]["raw"]["k"] == 0
    assert document["sets"]["copier"]["near_copies"]["robust"]["raw"]["k"] >= 2  # drawings are alike


def test_who_is_on_a_bare_folders_images_is_not_assumed(document):
    """Its images may all show one person, so they are no strangers to one another."""
    metrics = document["sets"]["copier"]
    assert set(metrics["leak_control"]["robust"]) == {"calibration"}
    assert "distance_ratio" not in metrics


def test_no_folder_is_named_in_the_report(report, folders):
    text = report.read_text(encoding="utf-8")
    assert "Jane" not in text and str(folders["honest"]) not in text


def test_what_is_computed_from_a_bare_folder_is_its_owners_alone(report, folders):
    for name in (".measure", ".faces"):
        place = folders["reference"] / name
        assert any(place.iterdir())
        if os.name == "posix":
            assert stat.S_IMODE(place.stat().st_mode) == 0o700


def test_a_reference_of_a_condition_is_compared_with_that_condition_alone(folders, tmp_path):
    out = tmp_path / "out.json"
    given = [f"x:pre_op={folders['copier']}", f"y:post_op={folders['copier']}"]
    assert (
        measure(*given, "--reference", f"pre_op={folders['reference']}", "--metrics", "fid", "--out", out)
        == 0
    )
    sets = json.loads(out.read_text(encoding="utf-8"))["sets"]
    assert list(sets) == ["x", "y"]
    assert sets["x"]["fid"]["paper"]["raw"]["n_reference"] == REFERENCE
    assert sets["y"]["fid"]["paper"]["raw"]["value"] is None


def test_sets_on_one_reference_are_ranked_with_their_differences(document):
    found = document["figures"]["ranking"]["all"]
    assert [item["name"] for item in found["fir_images"]["sets"]] == ["set_2", "copier"]
    assert {"fid", "kid", "precision", "lpips_all_pairs", "near_copies"} <= set(found)
    (difference,) = found["kid"]["differences"]
    assert difference["ci95"][0] < difference["value"] < difference["ci95"][1]
    assert isinstance(difference["beyond_chance"], bool)

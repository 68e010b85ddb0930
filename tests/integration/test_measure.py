"""Measuring a generated set as a person does: real processes, phantom photographs, the embedded models."""

import json
import os
import shutil
import stat

import numpy as np
import pytest
from phantom_datasets import FINDING_OF
from PIL import Image

from diffusioncleft.cli import main as cli
from diffusioncleft.diffusioncleft_core.dataset.references import read_references
from diffusioncleft.diffusioncleft_core.files import read_jsonl, write_jsonl
from diffusioncleft.diffusioncleft_core.phantom.face import random_face
from diffusioncleft.diffusioncleft_core.phantom.photographs import write_photographs
from diffusioncleft.diffusioncleft_core.phantom.render import render
from diffusioncleft.diffusioncleft_core.weights.networks import NetworkInfo

CONDITIONS = ("pre_op", "post_op")
IMAGES = 6


def faces_of(n, condition, seed):
    rng = np.random.default_rng(seed)
    return [render(random_face(rng, finding=FINDING_OF[condition]), 96).image for _ in range(n)]


def write_set(folder, condition, pictures):
    """A generated set in the form that generation leaves."""
    folder.mkdir(parents=True)
    rows = []
    for index, picture in enumerate(pictures):
        name = f"{index:06d}_{index}.png"
        Image.fromarray(picture).save(folder / name)
        rows.append({"file": name, "condition": condition, "role": "generated", "verdicts": {}})
    write_jsonl(folder / "manifest.jsonl", rows)


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """A dataset of each condition, built from photographs with recognisable names."""
    root = tmp_path_factory.mktemp("private things")
    for seed, condition in enumerate(CONDITIONS):
        write_photographs(root / "Jane Doe" / condition, 20, FINDING_OF[condition], seed, subjects=20)
        photos = root / "Jane Doe" / condition
        built = ["dataset", "build", photos, "--metadata", photos / "metadata.csv", "--condition", condition]
        built += ["--out", root / condition, "--phantom", "--holdout", "0.3"]
        assert cli.main(list(map(str, built))) == 0
    return {condition: root / condition for condition in CONDITIONS}


@pytest.fixture(scope="module")
def generated(datasets, tmp_path_factory):
    """Two sets; the first image of each is a copy of a training photograph."""
    root = tmp_path_factory.mktemp("generated")
    for seed, condition in enumerate(CONDITIONS, start=50):
        row = next(
            row for row in read_jsonl(datasets[condition] / "manifest.jsonl") if row["role"] == "train"
        )
        with Image.open(datasets[condition] / row["file"]) as copied:
            leak = np.asarray(copied.convert("RGB").resize((96, 96)))
        write_set(root / condition, condition, [leak, *faces_of(IMAGES - 1, condition, seed)])
    return {condition: root / condition for condition in CONDITIONS}


def measure(*arguments):
    return cli.main(["measure", *map(str, arguments), "--device", "cpu"])


def mark(folder, accepted):
    """Write the filters' verdicts into a manifest."""
    rows = read_jsonl(folder / "manifest.jsonl")
    for row, verdict in zip(rows, accepted, strict=True):
        row["verdicts"] = {"accepted": verdict, "reasons": [] if verdict else ["identity_leak"]}
    write_jsonl(folder / "manifest.jsonl", rows)


@pytest.fixture(scope="module")
def measured(datasets, generated, tmp_path_factory):
    """Both sets after filtering, measured once."""
    for folder in generated.values():
        mark(folder, [False] + [True] * (IMAGES - 1))
    out = tmp_path_factory.mktemp("out") / "report.json"
    arguments = [*generated.values(), "--phantom", "--reference", *datasets.values(), "--out", out]
    assert measure(*arguments, "--threshold", "0.95") == 0
    return out


@pytest.fixture(scope="module")
def document(measured):
    return json.loads(measured.read_text(encoding="utf-8"))


def figure(document, group, metric, variant="raw", profile="paper"):
    return document["sets"][group][metric][profile][variant]


def test_a_copied_photograph_is_found_raw_and_gone_after_filtering(document):
    for condition in CONDITIONS:
        raw, kept = (figure(document, condition, "fir_images", variant) for variant in ("raw", "filtered"))
        assert (raw["k"], raw["n"]) == (1, IMAGES)
        assert (kept["k"], kept["n"]) == (0, IMAGES - 1)
        assert "by construction" in kept["note"]
        assert raw["ci95"][0] < raw["value"] < raw["ci95"][1]
        pairs = figure(document, condition, "fir_pairs")
        assert (pairs["k"], pairs["n"]) == (1, IMAGES * pairs["n_reference"])
    assert figure(document, "all", "fir_images")["k"] == 2


def test_every_condition_and_both_have_every_figure(document):
    assert list(document["sets"]) == ["pre_op", "post_op", "all"]
    for group in document["sets"]:
        for metric in ("fir_pairs", "fir_images", "fir_images_any", "fid", "lpips"):
            for variant in ("raw", "filtered"):
                found = figure(document, group, metric, variant)
                assert found["value"] is not None
                assert found["extractor"]["phantom"] is True
                assert len(found["extractor"]["sha256"]) == 64
        assert [row["threshold"] for row in figure(document, group, "fir_sweep")][::4] == [0.3, 0.5, 0.7]
        assert figure(document, group, "lpips_reference", "real", "robust")["value"] > 0
        assert figure(document, group, "fir_control_images", "holdout", "robust")["k"] == 0
    drawn = figure(document, "all", "fid")
    floor = figure(document, "all", "fid_floor", "real", "robust")
    matched = figure(document, "all", "fid_matched", profile="robust")
    assert floor["n"] == matched["n"] == min(drawn["n"], drawn["n_reference"] // 2)
    for metric in ("kid", "kid_holdout", "fid_holdout", "precision", "coverage", "vendi"):
        assert figure(document, "all", metric, profile="robust")["value"] is not None, metric
    for metric in ("fid", "lpips"):
        assert "seeded-random" in figure(document, "pre_op", metric)["extractor"]["name"]
        assert "says nothing about photographs" in figure(document, "pre_op", metric)["note"]


def test_lpips_over_all_pairs_is_the_mean_of_the_pairs_where_all_are_taken(document):
    found = figure(document, "pre_op", "lpips")
    exact = figure(document, "pre_op", "lpips_all_pairs", profile="robust")
    assert found["n"] == exact["n"] == IMAGES * (IMAGES - 1) // 2
    assert found["value"] == pytest.approx(exact["value"], rel=1e-5)


def test_the_report_holds_nothing_of_a_photograph(measured, document, datasets):
    text = measured.read_text(encoding="utf-8")
    assert "Jane Doe" not in text
    assert str(datasets["pre_op"]) not in text
    for folder in datasets.values():
        for row in read_jsonl(folder / "manifest.jsonl"):
            assert row["sha256"] not in text
            assert row["sha256"][:16] not in text
    pca = document["figures"]["pca"]
    assert pca["control"] is None
    cells = [cell for table in pca["real"].values() for column in table for cell in column]
    assert all(cell is None or cell >= 5 for cell in cells)


def test_what_was_computed_lies_with_its_images_for_the_owner_alone(measured, datasets, generated):
    for folder in (generated["pre_op"] / ".measure", datasets["post_op"] / "cache" / "features"):
        assert any(folder.iterdir())
        if os.name == "posix":
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_an_extractor_is_added_with_one_entry(datasets, generated, tmp_path, monkeypatch):
    """It is chosen by its name, and its Fréchet distance stands in the report beside the floor."""
    import torch

    from diffusioncleft.diffusioncleft_core.metrics import extractors
    from diffusioncleft.diffusioncleft_core.metrics.fid import frechet_distance

    class MeanColours:
        info = NetworkInfo("mean colours", "c" * 64, True, "none")
        dimensions = 3

        def prepare(self, pixels):
            return torch.from_numpy(pixels).float().mean(dim=(0, 1))

        def __call__(self, batch):
            return batch

    entry = extractors.ExtractorEntry("colour", "inception-fid", "numpy", lambda *_: MeanColours())
    monkeypatch.setitem(extractors.EXTRACTORS, "fd_colour", entry)
    out = tmp_path / "colour.json"
    references = ["--reference", *datasets.values()]
    assert measure(*generated.values(), "--phantom", *references, "--metrics", "fd_colour", "--out", out) == 0
    document = json.loads(out.read_text(encoding="utf-8"))

    def colours(folder, role):
        rows = [row for row in read_jsonl(folder / "manifest.jsonl") if row["role"] == role]
        return np.stack([np.asarray(Image.open(folder / row["file"])).mean(axis=(0, 1)) for row in rows])

    expected = frechet_distance(
        colours(generated["pre_op"], "generated"), colours(datasets["pre_op"], "train")
    )
    found = figure(document, "pre_op", "fd_colour")
    assert (
        found["value"] == pytest.approx(expected, rel=1e-4) and found["extractor"]["name"] == "mean colours"
    )
    assert all(metric.startswith("fd_colour") for metric in document["sets"]["pre_op"])
    assert {"fd_colour", "fd_colour_kid", "fd_colour_vendi"} <= set(document["sets"]["pre_op"])


def test_measuring_again_looks_at_no_image_again_and_says_the_same(
    measured, datasets, generated, monkeypatch
):
    from diffusioncleft.diffusioncleft_core.faces.analyzer import FaceAnalyzer
    from diffusioncleft.diffusioncleft_core.metrics.extractors import (
        InceptionFeatures,
        PerceptualFeatures,
    )

    def looked(*_):
        raise AssertionError("an image was looked at again")

    for name, method in (
        (FaceAnalyzer, "analyze"),
        (InceptionFeatures, "__call__"),
        (PerceptualFeatures, "__call__"),
    ):
        monkeypatch.setattr(name, method, looked)
    again = measured.with_name("again.json")
    arguments = [*generated.values(), "--phantom", "--reference", *datasets.values(), "--out", again]
    assert measure(*arguments, "--threshold", "0.95") == 0
    first, second = (json.loads(path.read_text(encoding="utf-8")) for path in (measured, again))
    assert (first["sets"], first["figures"]) == (second["sets"], second["figures"])


def test_a_foreign_folder_of_mixed_and_damaged_images_is_measured_as_far_as_it_goes(tmp_path, capsys):
    folder, pictures = tmp_path / "cleftgan output", faces_of(4, "pre_op", 9)
    folder.mkdir()
    Image.fromarray(pictures[0]).save(folder / "seed0000.PNG")
    Image.fromarray(pictures[1]).resize((128, 90)).save(folder / "seed0001.JPG")
    Image.fromarray(pictures[2]).convert("L").save(folder / "seed0002.jpg")
    Image.fromarray(pictures[3]).convert("RGBA").save(folder / "seed0003.png")
    (folder / "seed0004.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    (folder / "readme.txt").write_text("no image")
    out = tmp_path / "out.json"
    assert measure(f"all={folder}", "--phantom", "--metrics", "fir,lpips", "--out", out) == 0
    errors = capsys.readouterr().err
    assert "1 of 5 images" in errors
    assert "no --reference" in errors
    document = json.loads(out.read_text(encoding="utf-8"))
    assert list(document["sets"]) == ["all"]
    lpips = figure(document, "all", "lpips")
    assert (lpips["n_images"], lpips["n_unreadable"], lpips["n"]) == (4, 1, 6)
    assert lpips["image_size"] == [96, 96]
    assert lpips["n_resized"] == 1
    fir = figure(document, "all", "fir_images")
    assert fir["value"] is None
    assert "no training photographs" in fir["note"]


def test_one_image_gives_words_instead_of_numbers(datasets, generated, tmp_path, capsys):
    one = tmp_path / "one"
    one.mkdir()
    shutil.copy(generated["pre_op"] / "000001_1.png", one)
    out = tmp_path / "out.json"
    arguments = [f"pre_op={one}", "--phantom", "--reference", *datasets.values(), "--out", out]
    assert measure(*arguments, "--metrics", "fid,lpips") == 0
    document = json.loads(out.read_text(encoding="utf-8"))
    for metric, words in (("fid", "2 images that can be read on each side"), ("lpips", "two images")):
        found = figure(document, "pre_op", metric)
        assert found["value"] is None
        assert words in found["note"]
    assert "not measured" in capsys.readouterr().out


def test_a_set_of_which_no_image_can_be_read_is_a_mistake_and_writes_nothing(tmp_path, capsys):
    (tmp_path / "damaged").mkdir()
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / "damaged" / name).write_bytes(b"\x89PNG\r\n\x1a\n")
    out = tmp_path / "out.json"
    assert measure(f"all={tmp_path / 'damaged'}", "--phantom", "--metrics", "lpips", "--out", out) == 2
    assert "not one image could be read" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["empty"], "there is nothing to measure: no image in"),
        (["pre_op=empty"], "there is nothing to measure: no image in"),
        (["pre_op=nowhere"], "nowhere is no folder"),
        (["pre_op=empty", "--metrics", "fir,kid"], "choose from: fir, fid, lpips"),
        (["pre_op=empty", "--reference", "empty"], "empty is no dataset and holds no image to compare with"),
        (["preop=empty"], "there is no condition 'preop'; did you mean 'pre_op'?"),
        (["a:preop=empty"], "there is no condition 'preop'; did you mean 'pre_op'?"),
        (["pre_op=empty", "--reference", "pst_op=empty"], "holds no image"),
        (["a=empty", "a=empty"], "are both called a"),
    ],
)
def test_mistakes_are_one_line(arguments, words, tmp_path, capsys, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    assert measure(*arguments, "--phantom", "--out", "out.json") == 2
    err = capsys.readouterr().err.strip().splitlines()[-1]
    assert words in err
    assert not (tmp_path / "out.json").exists()


def test_without_weights_photographs_are_not_measured(generated, datasets, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    arguments = [generated["pre_op"], "--reference", datasets["pre_op"], "--out", tmp_path / "out.json"]
    assert measure(*arguments, "--metrics", "fid") == 2
    assert "diffusioncleft weights fetch inception-fid" in capsys.readouterr().err


def test_seeded_networks_never_see_photographs(generated, datasets, tmp_path, capsys):
    real = tmp_path / "a real dataset"
    shutil.copytree(datasets["pre_op"], real)
    settings = json.loads((real / "dataset.json").read_text(encoding="utf-8"))
    settings["settings"]["phantom"] = False
    (real / "dataset.json").write_text(json.dumps(settings), encoding="utf-8")
    arguments = [generated["pre_op"], "--phantom", "--reference", real, "--out", tmp_path / "out.json"]
    assert measure(*arguments, "--metrics", "lpips") == 2
    assert "for phantoms alone" in capsys.readouterr().err


def test_near_copies_are_a_figure_of_their_own_with_interval_and_control(document):
    for condition in CONDITIONS:
        raw, kept = (
            figure(document, condition, "near_copies", variant, "robust") for variant in ("raw", "filtered")
        )
        assert (raw["k"], raw["n"]) == (1, IMAGES) and raw["ci95"][0] < raw["value"] < raw["ci95"][1]
        assert (kept["k"], kept["n"]) == (0, IMAGES - 1)
        assert raw["extractor"]["phantom"] and raw["extractor"]["name"].startswith("near-copy check")
    assert figure(document, "all", "near_copies", "raw", "robust")["k"] == 2
    assert figure(document, "all", "near_copies_control", "holdout", "robust")["k"] == 0


def test_a_grey_copy_without_a_face_counts_and_a_second_call_looks_at_no_pixel(
    datasets, tmp_path, monkeypatch, analyzer
):
    """The upper half is painted over: there are no eyes to find a face by."""
    from diffusioncleft.diffusioncleft_core.imageset.copies import CopyIndex
    from diffusioncleft.diffusioncleft_core.metrics.copies import copy_scores
    from diffusioncleft.diffusioncleft_core.metrics.sets import MeasuredImage

    row = next(row for row in read_jsonl(datasets["pre_op"] / "manifest.jsonl") if row["role"] == "train")
    with Image.open(datasets["pre_op"] / row["file"]) as image:
        grey = np.array(image.convert("L").convert("RGB"))
    side = len(grey)
    grey[: side // 2] = 128
    folder = tmp_path / "set"
    folder.mkdir()
    Image.fromarray(grey).save(folder / "grey.png")
    (folder / "damaged.png").write_bytes(b"none")
    reference = read_references(list(datasets.values()), analyzer)
    images = [MeasuredImage(folder, "grey.png", "pre_op"), MeasuredImage(folder, "damaged.png", "pre_op")]
    scores = copy_scores(images, reference, None)
    assert scores[0] >= 0.3 and np.isnan(scores[1])
    monkeypatch.setattr(CopyIndex, "best", None)
    assert copy_scores(images[:1], reference, None).tolist() == scores[:1].tolist()

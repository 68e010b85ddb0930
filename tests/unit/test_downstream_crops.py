"""Crops: of every kind of set, each cut once, what has no lip counted; and what each view of them shows."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from downstream_phantoms import as_generated, random_crops, small_cropper, write_phantoms
from phantom_datasets import phantom_dataset
from PIL import Image

from diffusioncleft.diffusioncleft_core.downstream import cropper as cutting
from diffusioncleft.diffusioncleft_core.downstream.crops import GREY, View, joined
from diffusioncleft.diffusioncleft_core.downstream.people import identity_groups
from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.files import read_jsonl, write_jsonl


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_phantoms(tmp_path_factory.mktemp("sets") / "clefts", "cleft", 1, 6)


@pytest.fixture
def cropper(analyzer):
    return small_cropper(analyzer)


def test_a_bare_folder_gives_a_crop_a_picture_and_counts_what_has_no_lip(folder, cropper, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "set", ignore=shutil.ignore_patterns(".*"))
    Image.new("RGB", (128, 128), (90, 120, 90)).save(copy / "meadow.png")
    (copy / "torn.png").write_bytes((copy / "0000.png").read_bytes()[:500])
    crops = cropper.read(copy, 1)
    assert (len(crops), crops.n_not_found) == (6, 2)
    assert crops.pixels.shape == crops.surroundings.shape == (6, 64, 64, 3)
    assert crops.labels.tolist() == [1] * 6 and crops.phantom
    assert len(set(crops.people)) == 6, "every phantom is another person"
    whole = cropper.read(folder, 1)
    assert np.array_equal(whole.pixels, crops.pixels) and whole.keys == crops.keys


def test_each_picture_is_cut_once_and_kept_by_its_content(folder, cropper, tmp_path, monkeypatch):
    copy = shutil.copytree(folder, tmp_path / "set", ignore=shutil.ignore_patterns(".*"))
    first = cropper.read(copy, 1)
    (copy / "0000.png").rename(copy / "renamed.png")
    cut = []
    real = cutting.cut_square
    monkeypatch.setattr(cutting, "cut_square", lambda *given: cut.append(1) or real(*given))
    again = cropper.read(copy, 0)
    assert not cut
    assert sorted(first.keys) == sorted(again.keys)
    Image.open(folder / "0003.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(copy / "0003.png")
    assert sorted(cropper.read(copy, 0).keys) != sorted(first.keys)
    assert len(cut) == 2, "the crop and the surroundings of one picture"
    assert {path.name for path in (copy / ".downstream").iterdir()} == {"crops"}
    assert (copy / ".downstream").stat().st_mode & 0o077 == 0


def test_beside_a_face_that_fills_its_picture_something_is_seen_or_it_is_said(folder, cropper, tmp_path):
    close = tmp_path / "close"
    close.mkdir()
    for path in folder.glob("*.png"):
        with Image.open(path) as picture:
            picture.crop((24, 24, 104, 112)).resize((128, 128)).save(close / path.name)
    grey = np.array(GREY, np.uint8)
    crops = cropper.read(folder, 1)
    crops.refuse_hidden_surroundings()
    roomy = crops.view(View.BACKGROUND)
    assert ((roomy != grey).any(-1).mean((1, 2)) > 0.05).all()
    assert (roomy[:, 24:56, 24:40] == grey).all(), "the middle of the face is greyed out"
    with pytest.raises(UserError, match="nothing beside the face"):
        cropper.read(close, 1).refuse_hidden_surroundings()


def test_another_margin_or_side_is_another_crop(folder, analyzer):
    keys = {small_cropper(analyzer, side=side).read(folder, 1).keys for side in (32, 64)}
    assert len(keys) == 2


def test_of_a_filtered_set_the_accepted_images_count_and_of_another_the_first_attempts(
    folder, cropper, tmp_path
):
    copy = as_generated(
        shutil.copytree(folder, tmp_path / "set", ignore=shutil.ignore_patterns(".*")), "pre_op"
    )
    rows = read_jsonl(copy / "manifest.jsonl")
    write_jsonl(copy / "manifest.jsonl", [{**row, "attempt": int(i == 0)} for i, row in enumerate(rows)])
    assert len(cropper.read(copy, 1)) == 5
    judged = [{**row, "verdicts": {"accepted": i < 2}} for i, row in enumerate(rows)]
    write_jsonl(copy / "manifest.jsonl", judged)
    assert len(cropper.read(copy, 1)) == 2
    write_jsonl(copy / "manifest.jsonl", [{**row, "verdicts": {"accepted": False}} for row in rows])
    with pytest.raises(UserError, match="the filters accepted no image"):
        cropper.read(copy, 1)


def test_groups_come_from_the_manifest(folder, cropper, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "set", ignore=shutil.ignore_patterns(".*"))
    as_generated(copy, "pre_op", attributes={"skin": "dark", "age_group": "baby"})
    crops = cropper.read(copy, 1)
    assert crops.groups == {"skin_tone": ("dark",) * 6, "age_group": ("baby",) * 6, "gender": (None,) * 6}


def test_a_dataset_gives_training_photographs_to_learn_from_and_the_hold_out_to_test(
    analyzer, cropper, tmp_path
):
    dataset = phantom_dataset(tmp_path / "photos", "pre_op", tmp_path / "private", analyzer, n=10, seed=3)
    train, test = cropper.training_set(dataset, 1), cropper.test_set(dataset, 1)
    assert (len(train), len(test)) == (9, 1)
    assert not set(train.people) & set(test.people)
    assert all(train.subjects) and set(train.groups["age_group"]) <= {"baby", "child"}
    assert (dataset / "cache" / "downstream" / "crops").is_dir()
    assert not (dataset / ".downstream").exists()
    assert set(train.owners) == {dataset / "cache" / "downstream"}


def test_of_a_dataset_no_photograph_is_named_and_no_small_count_told(analyzer, tmp_path):
    dataset = phantom_dataset(tmp_path / "photos", "pre_op", tmp_path / "private", analyzer, n=7, seed=3)
    copy = shutil.copytree(dataset / "images", tmp_path / "bare")
    told = []
    cropper = replace(small_cropper(analyzer), warn=told.append)
    first, second = (row["file"].split("/")[-1] for row in read_jsonl(dataset / "manifest.jsonl")[:2])
    (dataset / "examined.jsonl").unlink()  # as with a face pack that the dataset was not built with
    for folder, images in ((dataset, dataset / "images"), (copy, copy)):
        (images / first).write_bytes(b"torn")
        Image.new("RGB", (128, 128)).save(images / second)
        cropper.read(folder, 1)
    assert told == [
        f"some images of {dataset} are damaged or missing and count as images without a lip",
        f"no lip was found in some images of {dataset}; they are left out",
        f"1 of 7 images of {copy} are damaged or missing and count as images without a lip: {first}",
        f"no lip was found in 1 of 7 images of {copy}; they are left out",
    ]


def test_a_folder_without_a_face_is_refused(cropper, tmp_path):
    Image.new("RGB", (128, 128)).save(tmp_path / "black.png")
    with pytest.raises(UserError, match="no lip was found in the 1 images"):
        cropper.read(tmp_path, 1)


def test_the_views_show_what_they_say(folder, cropper):
    crops = cropper.read(folder, 1)
    masked, alone = crops.view(View.LIP_MASKED), crops.view(View.LIP_ALONE)
    grey = np.array(GREY)
    for place, (x0, y0, x1, y1) in enumerate(crops.lips.astype(int)):
        assert (masked[place, y0:y1, x0:x1] == grey).all(), "the lip is greyed out"
        assert np.array_equal(alone[place, y0:y1, x0:x1], crops.pixels[place, y0:y1, x0:x1])
        corner = crops.pixels[place, :3, :3]
        assert np.array_equal(masked[place, :3, :3], corner) and (alone[place, :3, :3] == grey).all()
        both = np.where((masked[place] == grey).all(-1, keepdims=True), alone[place], masked[place])
        assert np.array_equal(both, crops.pixels[place]), "each pixel is in one of the two views"
    background = crops.view(View.BACKGROUND)
    assert (background[:, 32, 32] == grey).all() and (background[:, 40, 32] == grey).all()
    assert not (background[:, 0, 0] == grey).all()


def test_a_picked_or_joined_set_keeps_each_picture_with_what_belongs_to_it():
    first, second = random_crops(6, seed=1), random_crops(4, seed=2)
    both = joined([first.labelled(1), second.labelled(0)])
    assert both.labels.tolist() == [1] * 6 + [0] * 4 and both.keys == first.keys + second.keys
    some = both.where([7, 0])
    assert some.keys == (second.keys[1], first.keys[0]) and some.labels.tolist() == [0, 1]
    assert np.array_equal(some.pixels[0], second.pixels[1])
    assert both.where(both.labels == 0).keys == second.keys
    with pytest.raises(ValueError, match="never one set"):
        joined([first, random_crops(2, phantom=False)])


def unit(*rows):
    matrix = np.array(rows, np.float32)
    return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


def test_pictures_of_one_label_or_of_faces_alike_are_one_person():
    faces = unit([1, 0, 0], [0.99, 0.1, 0], [0, 1, 0], [0, 0, 1], [0, 0.05, 1])
    assert identity_groups([None] * 5, faces, 0.9).tolist() == [0, 0, 1, 2, 2]
    assert identity_groups(["a", "b", "a", None, None], faces, 0.9).tolist() == [0, 1, 0, 2, 2]


def test_a_chain_of_look_alikes_is_cut_where_it_would_swallow_the_set():
    faces = unit(*[np.eye(31)[i] + np.eye(31)[i + 1] for i in range(30)])  # each like the next: cosine 0.5
    assert len(set(identity_groups([None] * 30, faces, 0.45).tolist())) == 30
    few = identity_groups([None] * 10, faces[:10], 0.45)
    assert few.tolist() == [0] * 10, "one person may well have ten pictures"
    assert identity_groups(["one"] * 30, faces, 0.45).tolist() == [0] * 30, "labels are never cut"

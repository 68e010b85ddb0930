"""A dataset of real photographs, and sets of images that are judged against it."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def images(people, tmp_path) -> Path:
    """Two training photographs under suffixes that used to be passed over, and two people of no dataset."""
    folder = tmp_path / "images"
    folder.mkdir()
    known, stranger, another = (sorted(people)[i] for i in (0, 3, 4))
    Image.open(people[known][0]).save(folder / "leak.jfif", "JPEG", quality=80)
    Image.open(people[known][1]).save(folder / "leak.tif")
    shutil.copy(people[stranger][0], folder / "stranger.jpg")
    Image.open(people[another][0]).save(folder / "another.webp")
    return folder


def test_a_training_face_is_found_whatever_its_suffix_and_strangers_stay(command, real, dataset, images):
    judge = ("filter", images, "--reference", dataset, "--faces", real / "pack", "--kinds", "several_faces")
    done = command(*judge)
    assert done.returncode == 0, done.stderr
    rejected = {path.stem for path in (images / "rejected").rglob("leak.*")}
    assert rejected == {"leak"}
    assert {path.name for path in images.iterdir() if path.is_file()} >= {"stranger.jpg", "another.webp"}
    assert not list(images.glob("leak.*"))

    before = {path.relative_to(images) for path in images.rglob("*")}
    assert command(*judge).returncode == 0
    assert {path.relative_to(images) for path in images.rglob("*")} == before


def test_fir_of_copies_is_the_share_of_copies_and_names_nobody(command, real, dataset, images, tmp_path):
    out = tmp_path / "measured.json"
    done = command(
        "measure", f"pre_op={images}", "--reference", dataset, "--faces", real / "pack",
        "--metrics", "fir", "--out", out,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    text = out.read_text("utf-8")
    raw = json.loads(text)["sets"]["pre_op"]["fir_images"]["paper"]["raw"]
    assert (raw["k"], raw["n"]) == (2, 4)
    assert not any(word in text for word in ("clinic", "s01_", str(tmp_path)))

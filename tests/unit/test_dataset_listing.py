"""Whoever looks into a folder finds the same images, and names what was not looked at."""

import shutil

import numpy as np
import pytest
from PIL import Image

from diffusioncleft.diffusioncleft_core.dataset.admission import list_photographs
from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.files import read_jsonl, write_jsonl
from diffusioncleft.diffusioncleft_core.filters.apply import filter_set
from diffusioncleft.diffusioncleft_core.filters.artifacts import ArtifactFilter
from diffusioncleft.diffusioncleft_core.filters.verdicts import Filters
from diffusioncleft.diffusioncleft_core.imageset.manifest import read_image_set, unlisted
from diffusioncleft.diffusioncleft_core.imageset.places import READ_SUFFIXES, list_images
from diffusioncleft.diffusioncleft_core.metrics.extractors import Extractors
from diffusioncleft.diffusioncleft_core.metrics.measure import measure_sets
from diffusioncleft.diffusioncleft_core.metrics.sets import measured_set
from diffusioncleft.diffusioncleft_core.phantom.face import random_face
from diffusioncleft.diffusioncleft_core.phantom.render import render
from diffusioncleft.diffusioncleft_core.recipe.recipe import Subset
from diffusioncleft.trainer.data import collect_images

IMAGES = ["cut.png", "face.PNG", "p.jfif", "photo.avif", "plain", "zero.png"]
UNREADABLE = ["cut.png", "photo.avif", "zero.png"]


@pytest.fixture
def junk(tmp_path):
    """Three faces, one of them without a suffix, and everything else that lies in people's folders."""
    folder = tmp_path / "junk"
    (folder / "sub").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    for seed, (name, kind) in enumerate({"face.PNG": "PNG", "p.jfif": "JPEG", "plain": "PNG"}.items()):
        picture = Image.fromarray(render(random_face(np.random.default_rng(seed)), 128).image)
        picture.save(folder / name, kind)
    shutil.copy(folder / "face.PNG", folder / "sub" / "x.png")
    shutil.copy(folder / "face.PNG", folder / ".hidden" / "x.png")
    shutil.copy(folder / "face.PNG", folder / ".secret.png")
    (folder / "cut.png").write_bytes((folder / "face.PNG").read_bytes()[:900])
    (folder / "zero.png").write_bytes(b"")
    (folder / "photo.avif").write_bytes(b"x")
    for name in ("Thumbs.db", "._face.PNG", ".DS_Store", "desktop.ini", ".writing-1.png", "notes.txt"):
        (folder / name).write_bytes(b"\0\5\x16\7")
    return folder


def test_every_reader_finds_the_same_images(junk):
    assert list(list_images(junk).images) == IMAGES
    assert [row.file for row in read_image_set(junk)] == IMAGES
    sizes = {row.file: (row.width, row.height) for row in read_image_set(junk)}
    assert sizes["plain"] == (128, 128) and sizes["zero.png"] == sizes["photo.avif"] == (0, 0)
    assert [image.file for image in measured_set(junk, "all")[0]] == IMAGES
    assert [name for name in list_photographs(junk).photographs if "/" not in name] == IMAGES


def test_what_was_set_aside_before_the_manifest_was_written_belongs_to_the_set(junk):
    """The folder is known by its face records; another folder of that name is just a subfolder."""
    (junk / "rejected").mkdir()
    (junk / "plain").rename(junk / "rejected" / "plain")
    left = [name for name in IMAGES if name != "plain"]
    assert [row.file for row in read_image_set(junk)] == left
    (junk / ".faces").mkdir()
    assert [row.file for row in read_image_set(junk)] == [*left, "rejected/plain"]


@pytest.mark.parametrize("suffix", sorted(READ_SUFFIXES))
def test_no_suffix_is_known_to_one_reader_alone(suffix, tmp_path):
    name = f"photo{suffix.upper()}"
    (tmp_path / name).write_bytes(b"x")
    assert [row.file for row in read_image_set(tmp_path)] == [name]
    assert list_photographs(tmp_path).photographs == (name,)


def test_subfolders_hidden_images_and_links_out_are_named(junk, tmp_path):
    shutil.copy(junk / "face.PNG", tmp_path / "elsewhere.png")
    (junk / "link.png").symlink_to(tmp_path / "elsewhere.png")
    told = "\n".join(unlisted(junk))
    assert "(1): sub" in told and "(1): .secret.png" in told and "(1): link.png" in told
    assert ".hidden" not in told and "._face" not in told
    only = tmp_path / "only"
    shutil.copytree(junk / "sub", only / "sub")
    with pytest.raises(UserError, match="its subfolders sub are not looked at"):
        read_image_set(only)


def test_the_filter_judges_all_and_sets_aside_what_it_cannot_read(junk, analyzer):
    result = filter_set(junk, Filters(ArtifactFilter(analyzer, kinds=())))
    reasons = {row.name: row.reasons for row in read_image_set(junk)}
    assert sorted(reasons) == IMAGES
    assert [name for name in IMAGES if reasons[name] == ["unreadable"]] == UNREADABLE
    assert sorted(path.name for path in (junk / "rejected").iterdir()) == UNREADABLE
    told = "\n".join(result.notices)
    assert "(3): rejected/cut.png, rejected/photo.avif, rejected/zero.png" in told and ": sub" in told


def test_an_image_that_comes_later_or_is_replaced_is_judged(junk, analyzer):
    artifacts = ArtifactFilter(analyzer, kinds=())
    filter_set(junk, Filters(artifacts))
    assert filter_set(junk, Filters(artifacts)).checked == 0
    Image.new("RGB", (90, 60)).save(junk / "late.jpg")
    Image.new("RGB", (90, 60)).save(junk / "face.PNG")
    result = filter_set(junk, Filters(artifacts))
    assert result.checked == 2
    assert (junk / "rejected" / "late.jpg").is_file() and (junk / "rejected" / "face.PNG").is_file()


def test_an_image_missing_from_a_generated_sets_manifest_is_named(junk):
    row = '{"file": "face.PNG", "role": "generated", "index": 0}\n'
    (junk / "manifest.jsonl").write_text(row)
    assert any("p.jfif" in line and "face.PNG" not in line for line in unlisted(junk))
    (junk / "rejected").mkdir()
    shutil.copy(junk / "p.jfif", junk / "rejected" / "aside.jpg")
    assert any("aside.jpg" in line and "p.jfif" not in line for line in unlisted(junk))
    assert not any("rejected hold" in line or ": rejected" in line for line in unlisted(junk))


@pytest.mark.parametrize("file", ["", 7, None])
def test_a_row_that_names_no_file_is_a_sentence(junk, file):
    write_jsonl(junk / "manifest.jsonl", [{"file": file, "role": "generated"}])
    with pytest.raises(UserError, match=r"manifest\.jsonl has no 'file'"):
        read_image_set(junk)


def test_a_dataset_or_two_images_of_one_name_are_refused_before_anything_moves(junk, analyzer):
    artifacts = ArtifactFilter(analyzer, kinds=())
    filter_set(junk, Filters(artifacts))
    shutil.copy(junk / "face.PNG", junk / "zero.png")
    before = (junk / "rejected" / "zero.png").read_bytes()
    with pytest.raises(UserError, match=r"two images of the name zero\.png"):
        filter_set(junk, Filters(artifacts))
    assert (junk / "rejected" / "zero.png").read_bytes() == before
    (junk / "manifest.jsonl").write_text('{"file": "sub/x.png"}\n')
    with pytest.raises(UserError, match="subfolders"):
        filter_set(junk, Filters(artifacts))
    assert read_jsonl(junk / "manifest.jsonl") == [{"file": "sub/x.png"}]


def test_measurements_count_and_name_what_they_cannot_read(junk, analyzer):
    told = []
    found = measure_sets({"all": junk}, [], analyzer, Extractors(), warn=told.append)
    assert found["sets"]
    assert any("3 of 6" in line and all(name in line for name in UNREADABLE) for line in told)
    assert any(line.endswith(": sub") for line in told) and len(told) == len(set(told))


def test_the_trainer_takes_all_and_names_what_it_leaves_out(junk):
    collected = collect_images(
        [Subset(junk, class_tokens="a girl"), Subset(junk, is_reg=True, class_tokens="a girl")], (64,)
    )
    assert len(collected.train) == len(collected.reg) == 3
    told = "\n".join(collected.left_out)
    assert "(3): cut.png, photo.avif, zero.png" in told and "(1): sub" in told

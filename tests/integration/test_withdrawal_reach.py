"""What a withdrawn consent reaches beside LoRAs and images: classifiers, studies, pages, single files."""

import contextlib
import io
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from downstream_phantoms import drawn_and_accepted, write_phantoms
from drawn_sets import draw_set
from phantom_datasets import first_consent
from safetensors.numpy import save_file

from diffusioncleft.cli.main import main
from diffusioncleft.diffusioncleft_core.dataset.drawn import remember_place, set_names, traced
from diffusioncleft.diffusioncleft_core.dataset.trained import remember_lora, remember_training
from diffusioncleft.diffusioncleft_core.dataset.withdrawn import MARK, RUN_KEY
from diffusioncleft.diffusioncleft_core.files import read_json, sha256_file, write_json
from diffusioncleft.diffusioncleft_core.phantom.photographs import write_photographs

RUN = "ab" * 32
TRAIN = ("downstream", "train", "--task", "pre_post", "--phantom", "--seeds", 1, "--model", "probe")


def said(*words: object, code: int = 0) -> str:
    """What a command said."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
        status = main(list(map(str, words)))
    assert status == code, text.getvalue()
    return text.getvalue()


def build(work: Path) -> str:
    words = ["--condition", "pre_op", "--phantom", "--holdout", 0, "--out", work / "private"]
    return said("dataset", "build", work / "photos", *words)


def consent(work: Path, word: str) -> None:
    first_consent(work / "photos", word)


def lora(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    save_file({"a": np.zeros(1, np.float32)}, path, metadata={RUN_KEY: RUN})
    return path


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """A working folder: a LoRA and figures lie in it beside notes, a model, a study, a page apart."""
    root = tmp_path_factory.mktemp("work")
    write_photographs(root / "photos", 6, "cleft", 3, subjects=6)
    build(root)
    remember_training(root / "private", RUN, root)
    remember_lora(root / "private", RUN, lora(root / "clp.safetensors"))
    for seed, (name, finding) in enumerate((("pre_op", "cleft"), ("post_op", "scar"))):
        folder = root / "sets" / name
        drawn_and_accepted(write_phantoms(folder, finding, seed, 8), name)
        if name == "pre_op":
            record = read_json(folder / "generation.json")
            drawn = traced(root / "clp.safetensors", sha256_file(root / "clp.safetensors"), 1.0)
            write_json(folder / "generation.json", record | {"lora": drawn})
            remember_place(folder, set_names(folder))
            remember_place("s3://bucket/pre_op", set_names(folder))
    said(
        *TRAIN, "--positive", root / "sets/pre_op", "--negative", root / "sets/post_op", "--out", root / "pp"
    )
    said("measure", root / "sets/pre_op", "--phantom", "--metrics", "lpips", "--out", root / "measured.json")
    said("report", root / "measured.json", "--out", root / "pages" / "r.html")
    sets = ["--set", f"generated={root / 'sets/pre_op'}", "--n", "generated=4", "--practice", 0]
    said("study", "create", *sets, "--out", root / "elsewhere" / "study")
    write_json(draw_set(root / "drawn", 3, moved=True) / "generation.json", {"lora": drawn})
    said("export", root / "drawn", "--format", "webdataset", "--out", root / "shards")
    shutil.rmtree(root / "drawn")
    (root / "notes.txt").write_text("mine")
    return root


@pytest.fixture(scope="module")
def unread(work) -> str:
    """What `dataset withdraw` says after the first photograph lost its consent, before a build."""
    assert "holds a photograph whose consent was withdrawn" in said("dataset", "withdraw", work / "private")
    consent(work, "no")
    return said("dataset", "withdraw", work / "private", code=2)


@pytest.fixture(scope="module")
def told(work, unread) -> str:
    """What the build said then."""
    return build(work)


def test_no_all_clear_while_the_table_says_what_no_build_has_noticed(work, unread):
    assert "no longer have consent: 1" in unread and "dataset build" in unread
    assert "holds a photograph whose consent was withdrawn" not in unread
    assert not list(work.rglob(MARK))


def test_no_all_clear_where_the_photographs_are_not_there(work, told):
    (work / "photos").rename(work / "moved")
    try:
        text = said("dataset", "withdraw", work / "private", code=2)
    finally:
        (work / "moved").rename(work / "photos")
    assert "are not there, so nobody knows here whether a consent was withdrawn" in text


def test_the_build_names_classifier_figures_page_and_study_wherever_they_lie(work, told):
    for line in (
        f"classifier: {work / 'pp' / 'model.json'}",
        f"report: {work / 'measured.json'}",
        f"report page: {work / 'pages' / 'r.html'}",
        f"4 pictures of a rater study: {work / 'elsewhere' / 'study'}",
        f"exported shards: {work / 'shards'}",
        "images of it were exported to s3://bucket/pre_op, where no command erases",
    ):
        assert line in told


def test_a_marked_classifier_judges_nothing_on_this_machine_and_copied_to_another(
    work, told, tmp_path, monkeypatch
):
    assert (work / "pp" / MARK).is_file()
    copy = shutil.copytree(work / "pp", tmp_path / "copy")
    bare = shutil.copytree(work / "pp", tmp_path / "bare", ignore=shutil.ignore_patterns(MARK))
    test = ["--phantom", "--test", f"new.positive={work / 'sets/post_op'}"]
    test += ["--test", f"new.negative={work / 'photos'}", "--out", tmp_path / "figures"]
    for model in (work / "pp", bare):
        refused = said("downstream", "evaluate", model, *test, code=2)
        assert "whose consent was withdrawn, so it judges nothing" in refused
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another machine"))
    assert "so it judges nothing" in said("downstream", "evaluate", copy, *test, code=2)
    assert not (tmp_path / "figures").exists()


def test_no_classifier_learns_from_images_of_a_withdrawn_lora(work, told, tmp_path):
    sets = ["--positive", work / "sets/pre_op", "--negative", work / "sets/post_op"]
    refused = said(*TRAIN, *sets, "--out", tmp_path / "new", code=2)
    assert "so no classifier learns from it" in refused
    assert not (tmp_path / "new").exists()
    (tmp_path / "run").mkdir()
    shutil.copytree(work / "sets", tmp_path / "run" / "generated")
    refused = said("downstream", "run", tmp_path / "run", "--phantom", "--task", "pre_post", code=2)
    assert "so no classifier learns from it" in refused
    assert not (tmp_path / "run" / "downstream.json").exists()


def test_a_classifier_that_is_trained_again_without_them_is_used_in_the_same_folder(work, told, tmp_path):
    again = shutil.copytree(work / "pp", tmp_path / "again")
    clean = write_phantoms(tmp_path / "clean", "cleft", 5, 8)
    said(*TRAIN, "--positive", clean, "--negative", work / "sets/post_op", "--out", again)
    test = ["--test", f"new.positive={write_phantoms(tmp_path / 'more', 'cleft', 6, 6)}"]
    test += ["--test", f"new.negative={write_phantoms(tmp_path / 'scars', 'scar', 7, 6)}"]
    said("downstream", "evaluate", again, "--phantom", *test, "--out", tmp_path / "figures")


def test_a_part_of_a_set_or_a_missing_path_is_refused(work, told):
    image = next((work / "sets/pre_op").glob("*.png"))
    assert "is a part of" in said("dataset", "withdraw", image, code=2)
    assert "there is no" in said("dataset", "withdraw", work / "nothere", code=2)


def test_a_single_file_is_listed_and_erased_without_what_lies_beside_it(work, told, tmp_path):
    first, second = lora(tmp_path / "one.safetensors"), lora(tmp_path / "two.safetensors")
    text = said("dataset", "withdraw", first, "--yes")
    assert f"LoRA: {first}" in text and str(second) not in text
    assert not first.exists() and second.is_file()
    assert (tmp_path / MARK).is_file(), "the other one is still marked"


def test_the_suggested_command_erases_what_was_listed_and_looks_at_nothing_else(work, told, tmp_path):
    copy = lora(work / "mine" / "copy.safetensors")
    suggested = re.search(r"diffusioncleft (dataset withdraw [^\n]*)' erases all of it", told)[1]
    words = shlex.split(suggested)
    assert str(work) not in words and str(work / "clp.safetensors") in words
    assert str(work / "measured.json") in words
    said(*words, "--yes")
    gone = (
        "clp.safetensors",
        "measured.json",
        "pages/r.html",
        "pages/r.figures",
        "shards/index.json",
        "pp/model.json",
        "sets/pre_op",
    )
    assert not [name for name in gone if (work / name).exists()]
    assert not list((work / "elsewhere/study").rglob("*.png"))
    assert (work / "notes.txt").is_file() and copy.is_file() and list((work / "sets/post_op").glob("*.png"))

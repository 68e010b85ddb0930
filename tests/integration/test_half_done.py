"""A filter that was killed between its steps is finished by the next one; names need not be UTF-8."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from diffusioncleft.diffusioncleft_core.files import (
    append_jsonl,
    read_json,
    read_jsonl,
    shown,
    write_json,
)
from diffusioncleft.diffusioncleft_core.filters.apply import filter_set
from diffusioncleft.diffusioncleft_core.filters.artifacts import ArtifactFilter
from diffusioncleft.diffusioncleft_core.filters.decisions import readmit
from diffusioncleft.diffusioncleft_core.filters.verdicts import Filters
from diffusioncleft.diffusioncleft_core.imageset.manifest import read_image_set
from diffusioncleft.diffusioncleft_core.metrics.sets import measured_set
from diffusioncleft.diffusioncleft_core.phantom.face import random_face
from diffusioncleft.diffusioncleft_core.phantom.photographs import write_photographs
from diffusioncleft.diffusioncleft_core.phantom.render import render

LATIN1 = os.fsdecode(b"Zo\xeb.png")
KILLED = """
import os, sys
from pathlib import Path
from diffusioncleft.diffusioncleft_core.faces.analyzer import load_face_analyzer
from diffusioncleft.diffusioncleft_core.filters.apply import filter_set
from diffusioncleft.diffusioncleft_core.filters.verdicts import Filters
from diffusioncleft.diffusioncleft_core.filters.artifacts import ArtifactFilter

left, replace = int(sys.argv[2]), os.replace

def stops(source, target):
    global left
    if not left:
        os._exit(9)
    left -= 1
    replace(source, target)

os.replace = stops
analyzer = load_face_analyzer("phantom", threads=1)
filter_set(Path(sys.argv[1]), Filters(ArtifactFilter(analyzer, kinds=())))
"""


@pytest.fixture
def mixed(tmp_path):
    """Two faces and three pictures without one; the name of one of each is no UTF-8."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    try:
        (folder / LATIN1).write_bytes(b"")
    except (OSError, UnicodeError):
        pytest.skip("this file system takes names in UTF-8 alone")
    for seed, name in enumerate((LATIN1, "face.png")):
        picture = render(random_face(np.random.default_rng(seed)), 128).image
        Image.fromarray(picture).save(folder / name)
    for grey, name in enumerate((os.fsdecode(b"p\xe9.png"), "a.png", "b.png")):
        Image.new("RGB", (90, 60), (grey, 9, 9)).save(folder / name)
    return folder


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")}


@pytest.fixture
def artifacts_alone(analyzer):
    return ArtifactFilter(analyzer, kinds=())


@pytest.mark.parametrize("steps", range(5))
def test_a_filter_killed_between_any_two_steps_is_read_rightly_and_finished(
    mixed, steps, artifacts_alone, analyzer, offline_env, tmp_path
):
    whole = shutil.copytree(mixed, tmp_path / "whole")
    filter_set(whole, Filters(artifacts_alone))
    names = [image.file for image in measured_set(mixed, "all")[0]]
    line = [sys.executable, "-c", KILLED, str(mixed), str(steps)]
    done = subprocess.run(line, env=offline_env, capture_output=True, check=False)
    assert done.returncode == (9 if steps < 4 else 0), done.stderr
    rows = measured_set(mixed, "all")[0]
    assert sorted(row.path.name for row in rows) == sorted(names)
    assert all(row.path.is_file() for row in rows)
    if steps:  # the manifest came first
        assert sum(row.filtered for row in rows) == 2
        assert all((mixed / row.file).is_file() for row in read_image_set(mixed))
    result = filter_set(mixed, Filters(artifacts_alone))
    assert result.checked == (0 if steps else 5)
    assert files(mixed) == files(whole)
    assert read_jsonl(mixed / "manifest.jsonl") == read_jsonl(whole / "manifest.jsonl")


@pytest.mark.parametrize("moved", [("a.png", "face.png"), ("a.png", "b.png", "face.png", LATIN1)])
def test_a_set_whose_images_were_moved_without_a_manifest_is_recovered(
    mixed, moved, artifacts_alone, analyzer
):
    (mixed / ".faces").mkdir()
    (mixed / "rejected").mkdir()
    for name in moved:
        os.replace(mixed / name, mixed / "rejected" / name)
    result = filter_set(mixed, Filters(artifacts_alone))
    assert (result.accepted, result.rejected) == (2, 3)
    assert {name for name in files(mixed) if "/" not in name} == {"face.png", LATIN1}


def test_a_folder_of_someones_own_named_rejected_is_left_alone_and_named(mixed, artifacts_alone, analyzer):
    (mixed / "rejected").mkdir()
    os.replace(mixed / "face.png", mixed / "rejected" / "face.png")
    result = filter_set(mixed, Filters(artifacts_alone))
    assert result.images == 4 and any("face.png" in line for line in result.notices)
    assert (mixed / "rejected" / "face.png").is_file()


def test_names_that_are_no_utf8_come_back_from_json_as_they_were(tmp_path):
    write_json(tmp_path / "a.json", {"file": LATIN1, "other": "\\" + LATIN1})
    assert read_json(tmp_path / "a.json") == {"file": LATIN1, "other": "\\" + LATIN1}
    append_jsonl(tmp_path / "a.jsonl", {"file": LATIN1})
    append_jsonl(tmp_path / "a.jsonl", {"file": "Zoë.png"})
    assert [row["file"] for row in read_jsonl(tmp_path / "a.jsonl")] == [LATIN1, "Zoë.png"]
    assert (tmp_path / "a.jsonl").read_bytes().decode("utf-8")
    assert shown(LATIN1) == "Zo\\udceb.png"


def test_a_rejected_image_is_taken_back_by_the_name_that_is_shown(mixed, artifacts_alone, analyzer):
    filter_set(mixed, Filters(artifacts_alone))
    readmit(mixed, ["rejected/p\\udce9.png"])
    assert os.fsdecode(b"p\xe9.png") in files(mixed)


@pytest.mark.parametrize("in_table", [True, False])
def test_the_commands_carry_such_a_name_through(mixed, in_table, command, tmp_path):
    photographs = tmp_path / "photographs"
    table = write_photographs(photographs, 4, "cleft", 3, subjects=4)
    first = read_first(table)
    (photographs / first).rename(photographs / LATIN1)
    if in_table:
        table.write_bytes(table.read_text(encoding="utf-8").replace(first, "Zoë.png").encode("cp1252"))
    built = tmp_path / "built"
    build = ("dataset", "build", photographs, "--metadata", table, "--condition", "pre_op", "--phantom")
    done = command(*build, "--out", built)
    assert done.returncode == 0, done.stderr
    assert len(read_image_set(built)) == (4 if in_table else 3)
    done = command("dataset", "show", built, "--list")
    assert done.returncode == 0 and ("Zo\\udceb.png: no_row" in done.stdout) is not in_table
    if not in_table:
        return
    done = command(
        "measure",
        f"all={mixed}",
        "--phantom",
        "--metrics",
        "fir",
        "--reference",
        built,
        "--out",
        tmp_path / "m.json",
    )
    assert done.returncode == 0, done.stderr
    for path in mixed.glob("*.png"):
        path.with_suffix(".txt").write_text("[CLP] a girl")
    train = ("train", "--phantom", "--resolution", "64", "--train_data_dir", mixed, "--max_train_steps", "1")
    done = command(*train, "--output_dir", tmp_path / "lora")
    assert done.returncode == 0, done.stderr
    (mixed / LATIN1).write_bytes(b"")
    line = ("filter", mixed, "--reference", built, "--phantom", "--kinds", "several_faces")
    for _ in range(2):
        done = command(*line)
        assert done.returncode == 0, done.stderr
        assert "rejected/Zo\\udceb.png" in done.stderr


def read_first(table):
    return table.read_text(encoding="utf-8").splitlines()[1].split(",")[0]

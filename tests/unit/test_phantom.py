"""Phantom photographs: artifacts, folder and table. How a face is drawn: test_phantom_anatomy."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from phantom_datasets import FINDING_OF

from diffusioncleft.cli.main import main
from diffusioncleft.diffusioncleft_core.conditions.loader import load_vocabulary
from diffusioncleft.diffusioncleft_core.dataset.metadata import read_table
from diffusioncleft.diffusioncleft_core.phantom.face import random_face
from diffusioncleft.diffusioncleft_core.phantom.photographs import KINDS as ARTIFACT_KINDS
from diffusioncleft.diffusioncleft_core.phantom.photographs import add_artifact, write_photographs
from diffusioncleft.diffusioncleft_core.phantom.render import render


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_landmarks_lie_in_the_face_box_and_the_box_in_the_frame() -> None:
    draw = rng(9)
    for condition in (None, "pre_op", "post_op"):
        for _ in range(30):
            r = render(random_face(draw, finding=FINDING_OF[condition]))
            x1, y1, x2, y2 = r.box
            assert (r.landmarks[:, 0] > x1).all() and (r.landmarks[:, 0] < x2).all()
            assert (r.landmarks[:, 1] > y1).all() and (r.landmarks[:, 1] < y2).all()
            assert x1 > 0 and y1 > -6 and x2 < 128 and y2 < 130


@pytest.mark.parametrize("kind", ARTIFACT_KINDS)
def test_an_artifact_changes_the_picture_and_keeps_the_rest(kind: str) -> None:
    before = render(random_face(rng(11)))
    after = add_artifact(before, kind, rng(12))  # type: ignore[arg-type]
    changed = np.abs(after.image.astype(int) - before.image).sum(2) > 30
    assert changed.mean() > 0.002
    assert after.attributes == before.attributes
    if kind == "eye_bar":
        for x, y in before.landmarks[:2].round().astype(int):
            assert after.image[y, x].max() < 120


def test_photographs_come_with_a_metadata_table_the_dataset_reads(tmp_path: Path) -> None:
    table = write_photographs(tmp_path, 12, "cleft", seed=4, subjects=10)
    with table.open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == 12
    assert rows[0]["subject_id"] == rows[10]["subject_id"]
    vocabulary = load_vocabulary()
    for row in rows:
        assert (tmp_path / row["file"]).is_file()
        said = vocabulary.check_metadata(row)
        assert said["repair_status"] == "unrepaired"
        assert all(said[name] for name in ("skin_tone", "hair_texture", "hair_length", "hair_color", "eyes"))


def test_photographs_are_the_same_for_the_same_seed(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_photographs(tmp_path / name, 3, "scar", seed=4)
    for path in sorted((tmp_path / "a").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


@pytest.mark.parametrize(("subjects", "people"), [(None, 27), (5, 5), (30, 30)])
def test_the_first_photographs_are_those_of_every_larger_number(tmp_path, subjects, people):
    for n in (1, 6, 17, 30):
        write_photographs(tmp_path / str(n), n, "cleft", 3, 64, subjects)
    whole = tmp_path / "30"
    rows = (whole / "metadata.csv").read_text("utf-8").splitlines()
    for n in (1, 6, 17):
        for path in (tmp_path / str(n)).glob("*.png"):
            assert path.read_bytes() == (whole / path.name).read_bytes()
        assert (tmp_path / str(n) / "metadata.csv").read_text("utf-8").splitlines() == rows[: n + 1]
    assert len({row.split(",")[-2] for row in rows[1:]}) == people


def test_a_person_is_photographed_again_and_never_twice_alike(tmp_path):
    write_photographs(tmp_path, 30, "scar", 3, 64)
    pictures = {path.read_bytes() for path in tmp_path.glob("*.png")}
    assert len(pictures) == 30


@pytest.mark.parametrize(
    ("separator", "codec"), [(",", "utf-8"), (";", "utf-8-sig"), ("\t", "utf-16"), (",", "cp1252")]
)
def test_a_larger_number_keeps_the_rows_that_a_person_changed(tmp_path, capsys, separator, codec):
    out, whole = tmp_path / "out", tmp_path / "whole"
    line = ["phantom", "render", "--condition", "pre_op", "--size", "64", "--out"]
    assert main([*line, str(out), "--n", "4"]) == main([*line, str(whole), "--n", "6"]) == 0
    table = out / "metadata.csv"
    rows = table.read_text("utf-8").splitlines()
    changed = [rows[0] + ",note", rows[1] + ",", rows[2].removesuffix("yes") + "no,né", rows[4] + ","]
    text = "\r\n".join(changed).replace(",", separator)
    table.write_bytes(text.encode(codec))
    (out / "photo-0002.png").unlink()
    before = table.read_bytes()
    assert main([*line, str(out), "--n", "6"]) == 0
    after = read_table(table)
    assert table.read_bytes().startswith(before)
    assert [(row.file, row.values["consent"]) for row in after.rows] == [
        ("photo-0000.png", "yes"),
        ("photo-0001.png", "no"),
        ("photo-0003.png", "yes"),
        ("photo-0004.png", "yes"),
        ("photo-0005.png", "yes"),
    ]
    assert [row.values for row in after.rows[3:]] == [
        row.values for row in read_table(whole / "metadata.csv").rows[4:]
    ]
    assert sorted(path.name for path in out.glob("*.png")) == [f"photo-000{n}.png" for n in (0, 1, 3, 4, 5)]
    kept = {path.name: path.read_bytes() for path in out.iterdir()}
    assert main([*line, str(out), "--n", "6"]) == 0, "the same command once more changes nothing"
    for change in (["--n", "5"], ["--n", "8", "--seed", "5"], ["--n", "8", "--subjects", "2"]):
        assert main([*line, str(out), *change]) == 2
        assert "something else than these photographs" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == kept


def test_the_help_says_how_many_people_there_are(capsys):
    with pytest.raises(SystemExit):
        main(["phantom", "render", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "nine in ten photographs" in said and "a larger one goes on in the folder" in said


def test_rendering_goes_on_after_a_full_disk_and_never_among_others(small_disk, capsys):
    out, filler = small_disk / "photographs", small_disk / "filler"
    line = ["phantom", "render", "--condition", "pre_op", "--n", "6", "--size", "64", "--out", str(out)]
    filler.write_bytes(bytes(216 << 10))
    assert main(line) == 2
    assert "run the same command again" in capsys.readouterr().err
    assert 0 < len(list(out.glob("*.png"))) < 6
    filler.unlink()
    assert main(line) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert len(before) == 7
    assert main(line) == 0
    other = ["--seed", "5"], ["--size", "128"], ["--condition", "post_op"], ["--n", "5"]
    for change in other:
        assert main([*line, *change]) == 2
        assert "something else than these photographs" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before

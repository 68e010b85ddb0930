"""The phantom renderer: same face, same bytes; what it says is in the picture is in the picture."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from phantom_datasets import FINDING_OF
from PIL import Image

from diffusioncleft.cli.main import main
from diffusioncleft.diffusioncleft_core.conditions.loader import load_vocabulary
from diffusioncleft.diffusioncleft_core.dataset.metadata import read_table
from diffusioncleft.diffusioncleft_core.phantom.face import EYES, HAIR, SKIN, Cleft, Pose, random_face
from diffusioncleft.diffusioncleft_core.phantom.photographs import KINDS as ARTIFACT_KINDS
from diffusioncleft.diffusioncleft_core.phantom.photographs import add_artifact, write_photographs
from diffusioncleft.diffusioncleft_core.phantom.render import render


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("size", [64, 128, 512, 1024])
def test_every_size_shows_the_same_face(size: int) -> None:
    face = random_face(rng(), finding="cleft")
    small, large = render(face, 128), render(face, size)
    assert large.image.shape == (size, size, 3)
    assert large.image.dtype == np.uint8
    np.testing.assert_allclose(large.landmarks / size, small.landmarks / 128, atol=1e-3)
    a, b = (
        np.asarray(Image.fromarray(r.image).resize((64, 64), Image.Resampling.BOX), float)
        for r in (small, large)
    )
    other = np.asarray(Image.fromarray(render(random_face(rng(1)), 64).image), float)
    assert np.abs(a - b).mean() < min(8, 0.25 * np.abs(a - other).mean())


def test_the_same_face_gives_the_same_bytes() -> None:
    face = random_face(rng(3), finding="scar")
    assert render(face).image.tobytes() == render(face).image.tobytes()


@pytest.mark.parametrize("size", [63, 1025])
def test_a_size_out_of_range_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="64 to 1024"):
        render(random_face(rng()), size)


def test_an_unknown_value_is_refused_with_the_allowed_ones() -> None:
    with pytest.raises(ValueError, match="brown, green, blue, hazel"):
        random_face(rng(), attributes={"eyes": "violet"})


@pytest.mark.parametrize("skin", sorted(SKIN))
def test_the_cheek_has_the_skin_tone_asked_for(skin: str) -> None:
    rendering = render(random_face(rng(5), attributes={"skin": skin}))
    eye, mouth = rendering.landmarks[1], rendering.landmarks[4]
    x, y = (eye * 0.4 + mouth * 0.6).round().astype(int)
    seen = np.median(rendering.image[y - 2 : y + 3, x - 2 : x + 3].reshape(-1, 3), axis=0)
    distance = {tone: np.abs(seen - colour).sum() for tone, colour in SKIN.items()}
    assert min(distance, key=lambda tone: distance[tone]) == skin


@pytest.mark.parametrize("eyes", sorted(EYES))
def test_the_iris_has_the_colour_asked_for(eyes: str) -> None:
    rendering = render(random_face(rng(6), attributes={"eyes": eyes}), 512)
    x, y = rendering.landmarks[0].round().astype(int)
    patch = rendering.image[y - 20 : y + 21, x - 20 : x + 21].reshape(-1, 3).astype(float)
    near = [np.abs(patch - np.array(colour)).sum(1).min() for colour in EYES.values()]
    assert list(EYES)[int(np.argmin(near))] == eyes


@pytest.mark.parametrize("hair", sorted(HAIR))
def test_the_crown_has_the_hair_colour_asked_for(hair: str) -> None:
    face = random_face(rng(7), attributes={"hair_color": hair, "hair_texture": "straight"})
    rendering = render(face)
    x1, y1, x2, _ = rendering.box.round().astype(int)
    crown = rendering.image[y1 - 4 : y1 + 6, (x1 + x2) // 2 - 20 : (x1 + x2) // 2 + 20].reshape(-1, 3)
    between_strands = [np.quantile(np.abs(crown - np.array(colour)).sum(1), 0.25) for colour in HAIR.values()]
    assert list(HAIR)[int(np.argmin(between_strands))] == hair


@pytest.mark.parametrize(("side", "sign"), [("left", 1), ("right", -1)])
@pytest.mark.parametrize("skin", sorted(SKIN))
def test_a_cleft_lies_on_the_patients_side(side: str, sign: int, skin: str) -> None:
    from dataclasses import replace

    whole = replace(random_face(rng(8), attributes={"skin": skin}), pose=Pose())
    healthy = render(whole).image.astype(int)
    cleft = render(replace(whole, cleft=Cleft("left" if side == "left" else "right", 1.0, 0.0)))
    changed = np.abs(cleft.image.astype(int) - healthy).sum(2) > 60
    ys, xs = np.nonzero(changed)
    assert changed.sum() > 60, "a cleft covers more than a few pixels"
    assert sign * (xs.mean() - 64) > 1
    x1, y1, x2, y2 = cleft.lips
    inside = (xs >= x1) & (xs <= x2) & (ys >= y1) & (ys <= y2)
    assert inside.mean() > 0.99, "nothing changes outside the lip region"


def test_landmarks_lie_in_the_face_box_and_the_box_in_the_frame() -> None:
    draw = rng(9)
    for condition in (None, "pre_op", "post_op"):
        for _ in range(30):
            r = render(random_face(draw, finding=FINDING_OF[condition]))
            x1, y1, x2, y2 = r.box
            assert (r.landmarks[:, 0] > x1).all() and (r.landmarks[:, 0] < x2).all()
            assert (r.landmarks[:, 1] > y1).all() and (r.landmarks[:, 1] < y2).all()
            assert x1 > 0 and y1 > 0 and x2 < 128 and y2 < 128


def test_its_words_are_those_of_the_vocabulary() -> None:
    vocabulary = load_vocabulary()
    draw = rng(10)
    for name in ("pre_op", "post_op"):
        details = vocabulary.condition(name).details
        for _ in range(60):
            for key, value in random_face(draw, finding=FINDING_OF[name]).attributes.items():
                assert key not in details or value in details[key].values, (key, value)


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
        assert vocabulary.check_metadata(row)["repair_status"] == "unrepaired"


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

"""Photographs that are set aside, why, and how they are taken back."""

import shutil

import numpy as np
import pytest
from dataset_building import N, everything, reasons, table, write_table
from PIL import Image

from diffusioncleft.diffusioncleft_core import phantom
from diffusioncleft.diffusioncleft_core.dataset.corrections import (
    read_set_aside,
    readmit,
)
from diffusioncleft.diffusioncleft_core.dataset.opened import SAME_WITHHELD
from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.files import sha256_file
from diffusioncleft.tools.altered_copies import CHANGES


def test_too_small_photographs_are_told_of_the_option_and_of_the_way_back(build, photos, dataset):
    with pytest.raises(UserError) as refused:
        build(min_side=2000)
    for word in ("too_small", "--min-side of less than 2000", "dataset readmit"):
        assert word in str(refused.value)
    assert "give a smaller one, or take it back" in read_set_aside(dataset)[0].detail


def test_duplicates_are_set_aside_and_can_be_taken_back(build, photos, dataset):
    rows = table(photos)
    with Image.open(photos / rows[0]["file"]) as image:
        image.save(photos / "same.tiff")
        image.resize((100, 100)).save(photos / "near.jpg", quality=85)
    write_table(photos, [*rows, rows[0] | {"file": "same.tiff"}, rows[0] | {"file": "near.jpg"}])
    first = build()
    assert reasons(first) == {"same.tiff": "duplicate", "near.jpg": "near_duplicate"}
    assert len(first.rows) == N
    with pytest.raises(UserError, match="can't be overruled"):
        readmit(dataset, "same.tiff")
    readmit(dataset, "near.jpg")
    second = build()
    assert len(second.rows) == N + 1 and reasons(second) == {"same.tiff": "duplicate"}
    assert second.examined == 0


def test_grey_turned_cut_and_mirrored_copies_are_set_aside_and_another_visit_is_not(build, photos):
    rows = table(photos)  # two people are there twice
    rng = np.random.default_rng(4)
    names = ("grey", "turned by 5°", "cropped to 80 %", "mirrored")
    for place, name in enumerate(names):
        with Image.open(photos / rows[place]["file"]) as image:
            pixels = np.asarray(image.convert("RGB"))
        Image.fromarray(CHANGES[name](pixels, rng, pixels)).save(photos / f"z-copy{place}.png")
    copies = [rows[place] | {"file": f"z-copy{place}.png"} for place in range(len(names))]
    write_table(photos, [*rows, *copies])
    result = build()
    assert reasons(result) == {f"z-copy{place}.png": "near_duplicate" for place in range(len(names))}
    assert build().examined == 0 and len(build().rows) == N


def test_second_face_no_face_small_and_animated_are_set_aside_and_can_be_taken_back(build, photos, dataset):
    rows = table(photos)
    rng = np.random.default_rng(2)
    scene = phantom.render(phantom.random_face(rng, finding="cleft"), 128)
    two = np.concatenate([scene.image, phantom.render(phantom.random_face(rng), 128).image], axis=1)
    Image.fromarray(two).save(photos / "two.png")
    Image.new("RGB", (128, 128), (90, 120, 90)).save(photos / "none.png")
    face = phantom.render(phantom.random_face(rng, finding="cleft"), 128).image
    Image.fromarray(face).resize((60, 60)).save(photos / "small.png")
    frames = [Image.fromarray(phantom.render(phantom.random_face(rng), 128).image) for _ in range(2)]
    frames[0].save(photos / "moving.gif", save_all=True, append_images=frames[1:])
    expected = {
        "two.png": "several_faces",
        "none.png": "no_face",
        "small.png": "too_small",
        "moving.gif": "animated",
    }
    write_table(photos, rows + [rows[0] | {"file": name, "subject_id": name} for name in expected])
    assert reasons(build()) == expected
    for name in expected:
        readmit(dataset, name)
    result = build()
    assert reasons(result) == {} and len(result.rows) == N + 4
    write_table(photos, rows + [rows[0] | {"file": name, "subject_id": ""} for name in expected])
    assert reasons(build()) == {"none.png": "no_face"}


def test_rows_decide_before_any_photograph_is_opened(build, photos, condition, faces):
    rows = table(photos)
    rows[0]["consent"] = "maybe"
    rows[1]["repair_status"] = "repaired"
    rows[2]["age_group"] = "teen"
    rows[3]["file"] = "gone.png"
    write_table(photos, [*rows, rows[4] | {"side": "", "cleft_type": "bilateral"}])
    names = [f"photo-{index:04d}.png" for index in range(5)]
    for name in names[:5]:
        (photos / name).write_bytes(b"would be undecodable")
    result = build()
    assert reasons(result) == {
        names[0]: "no_consent",
        names[1]: "other_condition",
        names[2]: "metadata",
        names[3]: "no_row",
        "gone.png": "row_without_photo",
        names[4]: "row_conflict",
    }
    detail = {item.file: item.detail for item in result.set_aside}
    assert detail[names[2]] == "line 4: age_group is 'teen'; allowed: baby, child, adult"


def test_the_same_file_under_a_name_without_consent_stays_out(build, photos):
    rows = table(photos)
    shutil.copy(photos / rows[0]["file"], photos / "copy.png")
    write_table(photos, [*rows, rows[0] | {"file": "copy.png", "consent": "no"}])
    assert reasons(build()) == {"copy.png": "no_consent", rows[0]["file"]: "no_consent"}


def test_the_same_pixels_in_another_file_without_consent_keep_their_photograph_out(build, photos, dataset):
    rows = table(photos)
    first = rows[0]["file"]
    with Image.open(photos / first) as image:
        image.save(photos / "z-copy.png", compress_level=1)
    assert (photos / "z-copy.png").read_bytes() != (photos / first).read_bytes()
    write_table(photos, [*rows, rows[0] | {"file": "z-copy.png"}])
    assert reasons(build()) == {"z-copy.png": "duplicate"}
    gone = sha256_file(photos / first)
    write_table(photos, [*rows, rows[0] | {"file": "z-copy.png", "consent": "no"}])
    for erased in (1, 0, 0):
        result = build()
        assert (
            reasons(result) == {"z-copy.png": "no_consent", first: "no_consent"} and result.erased == erased
        )
        assert {item.detail for item in result.set_aside if item.file == first} == {SAME_WITHHELD}
        assert gone.encode() not in b"".join(everything(dataset).values())
    (photos / "z-copy.png").unlink()
    write_table(photos, rows)
    assert reasons(build()) == {} and not (dataset / "withheld.json").exists()


@pytest.mark.parametrize("max_side", [2048, 96])
def test_the_same_pixels_in_a_file_that_is_new_when_its_twin_loses_consent_stay_out(
    build, photos, dataset, max_side
):
    rows = table(photos)
    first = rows[0]["file"]
    assert build(max_side=max_side).rows
    for name, level in (("z-copy.png", 1), ("z-later.png", 0)):
        with Image.open(photos / first) as image:
            image.save(photos / name, compress_level=level)
        rows = [rows[0] | {"consent": "no"}, *rows[1:], rows[0] | {"file": name, "consent": "yes"}]
        write_table(photos, rows)
        wanted = dict.fromkeys([first, *(row["file"] for row in rows[N:])], "no_consent")
        for _ in range(2):
            assert reasons(build(max_side=max_side)) == wanted
    (photos / first).unlink()
    write_table(photos, rows[1:])
    assert reasons(build(max_side=max_side)) == {"z-later.png": "duplicate"}


def test_a_row_that_may_speak_of_a_photograph_withholds_it_when_it_gives_no_consent(build, photos):
    rows = table(photos)
    write_table(photos, [*rows, rows[0] | {"file": r"C:\photos\photo-0000", "consent": "no"}])
    assert reasons(build())["photo-0000.png"] == "no_consent"


def test_captions_that_cannot_be_told_set_one_photograph_aside_and_others_are_named(build, photos):
    (photos / "photo-0000.txt").write_bytes("лицо ребёнка".encode("cp1251"))
    (photos / "photo-0001.TXT").write_bytes("[CLP] a girl’s face".encode("cp1252"))
    (photos / "photo-0002.caption").write_text("[CLP] a face")
    result = build()
    assert reasons(result) == {"photo-0000.png": "caption"}
    assert "[CLP] a girl’s face" in {row.caption for row in result.rows}
    assert any("read as Windows-1252 (1): photo-0001.TXT" in told for told in result.notices)
    assert any("were not read (1): photo-0002.caption; rename" in told for told in result.notices)
    assert not any("photo-" in told for told in result.warnings)


def test_a_name_that_was_not_set_aside_is_answered_with_the_command_that_names_those(build, dataset):
    build()
    with pytest.raises(UserError, match=r"nobody\.jpg is not on the list .*dataset show \S+ --list$"):
        readmit(dataset, "nobody.jpg")

"""A first build: what enters, and in which form; on phantoms, with the embedded face models."""

import json
import os
import re
import stat
import subprocess
import sys

import numpy as np
import pytest
from dataset_building import N, reasons, table, write_table
from PIL import Image

from diffusioncleft.diffusioncleft_core.dataset.build import build_dataset
from diffusioncleft.diffusioncleft_core.dataset.folder import (
    purge_dataset,
    read_embeddings,
)
from diffusioncleft.diffusioncleft_core.dataset.settings import Photographs
from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.imageset.decode import pixel_sha256
from diffusioncleft.diffusioncleft_core.imageset.manifest import read_image_set


def test_every_photograph_enters_with_caption_attributes_and_its_own_pixels(built, originals):
    rows = read_image_set(built)
    assert len(rows) == N
    hashes = set()
    for row in rows:
        with Image.open(built / row.file) as image:
            assert not image.info and image.mode == "RGB"
            assert pixel_sha256(np.array(image)) == row.sha256
            assert image.size == (row.width, row.height)
        assert row.caption.startswith("[CLP] A ") and "unrepaired" in row.caption
        assert row.attributes["repair_status"] == "unrepaired" and row.condition == "pre_op"
        hashes.add(row.sha256)
    assert hashes == {pixel_sha256(np.array(Image.open(path))) for path in originals.glob("*.png")}
    assert read_embeddings(built).keys() == hashes
    assert read_image_set(built) == rows


def test_nothing_in_manifest_or_settings_names_a_photograph(built):
    text = (built / "manifest.jsonl").read_text() + (built / "dataset.json").read_text()
    assert "photo-" not in text and "S000" not in text


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
def test_the_folder_is_its_owners_alone(built):
    assert stat.S_IMODE(built.stat().st_mode) == 0o700


def test_a_subject_is_never_on_both_sides(built):
    rows = read_image_set(built)
    train = {row.subject for row in rows if row.role == "train"}
    holdout = {row.subject for row in rows if row.role == "holdout"}
    assert len(holdout) == 1 and len(train) == N - 3 and not train & holdout


def test_without_ids_the_faces_decide_who_is_one_subject(build, photos, tmp_path):
    rows = table(photos)
    write_table(photos, [row | {"subject_id": ""} for row in rows])
    result = build(tmp_path / "clustered")
    by_pixels = {row.sha256: row for row in result.rows}

    def role(index):
        return by_pixels[pixel_sha256(np.array(Image.open(photos / f"photo-{index:04d}.png")))]

    assert len({row.subject for row in result.rows}) >= (N - 2) // 2
    for index in (0, 1):
        assert role(index).subject == role(N - 2 + index).subject
        assert role(index).role == role(N - 2 + index).role


def test_sidecar_captions_win_and_begin_with_the_trigger(build, photos):
    rows = table(photos)
    captions = {
        "photo-0000": ("CLP, a child smiles", "[CLP] a child smiles"),
        "photo-0001": ("[CLP] as it is\n", "[CLP] as it is"),
        "photo-0002": ("\ufeffno trigger\n  two lines", "[CLP] no trigger two lines"),
        "photo-0003": ("  \n", None),
    }
    for stem, (text, _) in captions.items():
        (photos / f"{stem}.txt").write_text(text, encoding="utf-8")
    (photos / "photo-0004.txt").write_text("[CLPrep] of another condition")
    write_table(
        photos, [{key: row[key] for key in ("file", "consent", "subject_id", "age_group")} for row in rows]
    )
    with pytest.raises(UserError, match="no column gender, cleft_type"):
        build()
    write_table(photos, rows)
    result = build()
    assert reasons(result) == {"photo-0004.png": "caption"}
    by_pixels = {row.sha256: row.caption for row in result.rows}
    for stem, (_, wanted) in captions.items():
        found = by_pixels[pixel_sha256(np.array(Image.open(photos / f"{stem}.png")))]
        assert found == wanted if wanted else found.startswith("[CLP] A ")
    for row in result.rows:  # the person's own words, whoever wrote the caption
        assert re.match(r"An? [^.]*'s whole face\. ", row.healthy_caption), row.healthy_caption
    assert listed(result.folder) == [row.healthy_caption for row in result.rows]


def listed(folder):
    """The healthy captions in a dataset's manifest."""
    lines = (folder / "manifest.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line)["healthy_caption"] for line in lines]


def test_sidecars_make_up_for_missing_columns(build, photos):
    rows = table(photos)
    for row in rows:
        (photos / row["file"]).with_suffix(".txt").write_text("a face")
    write_table(photos, [{key: row[key] for key in ("file", "consent")} for row in rows])
    assert {row.caption for row in build(bracketed=False).rows} == {"CLP a face"}


def test_two_builds_never_work_in_one_folder(build, dataset, offline_env):
    code = (
        "import sys; from pathlib import Path\n"
        "from diffusioncleft.diffusioncleft_core.dataset.folder import dataset_lock\n"
        "with dataset_lock(Path(sys.argv[1])):\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(dataset)],
        env=offline_env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout.readline() == "held\n"
        before = sorted(path.name for path in dataset.rglob("*"))
        with pytest.raises(UserError, match=f"process {other.pid} is at work in"):
            build()
        with pytest.raises(UserError, match="at work"):
            purge_dataset(dataset)
        assert sorted(path.name for path in dataset.rglob("*")) == before
        other.kill()
    build()


def test_the_embedded_face_models_need_phantoms(photos, tmp_path, condition, faces):
    with pytest.raises(UserError, match="phantoms alone"):
        build_dataset(Photographs(photos, photos / "metadata.csv"), condition, tmp_path / "out", faces)
    assert not (tmp_path / "out").exists()


def test_out_must_be_new_empty_or_a_dataset_beside_the_photographs(build, photos, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.txt").write_text("mine")
    for out, said in (
        (home, "neither empty"),
        (photos / "out", "in one another"),
        (tmp_path, "in one another"),
    ):
        with pytest.raises(UserError, match=said):
            build(out)
    assert (home / "thesis.txt").read_text() == "mine"


def test_a_folder_that_a_server_shows_is_warned_of(build, tmp_path):
    (tmp_path / "ComfyUI" / "custom_nodes").mkdir(parents=True)
    result = build(tmp_path / "ComfyUI" / "output" / "private")
    assert [w for w in result.notices if "ComfyUI's output folder" in w]


def test_names_with_windows_folders_match_and_unknown_columns_are_named(build, photos, dataset):
    rows = [row | {"file": rf"C:\photos\{row['file']}", "weight_kg": "3"} for row in table(photos)]
    write_table(photos, rows)
    result = build()
    assert (len(result.rows), result.set_aside) == (N, ())
    assert any(rf"({N}): C:\photos\photo-0000.png as photo-0000.png" in told for told in result.notices)
    assert any("were ignored (1): weight_kg; it has: " in told for told in result.notices)

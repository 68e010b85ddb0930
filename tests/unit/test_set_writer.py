"""Saving into a set from outside the generator: a picture is known by what makes it, through every crash."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.files import read_jsonl, sha256_file, write_jsonl
from diffusioncleft.diffusioncleft_core.imageset.synthetic import marked_png, write_image
from diffusioncleft.diffusioncleft_core.imageset.writer import made_from, open_set_writer

SAVE_UNTIL_EACH = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {here!r})
from test_set_writer import ROWS, save
root = Path(sys.argv[1])
last, done, folder, killed = 0, 0, None, True
def count(event, arguments):
    global done
    if event == "open":
        path, mode, flags = arguments
        counts = bool((flags or 0) & (os.O_WRONLY | os.O_RDWR))
    else:
        path, counts = arguments[0] if arguments else "", event in ("os.rename", "os.remove", "os.truncate")
    if counts and str(path).startswith(str(folder)):
        done += 1
        if done == last:
            os.kill(os.getpid(), signal.SIGKILL)
while killed:
    last += 1
    folder = root / str(last)
    folder.mkdir()
    pid = os.fork()
    if not pid:
        sys.addaudithook(count)
        save(folder, ROWS)
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    killed = os.WIFSIGNALED(status)
sys.exit(os.waitstatus_to_exitcode(status))
"""
MADE = {"base": {"sha256": "b"}, "lora": None, "sampler": {"steps": 4}}
ROWS = [
    {"prompt": "a face", "seed": 7},
    {"prompt": "another face", "seed": 7},
    {"prompt": "a face", "seed": 8, "verdicts": {"accepted": False}},
    {"prompt": "of a plan", "seed": 9, "index": 3},
]


def pixels(row, width=6):
    """The picture of a row: the same whenever it is drawn."""
    rng = np.random.default_rng([row["seed"], len(row["prompt"])])
    return rng.integers(0, 256, (4, width, 3), dtype=np.uint8)


def add(writer, row, width=6, recipe="", **made):
    """Give one row to a writer: its file, and whether it was new."""
    record = {**MADE, "attributes": {}, "condition": "pre_op", "index": None, "verdicts": {}, **row, **made}
    picture = pixels(row, width)
    return writer.write(picture, record, made_from(record, picture, recipe))


def save(folder, rows, **made):
    """Save rows one by one, as prompts of a batch do; whether each was new."""
    new = []
    for row in rows:
        with open_set_writer(folder) as writer:
            new.append(add(writer, row, **made)[1])
    return new


def assert_whole(folder, count):
    """Exactly `count` pictures, sidecars and rows, each belonging to the other two."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    rows = read_jsonl(folder / "manifest.jsonl")
    assert not [path for path in files if path.name.startswith(".writing-")]
    assert len([path for path in files if path.suffix == ".png"]) == count
    assert len([path for path in files if path.suffix == ".json"]) == count
    assert len({row["file"] for row in rows}) == len(rows) == count
    for row in rows:
        path = folder / row["file"]
        sidecar = json.loads(path.with_suffix(".json").read_text())
        assert sidecar["png_sha256"] == sha256_file(path)
        assert (sidecar["prompt"], sidecar["seed"]) == (row["prompt"], row["seed"])


def test_a_row_that_is_saved_again_is_kept_whatever_came_between(tmp_path):
    assert save(tmp_path, ROWS) == [True] * 4
    assert save(tmp_path, ROWS[::-1]) == [False] * 4
    assert_whole(tmp_path, 4)


@pytest.mark.parametrize(
    "other",
    [
        {"width": 8},
        {"sampler": {"steps": 5}},
        {"lora": {"sha256": "l", "strength": 0.5}},
        {"recipe": "blurred"},
    ],
)
def test_same_prompt_and_seed_made_otherwise_is_another_picture(tmp_path, other):
    save(tmp_path, ROWS)
    assert save(tmp_path, ROWS, **other) == [True] * 4
    assert save(tmp_path, ROWS, **other) == save(tmp_path, ROWS) == [False] * 4
    assert_whole(tmp_path, 8)


def test_pictures_without_a_prompt_are_known_by_what_they_show(tmp_path):
    rows = [{"prompt": "", "seed": 0}]
    assert save(tmp_path, rows) == [True] and save(tmp_path, rows) == [False]
    record = {**MADE, **rows[0], "attributes": {}, "condition": "", "index": None}
    other = np.zeros((4, 6, 3), np.uint8)
    with open_set_writer(tmp_path) as writer:
        assert writer.write(other, record, made_from(record, other))[1]
    assert_whole(tmp_path, 2)


def test_a_picture_that_was_deleted_or_damaged_comes_back_to_its_place(tmp_path):
    save(tmp_path, ROWS)
    first, second = sorted(tmp_path.glob("*.png"))[:2]
    first.unlink()
    second.write_bytes(b"damaged")
    assert sorted(save(tmp_path, ROWS)) == [False, False, True, True]
    assert_whole(tmp_path, 4)


def test_a_picture_made_again_with_another_verdict_lies_and_is_listed_where_that_puts_it(tmp_path):
    save(tmp_path, ROWS)
    (rejected,) = (tmp_path / "rejected").glob("*.png")
    rejected.write_bytes(b"damaged")
    with open_set_writer(tmp_path) as writer:
        assert add(writer, {**ROWS[0], "prompt": "a fifth face"})[1]
        assert add(writer, ROWS[2], verdicts={"accepted": True})[1]
    assert not list((tmp_path / "rejected").iterdir())
    assert [row["verdicts"] for row in read_jsonl(tmp_path / "manifest.jsonl")][2] == {"accepted": True}
    assert_whole(tmp_path, 5)


def test_one_writer_knows_what_it_has_just_written(tmp_path):
    record = {**MADE, **ROWS[0], "attributes": {}, "condition": "pre_op", "index": None}
    picture = pixels(ROWS[0])
    with open_set_writer(tmp_path) as writer:
        file, is_new = writer.write(picture, record, made_from(record, picture))
        assert is_new and writer.write(picture, record, made_from(record, picture)) == (file, False)
        other, is_new = writer.write(picture, record, made_from(record, picture, copy=1))
        assert (file, other, is_new) == ("000000_7.png", "000001_7.png", True)
        assert writer.write(picture, record, made_from(record, picture, copy=2)) == ("000002_7.png", True)
        assert add(writer, ROWS[3]) == ("000003_9.png", True)
        assert add(writer, ROWS[3], sampler={"steps": 5}) == ("000004_9.png", True)
    assert_whole(tmp_path, 5)


def test_what_makes_a_picture_is_the_same_in_any_order_of_its_record():
    record = {**MADE, **ROWS[0], "sampler": {"steps": 4, "guidance": 0}}
    turned = {**dict(reversed(record.items())), "sampler": {"guidance": 0, "steps": 4}}
    picture = pixels(ROWS[0])
    assert made_from(record, picture) == made_from(turned, picture, copy=0)


def test_files_of_others_in_the_folder_stay_as_they_are(tmp_path):
    Image.new("RGB", (6, 4)).save(tmp_path / "000000_7.png")
    (tmp_path / "sheet.png").write_bytes(marked_png(pixels(ROWS[0]), "a sheet of faces"))
    before = {path: path.read_bytes() for path in tmp_path.glob("*.png")}
    save(tmp_path, ROWS)
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("place", range(4))
def test_a_picture_without_sidecar_and_row_comes_back_to_its_place(tmp_path, place):
    """As a crash between picture and sidecar leaves it, whatever is saved first afterwards."""
    save(tmp_path, ROWS)
    before = read_jsonl(tmp_path / "manifest.jsonl")
    (tmp_path / before[place]["file"]).with_suffix(".json").unlink()
    write_jsonl(tmp_path / "manifest.jsonl", before[:place] + before[place + 1 :])
    (tmp_path / ".writing-1.png").write_bytes(b"half")
    with open_set_writer(tmp_path) as writer:
        new = add(writer, {"prompt": "of another seed", "seed": 5})
        assert add(writer, ROWS[place]) == (before[place]["file"], True)
        same_seed = add(writer, {**ROWS[place], "prompt": "a later face"})
    assert len({new, same_seed, *((row["file"], True) for row in before)}) == 6
    assert save(tmp_path, ROWS) == [False] * 4
    assert_whole(tmp_path, 6)


def test_a_rejected_picture_without_sidecar_is_moved_when_it_is_accepted(tmp_path):
    save(tmp_path, ROWS)
    (sidecar,) = (tmp_path / "rejected").glob("*.json")
    sidecar.unlink()
    assert save(tmp_path, [ROWS[2]], verdicts={"accepted": True}) == [True]
    assert not list((tmp_path / "rejected").iterdir())
    assert_whole(tmp_path, 4)


def test_what_a_lost_manifest_or_row_said_is_read_from_the_sidecars(tmp_path):
    Image.new("RGB", (6, 4)).save(tmp_path / "000000_1.png")
    save(tmp_path, ROWS)
    rows = read_jsonl(tmp_path / "manifest.jsonl")
    write_jsonl(tmp_path / "manifest.jsonl", [{**row, "made_from": None} for row in rows])
    assert save(tmp_path, ROWS) == [False] * 4
    (tmp_path / "manifest.jsonl").unlink()
    assert save(tmp_path, ROWS) == [False] * 4
    by_file = {row["file"]: row for row in read_jsonl(tmp_path / "manifest.jsonl")}
    assert by_file == {row["file"]: row for row in rows}


def test_a_set_of_the_generators_keeps_the_pictures_of_its_rows(tmp_path):
    row = {"prompt": "of a plan", "seed": 9, "index": 3}
    sidecar = write_image(
        tmp_path, pixels(row), {**MADE, **row, "attributes": {}, "condition": "pre_op", "verdicts": {}}
    )
    kept = {**{name: sidecar[name] for name in ("file", "prompt", "seed", "width", "height")}, "index": 3}
    (tmp_path / "manifest.jsonl").write_text(json.dumps(kept) + "\n")
    assert save(tmp_path, [row]) == [False]
    assert save(tmp_path, [row], width=8) == [True]
    assert_whole(tmp_path, 2)


def test_two_processes_do_not_work_in_one_set(tmp_path):
    with open_set_writer(tmp_path), pytest.raises(UserError, match="works in the set"):
        save(tmp_path, ROWS)


def test_a_manifest_does_not_lead_out_of_its_folder(tmp_path):
    outside = tmp_path / "000009_1.png"
    outside.write_bytes(b"mine")
    row = {**ROWS[0], "index": None, **MADE}
    key = made_from(row, pixels(row))
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "manifest.jsonl").write_text(json.dumps({"file": "../000009_1.png", "made_from": key}) + "\n")
    with pytest.raises(UserError, match="leads out of"):
        save(folder, [ROWS[0]])
    assert outside.read_bytes() == b"mine"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_ended_before_any_of_its_writes_the_next_try_makes_the_same_set(tmp_path, offline_env):
    """SIGKILL before each opening for writing, renaming or removal; then all rows again, in reverse."""
    script = SAVE_UNTIL_EACH.format(here=str(Path(__file__).parent))
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=offline_env, check=True)
    folders = list(tmp_path.iterdir())
    assert len(folders) > 4 * len(ROWS), "the writes were not counted"
    for folder in folders:
        save(folder, ROWS[::-1])
        assert_whole(folder, len(ROWS))

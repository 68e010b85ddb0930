"""A study is drawn, written blind, and stands there whole or not at all."""

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zlib
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from study_sets import VOCABULARY, bare_pictures, filtered_set, made, names, photographs

from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.study.blind import blind_png
from diffusioncleft.diffusioncleft_core.study.close import close_study
from diffusioncleft.diffusioncleft_core.study.consent import refresh_studies
from diffusioncleft.diffusioncleft_core.study.create import create_study
from diffusioncleft.diffusioncleft_core.study.design_file import load_design
from diffusioncleft.diffusioncleft_core.study.folder import open_study
from diffusioncleft.diffusioncleft_core.study.sources import Source

SHOWN = {"generated": {"pre_op": 25, "post_op": 25}, "real": {"pre_op": 5, "post_op": 5}}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Pictures and photographs of both conditions, more than the paper's study shows."""
    root = tmp_path_factory.mktemp("sets")
    return {"generated": bare_pictures(root / "generated", 30), "real": photographs(root / "real", 8)}


@pytest.fixture(scope="module")
def study(sets, tmp_path_factory):
    """A study of them with the paper's numbers, and what was said of it."""
    return made(tmp_path_factory.mktemp("made") / "study", sets, repeats=6)


def counted(items):
    return {
        origin: dict(Counter(item.condition for item in items if item.origin == origin)) for origin in SHOWN
    }


def test_it_shows_what_the_paper_showed(study):
    made_study, _ = study
    assert counted([item for item in made_study.rated if item.repeat_of is None]) == SHOWN
    assert len(made_study.practice) == 2 and {item.origin for item in made_study.practice} == {"generated"}
    assert len({item.id for item in made_study.items}) == len(made_study.items) == 68
    assert open_study(made_study.root) == made_study


def test_a_repeat_shows_a_picture_again_under_another_name(study):
    made_study, _ = study
    again = [item for item in made_study.items if item.repeat_of]
    assert len(again) == 6 and len({item.repeat_of for item in again}) == 6
    for item in again:
        first = made_study.by_id[item.repeat_of]
        assert item.id != first.id and item.sha256 == first.sha256
        assert (item.origin, item.condition, item.groups) == (first.origin, first.condition, first.groups)


def test_what_a_set_does_not_know_is_said(study):
    _, notices = study
    (generated,) = [notice for notice in notices if "generated does not know" in notice]
    assert "of its 50 pictures" in generated and "age group of all, skin tone of all" in generated
    (real,) = [notice for notice in notices if "real does not know" in notice]
    assert "gender of " in real and "skin tone" not in real and "age group" not in real


def test_the_seed_decides_which_and_the_names_are_random_all_the_same(sets, study, tmp_path):
    again, other = (made(tmp_path / f"{seed}", sets, repeats=6, seed=seed)[0] for seed in (0, 1))

    def shown(found):
        return Counter(item.sha256 for item in found.items)

    assert shown(again) == shown(study[0]) != shown(other)
    assert not {item.id for item in again.items} & {item.id for item in study[0].items}


def test_study_toml_and_file_names_tell_of_no_folder_and_no_photograph(sets, study):
    made_study, _ = study
    text = (made_study.root / "study.toml").read_text("utf-8")
    assert "/" not in re.sub(r"[¿?].*", "", text) and str(sets["real"]) not in text
    assert "photo-" not in text and not any(
        item.id in text or item.sha256 in text for item in made_study.items
    )
    files = sorted(path.name for path in (made_study.private / "images").iterdir())
    assert files == sorted(f"{item.id}.png" for item in made_study.items)
    assert all(re.fullmatch(r"[0-9a-f]{16}\.png", name) for name in files)


@pytest.mark.skipif(os.name != "posix", reason="Windows has its own rights")
def test_what_is_private_is_closed_to_others(study):
    for folder in (study[0].private, study[0].private / "images"):
        assert folder.stat().st_mode & 0o777 == 0o700


def file_facts(path):
    """What a picture's file says without its pixels: length, chunks, form, tables, order of writing."""
    data = path.read_bytes()
    chunks, place = [], 8
    while place < len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        chunks.append((data[place + 4 : place + 8], length))
        place += length + 12
    with Image.open(path) as image:
        forms = [image.mode, image.format, sorted(image.info), getattr(image, "quantization", None)]
        tags = len(image.getexif())
    return [len(data), len(chunks), zlib.crc32(repr(chunks).encode()), zlib.crc32(repr(forms).encode()), tags]


def traces(path):
    """What a JPEG's own grid of 8 px leaves in pixels: period 8 in differences, steps in DCT coefficients."""
    from scipy.fft import dctn

    grey = np.asarray(Image.open(path).convert("L"), float)
    found = []
    for along in (np.abs(np.diff(grey, axis=1)).mean(0), np.abs(np.diff(grey, axis=0)).mean(1)):
        spectrum = np.abs(np.fft.rfft(along - along.mean()))
        found += [spectrum[round(len(along) * k / 8)] / (spectrum.mean() + 1e-9) for k in (1, 2, 3)]
    height, width = (side // 8 for side in grey.shape)
    blocks = grey[: 8 * height, : 8 * width].reshape(height, 8, width, 8).transpose(0, 2, 1, 3)
    coefficients = dctn(blocks, axes=(2, 3), norm="ortho").reshape(-1, 8, 8)
    for row, column in ((0, 1), (1, 0), (1, 1), (2, 2)):
        steps = np.histogram(coefficients[:, row, column], np.arange(-60.5, 61.5))[0].astype(float)
        spectrum = np.abs(np.fft.rfft(steps))
        found.append(spectrum[6:].max() / (spectrum[0] + 1e-9))
    return found


def told_apart(rows, classes):
    """Area under the ROC curve of a cross-validated classifier."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    return cross_val_score(model, np.array(rows, float), classes, cv=5, scoring="roc_auc").mean()


@pytest.fixture(scope="module")
def two_cameras(tmp_path_factory):
    """The same kind of face as PNG with text chunks, and as JPEG with EXIF; drawn into one study."""
    root = tmp_path_factory.mktemp("cameras")
    bare_pictures(root / "generated", 40, size=160)
    bare_pictures(root / "real", 40, seed=8, size=160)
    exif = Image.Exif()
    exif[0x010F] = "A camera"
    for path in sorted((root / "real").rglob("*.png")):
        with Image.open(path) as image:
            image.save(path.with_suffix(".jpg"), quality=75, exif=exif, dpi=(300, 300))
        path.unlink()
    sets = {"generated": root / "generated", "other": root / "real"}
    found, _ = made(root / "study", sets, counts={"generated": 70, "other": 70}, practice=0)
    return sets, found


def test_no_file_gives_its_origin_away(two_cameras):
    """A classifier on length, chunks, form, quantisation tables and metadata does no better than chance."""
    sets, study = two_cameras
    classes = [item.origin for item in study.items]
    before = [path for folder in sets.values() for path in sorted(folder.rglob("photo*"))]
    sizes = [[path.stat().st_size] for path in before]
    assert told_apart(sizes, [path.suffix for path in before]) > 0.9, "the pictures differ to begin with"
    rows = [file_facts(study.image(item.id)) for item in study.items]
    assert told_apart(rows, classes) == 0.5
    assert len(set(map(tuple, rows))) == 1
    (facts,) = set(map(tuple, rows))
    assert facts[-1] == 0


def test_files_and_rows_stand_in_the_order_of_their_random_names(two_cameras):
    _, study = two_cameras
    ids = [item.id for item in study.items]
    dates = [study.image(name).stat().st_mtime_ns for name in ids]
    assert ids == sorted(ids) and dates == sorted(dates)


def test_the_grid_of_an_earlier_compression_is_hardly_found_in_the_pixels(two_cameras):
    sets, study = two_cameras
    before = [path for folder in sets.values() for path in sorted(folder.rglob("photo*"))]
    assert told_apart([traces(path) for path in before], [path.suffix for path in before]) > 0.95
    items = sorted(study.items, key=lambda item: item.sha256)
    after = told_apart([traces(study.image(item.id)) for item in items], [item.origin for item in items])
    assert after < 0.75


def test_a_square_holds_where_the_finding_lies():
    pixels = np.zeros((100, 300, 3), np.uint8)
    pixels[:, 280:290] = 255
    middle, moved = blind_png(pixels, 90), blind_png(pixels, 90, (275.0, 40.0, 295.0, 60.0))
    whites = [np.asarray(Image.open(io.BytesIO(data))).max() for data in (middle, moved)]
    assert whites[0] == 0 and whites[1] == 255
    assert len(middle) == len(moved)


def test_only_accepted_images_are_shown_unless_raw(tmp_path):
    folder = bare_pictures(tmp_path / "generated", 8) / "pre_op"
    accepted = {name: number % 2 == 0 for number, name in enumerate(names(folder))}
    filtered_set(folder, accepted, {name: "baby" if yes else "man" for name, yes in accepted.items()})
    shown, notices = made(tmp_path / "a", {"generated": folder}, practice=0)
    assert {item.groups["age_group"] for item in shown.items} == {"baby"} and len(shown.items) == 4
    assert "the set generated has 4 pictures to show, not 50" in notices
    assert {item.groups["skin_tone"] for item in shown.items} == {"dark"}
    raw, _ = made(tmp_path / "b", {"generated": folder}, practice=0, raw=True)
    assert Counter(item.groups["age_group"] for item in raw.items) == {"baby": 4, "adult": 4}
    assert {item.groups["gender"] for item in raw.items if item.groups["age_group"] == "adult"} == {"male"}
    with pytest.raises(UserError, match="5 pictures of the set generated were asked for and 4 may be shown"):
        made(tmp_path / "c", {"generated": folder}, counts={"generated": 5})
    assert not (tmp_path / "c").exists()


def test_a_damaged_picture_is_named_and_another_one_shown(tmp_path):
    folder = bare_pictures(tmp_path / "generated", 6)
    torn = folder / "pre_op" / names(folder / "pre_op")[2]
    torn.write_bytes(torn.read_bytes()[:600])
    (folder / "post_op" / "photo-9999.png").write_bytes(b"no picture")
    shown, notices = made(tmp_path / "study", {"generated": folder}, practice=0)
    assert len(shown.items) == 11
    told = " ".join(notices)
    assert f"damaged pictures of the set generated were left out: {torn.name}" in told
    assert "can't be read or are too small were left out (1): photo-9999.png" in told


def test_what_shows_another_condition_is_left_out_and_counted(tmp_path):
    folder = bare_pictures(tmp_path / "generated", 4)
    shown, notices = made(tmp_path / "study", {"generated": folder}, conditions=("pre_op",), practice=9)
    assert {item.condition for item in shown.items} == {"pre_op"} and len(shown.items) == 4
    assert any("that show none of pre_op" in said and said.endswith("were left out: 4") for said in notices)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda root: {"generated": root / "absent"}, "absent is no folder"),
        (lambda root: {"real": root / "generated"}, "has no metadata.csv, so nobody's consent"),
        (lambda root: {"generated": root / "real" / "pre_op"}, "has a metadata.csv, as photographs have"),
        (lambda root: {}, "no set is given"),
    ],
)
def test_a_set_that_can_not_be_used_is_refused_and_nothing_is_left(change, said, sets, tmp_path):
    root = sets["real"].parent
    with pytest.raises(UserError, match=said):
        made(tmp_path / "study", change(root))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_left_as_it_was(sets, study, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    for out, said in (
        (tmp_path / "mine", "is not empty"),
        (study[0].root, "is a study already"),
        (sets["generated"] / "study", "lies in the set"),
    ):
        before = sorted(out.rglob("*"))
        with pytest.raises(UserError, match=said):
            made(out, sets)
        assert sorted(out.rglob("*")) == before
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "study"):
        with pytest.raises(UserError, match="file is a file; choose a new or empty folder as --out"):
            made(out, sets)
    (tmp_path / "empty").mkdir()
    assert made(tmp_path / "empty", sets)[0].items


def test_a_crash_leaves_no_half_of_a_study(sets, tmp_path, monkeypatch):
    def full(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("diffusioncleft.diffusioncleft_core.study.create.write_design", full)
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path / "study", sets)
    assert list(tmp_path.iterdir()) == []


def making(tmp_path, sets, environment):
    """`study create` as a process that has written some of its pictures."""
    words = [f"--set={name}={folder}" for name, folder in sets.items()]
    process = subprocess.Popen(
        [sys.executable, "-m", "diffusioncleft", "study", "create", *words, "--out", "study"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not any(tmp_path.glob(".writing-*/private/images/*.png")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.005)
    return process


def test_what_a_killed_call_left_is_erased_by_the_next_one(sets, tmp_path, offline_env):
    killed = making(tmp_path, sets, offline_env)
    killed.kill()
    killed.wait()
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".writing-study-") and (left / "private").stat().st_mode & 0o77 == 0
    assert refresh_studies([tmp_path / "study"]) == [] and not any(tmp_path.iterdir())
    left.joinpath("private", "images").mkdir(parents=True)
    made(tmp_path / "study", sets)
    assert [path.name for path in tmp_path.iterdir()] == ["study"]


@pytest.mark.skipif(os.name != "posix", reason="Windows stops no process")
def test_of_two_calls_at_once_one_makes_the_study_and_the_other_says_so(sets, tmp_path, offline_env):
    slow = making(tmp_path, sets, offline_env)
    slow.send_signal(signal.SIGSTOP)
    study, _ = made(tmp_path / "study", sets)
    slow.send_signal(signal.SIGCONT)
    assert slow.wait() == 2 and "study is a study already and was left as it is" in slow.stderr.read()
    assert [path.name for path in tmp_path.iterdir()] == ["study"]
    assert open_study(study.root).items == study.items


def test_a_full_disk_is_one_sentence_and_leaves_nothing(sets, small_disk):
    with pytest.raises(UserError, match="the disk is full"):
        made(small_disk / "study", sets)
    assert list(small_disk.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["no-run"], "no-run is no folder of a run; give one, or the sets themselves with --set NAME=DIR"),
        ([], "no set is given; give the folder of a run, or --set NAME=DIR"),
        (["--set", "Ü=x"], "a set can't be called 'Ü'"),
        (["--set", "real"], "is no NAME=PATH"),
        (["--set", "real=x", "--n", "real"], "is no NAME=N such as generated=50"),
        (["--set", "real=x", "--n", "real=0"], "'0' is not a whole number from 1"),
        (["--set", "real=x", "--n", "real=1", "--n", "real=2"], "--n names the set real twice"),
        (["--set", "real=x", "--margin", "nan"], "'nan' is not a number above 0"),
        (["--set", "real=x", "--design", "likert.toml"], "there is no design 'likert.toml'"),
        (["--set", "real=x", "--design", "."], ". is a folder; give a TOML file as the design"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_sentence(words, said, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert said in refused("study", "create", *words, "--out", "study")
    assert list(tmp_path.iterdir()) == []


def test_phantoms_need_no_consent_and_are_said_to_be_phantoms(sets, tmp_path, command):
    for condition in ("pre_op", "post_op"):
        shutil.copytree(sets["real"] / condition, tmp_path / "real" / condition)
        (tmp_path / "real" / condition / "metadata.csv").unlink()
    words = ("--set", f"generated={sets['generated']}", "--set", "real=real")
    refused = command("study", "create", *words, "--out", "study")
    assert refused.returncode == 2 and "consent" in refused.stderr and not (tmp_path / "study").exists()
    done = command("study", "create", *words, "--phantom", "--out", "study")
    assert done.returncode == 0, done.stderr
    assert (
        "phantoms stand for people" in done.stdout
        and "real: 10 (5 post_op, 5 pre_op), phantoms" in done.stdout
    )
    found = open_study(tmp_path / "study")
    assert found.design.of_phantoms and not any(item.photograph for item in found.items)


def test_a_set_of_photographs_and_phantoms_counts_as_one_of_photographs(sets, tmp_path):
    drawn = bare_pictures(tmp_path / "drawn", 3)
    sources = [
        Source("generated", sets["generated"], "generated", phantom=True),
        Source("real", drawn, "real", phantom=True),
        Source("real", sets["real"], "real"),
    ]
    study, _ = create_study(tmp_path / "study", load_design("paper"), sources, VOCABULARY)
    assert {item.origin: item.phantom for item in study.design.sets} == {"generated": True, "real": False}
    assert not study.design.of_phantoms


def test_pictures_that_are_no_phantoms_are_not_taken_for_some(tmp_path):
    rng = np.random.default_rng(1)
    (tmp_path / "real").mkdir()
    for number in range(4):
        Image.fromarray(rng.integers(0, 255, (96, 96, 3), np.uint8)).save(tmp_path / "real" / f"{number}.png")
    with pytest.raises(UserError, match="seems to hold photographs of people: leave --phantom out"):
        made(tmp_path / "study", {"real": tmp_path / "real"}, phantom=True)


def test_closing_erases_photographs_and_keeps_what_was_rated(sets, tmp_path, command):
    study, _ = made(tmp_path / "study", sets, repeats=6)
    real = [item for item in study.items if item.origin == "real"]
    assert all(item.photograph for item in real) and any(item.repeat_of for item in real)
    asked = command("study", "close", "study")
    assert asked.returncode == 2 and f"erases {len(real)} pictures" in asked.stderr and not study.closed
    assert command("study", "close", "study", "--yes").returncode == 0
    closed = open_study(study.root)
    assert closed.closed
    assert {item.id for item in closed.items if not closed.has_image(item.id)} == {item.id for item in real}
    assert [(item.id, item.origin, item.groups) for item in closed.items] == [
        (item.id, item.origin, item.groups) for item in study.items
    ]
    everything = b"".join(path.read_bytes() for path in study.root.rglob("*") if path.is_file())
    assert not any(item.photograph.encode() in everything for item in real)
    assert str(sets["real"]).encode() not in everything
    assert close_study(closed) == 0


def test_a_close_that_was_killed_is_done_again(sets, tmp_path, offline_env):
    study, _ = made(tmp_path / "study", sets)
    real = [item for item in study.items if item.origin == "real"]
    words = [sys.executable, "-m", "diffusioncleft", "study", "close", "study", "--yes"]
    killed = subprocess.Popen(words, cwd=tmp_path, env=offline_env, stdout=subprocess.DEVNULL)
    while not study.closed:
        assert killed.poll() is None
    killed.kill()
    killed.wait()
    (study.root / "private" / ".writing-left.jsonl").write_text("half of a key")
    close_study(open_study(study.root))
    closed = open_study(study.root)
    assert not any(closed.has_image(item.id) or closed.by_id[item.id].photograph for item in real)
    assert not list(study.root.rglob(".writing-*"))


def test_closing_a_study_of_phantoms_says_that_it_holds_no_photograph_and_what_stays(sets, tmp_path, command):
    study, _ = made(tmp_path / "study", sets, phantom=True)
    asked = command("study", "close", "study")
    assert (
        asked.returncode == 2 and "holds no copy of a photograph to erase; its pictures stay" in asked.stderr
    )
    closed = command("study", "close", "study", "--yes")
    assert closed.returncode == 0, closed.stderr
    assert "it holds no copy of a photograph; its 62 pictures of phantoms and generated images stay" in (
        closed.stdout
    )
    assert open_study(study.root).closed and all(study.has_image(item.id) for item in study.items)

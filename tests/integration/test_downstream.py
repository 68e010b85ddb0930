"""`diffusioncleft downstream` as a person uses it: real processes, phantoms, the embedded models."""

import json
import re
import shutil

import numpy as np
import pytest
from downstream_phantoms import as_generated, small_cropper, write_phantoms
from phantom_datasets import phantom_dataset
from PIL import Image

from diffusioncleft.diffusioncleft_core.dataset.folder import dataset_rows
from diffusioncleft.diffusioncleft_core.downstream.document import read_document
from diffusioncleft.diffusioncleft_core.downstream.held_out import TOUCHED, read_held_out
from diffusioncleft.diffusioncleft_core.downstream.learned import FILE_NAME as LEARNED
from diffusioncleft.diffusioncleft_core.downstream.predictions import Predictions
from diffusioncleft.diffusioncleft_core.faces.analyzer import PHANTOM_FOLDER
from diffusioncleft.diffusioncleft_core.files import read_json, write_json

N_TRAIN, N_TEST = 60, 30
TRAIN = ("--task", "pre_post", "--phantom", "--side", 96)


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Clefts and scars, to train on as generated sets and to test as bare folders."""
    root = tmp_path_factory.mktemp("sets")
    for name, finding, seed in (("pre_op", "cleft", 1), ("post_op", "scar", 2)):
        as_generated(write_phantoms(root / name, finding, seed, N_TRAIN), name)
        write_phantoms(root / f"{name}_test", finding, seed + 100, N_TEST)
    return root


@pytest.fixture
def probe(command, sets):
    """A linear probe that was trained once on both sets."""
    model = sets / "probe"
    if not model.exists():
        done = command(
            "downstream", "train", *TRAIN, "--model", "probe", "--seeds", 1, "--out", model,
            "--positive", sets / "pre_op", "--negative", sets / "post_op",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    return model


def other_pack(folder):
    """The embedded face models in a pack that says it is for photographs."""
    pack = shutil.copytree(PHANTOM_FOLDER, folder / "other pack")
    write_json(pack / "pack.json", {"name": "other", "det_size": 128, "phantom_only": False})
    return pack


@pytest.mark.parametrize("kind", [pytest.param("paper", marks=pytest.mark.long), "probe"])
def test_a_model_trained_on_two_sets_tells_two_others_apart(command, sets, tmp_path, kind):
    out = tmp_path / "model"
    done = command(
        "downstream", "train", *TRAIN, "--model", kind, "--seeds", 2, "--out", out,
        "--positive", sets / "pre_op", "--negative", sets / "post_op",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "a backbone of phantoms: this model says nothing about photographs" in done.stdout
    described = read_json(out / "model.json")
    assert described["trained_on"]["positive"] == N_TRAIN and described["phantom"]
    assert [training["seed"] for training in described["trainings"]] == [0, 1]
    assert str(sets) not in json.dumps(described)
    told = command(
        "downstream", "evaluate", out, "--phantom", "--out", tmp_path / "private",
        "--test", f"new.positive={sets / 'pre_op_test'}", "--test", f"new.negative={sets / 'post_op_test'}",
        "--test", f"own={sets / 'pre_op'}", "--test", f"own={sets / 'post_op'}", "--paper",
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    assert f"of {2 * N_TEST} right" in told.stdout
    assert "Not a diagnostic device" in told.stdout
    document = read_document(tmp_path / "private" / "downstream.json")
    assert set(document["tasks"]) == {"pre_post-new", "pre_post-own"} and document["phantom"]
    task = document["tasks"]["pre_post-new"]
    (figures,) = task["sources"].values()
    low, _ = figures["auc"]["ci95_trainings"] or figures["auc"]["ci95"]
    assert figures["auc"]["ci95"][0] > 0.5 and figures["accuracy"]["n"] == 2 * N_TEST
    assert f"n = {2 * N_TEST} images of {2 * N_TEST} people" in told.stdout and f"{low:.3f}" in told.stdout
    assert {control["verdict"] for control in task["controls"]} == {"not run"}
    assert (
        "no dataset at hand tells who is on" in task["test"]["leak"] and task["test"]["leak"] in told.stdout
    )
    own = document["tasks"]["pre_post-own"]
    marked = f"{2 * N_TRAIN} of the {2 * N_TRAIN} test images were learned from"
    assert own["test"]["leak"].startswith(marked) and marked in own["reading"] and marked in told.stdout
    assert str(sets) not in json.dumps(document) and "0000.png" not in json.dumps(document)
    assert (tmp_path / "private" / "new").stat().st_mode & 0o077 == 0
    for seed in (0, 1):
        found = Predictions.read(tmp_path / "private" / "new" / f"seed-{seed}.jsonl")
        assert found.labels.tolist() == [1] * N_TEST + [0] * N_TEST
        assert found.n_subjects == 2 * N_TEST and len(set(found.keys)) == 2 * N_TEST
        assert np.mean((found.scores >= 0.5) == found.labels) > 0.5
        own = Predictions.read(tmp_path / "private" / "own" / f"seed-{seed}.jsonl")
        assert own.labels.sum() == N_TRAIN and len(own) == 2 * N_TRAIN


def test_the_same_command_again_gives_the_same_model(command, sets, tmp_path):
    found = []
    for _ in range(2):
        done = command(
            "downstream", "train", *TRAIN, "--model", "probe", "--seeds", 2, "--out", tmp_path / "model",
            "--positive", sets / "pre_op", "--negative", sets / "post_op",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found.append((tmp_path / "model" / "model.json").read_bytes())
    assert found[0] == found[1]


def test_images_without_a_lip_are_counted_and_told_of(command, sets, tmp_path):
    folder = shutil.copytree(sets / "pre_op_test", tmp_path / "some", ignore=shutil.ignore_patterns(".*"))
    Image.new("RGB", (96, 96), (80, 120, 80)).save(folder / "meadow.png")
    done = command(
        "downstream", "train", *TRAIN, "--model", "probe", "--seeds", 1, "--out", tmp_path / "model",
        "--positive", folder, "--negative", sets / "post_op_test",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"no lip was found in 1 of {N_TEST + 1} images" in done.stderr
    assert read_json(tmp_path / "model" / "model.json")["trained_on"]["not_found"] == 1


def test_damaged_images_are_named_where_they_are_learned_from_and_tested_on(command, sets, probe, tmp_path):
    folder = shutil.copytree(sets / "pre_op_test", tmp_path / "some", ignore=shutil.ignore_patterns(".*"))
    torn = folder / "0003.png"
    torn.write_bytes(torn.read_bytes()[:200])
    told = (
        f"1 of {N_TEST} images of {folder} are damaged or missing and count as images without a lip: 0003.png"
    )
    learned = command(
        "downstream", "train", *TRAIN, "--model", "probe", "--seeds", 1, "--out", tmp_path / "model",
        "--positive", folder, "--negative", sets / "post_op_test",
    )  # fmt: skip
    tested = command(
        "downstream", "evaluate", probe, "--phantom", "--out", tmp_path / "out",
        "--test", f"real.positive={folder}", "--test", f"real.negative={sets / 'post_op_test'}",
    )  # fmt: skip
    for done in (learned, tested):
        assert done.returncode == 0, done.stderr
        assert told in done.stderr and "no lip was found" not in done.stderr
    assert (
        read_document(tmp_path / "out" / "downstream.json")["tasks"]["pre_post"]["test"]["n_not_found"] == 1
    )


def test_the_name_of_a_test_set_leads_nowhere(refused, sets, probe, tmp_path):
    evaluate = ("downstream", "evaluate", probe, "--phantom", "--out", tmp_path / "out")
    for name in (tmp_path / "elsewhere", "up/one", "a name", "-x", "x" * 41, "con"):
        both = [
            f"--test={name}.{side}={sets / folder}"
            for side, folder in (("positive", "pre_op_test"), ("negative", "post_op_test"))
        ]
        assert f"a test set can't be called {str(name)!r}" in refused(*evaluate, *both)
    pair = f"--test=real.positive={sets / 'pre_op_test'}", f"--test=Real.negative={sets / 'post_op_test'}"
    assert "two test sets' names differ in capitals alone" in refused(*evaluate, *pair)
    assert not (tmp_path / "out").exists() and not (tmp_path / "elsewhere").exists()


def test_of_several_test_sets_each_is_named_and_nothing_is_written_where_one_is_refused(
    command, refused, sets, probe, tmp_path
):
    out = tmp_path / "out"
    evaluate = ("downstream", "evaluate", probe, "--phantom", "--out", out)
    bare = (f"real.positive={sets / 'pre_op_test'}", f"real.negative={sets / 'post_op_test'}")
    real = ("--test", bare[0], "--test", bare[1])
    learned = ("--test", f"seen={sets / 'pre_op'}", "--test", f"seen={sets / 'post_op'}")
    assert "error: test set seen: 120 of the 120 test images were learned from" in refused(
        *evaluate, *real, *learned
    )
    assert not out.exists()
    done = command(*evaluate, *real, *learned, "--paper")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    title = "Unrepaired against repaired cleft lip, n = "
    for name, n in (("real", 60), ("seen", 120)):
        assert lines[lines.index(f"test set {name}:") + 1].startswith(f"{title}{n} images")


def test_a_mistake_is_one_line_and_leaves_nothing_behind(refused, sets, tmp_path):
    pre, post = sets / "pre_op", sets / "post_op"
    both = ("--positive", pre, "--negative", post)
    train = ("downstream", "train", "--out", tmp_path / "model")
    assert "there is no task 'lips'" in refused(*train, *both, "--phantom", "--task", "lips")
    assert "there is no backbone 'vgg'" in refused(*train, *both, "--phantom", "--backbone", "vgg")
    assert "leave out --faces" in refused(*train, *both, "--phantom", "--faces", "buffalo_l")
    assert "argument --side: '8' is not" in refused(*train, *both, "--phantom", "--side", 8)
    assert "is no folder" in refused(*train, "--phantom", "--positive", tmp_path / "none", "--negative", post)
    empty = tmp_path / "faceless"
    empty.mkdir()
    Image.new("RGB", (96, 96)).save(empty / "black.png")
    assert "no lip was found" in refused(*train, "--phantom", "--positive", empty, "--negative", post)
    told = refused(*train, "--positive", post, pre, "--negative", pre)
    assert f"{pre} is given as positive and as negative" in told, "before a face pack is looked for"
    copies = shutil.copytree(pre, tmp_path / "copies", ignore=shutil.ignore_patterns(".*"))
    told = refused(*train, "--phantom", "--side", 32, "--positive", pre, "--negative", copies)
    assert f"{N_TRAIN} pictures are in both classes of what is learned from" in told
    one = tmp_path / "one"
    one.mkdir()
    shutil.copy(pre / "0000.png", one)
    assert "images of one person alone" in refused(
        *train, "--phantom", "--model", "probe", "--side", 32, "--positive", one, "--negative", post
    )
    assert not (tmp_path / "model").exists()
    assert "holds something else than a model" in refused(
        "downstream", "train", *both, "--phantom", "--out", empty
    )
    below = empty / "black.png" / "model"
    assert str(below) in refused("downstream", "train", *both, "--out", below), (
        "before a face pack is looked for"
    )


def test_a_missing_face_pack_or_backbone_stops_before_any_picture_is_opened(refused, sets, tmp_path):
    both = ("--positive", sets / "pre_op", "--negative", sets / "post_op", "--out", tmp_path / "model")
    lacking = refused("downstream", "train", *both, "--faces", "no_such_pack", "--backbone", "seeded")
    assert "the face pack 'no_such_pack' is in none of" in lacking
    assert "weights fetch mobilenet-v2" in refused("downstream", "train", *both, "--weights", tmp_path)


def test_a_backbone_of_phantoms_is_refused_for_photographs(refused, sets, tmp_path):
    pack = other_pack(tmp_path)
    both = ("--positive", sets / "pre_op", "--negative", sets / "post_op", "--out", tmp_path / "model")
    told = refused("downstream", "train", *both, "--faces", pack, "--backbone", "phantom")
    assert "it is for phantoms alone" in told


def test_a_test_set_must_tell_its_classes(refused, sets, probe, tmp_path):
    evaluate = ("downstream", "evaluate", probe, "--phantom", "--out", tmp_path / "private")
    bare, pre = sets / "pre_op_test", sets / "pre_op"
    assert f"--test real.positive={bare}" in refused(*evaluate, "--test", f"real={bare}")
    assert "has no negative images; add --test real.negative=SET" in refused(
        *evaluate, "--test", f"real={pre}"
    )
    assert "is no NAME=SET" in refused(*evaluate, "--test", pre)
    assert "is no downstream model" in refused(
        "downstream", "evaluate", bare, "--phantom", "--out", tmp_path / "x", "--test", f"real={pre}"
    )
    assert "trained on phantoms: give --phantom" in refused(
        "downstream", "evaluate", probe, "--out", tmp_path / "x", "--test", f"real={pre}",
        "--test", f"real={sets / 'post_op'}",
    ), "before a face pack is looked for"  # fmt: skip
    assert "trained on phantoms: give --phantom" in refused(
        "downstream", "evaluate", probe, "--faces", other_pack(tmp_path), "--out", tmp_path / "x",
        "--test", f"real={pre}", "--test", f"real={sets / 'post_op'}",
    )  # fmt: skip
    twice = ("--test", f"real.positive={pre}", "--test", f"real.negative={pre}")
    assert f"{pre} is given as positive and as negative" in refused(*evaluate, *twice)
    assert not (tmp_path / "private").exists()
    (tmp_path / "file").touch()
    below = refused(
        *evaluate[:4],
        "--out",
        tmp_path / "file",
        "--test",
        f"real={pre}",
        "--test",
        f"real={sets / 'post_op'}",
    )
    assert str(tmp_path / "file" / "downstream.json") in below


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, analyzer):
    """Photographs of clefts, one in ten people held out."""
    root = tmp_path_factory.mktemp("dataset")
    return phantom_dataset(root / "photos", "pre_op", root / "pre_op", analyzer, n=30, seed=5)


def test_people_who_were_learned_from_are_refused_as_a_test_set_or_marked(
    command, refused, sets, probe, dataset, analyzer, tmp_path
):
    out = tmp_path / "out"
    negative = ("--test", f"real.negative={sets / 'post_op_test'}")
    known = ("downstream", "evaluate", probe, "--phantom", *negative, "--trained-on", dataset)
    again = phantom_dataset(tmp_path / "photos", "pre_op", tmp_path / "again", analyzer, n=6, seed=5)
    seen = (*known, "--test", f"real={again}")
    told = refused(*seen, "--out", out)
    assert "the test set is also on the training photographs of pre_op, so figures could come from" in told
    assert not out.exists()
    marked = command(*seen, "--out", out, "--paper")
    assert marked.returncode == 0, marked.stderr
    test = read_document(out / "downstream.json")["tasks"]["pre_post"]["test"]
    assert "photographs of pre_op" in test["leak"] and test["leak"] in marked.stdout
    copies = shutil.copytree(dataset / "images", tmp_path / "copies")
    told = refused(*known, "--test", f"real.positive={copies}", "--out", out)
    assert "also on the training photographs of pre_op" in told, "known again by picture"
    for path in copies.glob("*.png"):
        with Image.open(path) as picture:
            picture.convert("RGB").save(path.with_suffix(".jpg"), quality=95)
        path.unlink()
    alike = command(*known, "--test", f"real.positive={copies}", "--out", tmp_path / "alike")
    assert alike.returncode == 0, alike.stderr
    test = read_document(tmp_path / "alike" / "downstream.json")["tasks"]["pre_post"]["test"]
    assert test["leak"].startswith("by their faces alone") and test["leak"] in alike.stdout
    clean = command(*known, "--test", f"real={dataset}", "--out", tmp_path / "clean")
    assert clean.returncode == 0, clean.stderr
    task = read_document(tmp_path / "clean" / "downstream.json")["tasks"]["pre_post"]
    assert task["test"]["leak"] is None and "training photographs" not in task["reading"]
    positives = Predictions.read(tmp_path / "clean" / "real" / "seed-0.jsonl").labels.sum()
    assert positives == len(dataset_rows(dataset, "holdout")) == 3


def test_pictures_that_the_model_itself_learned_from_are_refused(command, refused, tmp_path, dataset):
    """Bare folders, which no dataset tells of; copied, renamed and saved anew without loss."""
    train = {}
    for name, finding, seed in (("positive", "cleft", 11), ("negative", "scar", 12)):
        train[name] = write_phantoms(tmp_path / name, finding, seed, 20)
    model = tmp_path / "model"
    sets = [part for name, folder in train.items() for part in (f"--{name}", folder)]
    done = command("downstream", "train", *TRAIN, "--model", "probe", "--seeds", 1, "--out", model, *sets)
    assert done.returncode == 0, done.stderr
    evaluate = ("downstream", "evaluate", model, "--phantom", "--trained-on", dataset, "--out")
    out = tmp_path / "out"
    same = [part for name, folder in train.items() for part in ("--test", f"real.{name}={folder}")]
    told = refused(*evaluate, out, *same)
    assert "40 of the 40 test images were learned from, so figures could come from knowing" in told
    assert "--paper" in told and not out.exists()
    again = write_phantoms(tmp_path / "again", "cleft", 13, 20)
    with Image.open(train["positive"] / "0003.png") as picture:
        picture.save(again / "anew.tiff")
    others = write_phantoms(tmp_path / "others", "scar", 14, 20)
    mixed = ("--test", f"real.positive={again}", "--test", f"real.negative={others}")
    assert "1 of the 41 test images was learned from" in refused(*evaluate, out, *mixed)
    (again / "anew.tiff").unlink()
    done = command(*evaluate, out, *mixed)
    assert done.returncode == 0, done.stderr
    leak = read_document(out / "downstream.json")["tasks"]["pre_post"]["test"]["leak"]
    assert "no dataset at hand tells who is on the training photographs of the classifier (folders" in leak
    assert (model / ".gitignore").read_text("utf-8") == f"{LEARNED}\n"
    assert (out / "real" / ".gitignore").read_text("utf-8") == "*\n"
    (model / LEARNED).unlink()
    done = command(*evaluate, tmp_path / "shared", *mixed)
    assert done.returncode == 0, done.stderr
    leak = read_document(tmp_path / "shared" / "downstream.json")["tasks"]["pre_post"]["test"]["leak"]
    assert leak.startswith(f"the model's folder has no {LEARNED}")


def test_photographs_in_a_bare_folder_are_known_again_by_picture_and_counted_as_the_figures_have_them(
    command, refused, sets, probe, dataset, tmp_path
):
    """Byte copies of source photographs of a dataset that something was trained on."""
    photographs = [path for path in sorted((dataset.parent / "photos").iterdir()) if path.suffix != ".csv"]
    bare = tmp_path / "bare"
    bare.mkdir()
    for path in photographs:
        shutil.copy(path, bare)
    known = ("downstream", "evaluate", probe, "--phantom", "--trained-on", dataset)
    tested = ("--test", f"real.positive={bare}", "--test", f"real.negative={sets / 'post_op_test'}")
    told = refused(*known, *tested, "--out", tmp_path / "out")
    assert "people in the test set are also on the training photographs of pre_op" in told
    done = command(*known, *tested, "--paper", "--out", tmp_path / "marked")
    assert done.returncode == 0, done.stderr
    test = read_document(tmp_path / "marked" / "downstream.json")["tasks"]["pre_post"]["test"]
    n, of = map(int, re.match(r"(\d+) of the (\d+) people", test["leak"]).groups())
    assert of == test["n_subjects"] and n >= len(dataset_rows(dataset, "train")) - 1


def test_people_without_labels_are_counted_as_the_figures_count_them(analyzer, tmp_path):
    """Two photographs of one face are one person, in the clause on a leak too."""
    cropper = small_cropper(analyzer)
    folder = write_phantoms(tmp_path / "test", "cleft", 21, 6)
    with Image.open(folder / "0000.png") as picture:
        picture.resize((160, 160)).save(folder / "again.png")
    others = write_phantoms(tmp_path / "others", "scar", 22, 6)
    held_out = read_held_out(cropper, [(folder, 1), (others, 0)])
    n = len(set(held_out.crops.people))
    assert n < len(held_out.crops) == 13
    told = held_out.check({"pre_op": held_out.people}, paper=True)
    assert told.startswith(f"{n} of the {n} people in the test set")


def test_the_day_a_test_set_was_first_looked_at_stays(dataset, tmp_path, analyzer):
    cropper = small_cropper(analyzer)
    held_out = read_held_out(cropper, [(dataset, 1)])
    today = held_out.touched(tmp_path / "out")
    file = tmp_path / "out" / TOUCHED
    file.write_text(file.read_text().replace(today, "2020-01-02"))
    assert held_out.touched(tmp_path / "out") == "2020-01-02"
    assert file.parent.stat().st_mode & 0o077 == 0
    others = read_held_out(cropper, [(dataset / "images", 1)])
    assert others.touched(tmp_path / "out") == today
    file.write_text("{")
    assert held_out.touched(tmp_path / "out") == today


def test_help_shows_examples_of_each_action(command):
    for words in (("--help",), ("train", "--help"), ("evaluate", "--help")):
        done = command("downstream", *words)
        assert done.returncode == 0 and "examples:\n  diffusioncleft downstream " in done.stdout

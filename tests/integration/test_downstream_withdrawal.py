"""Classifiers that learned from images of a LoRA: they know it, whom it learned from, and its withdrawal."""

import json

import pytest
from downstream_phantoms import as_generated, write_phantoms
from phantom_datasets import phantom_dataset

from diffusioncleft.diffusioncleft_core.dataset.folder import dataset_rows
from diffusioncleft.diffusioncleft_core.dataset.settings import read_roles
from diffusioncleft.diffusioncleft_core.dataset.trained import (
    remember_training,
    remember_validation,
    trained_photographs,
    training_sources,
)
from diffusioncleft.diffusioncleft_core.dataset.withdrawn import CHOSEN_BY, Withdrawal
from diffusioncleft.diffusioncleft_core.downstream.document import training_names
from diffusioncleft.diffusioncleft_core.downstream.held_out import LEARNED as UNKNOWN
from diffusioncleft.diffusioncleft_core.downstream.held_out import learned_people
from diffusioncleft.diffusioncleft_core.downstream.learned import FILE_NAME as LEARNED
from diffusioncleft.diffusioncleft_core.downstream.model import BARE
from diffusioncleft.diffusioncleft_core.downstream.train_model import refuse_used_folder
from diffusioncleft.diffusioncleft_core.files import append_jsonl, read_json, write_json
from diffusioncleft.diffusioncleft_core.run.holdings import CLASSIFIER, FIGURES, Search
from diffusioncleft.diffusioncleft_core.run.withdrawal import erase_held

TRAIN = ("downstream", "train", "--task", "pre_post", "--phantom", "--seeds", 1, "--model", "probe")
LORAS = {"pre_op": "a17c" * 16, "post_op": "c52e" * 16}


@pytest.fixture
def model(tmp_path, command):
    """A classifier of two sets, each drawn by a LoRA of its own."""
    for seed, (name, finding) in enumerate((("pre_op", "cleft"), ("post_op", "scar"))):
        folder = tmp_path / "generated" / name
        as_generated(write_phantoms(folder, finding, seed, 8), name)
        record = {"lora": {"sha256": LORAS[name], "strength": 1.0}}
        write_json(folder / "generation.json", record)
    sets = ["--positive", "generated/pre_op", "--negative", "generated/post_op"]
    done = command(*TRAIN, *sets, "--out", "models/pre_post")
    assert done.returncode == 0, done.stderr
    return tmp_path / "models" / "pre_post"


def test_a_model_knows_the_loras_of_its_images_and_goes_with_one_that_is_withdrawn(model):
    document = read_json(model / "model.json")
    assert document["loras"] == [[name] for name in sorted(LORAS.values())]
    assert training_names(document) == sorted(LORAS.values())
    assert document["fingerprint"] is None, "no dataset notes a training on generated images alone"
    evidence = {"schema": 1, "tasks": {"pre_post": {"model": document}}}
    (model.parent / "judged").mkdir()
    (model.parent / "judged" / "downstream.json").write_text(json.dumps(evidence))
    (model / "notes.txt").write_text("not ours")
    mine = Withdrawal("run-1", (LORAS["pre_op"],), "2026-01-01", "somebody")
    held = Search([mine], [model.parent]).held()
    assert {item.kind for item in held} == {CLASSIFIER, FIGURES}
    assert sorted(item.place.name for item in held) == ["downstream.json", "model.json"]
    assert not Search([Withdrawal("run-2", ("ef" * 32,), "2026-01-01", "somebody")], [model.parent]).held()
    erase_held(held)
    assert [path.name for path in model.parent.rglob("*") if path.is_file()] == ["notes.txt"]


def test_where_no_dataset_knows_a_lora_it_is_not_known_whom_it_learned_from():
    learners = {name: (sha256,) for name, sha256 in LORAS.items()}
    assert learned_people(learners, []) == dict.fromkeys(LORAS)
    assert learned_people({}, []) == {UNKNOWN: None}


def test_a_named_dataset_tells_nothing_of_what_it_did_not_record(tmp_path, analyzer):
    dataset = phantom_dataset(tmp_path / "photos", "pre_op", tmp_path / "pre_op", analyzer, n=4, seed=5)
    remember_training(dataset, "run-1", tmp_path)
    learners = {"LoRA 1": ("run-1",), "LoRA 2": ("run-2",), BARE: ()}
    named = learned_people(learners, [dataset])
    assert set(named) == {"pre_op", "LoRA 2", BARE}, "the named dataset stands for what it recorded"
    assert named["LoRA 2"] is named[BARE] is None
    found = learned_people(learners, [], [dataset])
    assert len(found["LoRA 1"]) == len(named["pre_op"]) and found["LoRA 2"] is None


def test_a_test_set_whose_people_chose_the_lora_of_a_models_images_is_told_of(
    model, tmp_path, command, analyzer
):
    folder = tmp_path / "private" / "pre_op"
    dataset = phantom_dataset(tmp_path / "photos", "pre_op", folder, analyzer, n=12, seed=5)
    pixels = [row.sha256 for row in dataset_rows(dataset, "holdout")]
    remember_validation(dataset, "run-1", tmp_path, pixels, CHOSEN_BY)
    row = {"run": "run-1", "lora": LORAS["pre_op"], "file": str(tmp_path / "clp"), "part": CHOSEN_BY}
    append_jsonl(dataset / "trained.jsonl", row)
    write_phantoms(tmp_path / "others", "scar", 3, 12)
    test = ["--test", f"new={dataset}", "--test", f"new.negative={tmp_path / 'others'}"]
    done = command("downstream", "evaluate", model, "--phantom", *test, "--out", tmp_path / "judged")
    assert done.returncode == 0, done.stderr
    number = 1 + sorted(LORAS.values()).index(LORAS["pre_op"])
    said = f"LoRA {number} of its images was chosen by an early stop on people of the test set"
    assert said in done.stdout and said in done.stderr
    (task,) = read_json(tmp_path / "judged" / "downstream.json")["tasks"].values()
    assert task["test"]["chosen"].startswith(said) and str(tmp_path) not in task["test"]["chosen"]


def test_a_classifier_that_learned_from_a_dataset_goes_with_a_consent(tmp_path, command, analyzer):
    folder = tmp_path / "private" / "pre_op"
    dataset = phantom_dataset(tmp_path / "photos", "pre_op", folder, analyzer, n=12, seed=5)
    write_phantoms(tmp_path / "post_op", "scar", 2, 12)
    write_phantoms(tmp_path / "others", "scar", 3, 12)
    model, figures = tmp_path / "models" / "real", tmp_path / "judged"
    done = command(*TRAIN, "--positive", dataset, "--negative", tmp_path / "post_op", "--out", model)
    assert done.returncode == 0, done.stderr
    test = ["--test", f"new={dataset}", "--test", f"new.negative={tmp_path / 'others'}"]
    done = command("downstream", "evaluate", model, "--phantom", *test, "--out", figures)
    assert done.returncode == 0, done.stderr
    fingerprint = read_json(model / "model.json")["fingerprint"]
    assert trained_photographs(dataset)[fingerprint] == training_sources(read_roles(dataset))
    document = read_json(figures / "downstream.json")
    assert training_names(document) == [fingerprint]
    leak = document["tasks"]["pre_post"]["test"]["leak"]
    assert f"photographs of {BARE}, so" in leak, "the dataset itself tells whom else it learned from"
    assert (model / LEARNED).is_file()
    done = command("dataset", "purge", dataset, "--yes")
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert str(model) in said and str(figures) in said
    done = command("dataset", "withdraw", model, figures, "--yes")
    assert done.returncode == 0, done.stderr
    assert not [path for folder in (model, figures) for path in folder.rglob("seed-*")]
    assert (
        not [*model.rglob("model.json"), *model.rglob(LEARNED)] and not (figures / "downstream.json").exists()
    )
    refuse_used_folder(model)  # it may be trained again in its place

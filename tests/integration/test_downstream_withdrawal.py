"""Classifiers that learned from images of a LoRA: they know it, whom it learned from, and its withdrawal."""

import json

import pytest
from downstream_phantoms import as_generated, write_phantoms

from diffusioncleft.diffusioncleft_core.dataset.withdrawn import Withdrawal
from diffusioncleft.diffusioncleft_core.downstream.document import classifier_loras
from diffusioncleft.diffusioncleft_core.downstream.held_out import LEARNED, learned_people
from diffusioncleft.diffusioncleft_core.files import read_json, write_json
from diffusioncleft.diffusioncleft_core.run.holdings import CLASSIFIERS, Search
from diffusioncleft.diffusioncleft_core.run.withdrawal import erase_held

LORAS = {"pre_op": "ab" * 32, "post_op": "cd" * 32}


@pytest.fixture
def model(tmp_path, command):
    """A classifier of two sets, each drawn by a LoRA of its own."""
    for seed, (name, finding) in enumerate((("pre_op", "cleft"), ("post_op", "scar"))):
        folder = tmp_path / "generated" / name
        as_generated(write_phantoms(folder, finding, seed, 8), name)
        record = {"lora": {"sha256": LORAS[name], "strength": 1.0}}
        write_json(folder / "generation.json", record)
    sets = ["--positive", "generated/pre_op", "--negative", "generated/post_op"]
    words = ["downstream", "train", "--task", "pre_post", "--phantom", "--seeds", 1, "--model", "probe"]
    done = command(*words, *sets, "--out", "models/pre_post")
    assert done.returncode == 0, done.stderr
    return tmp_path / "models" / "pre_post"


def test_a_model_knows_the_loras_of_its_images_and_goes_with_one_that_is_withdrawn(model):
    document = read_json(model / "model.json")
    assert document["loras"] == [[name] for name in sorted(LORAS.values())]
    assert classifier_loras(document) == sorted(LORAS.values())
    evidence = {"schema": 1, "tasks": {"pre_post": {"model": document}}}
    (model.parent / "judged").mkdir()
    (model.parent / "judged" / "downstream.json").write_text(json.dumps(evidence))
    (model / "notes.txt").write_text("not ours")
    mine = Withdrawal("run-1", (LORAS["pre_op"],), "2026-01-01", "somebody")
    held = Search([mine], [model.parent]).held()
    assert {item.kind for item in held} == {CLASSIFIERS}
    assert sorted(item.place.name for item in held) == ["downstream.json", "model.json"]
    assert not Search([Withdrawal("run-2", ("ef" * 32,), "2026-01-01", "somebody")], [model.parent]).held()
    erase_held(held)
    assert [path.name for path in model.parent.rglob("*") if path.is_file()] == ["notes.txt"]


def test_where_no_dataset_knows_a_lora_it_is_not_known_whom_it_learned_from():
    names = [(sha256,) for sha256 in LORAS.values()]
    assert list(learned_people(names, []).values()) == [None, None]
    assert learned_people([], []) == {LEARNED: None}

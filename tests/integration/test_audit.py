"""The audit's command on a LoRA that knows nothing, and what it leaves behind."""

import json
import os

import pytest
from phantom_datasets import phantom_dataset

from diffusioncleft.cli.main import main
from diffusioncleft.diffusioncleft_core.flux.lora import attach_lora, lora_state
from diffusioncleft.diffusioncleft_core.flux.lora_file import save_kohya
from diffusioncleft.diffusioncleft_core.flux.source import phantom_source
from diffusioncleft.diffusioncleft_core.flux.transformer import load_transformer


@pytest.fixture(scope="module")
def trained(tmp_path_factory, analyzer):
    """A dataset of twelve phantoms and a LoRA that changes nothing."""
    import torch

    root = tmp_path_factory.mktemp("audited")
    dataset = phantom_dataset(
        root / "photographs", "pre_op", root / "private" / "pre_op", analyzer, n=12, seed=3
    )
    transformer = load_transformer(phantom_source(), torch.device("cpu"), torch.float32)
    attach_lora(transformer, rank=2, alpha=2.0)
    path = root / "lora.safetensors"
    save_kohya(path, lora_state(transformer), 2.0, {})
    return dataset, path


def test_a_lora_that_changes_nothing_gives_nothing_away_and_the_findings_name_nobody(
    trained, tmp_path, capsys
):
    dataset, lora = trained
    out, work = tmp_path / "audit.json", tmp_path / "work"
    words = [
        "audit", dataset, "--lora", lora, "--phantom", "--seeds", 2, "--captions", 3, "--size", 64,
        "--steps", 1, "--work", work, "--out", out,
    ]  # fmt: skip
    assert main(list(map(str, words))) == 0
    found = json.loads(out.read_text("utf-8"))
    against = found["membership"]["against_base"]
    assert against["value"] == pytest.approx(0.5), "its loss is the base model's, to the bit"
    assert found["extraction"]["found"]["learned"]["n"] == 3, "of phantoms small counts are told"
    assert (found["condition"], found["threshold"]["source"]) == ("pre_op", "pack")
    captions = [
        json.loads(line)["caption"] for line in (dataset / "manifest.jsonl").read_text("utf-8").splitlines()
    ]
    assert not any(word in out.read_text("utf-8") for word in (*captions, str(tmp_path), "photo-0"))
    assert os.name != "posix" or work.stat().st_mode & 0o077 == 0
    said = capsys.readouterr().out
    assert "not shown, and not ruled out" in said and "say nothing about photographs" in said


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (("--parts", "rumours"), "there is no part"),
        (("--lora", "missing.safetensors"), "there is no file"),
        (("--seeds", "1"), "whole number"),
    ],
)
def test_a_mistake_is_one_sentence_before_any_work(trained, refused, tmp_path, wrong, sentence):
    dataset, lora = trained
    given = {"--lora": lora, "--work": tmp_path / "work", "--out": tmp_path / "out.json", wrong[0]: wrong[1]}
    words = [word for pair in given.items() for word in pair]
    assert sentence in refused("audit", dataset, "--phantom", *words)
    assert not (tmp_path / "work").exists()

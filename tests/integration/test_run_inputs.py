"""A stage runs again when, and only when, something it depends on has another content."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffusioncleft.cli.run import start_trainer
from diffusioncleft.diffusioncleft_core.dataset.corrections import allow_edits, edit_captions
from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.faces.packs import PHANTOM_FOLDER
from diffusioncleft.diffusioncleft_core.files import read_json, read_jsonl
from diffusioncleft.diffusioncleft_core.flux.source import FluxSource, phantom_source
from diffusioncleft.diffusioncleft_core.phantom.photographs import write_healthy, write_photographs
from diffusioncleft.diffusioncleft_core.run.pipeline import run_pipeline
from diffusioncleft.diffusioncleft_core.run.settings import Photographs, RunSettings

SIDE = 128
DRAWN_BY_BASE = {"regularization-pre_op", "zero-shot"}
AFTER_TRAINING = {
    "training-pre_op", "generation-pre_op", "oracle-pre_op", "filters", "sheets-pre_op", "measurements",
}  # fmt: skip
EVERY = {*DRAWN_BY_BASE, *AFTER_TRAINING}


def run(settings: RunSettings) -> tuple[set[str], list[str]]:
    """Run, and return the stages that were not skipped and the lines that were said."""
    said: list[str] = []
    run_pipeline(settings, start_trainer, say=said.append)
    return {line.split(":")[0] for line in said if line.endswith(" s")}, said


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> RunSettings:
    """A small finished run with a base model and a face pack of its own."""
    root = tmp_path_factory.mktemp("finished")
    photographs = root / "photos"
    table = write_photographs(photographs, 6, "cleft", 3, size=SIDE, subjects=6)
    write_healthy(root / "healthy", 2, 5, size=SIDE)
    shutil.copytree(phantom_source().folder, root / "base")
    shutil.copytree(PHANTOM_FOLDER, root / "pack")
    settings = of(
        root,
        RunSettings(
            out=root / "run",
            source=FluxSource(),
            base={},
            device=torch.device("cpu"),
            dtype=torch.float32,
            faces="",
            phantom=True,
            photographs={"pre_op": Photographs(photographs, table)},
            preset="paper",
            n=2,
            width=SIDE,
            height=SIDE,
            regularization_images=1,
            cell_images=1,
            metrics=("lpips",),
            training={"max_train_steps": 1, "optimizer_type": "AdamW"},
        ),
    )
    done, _ = run(settings)
    assert done >= EVERY
    return settings


def of(root: Path, settings: RunSettings) -> RunSettings:
    return replace(
        settings,
        out=root / "run",
        source=FluxSource(folder=root / "base"),
        base={"pretrained_model_name_or_path": root / "base", "cpu": True},
        faces=str(root / "pack"),
        photographs={"pre_op": Photographs(root / "photos", root / "photos" / "metadata.csv")},
        control=root / "healthy",
    )


@pytest.fixture
def copy(finished, tmp_path) -> tuple[Path, RunSettings]:
    shutil.copytree(finished.out.parent, tmp_path / "copy")
    return tmp_path / "copy", of(tmp_path / "copy", finished)


def change_tensor(file: Path) -> None:
    """Another value in one tensor: same size, same name, same time of modification."""
    before = file.stat()
    tensors = load_file(file)
    name = max(tensors, key=lambda key: tensors[key].numel())
    tensors[name].flatten()[0] += 0.5
    save_file(tensors, file, metadata={"format": "pt"})
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def change_json(file: Path, **values: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text("utf-8")), **values}))


def test_the_same_run_elsewhere_skips_every_stage(copy):
    _, settings = copy
    done, said = run(settings)
    assert done == set()
    assert not [line for line in said if line.startswith("--n")]


@pytest.mark.parametrize(
    ("part", "word"),
    [
        ("transformer/diffusion_pytorch_model.safetensors", "base model's transformer"),
        ("vae/diffusion_pytorch_model.safetensors", "base model's VAE"),
        ("text_encoder/model.safetensors", "base model's CLIP"),
        ("text_encoder_2/model.safetensors", "base model's T5"),
        ("tokenizer/tokenizer_config.json", "base model's CLIP"),
        ("tokenizer_2/tokenizer_config.json", "base model's T5"),
    ],
)
def test_another_part_of_the_base_model_repeats_what_was_made_with_it(copy, part, word):
    root, settings = copy
    if part.endswith(".json"):
        change_json(root / "base" / part, note="another")
    else:
        change_tensor(root / "base" / part)
    with pytest.raises(UserError, match=f"{word} changed"):
        run(settings)
    done, _ = run(replace(settings, redo=True))
    assert done == EVERY
    record = read_json(root / "run" / "generated" / "pre_op" / "generation.json")
    assert record["base"]["sha256"] == settings.source.fingerprint()
    assert run(settings)[0] == set()


def test_another_scheduler_configuration_changes_nothing_because_nothing_reads_it(copy):
    root, settings = copy
    change_json(root / "base" / "scheduler" / "scheduler_config.json", shift=2.0)
    assert run(settings)[0] == set()


def test_an_adapter_that_is_added_later_trains_again_and_another_one_too(copy):
    root, settings = copy
    adapter = root / "adapter.safetensors"
    shutil.copy(root / "run" / "loras" / "pre_op" / "clp.safetensors", adapter)
    with_adapter = replace(settings, training={**settings.training, "training_adapter": adapter})
    with pytest.raises(UserError, match="training adapter changed"):
        run(with_adapter)
    assert run(replace(with_adapter, redo=True))[0] == AFTER_TRAINING
    assert run(with_adapter)[0] == set()
    change_tensor(adapter)
    with pytest.raises(UserError, match="training adapter changed"):
        run(with_adapter)
    with pytest.raises(UserError, match="there is no file"):
        run(replace(settings, training={"training_adapter": root / "nowhere"}))


def test_another_face_pack_under_the_same_name_looks_at_every_face_again(copy):
    root, settings = copy
    change_json(root / "pack" / "pack.json", det_thresh=0.31)
    assert run(settings)[0] == {"dataset-pre_op", "filters", "sheets-pre_op", "measurements"}


def test_a_lora_or_a_caption_that_was_changed_by_hand_is_noticed(copy):
    root, settings = copy
    dataset = root / "run" / "private" / "pre_op"
    allow_edits(dataset)
    edit_captions(dataset, {1: "another caption"})
    with pytest.raises(UserError, match="dataset changed"):
        run(settings)
    (root / "run" / "private" / "stages" / "training-pre_op.json").unlink()
    shutil.rmtree(root / "run" / "loras")
    with pytest.raises(UserError, match="LoRA changed"):
        run(settings)


@pytest.fixture
def whole(copy) -> RunSettings:
    return copy[1]


def state_of(settings: RunSettings) -> dict[Path, int]:
    folder = settings.out / "generated" / "pre_op"
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.png")}


def check_report(settings: RunSettings) -> None:
    report = read_json(settings.out / "report.json")
    assert report["generation"]["pre_op"]["images"] == settings.n
    filtered = report["filters"]["pre_op"]
    assert filtered["accepted"] + filtered["rejected"] == settings.n
    assert report["sets"]["pre_op"]["lpips"]["paper"]["raw"]["n_images"] == settings.n
    assert report["oracle"]["pre_op"]["trigger_obedience"]["n"] == settings.n
    rows = read_jsonl(settings.out / "generated" / "pre_op" / "manifest.jsonl")
    assert [row["index"] for row in rows] == list(range(settings.n))
    assert all("accepted" in row["verdicts"] for row in rows)
    page = (settings.out / "report.html").read_text("utf-8")
    assert page.count("<html") == 1


def test_another_number_of_images_draws_the_new_ones_alone_and_reports_on_that_many(whole):
    followers = {"plan-pre_op", "generation-pre_op", "oracle-pre_op", "filters", "measurements"}
    first = state_of(whole)
    larger = replace(whole, n=5)
    done, said = run(larger)
    assert said[0].startswith("--n 5, before 2: the images that are missing are drawn")
    assert followers <= done <= {*followers, "sheets-pre_op"}
    check_report(larger)
    drawn = state_of(larger)
    assert len(drawn) == 5
    assert {name: drawn.get(name) for name in first} == first

    smaller = replace(whole, n=3)
    done, said = run(smaller)
    assert said[0].startswith("--n 3, before 5: the first 3 images count; the others stay in their folder")
    assert followers <= done <= {*followers, "sheets-pre_op"}
    check_report(smaller)
    assert state_of(smaller) == drawn

    done, said = run(smaller)
    assert done == set()
    assert not said[0].startswith("--n")
    check_report(smaller)

    run(larger)
    check_report(larger)
    assert state_of(larger) == drawn


def test_another_number_of_images_with_refills_counts_those_of_its_own_plan(whole):
    """A threshold that nearly every face reaches rejects, and refills, again and again."""
    strict = replace(whole, threshold=0.05, refill=1, n=3)
    run(strict)
    smaller = replace(strict, n=2)
    run(smaller)
    rows = read_jsonl(whole.out / "generated" / "pre_op" / "manifest.jsonl")
    assert {row["index"] % 1_000_000 for row in rows} == {0, 1}
    assert any(row["attempt"] for row in rows)
    report = read_json(whole.out / "report.json")
    assert report["oracle"]["pre_op"]["trigger_obedience"]["n"] == 2
    assert report["filters"]["pre_op"]["n"] == 2
    assert run(smaller)[0] == set()

"""A stage runs again when, and only when, something it depends on has another content."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from recipes import changed
from safetensors.torch import load_file, save_file
from tiny_runs import train_here

from diffusioncleft.diffusioncleft_core.dataset.corrections import (
    allow_edits,
    edit_captions,
    restore_captions,
)
from diffusioncleft.diffusioncleft_core.dataset.settings import Photographs
from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.faces.analyzer import PHANTOM_FOLDER
from diffusioncleft.diffusioncleft_core.files import read_json, read_jsonl
from diffusioncleft.diffusioncleft_core.flux.source import FluxSource, phantom_source
from diffusioncleft.diffusioncleft_core.generation.settings import Sampling
from diffusioncleft.diffusioncleft_core.phantom.photographs import write_healthy, write_photographs
from diffusioncleft.diffusioncleft_core.recipe.presets import named_recipe
from diffusioncleft.diffusioncleft_core.run.pipeline import plan_run, run_pipeline
from diffusioncleft.diffusioncleft_core.run.settings import RunSettings
from diffusioncleft.diffusioncleft_core.run.stages import State

pytestmark = pytest.mark.usefixtures("one_plot_of_a_name")

SIDE = 128
DRAWN_BY_BASE = {"regularization-pre_op", "zero-shot"}
AFTER_TRAINING = {
    "training-pre_op", "generation-pre_op", "oracle-pre_op", "filters", "sheets-pre_op", "measurements",
}  # fmt: skip
EVERY = {*DRAWN_BY_BASE, *AFTER_TRAINING}


def run(settings: RunSettings) -> tuple[set[str], list[str]]:
    """Run, and return the stages that were not skipped and the lines that were said."""
    said: list[str] = []
    run_pipeline(settings, train_here, say=said.append)
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
            sampling=Sampling(torch.device("cpu"), torch.float32, width=SIDE, height=SIDE),
            faces="",
            phantom=True,
            photographs={"pre_op": Photographs(photographs, table)},
            preset="paper",
            n=2,
            regularization_images=1,
            cell_images=1,
            metrics=("lpips",),
            recipe=changed(
                named_recipe("paper", phantom=True),
                phantom=False,
                max_train_steps=1,
                optimizer_type="AdamW",
                resolution=(SIDE,),
                sample_steps=1,
            ),
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
        recipe=changed(settings.recipe, pretrained_model_name_or_path=root / "base"),
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
    assert run(settings)[0] == set()
    assert {row.state for row in plan_run(settings)} == {State.DONE}


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
def test_another_part_of_the_base_model_asks_for_all_that_was_made_with_it(copy, part, word):
    root, settings = copy
    if part.endswith(".json"):
        change_json(root / "base" / part, note="another")
    else:
        change_tensor(root / "base" / part)
    rows = {row.name: row for row in plan_run(settings)}
    assert {name for name, row in rows.items() if row.state is not State.DONE} >= EVERY
    assert f"{word} changed" in rows["regularization-pre_op"].why
    without = plan_run(replace(settings, regularization_images=0))
    assert f"{word} changed" in next(row.why for row in without if row.name == "training-pre_op")


@pytest.mark.long
def test_another_base_model_repeats_what_was_made_with_it_and_keeps_the_earlier(copy):
    root, settings = copy
    change_tensor(root / "base" / "transformer" / "diffusion_pytorch_model.safetensors")
    assert run(settings)[0] == EVERY
    assert list((root / "run" / "superseded" / "training-pre_op-1").rglob("clp.safetensors"))
    record = read_json(root / "run" / "generated" / "pre_op" / "generation.json")
    assert record["base"]["sha256"] == settings.source.fingerprint()
    assert run(settings)[0] == set()


def test_another_scheduler_configuration_changes_nothing_because_nothing_reads_it(copy):
    root, settings = copy
    change_json(root / "base" / "scheduler" / "scheduler_config.json", shift=2.0)
    assert run(settings)[0] == set()


@pytest.mark.long
def test_an_adapter_that_is_added_later_trains_again_and_another_one_too(copy):
    root, settings = copy
    adapter = root / "adapter.safetensors"
    shutil.copy(root / "run" / "loras" / "pre_op" / "clp.safetensors", adapter)
    with_adapter = replace(settings, recipe=changed(settings.recipe, training_adapter=adapter))
    assert run(with_adapter)[0] == AFTER_TRAINING
    assert run(with_adapter)[0] == set()
    change_tensor(adapter)
    states = {row.name: (row.state, row.why) for row in plan_run(with_adapter)}
    assert states["training-pre_op"] == (State.ANEW, "training adapter changed")
    assert states["generation-pre_op"] == (State.FOLLOWS, "after training-pre_op")
    with pytest.raises(UserError, match="there is no file"):
        run(replace(settings, recipe=changed(settings.recipe, training_adapter=root / "nowhere")))


def test_another_face_pack_under_the_same_name_looks_at_every_face_again(copy):
    root, settings = copy
    change_json(root / "pack" / "pack.json", det_thresh=0.31)
    assert run(settings)[0] == {"dataset-pre_op", "filters", "sheets-pre_op", "measurements"}


def test_a_lora_or_a_caption_that_was_changed_by_hand_is_noticed(copy):
    root, settings = copy
    dataset = root / "run" / "private" / "pre_op"
    allow_edits(dataset)
    edit_captions(dataset, {1: "another caption"})
    assert {row.name: row.why for row in plan_run(settings)}[
        "training-pre_op"
    ] == "training photographs changed"
    change_tensor(root / "run" / "loras" / "pre_op" / "clp.safetensors")
    restore_captions(dataset)
    states = {row.name: (row.state, row.why) for row in plan_run(settings)}
    assert states["training-pre_op"][0] == State.DONE
    assert states["generation-pre_op"] == (State.ANEW, "LoRA changed")


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


@pytest.mark.long
def test_another_number_of_images_draws_the_new_ones_alone_and_reports_on_that_many(whole):
    followers = {"plan-pre_op", "generation-pre_op", "oracle-pre_op", "filters", "measurements"}
    first = state_of(whole)
    larger = replace(whole, n=5)
    done, said = run(larger)
    assert "generation-pre_op … brought up to date (prompts and seeds, number of images changed)" in said
    assert followers <= done <= {*followers, "sheets-pre_op"}
    check_report(larger)
    drawn = state_of(larger)
    assert len(drawn) == 5
    assert {name: drawn.get(name) for name in first} == first

    smaller = replace(whole, n=3)
    done, said = run(smaller)
    assert not (whole.out / "superseded").exists()
    assert followers <= done <= {*followers, "sheets-pre_op"}
    check_report(smaller)
    assert state_of(smaller) == drawn

    assert run(smaller)[0] == set()
    check_report(smaller)

    run(larger)
    check_report(larger)
    assert state_of(larger) == drawn


@pytest.mark.long
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


def states_of(settings: RunSettings) -> dict[str, State]:
    """What the plan has to do, stages that are done left out."""
    return {row.name: row.state for row in plan_run(settings) if row.state != State.DONE}


def test_the_plan_says_what_a_change_redoes_and_writes_nothing(whole):
    before = {path: path.stat().st_mtime_ns for path in whole.out.rglob("*")}
    follows = dict.fromkeys({*AFTER_TRAINING} - {"training-pre_op"}, State.FOLLOWS)
    for other in ({"threshold": 0.5}, {"limits": {"eye_detail": 0.3}}):
        assert states_of(replace(whole, **other)) == {
            "filters": State.UPDATE, "sheets-pre_op": State.FOLLOWS, "measurements": State.FOLLOWS,
        }  # fmt: skip
    assert states_of(replace(whole, limits={"eye_detail": 0.45})) == {}  # the default, said
    assert states_of(replace(whole, metrics=())) == {"measurements": State.UPDATE}
    assert states_of(replace(whole, strength=1.2)) == {
        **follows, "generation-pre_op": State.ANEW, "oracle-pre_op": State.FOLLOWS,
    }  # fmt: skip
    assert states_of(replace(whole, cell_images=2)) == {"oracle-pre_op": State.UPDATE}
    seeded = states_of(replace(whole, seed=9))
    assert seeded["dataset-pre_op"] == State.UPDATE
    assert seeded["training-pre_op"] == State.FOLLOWS
    assert {seeded[name] for name in ("plan-pre_op", "regularization-pre_op", "zero-shot")} == {State.ANEW}
    redone = states_of(replace(whole, redo=True))
    assert redone["training-pre_op"] == redone["generation-pre_op"] == State.ANEW
    assert redone["dataset-pre_op"] == State.UPDATE
    assert {path: path.stat().st_mtime_ns for path in whole.out.rglob("*")} == before


@pytest.mark.long
def test_more_photographs_train_anew_and_keep_the_earlier_lora_and_images(whole):
    photographs = whole.photographs["pre_op"]
    root = photographs.folder.parent
    table = write_photographs(root / "more", 8, "cleft", 3, size=SIDE, subjects=8)
    lora = whole.out / "loras" / "pre_op" / "clp.safetensors"
    first, images = lora.read_bytes(), {path.name for path in state_of(whole)}
    more = replace(whole, photographs={"pre_op": Photographs(root / "more", table)})
    done, said = run(more)
    assert done == {"dataset-pre_op", *AFTER_TRAINING}
    assert "training-pre_op … made anew (training photographs" in " ".join(said)
    aside = whole.out / "superseded"
    assert (aside / "training-pre_op-1" / "pre_op" / "clp.safetensors").read_bytes() == first
    assert {path.name for path in (aside / "generation-pre_op-1").rglob("*.png")} == images
    assert lora.read_bytes() != first
    assert run(more)[0] == set()
    run(replace(more, redo=True))
    assert (aside / "training-pre_op-2" / "pre_op" / "clp.safetensors").is_file()


def test_a_run_folder_of_an_earlier_version_keeps_its_lora_and_images(whole):
    """Its records had the inputs of growing stages in one digest: those alone are brought up to date."""
    for file in (whole.out / "private" / "stages").glob("*.json"):
        record = read_json(file)
        kept = (
            {}
            if file.stem.split("-")[0] in ("dataset", "filters", "sheets", "measurements")
            else record["inputs"]
        )
        for word in ("prompts and seeds", "number of images", "cells", "generated images"):
            kept.pop(word, None)
        file.write_text(json.dumps({**record, "inputs": kept, "soft": "ab" * 32}))
    lora = whole.out / "loras" / "pre_op" / "clp.safetensors"
    before = lora.stat().st_mtime_ns, state_of(whole)
    done, _ = run(whole)
    assert "training-pre_op" not in done
    assert (lora.stat().st_mtime_ns, state_of(whole)) == before
    check_report(whole)
    assert not (whole.out / "superseded").exists()
    assert run(whole)[0] == set()

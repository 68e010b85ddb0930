"""A held-out photograph by which an early stop was decided is withdrawn: what trainer and commands do."""

import csv
import json
from pathlib import Path

import pytest
from commands import offline_environment, run_command
from recipes import changed, tiny_recipe
from tiny_flux import build_tiny_flux
from trainings import metadata_of, trained

from diffusioncleft.cli import main as cli
from diffusioncleft.diffusioncleft_core.conditions.loader import load_vocabulary
from diffusioncleft.diffusioncleft_core.dataset.build import build_dataset
from diffusioncleft.diffusioncleft_core.dataset.settings import BuildSettings, Photographs, read_roles
from diffusioncleft.diffusioncleft_core.dataset.trained import trained_photographs, training_sources
from diffusioncleft.diffusioncleft_core.dataset.withdrawn import (
    CHOSEN_BY,
    MARK,
    MEASURED_ON,
    RUN_KEY,
    TRAINED_ON,
    read_mark,
    refuse_withdrawn,
)
from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.files import read_jsonl, sha256_file
from diffusioncleft.diffusioncleft_core.phantom.photographs import write_healthy, write_photographs
from diffusioncleft.diffusioncleft_core.run.withdrawal import note_change


def built(folder, photos, holdout, analyzer):
    """Build a dataset of phantoms from their table; what the build said."""
    told = []
    build_dataset(
        Photographs(photos, photos / "metadata.csv"),
        load_vocabulary().condition("pre_op"),
        folder,
        analyzer,
        settings=BuildSettings(phantom=True, holdout=holdout),
        on_change=lambda change: told.extend(note_change(folder, change)),
    )
    return told


@pytest.fixture
def clinic(tmp_path, analyzer, monkeypatch):
    """A base model, and a dataset of eight people, two of them held out; a function that builds it again."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    build_tiny_flux(tmp_path / "flux")
    write_photographs(tmp_path / "photos", 8, "cleft", 2, subjects=8, size=64)

    def build():
        return built(tmp_path / "dataset", tmp_path / "photos", 0.3, analyzer)

    build()
    return tmp_path, build


@pytest.fixture
def settings(clinic):
    folder, _ = clinic
    return tiny_recipe(
        folder,
        folder / "out",
        train_data_dir=folder / "dataset",
        validate_every_n_steps=1,
        early_stop=3,
        max_train_steps=3,
        learning_rate=1e-3,
        optimizer_type="AdamW",
    )


def withdraw_one(folder, role, dataset=None):
    """The table says no of one photograph with this role."""
    roles, table = read_roles(dataset or folder / "dataset"), folder / "photos" / "metadata.csv"
    with table.open(newline="", encoding="utf-8") as handle:
        rows = list(csv.DictReader(handle))
    first = next(row for row in rows if roles[sha256_file(folder / "photos" / row["file"])] == role)
    first["consent"] = "no"
    with table.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def validated(folder):
    return [row for row in read_jsonl(folder / "dataset" / "trained.jsonl") if "validated_on" in row]


def test_the_lora_is_named_as_chosen_is_not_refused_and_is_erased_on_request_alone(clinic, settings, capsys):
    folder, build = clinic
    path, events = trained(settings)
    assert not any("is recorded nowhere" in event.get("message", "") for event in events)
    run = metadata_of(path)[RUN_KEY]
    (row,) = validated(folder)
    held_out = {source for source, role in read_roles(folder / "dataset").items() if role == "holdout"}
    assert (row["run"], row["part"], set(row["validated_on"])) == (run, CHOSEN_BY, held_out)
    assert trained_photographs(folder / "dataset") == {run: training_sources(read_roles(folder / "dataset"))}

    withdraw_one(folder, "holdout")
    told = build()
    assert len(told) == 2 and "had a part in choosing the step" in told[1] and str(path) in told[1]
    assert [item.run for item in read_mark(path.parent, CHOSEN_BY)] == [run]
    refuse_withdrawn(path)

    # It isn't gone on from, because another hold-out may choose another step; trained anew it knows the rest.
    with pytest.raises(UserError, match="hold-out"):
        trained(changed(settings, max_train_steps=4))
    anew, _ = trained(changed(settings, output_dir=folder / "anew"))
    assert metadata_of(anew)[RUN_KEY] != run
    assert set(validated(folder)[-1]["validated_on"]) < held_out
    assert not (anew.parent / MARK).exists()

    withdraw = ["dataset", "withdraw", str(folder / "dataset")]
    assert cli.main([*withdraw, "--yes"]) == 0
    told = capsys.readouterr().out
    assert "chosen by photographs whose consent was withdrawn" in told and "--chosen" in told
    assert path.is_file()
    assert cli.main([*withdraw, "--yes", "--chosen"]) == 0
    assert not path.exists() and not (path.parent / MARK).exists() and not (path.parent / "state").exists()
    assert anew.is_file()


def test_a_validation_without_early_stop_is_recorded_as_measured_and_marks_nothing(clinic, settings):
    folder, build = clinic
    path, _ = trained(changed(settings, early_stop=0, max_validation_steps=1))
    (row,) = validated(folder)
    assert row["part"] == MEASURED_ON and len(row["validated_on"]) == 1
    withdraw_one(folder, "train")
    told = "\n".join(build())
    assert "withdrawn is what learned" in told and "measured" not in told
    assert json.loads((path.parent / MARK).read_text("utf-8"))["withdrawn"][0].keys().isdisjoint({"part"})


def test_of_the_loras_of_an_early_stop_the_one_of_the_best_step_alone_is_recorded_as_chosen(clinic, settings):
    folder, build = clinic
    every = {"max_train_steps": 6, "validate_every_n_steps": 2, "save_every_n_steps": 1, "early_stop": 9}
    path, _ = trained(changed(settings, **every))
    rows = read_jsonl(folder / "dataset" / "trained.jsonl")
    parts = {Path(row["file"]).name: row["part"] for row in rows if "lora" in row}
    measured = {f"{path.stem}-step00000{step}.safetensors": MEASURED_ON for step in (2, 4)}
    learned = {f"{path.stem}-step00000{step}.safetensors": TRAINED_ON for step in (1, 3, 5)}
    assert parts == {path.name: CHOSEN_BY, **measured, **learned}
    assert [row["part"] for row in validated(folder)] == [CHOSEN_BY, MEASURED_ON]
    withdraw_one(folder, "holdout")
    _, chosen, losses = build()
    assert "choosing the step" in chosen and f"LoRA: {path}" in chosen and "step0" not in chosen
    assert "measured on them" in losses and f"2 LoRA: {path.parent}" in losses
    (mark,) = read_mark(path.parent, CHOSEN_BY)
    assert mark.loras == (sha256_file(path),)


def test_photographs_of_another_dataset_know_what_they_chose(clinic, settings, analyzer):
    folder, _ = clinic
    write_photographs(folder / "others", 4, "cleft", 5, subjects=4, size=64)
    built(folder / "second", folder / "others", 0.5, analyzer)
    path, _ = trained(changed(settings, validation_data_dir=folder / "second"))
    rows = read_jsonl(folder / "second" / "trained.jsonl")
    assert [row.get("part") for row in rows if "folder" in row] == [CHOSEN_BY]
    assert [row["lora"] for row in rows if "lora" in row] == [sha256_file(path)]
    assert validated(folder) == [] and trained_photographs(folder / "second") == {}


@pytest.mark.long
def test_a_run_with_an_early_stop_trains_anew_without_the_photograph_and_says_why(tmp_path):
    env = {**offline_environment(), "XDG_STATE_HOME": str(tmp_path / "state")}
    write_photographs(tmp_path / "photos", 8, "cleft", 3, subjects=8, size=64)
    write_healthy(tmp_path / "healthy", 2, 5, size=64)
    recipe = {
        "data": {"resolution": [64]},
        "optimizer": {"name": "AdamW", "steps": 2},
        "validation": {"every_n_steps": 1, "early_stop": 2},
    }
    (tmp_path / "recipe.json").write_text(json.dumps(recipe), "utf-8")
    words = ["run", "--phantom", "--photos-pre", tmp_path / "photos", "--out", tmp_path / "run", "--n", 1]
    words += ["--cell-images", 1, "--holdout", 0.3, "--metrics", "none", "--device", "cpu", "--seed", 3]
    words += ["--recipe", tmp_path / "recipe.json", "--control", tmp_path / "healthy"]
    before = run_command(*words, env=env)
    assert before.returncode == 0, before.stderr
    lora = tmp_path / "run" / "loras" / "pre_op" / "clp.safetensors"
    first = sha256_file(lora)

    withdraw_one(tmp_path, "holdout", tmp_path / "run" / "private" / "pre_op")
    planned = run_command(*words, "--plan", env=env)
    assert "had a part in choosing the step of these LoRAs" in planned.stdout + planned.stderr
    after = run_command(*words, env=env)
    assert after.returncode == 0, after.stderr
    assert "had a part in choosing the step of these LoRAs" in after.stderr
    assert "withdrawn is what learned" not in after.stderr
    aside = tmp_path / "run" / "superseded" / "training-pre_op-1" / "pre_op"
    assert sha256_file(aside / lora.name) == first
    (mark,) = read_mark(aside, CHOSEN_BY)
    assert mark.run == metadata_of(aside / lora.name)[RUN_KEY] != metadata_of(lora)[RUN_KEY]
    assert not (lora.parent / MARK).exists()
    again = run_command(*words, env=env)
    assert "training-pre_op: done before" in again.stderr

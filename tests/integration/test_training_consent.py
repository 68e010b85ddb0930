"""Consent before training: built datasets alone have it, and a machine's owner can insist on it."""

from pathlib import Path

import pytest
from commands import run_command
from phantom_datasets import first_consent, phantom_dataset
from safetensors import safe_open
from trainer_settings import trainer_settings
from trainings import trained

from diffusioncleft.diffusioncleft_core.conditions.loader import load_vocabulary
from diffusioncleft.diffusioncleft_core.dataset.build import build_dataset
from diffusioncleft.diffusioncleft_core.dataset.consent import (
    REQUIRED,
    check_consent,
    consent_recorded,
    consent_required,
)
from diffusioncleft.diffusioncleft_core.dataset.folder import create_dataset_folder
from diffusioncleft.diffusioncleft_core.dataset.settings import BuildSettings, Photographs
from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.imageset.manifest import ImageRow, write_image_set
from diffusioncleft.diffusioncleft_core.phantom.photographs import write_photographs
from diffusioncleft.trainer import launch


@pytest.fixture(scope="module")
def folders(tmp_path_factory, analyzer):
    """A plain folder with captions, and a built dataset of the same size."""
    root = tmp_path_factory.mktemp("consent")
    plain = root / "Jane Roe"
    write_photographs(plain, 3, "cleft", 5, subjects=3)
    for photograph in plain.glob("*.png"):
        photograph.with_suffix(".txt").write_text("[CLP] A girl's whole face with a cleft lip.")
    return plain, phantom_dataset(root / "photos", "pre_op", root / "pre_op", analyzer, n=3, seed=6)


def train(folder, out, env):
    command = ["train", "--phantom", "--train_data_dir", folder]
    command += ["--output_dir", out, "--max_train_steps", 1, "--resolution", 128, "--network_dim", 2]
    command += ["--optimizer_type", "AdamW", "--device", "cpu"]
    return run_command(*command, env=env)


def metadata(out):
    (path,) = out.glob("*.safetensors")
    with safe_open(path, framework="pt") as file:
        return file.metadata()


def test_a_plain_folder_is_trained_on_with_a_warning_that_the_lora_repeats_without_its_name(
    folders, offline_env, tmp_path
):
    plain, _ = folders
    done = train(plain, tmp_path, offline_env)
    assert done.returncode == 0, done.stderr
    warnings = [line for line in done.stderr.splitlines() if line.startswith("warning: nobody's consent")]
    assert len(warnings) == 1
    assert str(plain) in warnings[0]
    found = metadata(tmp_path)
    assert found["consent"] == "not recorded"
    assert not [value for value in found.values() if "Jane Roe" in value]


def test_an_owner_forbids_what_has_no_recorded_consent_and_nothing_is_written(folders, offline_env, tmp_path):
    plain, dataset = folders
    env = {**offline_env, REQUIRED: "1"}
    refused = train(plain, tmp_path / "plain", env)
    assert refused.returncode == 2
    assert REQUIRED in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "plain").exists()
    done = train(dataset, tmp_path / "built", env)
    assert done.returncode == 0, done.stderr
    assert "nobody's consent" not in done.stderr
    assert metadata(tmp_path / "built")["consent"] == "recorded"


def test_the_trainer_itself_refuses_whoever_starts_it(folders, tmp_path, monkeypatch):
    """As ComfyUI's trainer node and `run` start it."""
    plain, dataset = folders
    monkeypatch.setenv(REQUIRED, "yes")
    recipe = trainer_settings(train_data_dir=dataset, reg_data_dir=plain, output_dir=tmp_path / "out")
    with pytest.raises(UserError, match=REQUIRED):
        launch.train(recipe)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("value", "required"),
    [(None, False), ("", False), ("0", False), ("No", False), ("1", True), ("yes", True), ("ture", True)],
)
def test_only_a_clear_no_switches_it_off(monkeypatch, value, required):
    monkeypatch.delenv(REQUIRED, raising=False)
    if value is not None:
        monkeypatch.setenv(REQUIRED, value)
    assert consent_required() is required


def test_a_marker_or_a_manifest_alone_makes_no_dataset(folders, tmp_path):
    plain, dataset = folders
    assert consent_recorded(dataset)
    assert not consent_recorded(plain)
    create_dataset_folder(tmp_path / "marked")
    assert not consent_recorded(tmp_path / "marked")
    write_image_set(tmp_path / "listed", [ImageRow("0.png", role="train", caption="x")])
    assert not consent_recorded(tmp_path / "listed")
    write_image_set(tmp_path / "drawn", [ImageRow("000000_1.png", index=0, role="control", prompt="x")])
    assert consent_recorded(tmp_path / "drawn")
    assert len(check_consent([plain, plain, dataset, tmp_path / "listed"])) == 2


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("text embeddings", "an image changed while the trainer was reading it"),
        ("latents", "built again while its images were read"),
    ],
)
def test_a_consent_that_is_withdrawn_while_images_are_read_stops_the_training(tmp_path, analyzer, what, told):
    photos = tmp_path / "photos"
    dataset = phantom_dataset(photos, "pre_op", tmp_path / "pre_op", analyzer, n=6, seed=2)
    withdrawn = []

    def withdraw(event):
        done = event["event"] == "prepare" and event["what"] == what and event["done"] == event["total"]
        if done and not withdrawn:
            withdrawn.append(event)
            first_consent(photos, "no")
            build_dataset(
                Photographs(photos, photos / "metadata.csv"),
                load_vocabulary().condition("pre_op"),
                dataset,
                analyzer,
                settings=BuildSettings(phantom=True),
            )

    settings = trainer_settings(
        train_data_dir=dataset, output_dir=tmp_path / "out", resolution=(128,), max_train_steps=1
    )
    with pytest.raises(UserError, match=f"{told}.*run the same command again"):
        trained(settings, withdraw)
    assert withdrawn and not list((tmp_path / "out").glob("*.safetensors"))
    assert trained(settings)[0].is_file()


def test_a_dataset_may_be_named_from_where_one_stands(tmp_path, analyzer, monkeypatch):
    phantom_dataset(tmp_path / "photos", "pre_op", tmp_path / "pre_op", analyzer, n=6, seed=2)
    monkeypatch.chdir(tmp_path)
    settings = trainer_settings(
        train_data_dir=Path("pre_op"), output_dir=Path("out"), resolution=(128,), max_train_steps=1
    )
    assert trained(settings)[0].is_file()

"""What TensorBoard and wandb are told of a training: losses, settings, and nothing of a photograph."""

import importlib
import json
from pathlib import Path

import pytest
from noise_pictures import noise_pictures, stop_at_a_checkpoint
from recipes import changed, tiny_recipe
from tiny_flux import build_tiny_flux
from trainings import loss_rows, trained

from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.trainer import trackers
from diffusioncleft.trainer.config import parse_recipe

CAPTION = "[CLP] Jane's whole face with a cleft lip."
BASE = ["--phantom", "--train_data_dir", "photos"]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trackers")
    build_tiny_flux(folder / "flux")
    noise_pictures(folder / "photographs", 5, CAPTION, name="Jane Roe ")
    noise_pictures(folder / "kept", 2, CAPTION, name="Jane Doe ", seed=5)
    (folder / "prompts.txt").write_text("[CLP] a boy called Jim --s 1\n")
    return folder


@pytest.fixture
def settings(workplace, tmp_path):
    return tiny_recipe(
        workplace,
        tmp_path / "out",
        train_data_dir=workplace / "photographs",
        reg_data_dir=workplace / "kept",
        validation_data_dir=workplace / "kept",
        validate_every_n_steps=2,
        sample_prompts=workplace / "prompts.txt",
        sample_every_n_steps=2,
        output_name="jane",
        max_train_steps=4,
        checkpoint_every_n_steps=2,
        class_tokens="Jane",
    )


def nothing_of_a_photograph(workplace: Path, logs: Path) -> None:
    files = [file for file in logs.rglob("*") if file.is_file()]
    assert files
    for file in files:
        told = str(file.relative_to(logs)).encode() + file.read_bytes()
        for secret in (b"Jane", b"jane", b"whole face", b"Jim", b"photographs", str(workplace).encode()):
            assert secret not in told, file


def test_tensorboard_has_every_loss_and_nothing_of_a_photograph(workplace, settings):
    """An interrupted run included: its curve goes on, each step once."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    settings = changed(settings, log_with="tensorboard", log_tracker_name="faces")
    stop_at_a_checkpoint(settings)
    folder = trained(settings)[0].parent
    logs = folder / "logs" / "faces"
    accumulator = reader.EventAccumulator(str(logs))
    accumulator.Reload()
    names = {
        "loss/train": "loss",
        "loss/regularisation": "reg_loss",
        "loss/validation": "val_loss",
        "lr": "lr",
    }
    assert set(accumulator.Tags()["scalars"]) == set(names)
    for name, key in names.items():
        found = [(point.step, point.value) for point in accumulator.Scalars(name)]
        expected = [(row["step"], row[key]) for row in loss_rows(folder) if key in row]
        assert [step for step, _ in found] == [step for step, _ in expected]
        assert [value for _, value in found] == pytest.approx([value for _, value in expected], rel=1e-6)
    assert b"optimizer.learning_rate" in b"".join(file.read_bytes() for file in logs.rglob("hparams.yml"))
    nothing_of_a_photograph(workplace, folder / "logs")


def test_wandb_stays_offline_and_is_told_nothing_of_a_photograph(workplace, settings, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    settings = changed(settings, log_with="wandb", logging_dir=tmp_path / "logs", max_train_steps=2)
    trained(settings)
    (run,) = (tmp_path / "logs" / "wandb").glob("offline-run-*")
    (record,) = run.glob("*.wandb")
    told = record.read_bytes()
    assert b"loss/validation" in told and b"optimizer.learning_rate" in told
    nothing_of_a_photograph(workplace, tmp_path / "logs")
    assert not list(run.rglob("wandb-metadata.json")) and not list(run.rglob("requirements.txt"))


@pytest.mark.parametrize(
    ("given", "chosen"),
    [
        ([], ()),
        (["--logging_dir", "logs"], ("tensorboard",)),
        (["--log_with", "wandb"], ("wandb",)),
        (["--log_with", "all"], ("tensorboard", "wandb")),
    ],
)
def test_what_tracks_is_as_in_kohyas_scripts(given, chosen):
    assert trackers.chosen_trackers(parse_recipe([*BASE, *given])) == chosen


def test_a_tracker_that_is_not_installed_is_a_sentence_before_anything_is_written(settings, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "wandb" else find(name, *a)
    )
    with pytest.raises(UserError, match="--log_with wandb needs a package: pip install wandb"):
        trained(changed(settings, log_with="wandb"))
    assert not settings.output.folder.exists()


@pytest.mark.parametrize(
    "given", [["--wandb_online"], ["--wandb_run_name", "x"], ["--log_tracker_name", "x"]]
)
def test_what_no_tracker_would_hear_is_refused(given):
    with pytest.raises(UserError, match="would have no effect"):
        parse_recipe([*BASE, *given])


def test_no_recipe_file_lets_anything_be_uploaded(tmp_path):
    (tmp_path / "recipe.json").write_text(
        json.dumps({"tracking": {"log_with": "wandb", "wandb_online": True}})
    )
    with pytest.raises(UserError, match="is a location, of which a recipe has none"):
        parse_recipe([*BASE, "--recipe", str(tmp_path / "recipe.json")])


def test_the_name_of_a_tracker_stays_in_its_folder():
    with pytest.raises(UserError, match=r"--log_tracker_name '\.\./x' is no plain file name"):
        parse_recipe([*BASE, "--log_with", "tensorboard", "--log_tracker_name", "../x"])

"""One choice is one training recipe, whichever door it comes by; and what the recipe is."""

import argparse
from pathlib import Path

import pytest
import torch
from phantom_datasets import phantom_dataset
from tiny_flux import build_tiny_flux

from diffusioncleft.cli import doctor as doctor_command
from diffusioncleft.cli import main as cli
from diffusioncleft.cli import run as run_command
from diffusioncleft.cli.checkup import training as doctor_training
from diffusioncleft.cli.checkup.checkup import Checkup
from diffusioncleft.diffusioncleft_core.conditions.loader import load_vocabulary
from diffusioncleft.diffusioncleft_core.dataset.settings import training_facts
from diffusioncleft.diffusioncleft_core.environment import trainer_device
from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.recipe import PAPER, TrainingFacts, training_recipe
from diffusioncleft.diffusioncleft_core.run.settings import RunFolders, check_settings
from diffusioncleft.diffusioncleft_core.run.training import training_arguments
from diffusioncleft.trainer import metadata
from diffusioncleft.trainer.config import TrainSettings, checked, parse_settings

PLACES = {
    "train_data_dir", "output_dir", "output_name", "sample_prompts", "sample_every_n_steps", "seed",
    "cache_dir", "checkpoint_every_n_steps", "report_every_step", "resume",
}  # fmt: skip
"""Where a run lies and how it reports; its seed is drawn from the run's."""
CHOICES = {
    "nothing": {},
    "schedule": {"lr_scheduler": "linear"},
    "warmup": {"lr_warmup_steps": 7},
    "preservation": {"output_preservation_weight": 0.5, "learning_rate": 2e-4},
    "none": {"output_preservation_weight": 0.0, "region_weight": 2.0, "train_batch_size": 3},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory, analyzer):
    """A real base model and a built dataset of phantoms."""
    folder = tmp_path_factory.mktemp("recipe")
    build_tiny_flux(folder / "flux")
    phantom_dataset(folder / "photographs", "pre_op", folder / "pre_op", analyzer, n=10, seed=1)
    return folder


def base_of(place: Path, base: str) -> list[str]:
    return ["--phantom"] if base == "phantom" else ["--base", str(place / "flux")]


def parsed(name: str, *arguments: object) -> argparse.Namespace:
    return cli._command_parser(name, cli._load(name)).parse_args(list(map(str, arguments)))


def recipe_of(settings: TrainSettings) -> dict[str, object]:
    return {name: value for name, value in vars(settings).items() if name not in PLACES}


def by_run(place: Path, base: str, preset: str, choices: dict) -> TrainSettings:
    photographs = place / "photographs"
    arguments = [*base_of(place, base), "--photos-pre", photographs, "--device", "cpu", "--dtype", "float32"]
    settings = run_command.settings_from(
        parsed("run", *arguments, "--preset", preset, "--out", place / "run")
    )
    settings.training.update(choices)
    known = load_vocabulary()
    images = training_facts(place / "pre_op", phantom=True).images
    facts = {"dataset": {"training_images": images}}
    condition = known.condition("pre_op")
    arguments = training_arguments(settings, RunFolders(settings.out), condition, facts)
    return checked(TrainSettings(**arguments))


def by_train(place: Path, base: str, preset: str, choices: dict) -> TrainSettings:
    """The command line's settings, on their way through the trainer's process."""
    model = base_of(place, base)
    model = model if base == "phantom" else ["--pretrained_model_name_or_path", model[1]]
    arguments = [*model, "--train_data_dir", str(place / "pre_op"), "--device", "cpu"]
    arguments += ["--mixed_precision", "no", "--preset", preset]
    arguments += [f"--{name}={value}" for name, value in choices.items()]
    settings = parse_settings(arguments)
    assert parse_settings(settings.to_arguments()) == settings
    return settings


@pytest.mark.parametrize("choices", CHOICES.values(), ids=CHOICES)
@pytest.mark.parametrize("preset", ["paper", "robust"])
@pytest.mark.parametrize("base", ["phantom", "real"])
def test_run_and_train_make_one_recipe_of_one_choice(place, base, preset, choices):
    run, train = by_run(place, base, preset, choices), by_train(place, base, preset, choices)
    assert recipe_of(run) == recipe_of(train)
    assert run.trigger == "CLP" and run.prompt_form == "bracketed"


@pytest.mark.parametrize("preset", ["paper", "robust"])
@pytest.mark.parametrize("base", ["phantom", "real"])
def test_the_doctor_trains_the_planned_recipe_with_its_own_choices(place, tmp_path, base, preset):
    arguments = [*base_of(place, base), "--preset", preset, "--device", "cpu", "--dtype", "fp32"]
    settings = doctor_command.settings_from(parsed("doctor", *arguments), tmp_path)
    doctor = checked(TrainSettings(**doctor_training.training_arguments(Checkup(settings, None))))
    choices = doctor_training.training_choices(settings)
    assert set(choices) <= {
        "resolution", "max_train_steps", "lr_scheduler", "region_weight", "learning_rate",
    }  # fmt: skip
    choices |= {"resolution": doctor.resolution}
    run = by_run(place, base, preset, choices)
    assert recipe_of(doctor) == recipe_of(run)


def test_robust_on_the_phantom_is_what_the_experiments_measured():
    recipe = training_recipe("robust", TrainingFacts(True, 100, "CLP", "CLPrep", True), {})
    expected = {
        "learning_rate": 4e-3, "lr_scheduler": "cosine", "lr_warmup_steps": 50, "adam_beta2": 0.99,
        "resolution": (128,), "train_batch_size": 2, "timestep_sampling": "schnell", "num_cpu_threads": 1,
        "output_preservation_weight": 1.0, "region_weight": 8.0, "other_trigger": "CLPrep",
        "max_train_steps": 1000,
    }  # fmt: skip
    assert expected.items() <= recipe.items()


def test_the_trainers_defaults_are_the_papers_recipe():
    settings = TrainSettings()
    assert {name: getattr(settings, name) for name in PAPER} == dict(PAPER)
    assert set(metadata._MATTERS) - {"seed"} <= set(PAPER)


def test_of_a_plain_folder_nothing_is_known(tmp_path):
    assert training_facts(tmp_path, phantom=False) == TrainingFacts()
    settings = parse_settings(["--phantom", "--preset", "robust", "--train_data_dir", str(tmp_path)])
    assert (settings.other_trigger, settings.max_train_steps) == (None, 0)
    assert settings.output_preservation_weight == 1.0


def test_an_unknown_preset_is_refused():
    with pytest.raises(UserError, match="no preset 'fast'"):
        training_recipe("fast", TrainingFacts(), {})


def test_half_precision_is_refused_before_a_run_starts(place, tmp_path):
    with pytest.raises(UserError, match="give --dtype bf16 or fp32"):
        trainer_device(torch.device("cpu"), torch.float16)
    arguments = ["--phantom", "--dtype", "fp16", "--device", "cpu", "--out", tmp_path / "run"]
    settings = run_command.settings_from(parsed("run", *arguments))
    with pytest.raises(UserError, match="half precision"):
        check_settings(settings)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["cuda:99", "tpu", "cpu:3"])
def test_a_device_that_does_not_exist_is_refused_before_anything_starts(place, tmp_path, name, command):
    out = tmp_path / "out"
    for arguments in (
        ["run", "--phantom", "--out", out, "--device", name],
        ["train", "--phantom", "--train_data_dir", place / "pre_op", "--output_dir", out, "--device", name],
        ["doctor", "--phantom", "--out", out, "--device", name],
    ):
        done = command(*arguments)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
        assert name in done.stderr and "not available" in done.stderr
        assert not out.exists() or list(out.rglob("*.*")) == []

"""One choice is one training recipe, whichever door it comes by; and what the recipe is."""

import argparse
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from phantom_datasets import phantom_dataset
from safetensors.numpy import save_file
from tiny_flux import build_tiny_flux

from diffusioncleft.cli import doctor as doctor_command
from diffusioncleft.cli import main as cli
from diffusioncleft.cli import run as run_command
from diffusioncleft.cli.checkup import training as doctor_training
from diffusioncleft.diffusioncleft_core.dataset.settings import training_facts
from diffusioncleft.diffusioncleft_core.environment import trainer_device
from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.recipe.checks import check_places, check_recipe
from diffusioncleft.diffusioncleft_core.recipe.document import (
    METADATA_KEY,
    read_recipe,
    recipe_text,
    shared_fields,
)
from diffusioncleft.diffusioncleft_core.recipe.presets import (
    NOTHING_KNOWN,
    PAPER,
    TrainingFacts,
    chosen_recipe,
    completed_recipe,
    named_recipe,
)
from diffusioncleft.diffusioncleft_core.recipe.recipe import Recipe, recipe_fields
from diffusioncleft.diffusioncleft_core.run.needs import check_settings
from diffusioncleft.diffusioncleft_core.run.run import Run
from diffusioncleft.diffusioncleft_core.run.training import training_recipe
from diffusioncleft.trainer.config import parse_recipe, to_arguments
from diffusioncleft.trainer.kohya import FIELDS

PLACES = {
    "data.train_dir", "output.folder", "output.name", "previews.prompts", "previews.every_n_steps",
    "previews.every_n_epochs",
    "previews.at_first", "objective.seed", "data.cache_dir", "output.checkpoint_every_n_steps",
    "output.report_every_step", "output.resume",
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


def fields_of(recipe: Recipe) -> dict[str, object]:
    return {path: recipe[path] for path in recipe_fields() if path not in PLACES}


def by_run(place: Path, base: str, preset: str, choices: dict) -> Recipe:
    photographs = place / "photographs"
    arguments = [*base_of(place, base), "--photos-pre", photographs, "--device", "cpu", "--dtype", "float32"]
    settings = run_command.settings_from(
        parsed("run", *arguments, "--preset", preset, "--out", place / "run")
    )
    choices = {FIELDS[name]: value for name, value in choices.items()}
    settings = replace(settings, recipe=chosen_recipe(settings.recipe, choices))
    started = Run(settings)
    started.facts["pre_op"]["dataset"] = {"training_images": training_facts(place / "pre_op").images}
    recipe = training_recipe(started, settings.vocabulary.condition("pre_op"))
    return check_places(check_recipe(recipe))


def by_train(place: Path, base: str, preset: str, choices: dict) -> Recipe:
    """The command line's settings, on their way through the trainer's process."""
    model = base_of(place, base)
    model = model if base == "phantom" else ["--pretrained_model_name_or_path", model[1]]
    arguments = [*model, "--train_data_dir", str(place / "pre_op"), "--device", "cpu"]
    arguments += ["--mixed_precision", "no", "--preset", preset]
    arguments += [f"--{name}={value}" for name, value in choices.items()]
    recipe = parse_recipe(arguments)
    assert parse_recipe(to_arguments(recipe)) == recipe
    return recipe


@pytest.mark.parametrize("choices", CHOICES.values(), ids=CHOICES)
@pytest.mark.parametrize("preset", ["paper", "robust"])
@pytest.mark.parametrize("base", ["phantom", "real"])
def test_run_and_train_make_one_recipe_of_one_choice(place, base, preset, choices):
    run, train = by_run(place, base, preset, choices), by_train(place, base, preset, choices)
    assert fields_of(run) == fields_of(train)
    assert run.data.trigger == "CLP" and run.data.prompt_form == "bracketed"


@pytest.mark.parametrize("preset", ["paper", "robust"])
@pytest.mark.parametrize("base", ["phantom", "real"])
def test_the_doctor_trains_the_planned_recipe_with_its_own_choices(place, tmp_path, base, preset):
    arguments = [*base_of(place, base), "--preset", preset, "--device", "cpu", "--dtype", "fp32"]
    settings = doctor_command.settings_from(parsed("doctor", *arguments), tmp_path)
    doctor = check_places(check_recipe(doctor_training.ten_steps_recipe(settings)))
    choices = doctor_training.ten_steps_choices(settings)
    assert set(choices) <= {
        "optimizer.steps", "optimizer.schedule", "objective.region_weight", "optimizer.learning_rate",
    }  # fmt: skip
    names = {path: name for name, path in FIELDS.items()}
    choices = {names[path]: value for path, value in choices.items()}
    choices["resolution"] = doctor.data.resolution
    run = by_run(place, base, preset, choices)
    assert fields_of(doctor) == fields_of(run)


FLAGS = ["--learning_rate", "2e-4", "--blocks_to_swap", "3", "--gradient_checkpointing"]
HERE = {"data.train_dir", "memory.device", "memory.precision"}
"""Where a door trains and on what; no part of the choice."""


def shared(recipe: Recipe) -> dict[str, object]:
    return {path: value for path, value in shared_fields(recipe).items() if path not in HERE}


@pytest.mark.parametrize("base", ["phantom", "real"])
def test_a_choice_is_one_recipe_by_flag_toml_file_run_and_doctor(place, tmp_path, base, capsys):
    plain = tmp_path / "plain"
    plain.mkdir()
    model = ["--phantom"] if base == "phantom" else ["--pretrained_model_name_or_path", str(place / "flux")]
    where = [*model, "--train_data_dir", str(plain)]
    flag = parse_recipe([*where, "--preset", "robust", *FLAGS])
    assert flag.optimizer.learning_rate == 2e-4 and flag.objective.region_weight == 8

    toml = tmp_path / "train.toml"
    toml.write_text(
        "preset = 'robust'\nlearning_rate = 2e-4\n[more]\nblocks_to_swap = 3\ngradient_checkpointing = true\n"
    )
    assert parse_recipe([*where, "--config_file", str(toml)]) == flag

    assert cli.main(["train", *model, "--preset", "robust", *FLAGS, "--print_recipe"]) == 0
    file = tmp_path / "recipe.json"
    file.write_text(capsys.readouterr().out)
    assert parse_recipe([*where, "--recipe", str(file)]) == flag
    lora = tmp_path / "lora.safetensors"
    save_file({}, lora, metadata={METADATA_KEY: file.read_text()})
    assert parse_recipe([*where, "--recipe", str(lora)]) == flag
    lower = parse_recipe([*where, "--recipe", str(file), "--network_dim", "4"])
    assert lower == flag.replaced({"network.rank": 4})

    words = [*base_of(place, base), "--out", tmp_path / "run"]
    hyphens = [word.replace("_", "-") for word in FLAGS]
    for choice in (["--preset", "robust", *hyphens], ["--recipe", file]):
        settings = run_command.settings_from(parsed("run", *words, "--photos-pre", plain, *choice))
        assert shared(settings.recipe) == shared(flag)

    doctor_words = [*base_of(place, base), "--resolution", max(flag.data.resolution)]
    for choice in (["--recipe", file], ["--preset", "robust", *hyphens[2:]]):
        doctor = doctor_command.settings_from(parsed("doctor", *doctor_words, *choice), tmp_path)
        told = shared(flag) | {"data.resolution": [max(flag.data.resolution)]}
        if choice[0] == "--preset":  # the doctor has no option for the rate
            told["optimizer.learning_rate"] = named_recipe("robust", phantom=base == "phantom")[
                "optimizer.learning_rate"
            ]
        assert shared(doctor.recipe) == told


def test_every_field_but_the_folders_of_a_toml_is_an_option_of_the_trainer():
    assert set(FIELDS.values()) == set(recipe_fields()) - {"data.subsets"}


def test_a_recipe_file_holds_no_location(tmp_path):
    told = "Jane Roe"
    locations = {
        path: entry.check(told if entry.kind is not Path else Path(told), path)
        for path, entry in recipe_fields().items()
        if entry.setting.location and entry.kind in (str, Path) and not entry.setting.choices
    }
    assert len(locations) > 15
    assert told not in recipe_text(Recipe().replaced(locations))
    with pytest.raises(UserError, match=r"recipe\.json: data\.train_dir is a location"):
        path = tmp_path / "recipe.json"
        path.write_text('{"data": {"train_dir": "photographs"}}')
        read_recipe(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"optimizer": {"learning_rate": "fast"}}', "learning_rate is 'fast'"),
        ('{"optimizer": {"learning_rate": 2}}', "learning_rate is 2"),
        ('{"optimizer": {"rate": 1}}', "optimizer.rate is no setting"),
        ('{"optimizer": {"schedule": "spiral"}}', "schedule 'spiral' is unknown"),
        ('{"data": {"resolution": [NaN]}}', "not valid JSON"),
        ('{"data": {"resolution": []}}', "data.resolution needs sizes"),
        ('{"model": {"phantom": 1}}', "model.phantom is 1; give true or false"),
        ('{"objective": {"other_trigger": "CLPrep"}}', "is for output preservation"),
        ("[]", "is no recipe"),
    ],
)
def test_a_mistake_in_a_recipe_file_names_the_file_and_the_field(tmp_path, text, message):
    path = tmp_path / "recipe.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        parse_recipe(["--phantom", "--train_data_dir", str(tmp_path), "--recipe", str(path)])
    assert str(path) in str(caught.value)


def test_a_recipe_and_a_preset_are_one_too_many(tmp_path, capsys):
    for command in (["train"], ["run", "--out", str(tmp_path / "run")], ["doctor"]):
        words = [*command, "--phantom", "--preset", "paper", "--recipe", "recipe.json"]
        assert cli.main(words) == 2
        assert "--recipe takes the place of a preset" in capsys.readouterr().err


def test_a_datasets_own_triggers_come_before_those_of_a_recipe_file(place, tmp_path):
    recipe = Recipe().replaced(
        {
            "objective.output_preservation_weight": 1.0,
            "objective.other_trigger": "CLP",
            "data.trigger": "CLPrep",
            "data.prompt_form": "bare",
        }
    )
    path = tmp_path / "recipe.json"
    path.write_text(recipe_text(recipe))
    words = ["--phantom", "--recipe", str(path), "--train_data_dir", str(place / "pre_op")]
    found = parse_recipe(words)
    assert (found.data.trigger, found.objective.other_trigger) == ("CLP", "CLPrep")
    assert found.data.prompt_form == "bracketed"
    assert parse_recipe([*words, "--trigger", "XYZ"]).data.trigger == "XYZ"


def test_robust_on_the_phantom_is_what_the_experiments_measured():
    facts = TrainingFacts(100, "CLP", "CLPrep", True)
    recipe = completed_recipe(named_recipe("robust", phantom=True), facts)
    expected = {
        "learning_rate": 6e-3, "lr_scheduler": "cosine", "lr_warmup_steps": 50, "adam_beta2": 0.99,
        "resolution": (128,), "train_batch_size": 8, "timestep_sampling": "uniform", "num_cpu_threads": 1,
        "output_preservation_weight": 1.0, "region_weight": 8.0, "other_trigger": "CLPrep",
        "max_train_epochs": 20, "max_train_steps": 0, "network_dim": 4, "network_alpha": 8.0,
        "min_timestep": 200, "max_timestep": 800,
    }  # fmt: skip
    assert {name: recipe[FIELDS[name]] for name in expected} == expected


def test_the_condition_says_up_to_what_noise_robust_trains_on_phantoms_and_a_choice_stands():
    facts = TrainingFacts(100, "CLPrep", "CLP", True, max_timestep=550)

    def most(name: str, *, phantom: bool, **choices: int) -> int:
        chosen = {f"objective.{key}": value for key, value in choices.items()}
        recipe = chosen_recipe(named_recipe(name, phantom=phantom), chosen)
        return completed_recipe(recipe, facts, chosen).objective.max_timestep

    assert most("robust", phantom=True) == 550
    assert most("robust", phantom=True, max_timestep=700) == 700
    assert most("robust", phantom=True, max_timestep=800) == 800
    assert most("paper", phantom=True) == most("robust", phantom=False) == 1000


def test_chosen_steps_and_noise_levels_stand_in_place_of_those_of_robust_on_phantoms():
    preset = named_recipe("robust", phantom=True)
    stepped = chosen_recipe(preset, {"optimizer.steps": 7})
    assert (stepped.optimizer.steps, stepped.optimizer.epochs) == (7, 0)
    whole = chosen_recipe(preset, {"objective.timestep_sampling": "schnell"}).objective
    assert (whole.min_timestep, whole.max_timestep) == (0, 1000)
    own = named_recipe("robust").replaced({"objective.min_timestep": 100})
    assert chosen_recipe(own, {"objective.timestep_sampling": "sigmoid"}).objective.min_timestep == 100


def test_the_papers_recipe_is_what_every_field_starts_from():
    assert named_recipe("paper") == PAPER == Recipe()
    assert {path: entry.default for path, entry in recipe_fields().items()} == {
        path: PAPER[path] for path in recipe_fields()
    }


def test_of_a_plain_folder_nothing_is_known(tmp_path):
    assert training_facts(tmp_path) == NOTHING_KNOWN
    recipe = parse_recipe(["--phantom", "--preset", "robust", "--train_data_dir", str(tmp_path)])
    assert (recipe.objective.other_trigger, recipe.optimizer.steps) == (None, 0)
    assert recipe.objective.output_preservation_weight == 1.0


def test_an_unknown_preset_is_refused():
    with pytest.raises(UserError, match="no preset 'fast'"):
        named_recipe("fast")


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


@pytest.mark.parametrize("name", ["nul", "COM1", "aux.safetensors"])
def test_a_lora_has_no_name_that_windows_keeps_for_a_device(name):
    with pytest.raises(UserError, match=r"output\.name .* is kept for a device by Windows"):
        check_recipe(Recipe().replaced({"output.name": name}))

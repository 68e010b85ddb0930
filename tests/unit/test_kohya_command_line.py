"""kohya's command line as its users have it: runs unchanged, and no option is dropped in silence."""

import runpy
from pathlib import Path

import pytest

from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.recipe.recipe import Subset
from diffusioncleft.trainer.config import parse_arguments, parse_recipe, recipe_from, to_arguments, unheard
from diffusioncleft.trainer.folders import image_folders
from diffusioncleft.trainer.kohya import FIELDS
from diffusioncleft.trainer.kohya_options import ALWAYS, REFUSED, TRANSLATED, WITHOUT_EFFECT

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = [
    line
    for line in (ROOT / "tests" / "kohya_flux_options.txt").read_text().splitlines()
    if not line.startswith("#")
]
BASE = ["--pretrained_model_name_or_path", "flux", "--train_data_dir", "photos"]
DOCUMENTED = """
--pretrained_model_name_or_path=flux --clip_l=clip --t5xxl=t5 --ae=ae --dataset_config={toml}
--output_dir=out --output_name=my_flux_lora --save_model_as=safetensors --network_module=networks.lora_flux
--network_dim=16 --network_alpha=1 --learning_rate=1e-4 --optimizer_type=AdamW8bit --lr_scheduler=constant
--sdpa --max_train_epochs=10 --save_every_n_epochs=1 --mixed_precision=fp16 --gradient_checkpointing
--guidance_scale=1.0 --timestep_sampling=flux_shift --model_prediction_type=raw --blocks_to_swap=18
--cache_text_encoder_outputs --cache_latents
"""


def told(arguments):
    namespace = parse_arguments(arguments)
    return unheard(namespace, recipe_from(namespace))


@pytest.fixture
def toml(tmp_path):
    path = tmp_path / "data.toml"
    path.write_text("[[datasets]]\nresolution = 512\n[[datasets.subsets]]\nimage_dir = 'photos'\n")
    return path


def test_the_documented_command_runs_unchanged(toml):
    arguments = DOCUMENTED.format(toml=toml).split()
    recipe = parse_recipe(arguments)
    assert (recipe.optimizer.epochs, recipe.output.save_every_n_epochs) == (10, 1)
    assert (recipe.objective.timestep_sampling, recipe.memory.precision) == ("flux_shift", "fp16")
    assert (recipe.memory.blocks_to_swap, recipe.memory.gradient_checkpointing) == (18, True)
    assert told(arguments) == []
    assert parse_recipe(to_arguments(recipe)) == recipe


def test_every_option_of_kohyas_trainer_has_one_fate():
    assert len(OPTIONS) == 215
    known = {"config_file", *FIELDS, *ALWAYS, *WITHOUT_EFFECT, *TRANSLATED, *REFUSED}
    assert [name for name in OPTIONS if name not in known] == []
    for name in OPTIONS:
        fates = [name in part for part in (FIELDS, WITHOUT_EFFECT, TRANSLATED, REFUSED)]
        assert sum(fates) + (name in ALWAYS and not any(fates)) + (name == "config_file") == 1 or (
            name == "weighting_scheme"
        ), name


def test_the_documentation_has_the_fate_of_every_option():
    script = runpy.run_path(str(ROOT / "scripts" / "kohya_table.py"))
    text = script["PAGE"].read_text(encoding="utf-8")
    assert script["page"](text) == text, "run: python scripts/kohya_table.py"
    assert [name for name in OPTIONS if f"`--{name}`" not in text] == []
    assert set(script["OURS"]) <= set(FIELDS) - set(OPTIONS)


@pytest.mark.parametrize("option", sorted(WITHOUT_EFFECT))
def test_what_has_no_effect_is_accepted_and_told(option):
    assert parse_recipe([*BASE, f"--{option}", "2"]) == parse_recipe(BASE)
    (said,) = told([*BASE, f"--{option}", "2"])
    assert said.startswith(f"--{option} has no effect: ")


@pytest.mark.parametrize("option", [name for name, values in ALWAYS.items() if values == ("",)])
@pytest.mark.parametrize("value", ["false", "False", "no", "0"])
def test_what_is_always_on_may_be_given_as_off_and_a_warning_tells(option, value, tmp_path):
    (said,) = told([*BASE, f"--{option}", value])
    assert "it is always on here" in said
    path = tmp_path / "train.toml"
    path.write_text(f"{option} = false\n")
    (said,) = told([*BASE, "--config_file", str(path)])
    assert "it is always on here" in said


def test_a_refused_option_that_is_off_is_what_happens_anyway(tmp_path):
    path = tmp_path / "train.toml"
    path.write_text("flip_aug = false\nfull_bf16 = false\n")
    assert told([*BASE, "--config_file", str(path)]) == []
    with pytest.raises(UserError, match="--flip_aug is not honoured"):
        path.write_text("flip_aug = true\n")
        parse_recipe([*BASE, "--config_file", str(path)])


@pytest.mark.parametrize(
    ("arguments", "path", "value"),
    [
        ("--optimizer_type adamw8bit", "optimizer.name", "AdamW8bit"),
        ("--optimizer_type PRODIGY", "optimizer.name", "Prodigy"),
        ("--use_8bit_adam", "optimizer.name", "AdamW8bit"),
        ("--fp8_base", "memory.base_format", "fp8"),
        ("--nf4_base", "memory.base_format", "nf4"),
        ("--use_lion_optimizer", "optimizer.name", "Lion"),
        ("--learning_rate 1e-4 --unet_lr 5e-5", "optimizer.learning_rate", 5e-5),
        ("--save_precision fp16", "output.save_precision", "fp16"),
        ("--save_precision fp32", "output.save_precision", "float"),
        ("--mixed_precision bf16", "memory.precision", "bf16"),
        ("--max_train_epochs 3 --max_train_steps 1600", "optimizer.steps", 0),
        ("--weighting_scheme logit_normal --logit_mean 0.5", "objective.timestep_sampling", "logit_normal"),
        ("--timestep_sampling sigma --weighting_scheme none", "objective.timestep_sampling", "sigma"),
        ("--max_timestep 800 --min_timestep 100", "objective.max_timestep", 800),
        ("--network_args split_qkv=True verbose=True", "network.qkv", "separate"),
        (
            "--optimizer_args betas=0.9,0.99 weight_decay=0.1",
            "optimizer.args",
            ("betas=0.9,0.99", "weight_decay=0.1"),
        ),
        ("--lr_scheduler cosine_with_restarts --lr_scheduler_num_cycles 3", "optimizer.cycles", 3.0),
        ("--min_bucket_reso 256 --max_bucket_reso 1024", "data.bucket_max_side", 1024),
    ],
)
def test_an_option_is_honoured_as_kohya_has_it(arguments, path, value):
    recipe = parse_recipe([*BASE, *arguments.split()])
    assert recipe[path] == value
    assert parse_recipe(to_arguments(recipe)) == recipe


@pytest.mark.parametrize(
    "option",
    ["use_8bit_adam", "use_lion_optimizer", "fp8_base", "fp8_base_unet", "nf4_base", "torch_compile"],
)
def test_a_switch_that_is_off_changes_nothing(tmp_path, option):
    plain = parse_recipe(BASE)
    (tmp_path / "train.toml").write_text(f"{option} = false\n")
    assert parse_recipe([*BASE, "--config_file", str(tmp_path / "train.toml")]) == plain
    assert parse_recipe([*BASE, f"--{option}", "False"]) == plain


def test_lists_in_a_config_file_are_several_values_and_its_suffix_may_be_missing(tmp_path):
    (tmp_path / "train.toml").write_text('network_args = ["img_attn_dim=4", "single_dim=0"]\nsdpa = true\n')
    recipe = parse_recipe([*BASE, "--config_file", str(tmp_path / "train")])
    assert recipe.network.args == ("img_attn_dim=4", "single_dim=0")


def test_datasets_may_differ_in_size_and_the_toml_takes_precedence(tmp_path):
    path = tmp_path / "data.toml"
    path.write_text(
        """
[general]
min_bucket_reso = 256
max_bucket_reso = 1024
bucket_no_upscale = false
[[datasets]]
resolution = 512
batch_size = 2
  [[datasets.subsets]]
  image_dir = "photos"
[[datasets]]
resolution = [768, 1024]
batch_size = 2
  [[datasets.subsets]]
  image_dir = "photos"
  num_repeats = 2
"""
    )
    arguments = ["--phantom", "--dataset_config", str(path), "--train_batch_size", "4"]
    recipe = parse_recipe(arguments)
    assert recipe.data.subsets == (
        Subset(tmp_path / "photos", resolution=(512,)),
        Subset(tmp_path / "photos", num_repeats=2, resolution=(768, 1024)),
    )
    assert (recipe.data.resolution, recipe.data.batch_size) == ((512, 768, 1024), 2)
    assert (recipe.data.bucket_min_side, recipe.data.bucket_max_side) == (256, 1024)
    said = told(arguments)
    assert any("bucket_no_upscale False has no effect: it is always on here" in one for one in said)
    assert any(one.startswith("--train_batch_size has no effect: ") for one in said)
    assert parse_recipe(to_arguments(recipe)) == recipe


def test_folders_with_repeats_are_kohyas(tmp_path):
    for name in ("photos/10_sks girl", "photos/2_boy", "photos/notes", "reg/1_girl"):
        (tmp_path / name).mkdir(parents=True)
    recipe = parse_recipe(
        ["--phantom", "--train_data_dir", str(tmp_path / "photos"), "--reg_data_dir", str(tmp_path / "reg")]
    )
    assert image_folders(recipe) == (
        Subset(tmp_path / "photos" / "10_sks girl", num_repeats=10, class_tokens="sks girl"),
        Subset(tmp_path / "photos" / "2_boy", num_repeats=2, class_tokens="boy"),
        Subset(tmp_path / "reg" / "1_girl", is_reg=True, class_tokens="girl"),
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--min_timestep 500 --max_timestep 400", "is not below --max_timestep 400"),
        ("--lr_scheduler_num_cycles 3", "--lr_scheduler_num_cycles 3.0 would have no effect"),
        ("--optimizer_type Lion --adam_beta1 0.8", "--optimizer_args"),
        ("--max_bucket_reso 8", "--max_bucket_reso is 8"),
        ("--unet_lr fast", "--unet_lr: 'fast'"),
        ("--weighting_scheme mode", "--weighting_scheme is not honoured"),
    ],
)
def test_what_can_not_be_honoured_is_one_sentence(arguments, message):
    with pytest.raises(UserError) as caught:
        parse_recipe([*BASE, *arguments.split()])
    assert message in str(caught.value)


@pytest.mark.parametrize("place", ["general", "[datasets]"])
def test_caption_dropout_in_the_dataset_toml_is_the_runs(tmp_path, place):
    path = tmp_path / "data.toml"
    start = "[[datasets]]\n" if place == "general" else ""
    told = f"[{place}]\ncaption_dropout_rate = 0.1\ncaption_dropout_every_n_epochs = 3\n"
    path.write_text(f"{told}{start}resolution = 512\n[[datasets.subsets]]\nimage_dir = 'photos'\n")
    recipe = parse_recipe([*BASE[:2], "--dataset_config", str(path)])
    chosen = recipe.objective
    assert (chosen.caption_dropout_rate, chosen.caption_dropout_every_n_epochs) == (0.1, 3)
    path.write_text("[[datasets]]\n[[datasets.subsets]]\nimage_dir = 'photos'\ncaption_dropout_rate = 0.1\n")
    with pytest.raises(UserError, match="caption_dropout_rate is one for the run"):
        parse_recipe([*BASE[:2], "--dataset_config", str(path)])


@pytest.mark.parametrize(
    ("arguments", "path", "value"),
    [
        ("--caption_dropout_rate 0.1", "objective.caption_dropout_rate", 0.1),
        ("--validate_every_n_steps 50 --validation_seed 0", "validation.seed", 0),
        ("--validate_every_n_epochs 2 --max_validation_steps 10", "validation.max_images", 10),
        ("--log_with all --wandb_run_name faces", "tracking.wandb_run_name", "faces"),
        ("--logging_dir logs --log_tracker_name lora", "tracking.tracker_name", "lora"),
        ("--validation_split 0.0", "validation.every_n_steps", 0),
    ],
)
def test_dropout_validation_and_logging_are_honoured_as_kohya_has_them(arguments, path, value):
    recipe = parse_recipe([*BASE, *arguments.split()])
    assert recipe[path] == value
    assert parse_recipe(to_arguments(recipe)) == recipe


@pytest.mark.parametrize("given", ["--early_stop 3", "--validation_seed 4", "--max_validation_steps 5"])
def test_what_belongs_to_a_validation_that_there_is_not_is_refused(given):
    with pytest.raises(UserError, match="would have no effect: nothing is validated"):
        parse_recipe([*BASE, *given.split()])

"""Settings: kohya's names, the paper's defaults, and refusals by name."""

from pathlib import Path

import pytest

from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.recipe.recipe import Recipe, Subset
from diffusioncleft.trainer.config import parse_recipe, to_arguments
from diffusioncleft.trainer.kohya_options import ALWAYS, REFUSED, TRANSLATED

BASE = ["--pretrained_model_name_or_path", "flux", "--train_data_dir", "photos"]


def test_defaults_are_the_papers():
    recipe = parse_recipe(BASE)
    assert (recipe.network.rank, recipe.network.alpha, recipe.optimizer.learning_rate) == (16, 32, 1e-4)
    assert recipe.optimizer.name == "AdamW8bit"
    assert recipe.data.resolution == (256, 512, 768, 1024)
    assert (recipe.data.batch_size, recipe.optimizer.accumulation_steps) == (1, 1)


def test_recipe_survive_the_way_to_the_child_process():
    words = "--phantom --resolution=128,96 --learning_rate 1e-3 --no-cache_latents_to_disk --network_alpha 7"
    spaced = ["--output_name", "a b", "--class_tokens=-- a girl's face"]
    recipe = parse_recipe([*BASE[2:], *words.split(), *spaced])
    assert recipe.data.resolution == (96, 128)
    assert parse_recipe(to_arguments(recipe)) == recipe


@pytest.mark.parametrize("option", sorted(set(REFUSED) - set(ALWAYS) - set(TRANSLATED)))
def test_every_kohya_option_that_is_not_honoured_is_refused_by_name(option):
    with pytest.raises(UserError, match=f"--{option} is not honoured: "):
        parse_recipe([*BASE, f"--{option}", "7"])


@pytest.mark.parametrize("option", sorted(ALWAYS))
def test_what_is_always_on_is_accepted_and_anything_else_refused(option):
    for value in ALWAYS[option]:
        assert parse_recipe([*BASE, f"--{option}", *filter(None, [value])]) == parse_recipe(BASE)
    with pytest.raises(UserError, match=f"--{option} is "):
        parse_recipe([*BASE, f"--{option}", "something"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--learning_rat", "1"], "unrecognized arguments: --learning_rat"),
        (["--learning_rate", "fast"], "--learning_rate"),
        (["--learning_rate", "0"], "--learning_rate: '0' is not a number above 0"),
        (["--optimizer_type", "Sophia"], "--optimizer_type"),
        (["--mixed_precision", "fp8"], "--mixed_precision"),
        (["--resolution", "huge"], "--resolution"),
        (["--bucket_reso_steps", "24"], "multiple of 16"),
        (["--output_name", "../x"], "--output_name"),
        (["--phantom"], "--phantom"),
        (["--sample_every_n_steps", "5"], "--sample_prompts"),
    ],
)
def test_a_mistake_is_one_sentence(arguments, message):
    with pytest.raises(UserError, match=message):
        parse_recipe([*BASE, *arguments])


def test_a_config_file_stands_below_the_arguments(tmp_path):
    path = tmp_path / "train.toml"
    path.write_text("learning_rate = 0.001\n[more]\nnetwork_dim = 8\nsdpa = true\nresolution = [64, 128]\n")
    recipe = parse_recipe([*BASE, "--config_file", str(path), "--network_dim", "4"])
    found = (recipe.optimizer.learning_rate, recipe.network.rank, recipe.data.resolution)
    assert found == (0.001, 4, (64, 128))


def test_the_dataset_toml_is_kohyas(tmp_path):
    path = tmp_path / "data.toml"
    path.write_text(
        """
[general]
caption_extension = ".caption"
enable_bucket = true
flip_aug = false
[[datasets]]
resolution = 512
batch_size = 2
  [[datasets.subsets]]
  image_dir = "photos"
  num_repeats = 3
  [[datasets.subsets]]
  image_dir = "reg"
  is_reg = true
  class_tokens = "a face"
"""
    )
    recipe = parse_recipe(["--phantom", "--dataset_config", str(path)])
    assert recipe.data.subsets == (
        Subset(tmp_path / "photos", False, 3, None, ".caption"),
        Subset(tmp_path / "reg", True, 1, "a face", ".caption"),
    )
    assert (recipe.data.resolution, recipe.data.batch_size) == ((512,), 2)
    assert parse_recipe(to_arguments(recipe)) == recipe


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[datasets]]\n[[datasets.subsets]]\nimage_dir='a'\nflip_aug=true", "flip_aug is not honoured"),
        ("[[datasets]]\n[[datasets.subsets]]\nimage_dir='a'\nnum_repeats=0", "num_repeats"),
        ("[[datasets]]\n[[datasets.subsets]]\nimage_dir='a'\ncolour=1", "there is no option colour"),
        ("[[datasets]]\nmin_bucket_reso=-1\n[[datasets.subsets]]\nimage_dir='a'", "min_bucket_reso"),
        ("[[datasets]]\n[[datasets.subsets]]\nimage_dir='a'\nis_reg=true", "no training images"),
        ("[[datasets]]\n[[datasets.subsets]]\nnum_repeats=1", "image_dir"),
        (
            "[[datasets]]\nis_reg=true\n[[datasets.subsets]]\nimage_dir='a'",
            r"is_reg is one folder's; write it under \[\[datasets.subsets\]\]",
        ),
        ("[general]\nimage_dir='a'\n[[datasets]]\n[[datasets.subsets]]\n", "image_dir"),
        ("[datasets]\nx=1", "datasets"),
        ("not toml", "not valid TOML"),
    ],
)
def test_a_mistake_in_the_dataset_toml_names_file_and_key(tmp_path, text, message):
    path = tmp_path / "data.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        parse_recipe(["--phantom", "--dataset_config", str(path)])
    assert str(path) in str(caught.value)


def test_paths_are_paths():
    assert Recipe().replaced({"data.train_dir": "x"}).data.train_dir == Path("x")


@pytest.mark.parametrize("name", ["pre_op", "pre_op.safetensors", "pre_op.SafeTensors"])
def test_the_outputs_name_may_have_its_files_suffix(name):
    assert parse_recipe(["--phantom", "--train_data_dir", "x", "--output_name", name]).output.name == "pre_op"

"""Trainings as kohya's users ask for them: epochs, other optimizers, ranks by layer, a LoRA to start from."""

import json

import pytest
import torch
from noise_pictures import noise_pictures, stop_at_a_checkpoint
from recipes import changed, tiny_recipe
from safetensors.torch import load_file
from tiny_flux import build_tiny_flux
from trainings import metadata_of, trained

from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.recipe.document import read_recipe


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with the model and six photographs in folders with repeats."""
    folder = tmp_path_factory.mktemp("kohya")
    build_tiny_flux(folder / "flux")
    noise_pictures(folder / "photos" / "2_girl", 2, None)
    noise_pictures(folder / "photos" / "1_boy", 4, None, seed=2)
    (folder / "prompts.txt").write_text("a boy --s 1\n")
    return folder


@pytest.fixture
def settings(workplace, tmp_path):
    return tiny_recipe(
        workplace,
        tmp_path / "out",
        max_train_steps=4,
        learning_rate=1e-3,
        optimizer_type="AdamW",
        save_precision="float",
    )


def test_epochs_are_counted_in_batches_of_repeated_images(workplace, settings):
    recipe = changed(
        settings,
        max_train_epochs=2,
        save_every_n_epochs=1,
        sample_every_n_epochs=2,
        sample_prompts=workplace / "prompts.txt",
        gradient_accumulation_steps=3,
    )
    path, events = trained(recipe)
    start = next(event for event in events if event["event"] == "start")
    assert (start["images"], start["total"]) == (6, 6)  # 8 batches, 3 in a step: 3 steps an epoch
    saved = [event["step"] for event in events if event["event"] == "saved"]
    assert saved == [3, 6]
    assert [event["step"] for event in events if event["event"] == "preview"] == [6]
    told = metadata_of(path)
    assert (told["ss_num_epochs"], told["ss_epoch"], told["ss_steps"]) == ("2", "2", "6")
    assert metadata_of(path.with_name("lora-step000003.safetensors"))["ss_epoch"] == "1"
    again = read_recipe(path)
    assert (again.optimizer.epochs, again.optimizer.steps) == (2, 0)
    assert read_recipe(path.parent / "recipe.json") == again


@pytest.mark.parametrize(
    ("name", "further"),
    [("Adafactor", ()), ("Lion", ("weight_decay=0.1",)), ("Lion8bit", ()), ("Prodigy", ("d_coef=2.0",))],
)
def test_other_optimizers_learn_and_resume_bit_identically(settings, tmp_path, name, further):
    package = {"Lion": "lion_pytorch", "Prodigy": "prodigyopt", "Lion8bit": "bitsandbytes"}.get(name)
    if package:
        pytest.importorskip(package)
    rate = 1.0 if name == "Prodigy" else 1e-3
    recipe = changed(settings, optimizer_type=name, optimizer_args=further, learning_rate=rate)
    whole, events = trained(recipe)
    assert next(event for event in events if event["event"] == "start")["optimizer"] == name
    stopped = changed(recipe, output_dir=tmp_path / "stopped", checkpoint_every_n_steps=2)
    stop_at_a_checkpoint(stopped)
    again, _ = trained(stopped)
    expected, found = load_file(whole), load_file(again)
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert any(bool(value.any()) for key, value in expected.items() if "lora_up" in key)
    assert metadata_of(whole)["ss_optimizer"] == name + (f"({further[0]})" if further else "")


def test_an_argument_that_an_optimizer_does_not_take_is_one_sentence(settings):
    with pytest.raises(UserError, match=r"AdamW does not take these --optimizer_args: .*momentums"):
        trained(changed(settings, optimizer_args=("momentums=1",)))
    with pytest.raises(UserError, match="relative_step=False"):
        trained(changed(settings, optimizer_type="Adafactor", optimizer_args=("relative_step=True",)))


def test_ranks_by_layer_and_block(settings):
    arguments = (
        "img_attn_dim=2",
        "txt_mod_dim=0",
        "train_single_block_indices=1",
        "network_reg_dims=_1_img_mlp=3",
    )
    path, _ = trained(changed(settings, network_args=arguments, network_dim=4, network_alpha=4.0))
    ranks = {
        key.partition(".")[0]: value.shape[0] for key, value in load_file(path).items() if "lora_down" in key
    }
    assert ranks["lora_unet_double_blocks_0_img_attn_qkv"] == 2
    assert ranks["lora_unet_double_blocks_0_txt_attn_qkv"] == 4
    assert ranks["lora_unet_double_blocks_1_img_mlp_0"] == 3
    assert ranks["lora_unet_double_blocks_0_img_mlp_0"] == 4
    assert "lora_unet_double_blocks_0_txt_mod_lin" not in ranks
    assert {name for name in ranks if "single" in name} == {
        f"lora_unet_single_blocks_1_{layer}" for layer in ("linear1", "linear2", "modulation_lin")
    }
    assert json.loads(metadata_of(path)["ss_network_args"])["img_attn_dim"] == "2"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rank_dropout=0.1",), "rank_dropout is not honoured: the LoRA has no dropout"),
        (("img_attn_dim",), "is no NAME=VALUE"),
        (("colour=1",), "colour is not honoured: it is unknown"),
        (("train_double_block_indices=0-9",), "give numbers of blocks from 0 to 1"),
        (("network_reg_dims=(=1",), "regular expression is wrong"),
        (("train_double_block_indices=", "train_single_block_indices="), "no layer gets a LoRA"),
    ],
)
def test_a_network_argument_that_is_not_honoured_is_one_sentence(settings, arguments, message):
    with pytest.raises(UserError) as caught:
        trained(changed(settings, network_args=arguments))
    assert message in str(caught.value)


def test_a_run_starts_from_a_lora(settings, tmp_path):
    first, _ = trained(settings)
    recipe = changed(settings, output_dir=tmp_path / "on", network_weights=first, learning_rate=1e-12)
    second, _ = trained(recipe)
    before, after = load_file(first), load_file(second)
    for key, value in before.items():
        torch.testing.assert_close(after[key], value, rtol=1e-4, atol=1e-7)
    with pytest.raises(UserError, match="of another rank"):
        trained(changed(recipe, network_dim=4, output_dir=tmp_path / "rank"))
    with pytest.raises(UserError, match="there is no file"):
        trained(changed(recipe, network_weights=tmp_path / "no", output_dir=tmp_path / "none"))
    separate, _ = trained(changed(settings, network_qkv="separate", output_dir=tmp_path / "separate"))
    with pytest.raises(UserError, match="--network_qkv separate"):
        trained(changed(recipe, network_weights=separate, output_dir=tmp_path / "mixed"))


def test_half_precision_learns_what_single_precision_learns(settings, tmp_path):
    whole, _ = trained(settings)
    half, events = trained(changed(settings, mixed_precision="fp16", output_dir=tmp_path / "half"))
    assert next(event for event in events if event["event"] == "start")["dtype"] == "float16"
    assert metadata_of(half)["ss_mixed_precision"] == "fp16"
    expected, found = load_file(whole), load_file(half)
    ups = [key for key in expected if "lora_up" in key]
    one, other = (torch.cat([tensors[key].flatten() for key in ups]) for tensors in (expected, found))
    assert torch.nn.functional.cosine_similarity(one, other, dim=0) > 0.9

"""The trainer on a base in few bits: what it says, records, saves, and refuses to go on with."""

import json

import pytest
import torch
import trainings
from noise_pictures import noise_pictures
from recipes import tiny_recipe
from safetensors.torch import load_file
from tiny_flux import build_single_files, build_tiny_flux, save_fp8

from diffusioncleft.diffusioncleft_core.errors import UserError


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A tiny FLUX.1 as single files, its transformer in fp8, and five images."""
    folder = tmp_path_factory.mktemp("formats")
    files = build_single_files(build_tiny_flux(folder / "flux"), folder / "files")
    save_fp8(folder / "files" / "fp8.safetensors", files["transformer"])
    noise_pictures(folder / "photos", 5)
    return folder


def trained(workplace, output, base, **values):
    values = {"max_train_steps": 4, **values}
    recipe = tiny_recipe(
        workplace, workplace / output, pretrained_model_name_or_path=base, network_dim=4, **values
    )
    path, events = trainings.trained(recipe)
    start = next((event for event in events if event["event"] == "start"), None)
    return path, start


@pytest.mark.parametrize("form", ["fp8", "int8", "nf4"])
def test_a_quantised_base_is_trained_around_and_recorded(workplace, form):
    path, start = trained(workplace, form, workplace / "flux", base_format=form)
    assert start["base_format"] == form
    assert f"the blocks' in {form}" in start["memory"]
    found = trainings.metadata_of(path)
    assert found["base_format"] == form
    assert json.loads(found["recipe"])["memory"]["base_format"] == form
    up = [value for key, value in load_file(path).items() if "lora_up" in key]
    assert all(value.isfinite().all() for value in up)
    assert any(value.any() for value in up)


def test_an_fp8_file_is_trained_around_as_it_is(workplace):
    path, start = trained(workplace, "stored", workplace / "files" / "fp8.safetensors")
    assert start["base_format"] == trainings.metadata_of(path)["base_format"] == "fp8"
    wide, plain = trained(workplace, "wide", workplace / "files" / "fp8.safetensors", base_format="plain")
    assert plain["base_format"] == trainings.metadata_of(wide)["base_format"] == "plain"
    kept, widened = load_file(path), load_file(wide)
    for key, value in widened.items():
        torch.testing.assert_close(kept[key], value, rtol=1e-3, atol=1e-6)


def test_a_checkpoint_is_not_gone_on_with_around_another_form(workplace):
    trained(workplace, "changed", workplace / "flux", base_format="int8")
    with pytest.raises(UserError, match="base format was int8, is fp8"):
        trained(workplace, "changed", workplace / "flux", base_format="fp8", max_train_steps=6)

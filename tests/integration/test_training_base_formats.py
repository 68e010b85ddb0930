"""The trainer on a base in few bits: what it says, records, saves, and refuses to go on with."""

import json

import pytest
import torch
from noise_pictures import noise_pictures
from recipes import recipe_of
from safetensors import safe_open
from safetensors.torch import load_file
from tiny_flux import build_single_files, build_tiny_flux, save_fp8

from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.trainer.events import Events
from diffusioncleft.trainer.flux_train_network import train
from diffusioncleft.trainer.interruption import Interruption


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A tiny FLUX.1 as single files, its transformer in fp8, and five images."""
    folder = tmp_path_factory.mktemp("formats")
    files = build_single_files(build_tiny_flux(folder / "flux"), folder / "files")
    save_fp8(folder / "files" / "fp8.safetensors", files["transformer"])
    noise_pictures(folder / "photos", 5)
    return folder


def trained(workplace, output, base, **values):
    events: list[dict] = []
    recipe = recipe_of(
        pretrained_model_name_or_path=base,
        train_data_dir=workplace / "photos",
        cache_dir=workplace / "cache",
        output_dir=workplace / output,
        resolution=(64,),
        num_cpu_threads=1,
        device="cpu",
        network_dim=4,
        **{"max_train_steps": 4, **values},
    )
    path = train(recipe, Events(events.append), Interruption()).path
    start = next((event for event in events if event["event"] == "start"), None)
    return path, start


def metadata(path):
    with safe_open(path, "pt") as file:
        return file.metadata()


@pytest.mark.parametrize("form", ["fp8", "int8", "nf4"])
def test_a_quantised_base_is_trained_around_and_recorded(workplace, form):
    path, start = trained(workplace, form, workplace / "flux", base_format=form)
    assert start["base_format"] == form
    assert f"the blocks' in {form}" in start["memory"]
    found = metadata(path)
    assert found["base_format"] == form
    assert json.loads(found["recipe"])["memory"]["base_format"] == form
    up = [value for key, value in load_file(path).items() if "lora_up" in key]
    assert all(value.isfinite().all() for value in up)
    assert any(value.any() for value in up)


def test_an_fp8_file_is_trained_around_as_it_is(workplace):
    path, start = trained(workplace, "stored", workplace / "files" / "fp8.safetensors")
    assert start["base_format"] == metadata(path)["base_format"] == "fp8"
    wide, plain = trained(workplace, "wide", workplace / "files" / "fp8.safetensors", base_format="plain")
    assert plain["base_format"] == metadata(wide)["base_format"] == "plain"
    kept, widened = load_file(path), load_file(wide)
    for key, value in widened.items():
        torch.testing.assert_close(kept[key], value, rtol=1e-3, atol=1e-6)


def test_a_checkpoint_is_not_gone_on_with_around_another_form(workplace):
    trained(workplace, "changed", workplace / "flux", base_format="int8")
    with pytest.raises(UserError, match="base format was int8, is fp8"):
        trained(workplace, "changed", workplace / "flux", base_format="fp8", max_train_steps=6)

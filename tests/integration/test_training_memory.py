"""The trainer chooses how the base lies in memory, says and records it, and goes on as it began."""

import json

import pytest
import torch
import trainings
from noise_pictures import noise_pictures
from recipes import recipe_of, tiny_recipe
from safetensors import safe_open
from safetensors.torch import load_file
from tiny_flux import build_single_files, build_tiny_flux, save_fp8

from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.flux.memory_estimate import GIB, MARGIN, Layout, estimate
from diffusioncleft.diffusioncleft_core.flux.memory_plan import Room
from diffusioncleft.diffusioncleft_core.flux.model_size import model_size
from diffusioncleft.diffusioncleft_core.flux.source import FluxSource
from diffusioncleft.diffusioncleft_core.flux.training_memory import Batch, plan_training, work_of
from diffusioncleft.diffusioncleft_core.flux.transformer import open_transformer
from diffusioncleft.trainer import memory_plan


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A tiny FLUX.1, its transformer in fp8 beside it, and four images."""
    folder = tmp_path_factory.mktemp("memory")
    files = build_single_files(build_tiny_flux(folder / "flux"), folder / "files")
    save_fp8(folder / "files" / "fp8.safetensors", files["transformer"])
    noise_pictures(folder / "photos", 4)
    return folder


def trained(workplace, output, base="flux", **values):
    """The LoRA and the events of a run of two steps."""
    values = {"max_train_steps": 2, "lr_scheduler": "constant", **values}
    recipe = tiny_recipe(
        workplace, workplace / output, pretrained_model_name_or_path=workplace / base, network_dim=4, **values
    )
    path, events = trainings.trained(recipe)
    return path, {event["event"]: event for event in events}


def recorded(path):
    """The memory part of recipe.json and of the recipe in the LoRA's metadata, which are one."""
    with safe_open(path, "pt") as file:
        told = json.loads(file.metadata()["recipe"])["memory"]
    assert json.loads((path.parent / "recipe.json").read_text("utf-8"))["memory"] == told
    return told["base_format"], told["gradient_checkpointing"], told["blocks_to_swap"]


@pytest.fixture
def pretend(monkeypatch):
    """Plan on the processor as if a GPU had so many bytes free."""

    def to(device_bytes, host=GIB):
        room = Room(device_bytes, host)

        def plan(recipe, size, dtype, _, *rest):
            return plan_training(recipe, size, dtype, room, *rest)

        monkeypatch.setattr(memory_plan, "plan_training", plan)

    return to


def needs(workplace, form, *, checkpointing, streamed=0):
    """Bytes with which just this layout of the tiny model fits."""
    with open_transformer(FluxSource(folder=workplace / "flux")) as tensors:
        size = model_size(tensors)
    recipe = recipe_of(phantom=True, network_dim=4, resolution=(64,))
    work = work_of(recipe, size, torch.float32, Batch(16, 0))
    return int(estimate(size, work, Layout(form, checkpointing, streamed)).device * MARGIN) + 1


def test_on_the_processor_auto_is_plain_and_bit_identical(workplace):
    automatic, events = trained(workplace, "auto", base_format="auto")
    explicit, _ = trained(
        workplace, "explicit", base_format="plain", gradient_checkpointing=False, blocks_to_swap=0
    )
    assert events["memory"]["message"] == "base unquantised"
    assert recorded(automatic) == ("plain", False, 0)
    one, other = load_file(automatic), load_file(explicit)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_an_fp8_file_stays_as_it_is_stored(workplace):
    path, events = trained(workplace, "fp8", "files/fp8.safetensors")
    assert recorded(path) == ("stored", False, 0)
    assert events["memory"]["base_format"] == events["start"]["base_format"] == "fp8"


def test_little_memory_changes_the_plan_which_is_told_and_recorded(workplace, pretend):
    pretend(needs(workplace, "int8", checkpointing=True))
    path, events = trained(workplace, "small")
    assert recorded(path) == ("int8", True, 0)
    assert "faster ways need more" in events["memory"]["message"]
    assert events["start"]["base_format"] == "int8"
    assert events["memory"]["gradient_checkpointing"] is True


def test_a_run_goes_on_as_it_began_on_a_machine_with_more_memory(workplace, pretend):
    straight, _ = trained(workplace, "straight", base_format="int8", max_train_steps=4)
    pretend(needs(workplace, "int8", checkpointing=False))
    trained(workplace, "moved")
    pretend(100 * GIB)
    path, events = trained(workplace, "moved", max_train_steps=4)
    assert events["memory"]["message"].endswith("as the run began")
    assert recorded(path) == ("int8", False, 0)
    one, other = load_file(path), load_file(straight)
    assert all(torch.equal(one[key], other[key]) for key in one), "as a run without a stop"


def test_a_run_goes_on_with_less_memory_around_the_same_form(workplace, pretend):
    pretend(needs(workplace, "int8", checkpointing=False))
    trained(workplace, "shrunk")
    pretend(needs(workplace, "int8", checkpointing=True))
    path, events = trained(workplace, "shrunk", max_train_steps=4)
    assert recorded(path) == ("int8", True, 0)
    assert "the run began otherwise" in events["memory"]["message"]


def test_another_form_than_the_recorded_one_is_refused(workplace, pretend):
    pretend(needs(workplace, "int8", checkpointing=False))
    trained(workplace, "changed")
    with pytest.raises(UserError, match="base format was int8"):
        trained(workplace, "changed", base_format="plain", max_train_steps=4)


def test_nothing_is_written_where_nothing_fits(workplace, pretend):
    pretend(1000)
    with pytest.raises(UserError, match=r"^training does not fit: .*; close what else uses the GPU$"):
        trained(workplace, "none")
    assert not list((workplace / "none").rglob("*.safetensors"))

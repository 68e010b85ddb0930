"""DoRA and LoKr through the trainer: resumed to the same bits, previewed as the file, begun from a file."""

import json

import numpy as np
import pytest
import torch
from noise_pictures import noise_pictures, stop_at_a_checkpoint
from PIL import Image
from recipes import changed, tiny_recipe
from safetensors.torch import load_file
from tiny_flux import build_tiny_flux
from trainings import metadata_of, trained

from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.flux import lora
from diffusioncleft.diffusioncleft_core.flux.source import FluxSource
from diffusioncleft.diffusioncleft_core.flux.transformer import load_transformer
from diffusioncleft.trainer.config import parse_recipe, to_arguments


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("forms")
    build_tiny_flux(folder / "flux")
    noise_pictures(folder / "photos", 3)
    (folder / "prompts.txt").write_text("a boy --s 1\n")
    return folder


@pytest.fixture(params=["dora", "lokr"])
def settings(request, workplace, tmp_path):
    return tiny_recipe(
        workplace,
        tmp_path / "out",
        network_form=request.param,
        network_dim=2,
        network_alpha=4.0,
        max_train_steps=4,
        learning_rate=1e-2,
        optimizer_type="AdamW",
        gradient_checkpointing=True,
        output_preservation_weight=0.5,
    )


def test_a_stopped_run_ends_with_the_same_file(settings, tmp_path):
    whole = trained(settings)[0]
    stopped = changed(settings, output_dir=tmp_path / "stopped", checkpoint_every_n_steps=2)
    stop_at_a_checkpoint(stopped)
    again = trained(stopped)[0]
    first, second = load_file(whole), load_file(again)
    assert set(first) == set(second)
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    told = metadata_of(whole)
    arguments = json.loads(told["ss_network_args"])
    form = settings.network.form
    assert arguments == ({"use_dora": "True"} if form == "dora" else {"algo": "lokr", "factor": "-1"})
    other = "lokr" if form == "dora" else "dora"
    with pytest.raises(UserError, match=f"network_form was {form}"):
        trained(changed(stopped, network_form=other))


def test_the_preview_is_what_the_bf16_file_gives(settings, workplace, tmp_path):
    previewed = changed(settings, sample_prompts=workplace / "prompts.txt", sample_every_n_steps=4)
    file = trained(previewed)[0]
    shown = np.asarray(Image.open(tmp_path / "out" / "previews" / "step_000004_00.png"))
    begun = changed(
        previewed,
        network_weights=file,
        output_dir=tmp_path / "begun",
        sample_at_first=True,
        max_train_steps=1,
        sample_every_n_steps=0,
        learning_rate=1e-12,
    )
    trained(begun)
    drawn = np.asarray(Image.open(tmp_path / "begun" / "previews" / "step_000000_00.png"))
    assert np.abs(shown.astype(int) - drawn).max() <= 1
    plain = load_transformer(FluxSource(folder=workplace / "flux"), torch.device("cpu"), torch.float32)
    assert lora.load_lora(plain, file)["effective_scale"] == "2.0"


def test_kohyas_words_train_the_same_form(settings):
    words = ("algo=lokr",) if settings.network.form == "lokr" else ("use_dora=True",)
    given = to_arguments(changed(settings, network_form="lora"))[1:]
    recipe = parse_recipe([*given, "--network_args", *words])
    assert recipe.network.form == settings.network.form
    assert parse_recipe(to_arguments(recipe)) == recipe
    with pytest.raises(UserError, match="different things"):
        parse_recipe([*given, "--network_form", "lora", "--network_args", *words])
    if settings.network.form == "dora":
        with pytest.raises(UserError, match="--blocks_to_swap 1"):
            parse_recipe([*given, "--network_args", *words, "--blocks_to_swap", "1"])
        with pytest.raises(UserError, match="--lokr_factor 8"):
            parse_recipe([*given, "--network_args", *words, "--lokr_factor", "8"])

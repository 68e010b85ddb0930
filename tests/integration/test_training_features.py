"""Several sizes of an image, caption dropout, the LoRA's average: what each changes, and that a run that was
interrupted ends on the same bits with it.
"""

import json
from pathlib import Path

import pytest
import torch
from noise_pictures import noise_pictures, stop_at_a_checkpoint
from PIL import Image
from recipes import changed, tiny_recipe
from safetensors.torch import load_file
from synthetic_mark import assert_marked
from tiny_flux import build_tiny_flux
from trainings import loss_rows, metadata_of, same, trained

from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.trainer.events import Events
from diffusioncleft.trainer.flux_train_network import train
from diffusioncleft.trainer.interruption import Interrupted, Interruption


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A base model and photographs of three sizes, the smallest of which fills the smallest base alone."""
    folder = tmp_path_factory.mktemp("features")
    build_tiny_flux(folder / "flux")
    noise_pictures(folder / "photos", 6, name="Jane Roe ", sizes=((64, 64), (96, 96), (128, 96)))
    noise_pictures(folder / "reg", 2, "A girl's whole face.", name="healthy", seed=2, sizes=((96, 96),))
    return folder


@pytest.fixture
def settings(workplace, tmp_path):
    return tiny_recipe(
        workplace,
        tmp_path / "out",
        resolution=(64, 96),
        max_train_steps=8,
        checkpoint_every_n_steps=3,
        learning_rate=1e-2,
        optimizer_type="AdamW",
        save_precision="float",
    )


def assert_goes_on_to_the_same_bits(settings, whole: Path, folder: Path) -> None:
    """The run once more, stopped at its first checkpoint and continued, against the undisturbed one."""
    interrupted = changed(settings, output_dir=folder)
    stop_at_a_checkpoint(interrupted)
    again, events = trained(interrupted)
    assert next(event for event in events if event["event"] == "start")["step"] == 3
    assert same(whole, again)
    assert loss_rows(whole.parent) == loss_rows(again.parent)
    assert metadata_of(whole) == metadata_of(again)


def test_an_image_is_trained_at_every_size_that_it_fills(workplace, settings, tmp_path):
    settings = changed(settings, multi_resolution=True, reg_data_dir=workplace / "reg")
    path, events = trained(settings)
    start = next(event for event in events if event["event"] == "start")
    assert (start["images"], start["regularisation"]) == (6, 2)
    assert start["buckets"] == {"64x64": 2, "80x112": 2, "96x96": 2}
    told = metadata_of(path)
    assert (told["ss_num_train_images"], told["ss_num_batches_per_epoch"]) == ("6", "10")
    latents = {tuple(entry.shape[1:]) for entry in cached(workplace)}
    assert latents == {(8, 8), (12, 12), (10, 6), (14, 10)}
    assert_goes_on_to_the_same_bits(settings, path, tmp_path / "again")


def test_a_finished_training_is_known_though_its_file_tells_no_steps_and_written_anew_in_another_form(
    workplace, settings, tmp_path
):
    noise_pictures(tmp_path / "few", 2)
    settings = changed(settings, train_data_dir=tmp_path / "few", max_train_steps=0, save_precision="float")
    path, _ = trained(settings)
    assert "ss_steps" not in metadata_of(path)

    def again(**changes):
        return ["start" in event.values() for event in trained(changed(settings, **changes))[1]].count(True)

    assert again() == 0
    assert again(save_precision="bf16", prompt_form="bare") == 1
    assert torch.bfloat16 in {value.dtype for value in load_file(path).values()}
    assert metadata_of(path)["prompt_form"] == "bare"
    assert again(save_precision="bf16", prompt_form="bare") == 0
    assert again() == 1
    remade, _ = trained(changed(settings, output_dir=tmp_path / "whole"))
    assert same(path, remade)


def test_latents_of_an_image_are_the_same_whatever_is_encoded_beside_it(workplace, settings, tmp_path):
    for count in (1, 5):
        noise_pictures(tmp_path / f"{count}", count, sizes=((64, 64),))
        folder = tmp_path / f"{count}"
        trained(changed(settings, train_data_dir=folder, cache_dir=folder / "cache", max_train_steps=1))
    (alone,), among = cached(tmp_path / "1"), cached(tmp_path / "5")
    assert any(torch.equal(alone, other) for other in among)


def test_steps_count_photographs_whatever_the_number_of_sizes(settings):
    interruption, told = Interruption(), []

    def stop_at_once(event):
        told.append(event)
        if event["event"] == "start":
            interruption.request("test")

    with pytest.raises(Interrupted):
        train(changed(settings, multi_resolution=True, max_train_steps=0), Events(stop_at_once), interruption)
    assert next(event for event in told if event["event"] == "start")["total"] == 60


def cached(workplace: Path) -> list[torch.Tensor]:
    files = sorted((workplace / "cache" / "latents").rglob("*.safetensors"))
    return [load_file(file)["latents"] for file in files]


def test_few_photographs_at_several_sizes_do_not_tell_how_few_they_are(workplace, settings, tmp_path):
    noise_pictures(tmp_path / "few", 3, sizes=((96, 96),))
    path, _ = trained(
        changed(settings, multi_resolution=True, train_data_dir=tmp_path / "few", train_batch_size=1)
    )
    told = metadata_of(path)
    untold = ("ss_num_train_images", "ss_num_batches_per_epoch", "ss_num_epochs", "ss_epoch")
    assert [name for name in untold if name in told] == []
    assert set(json.loads(told["bucket_counts"]).values()) == {None}


def test_under_rate_1_captions_do_not_matter_and_at_half_some_do(workplace, settings, tmp_path):
    """The same noise in all; at half, the first image has the loss of the one or of the other."""
    sizes = ((64, 64), (96, 96), (128, 96))
    other = noise_pictures(tmp_path / "other", 6, "[CLP] An old man.", name="Jane Roe ", sizes=sizes)
    captioned, _ = trained(settings)
    bare, _ = trained(changed(settings, caption_dropout_rate=1.0, output_dir=tmp_path / "bare"))
    also, _ = trained(
        changed(settings, caption_dropout_rate=1.0, output_dir=tmp_path / "also", train_data_dir=other)
    )
    half, _ = trained(changed(settings, caption_dropout_rate=0.5, output_dir=tmp_path / "half"))
    assert same(bare, also)
    first = [next(row["loss"] for row in loss_rows(path.parent)) for path in (captioned, bare, half)]
    assert first[0] != first[1]
    assert first[2] in first[:2]
    assert not same(captioned, bare) and not same(half, bare) and not same(half, captioned)
    assert metadata_of(half)["ss_caption_dropout_rate"] == "0.5"
    with pytest.raises(UserError, match=r"caption_dropout_rate was 0\.5"):
        trained(changed(settings, caption_dropout_rate=0.25, output_dir=tmp_path / "half", max_train_steps=9))


def test_every_so_many_epochs_go_without_captions(settings, tmp_path):
    """Six photographs an epoch: with every second one bare, the first six steps are as without dropout."""
    plain, _ = trained(settings)
    settings = changed(settings, caption_dropout_every_n_epochs=2, output_dir=tmp_path / "bare")
    losses = [[row["loss"] for row in loss_rows(path.parent)] for path in (plain, trained(settings)[0])]
    assert losses[0][:6] == losses[1][:6]
    assert losses[0][6] != losses[1][6]


def test_a_run_with_caption_dropout_goes_on_to_the_same_bits(workplace, settings, tmp_path):
    settings = changed(
        settings,
        caption_dropout_rate=0.5,
        train_batch_size=2,
        reg_data_dir=workplace / "reg",
        output_preservation_weight=1.0,
    )
    assert_goes_on_to_the_same_bits(settings, trained(settings)[0], tmp_path / "again")


def test_the_file_is_the_average_of_the_weights_over_the_steps(settings, tmp_path):
    """Recomputed from the LoRA of every step, which a run without average saves."""
    decay = 0.4
    plain, _ = trained(changed(settings, save_every_n_steps=1))
    averaged, _ = trained(changed(settings, ema_decay=decay, output_dir=tmp_path / "averaged"))
    steps = [load_file(plain.with_name(f"lora-step{step:06d}.safetensors")) for step in range(1, 8)]
    steps.append(load_file(plain))
    found = load_file(averaged)
    moved = 0.0
    for key, value in found.items():
        if ".lora_up." not in key:  # they begin at nothing
            continue
        expected = torch.zeros_like(value)
        for step, weights in enumerate(steps, 1):
            used = min(decay, (1 + step) / (10 + step))
            expected = used * expected + (1 - used) * weights[key]
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-7)
        moved = max(moved, (value - steps[-1][key]).abs().max().item())
    assert moved > 1e-4
    assert loss_rows(plain.parent) == loss_rows(averaged.parent)  # what is trained is the same
    assert metadata_of(averaged)["ema_decay"] == "0.4" and "ema_decay" not in metadata_of(plain)


def test_previews_are_the_averages_too(workplace, settings, tmp_path):
    """Of a run whose last checkpoint's weights differ: drawn again from the file, which is the average."""
    (tmp_path / "prompts.txt").write_text("[CLP] a boy --d 7 --s 1\n")
    settings = changed(settings, sample_prompts=tmp_path / "prompts.txt", sample_every_n_steps=8)
    averaged, _ = trained(changed(settings, ema_decay=0.9))
    again = changed(settings, network_weights=averaged, output_dir=tmp_path / "again", max_train_steps=1)
    trained(changed(again, sample_at_first=True, sample_every_n_steps=0))
    plain, _ = trained(changed(settings, output_dir=tmp_path / "plain"))
    pictures = [
        Image.open(folder / "previews" / f"step_{step:06d}_00.png").convert("RGB").tobytes()
        for folder, step in ((averaged.parent, 8), (tmp_path / "again", 0), (plain.parent, 8))
    ]
    assert pictures[0] == pictures[1] != pictures[2]


def test_a_run_ends_with_its_pictures(settings, tmp_path):
    (tmp_path / "prompts.txt").write_text("[CLP] a boy --s 1\n[CLP] a girl --s 1\n")
    path, _ = trained(
        changed(settings, sample_prompts=tmp_path / "prompts.txt", sample_every_n_steps=4, sample_size=64)
    )
    assert Image.open(path.parent / "loss.png").width > 1200
    grid = Image.open(path.parent / "previews" / "grid.png")
    assert grid.width == 2 * 264 + 8  # steps 4 and 8
    assert_marked(path.parent / "previews" / "grid.png", "Previews by step")


def test_a_run_with_an_average_goes_on_to_the_same_bits(settings, tmp_path):
    settings = changed(settings, ema_decay=0.9, save_every_n_steps=4)
    whole, _ = trained(settings)
    assert_goes_on_to_the_same_bits(settings, whole, tmp_path / "again")
    assert same(*(path / "lora-step000004.safetensors" for path in (whole.parent, tmp_path / "again")))
    with pytest.raises(UserError, match=r"ema_decay was 0\.9, is 0\.5"):
        trained(changed(settings, ema_decay=0.5, max_train_steps=9))


SIDED = "[CLP] A girl's whole face with a unilateral cleft lip on the left side."


def test_mirror_images_are_trained_on_with_the_other_side_in_their_words(workplace, settings, tmp_path):
    """The losses are those of a folder that holds each picture both ways, with a caption for each."""
    photos = noise_pictures(tmp_path / "photos", 3, SIDED)
    both = tmp_path / "both"
    both.mkdir()
    for number in range(3):
        with Image.open(photos / f"{number}.png") as picture:
            picture.save(both / f"{number}a.png")
            picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(both / f"{number}b.png")
        (both / f"{number}a.txt").write_text(SIDED)
        (both / f"{number}b.txt").write_text(SIDED.replace("the left", "the right"))
    settings = changed(settings, resolution=(64,), train_data_dir=photos)
    mirrored, events = trained(changed(settings, mirror=True))
    by_hand, _ = trained(changed(settings, train_data_dir=both, output_dir=tmp_path / "by_hand"))
    assert same(mirrored, by_hand) and loss_rows(mirrored.parent) == loss_rows(by_hand.parent)
    start = next(event for event in events if event["event"] == "start")
    assert (start["images"], start["buckets"]) == (3, {"64x64": 3})
    assert metadata_of(mirrored)["ss_flip_aug"] == "True"
    assert "ss_num_train_images" not in metadata_of(mirrored)  # fewer than five photographs
    plain, _ = trained(changed(settings, output_dir=tmp_path / "plain"))
    assert not same(mirrored, plain) and metadata_of(plain)["ss_flip_aug"] == "False"


def test_a_run_with_mirror_images_goes_on_to_the_same_bits(settings, tmp_path):
    settings = changed(settings, mirror=True)
    whole, _ = trained(settings)
    assert_goes_on_to_the_same_bits(settings, whole, tmp_path / "again")
    with pytest.raises(UserError, match="images"):
        trained(changed(settings, mirror=False, max_train_steps=9))

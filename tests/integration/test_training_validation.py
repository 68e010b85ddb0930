"""The loss on the hold-out: of the LoRA in the file, on images that nothing is learned from; early stop."""

import json

import numpy as np
import pytest
import torch
from noise_pictures import noise_pictures, stop_at_a_checkpoint
from PIL import Image
from recipes import changed, tiny_recipe
from safetensors import safe_open
from tiny_flux import build_tiny_flux
from trainings import loss_rows, same, trained

from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.flux.components import load_text_encoders, load_vae
from diffusioncleft.diffusioncleft_core.flux.lora import load_lora
from diffusioncleft.diffusioncleft_core.flux.sampling import encode_images, encode_prompts, predict_velocity
from diffusioncleft.diffusioncleft_core.flux.source import FluxSource
from diffusioncleft.diffusioncleft_core.flux.transformer import load_transformer
from diffusioncleft.diffusioncleft_core.imageset.decode import pixel_sha256
from diffusioncleft.trainer.objective import seeded

HELD_OUT = "[CLP] A man whom nobody trains on."


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A base model, photographs, held-out ones apart, and both as one folder with a manifest."""
    folder = tmp_path_factory.mktemp("validation")
    build_tiny_flux(folder / "flux")
    noise_pictures(folder / "photos", 4)
    noise_pictures(folder / "kept", 2, HELD_OUT, name="Jane Roe ", seed=9)
    listed = folder / "listed"
    listed.mkdir()
    lines = []
    for source, role in (("photos", "train"), ("kept", "holdout")):
        for file in sorted((folder / source).glob("*.png")):
            (listed / file.name).write_bytes(file.read_bytes())
            row = {"file": file.name, "width": 64, "height": 64, "role": role}
            lines.append(json.dumps(row | {"caption": file.with_suffix(".txt").read_text()}))
    (listed / "manifest.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture
def settings(workplace, tmp_path):
    return tiny_recipe(
        workplace,
        tmp_path / "out",
        validation_data_dir=workplace / "kept",
        validate_every_n_steps=2,
        max_train_steps=6,
        checkpoint_every_n_steps=3,
        learning_rate=1e-2,
        optimizer_type="AdamW",
        save_precision="float",
    )


def test_the_loss_is_that_of_the_lora_on_the_hold_out_at_fixed_noise(workplace, settings, tmp_path):
    """Computed anew from the files of the base and of the LoRA."""
    path = trained(changed(settings, save_every_n_steps=2, validation_seed=5))[0]
    source, device = FluxSource.from_arguments(workplace / "flux"), torch.device("cpu")
    transformer = load_transformer(source, device, torch.float32)
    load_lora(transformer, path.with_name("lora-step000002.safetensors"))
    vae = load_vae(source, device, torch.float32)
    text = encode_prompts(load_text_encoders(source, device, torch.float32), [HELD_OUT], device)[0]
    errors = []
    for file in sorted((workplace / "kept").glob("*.png")):
        pixels = np.array(Image.open(file))
        with torch.no_grad():
            clean = encode_images(vae, torch.from_numpy(pixels).permute(2, 0, 1)[None] / 127.5 - 1)
            noise = torch.randn(clean.shape[1:], generator=seeded(5, "validation", pixel_sha256(pixels)))[
                None
            ]
            for sigma in (0.2, 0.4, 0.6, 0.8):
                level = torch.tensor([sigma])
                noisy = (1 - sigma) * clean + sigma * noise
                found = predict_velocity(
                    transformer, noisy, level, text.prompt_embeds[None], text.pooled[None]
                )
                errors.append((found - (noise - clean)).square().mean().item())
    told = {row["step"]: row["val_loss"] for row in loss_rows(path.parent) if "val_loss" in row}
    assert sorted(told) == [2, 4, 6]
    assert told[2] == pytest.approx(np.mean(errors), rel=1e-4)
    assert len(set(told.values())) == 3


def test_validating_changes_nothing_of_what_is_trained(settings, tmp_path):
    with_it, events = trained(settings)
    plain = changed(
        settings, validate_every_n_steps=0, validation_data_dir=None, output_dir=tmp_path / "plain"
    )
    without, _ = trained(plain)
    assert same(with_it, without)
    kept = [{key: row[key] for key in row if key != "val_loss"} for row in loss_rows(with_it.parent)]
    assert kept == loss_rows(without.parent)
    found = [(event["step"], event["loss"]) for event in events if event["event"] == "validation"]
    assert found == [(r["step"], r["val_loss"]) for r in loss_rows(with_it.parent) if "val_loss" in r]


def test_of_a_plain_folder_it_is_said_once_that_nothing_is_recorded(workplace, settings, tmp_path):
    one = changed(settings, validate_every_n_steps=1, max_train_steps=1)
    told = [event["message"] for event in trained(one)[1] if event["event"] == "notice"]
    (said,) = [message for message in told if "is recorded nowhere" in message]
    assert "no built dataset" in said and str(workplace) not in said and "Jane" not in said
    without = changed(one, validate_every_n_steps=0, validation_data_dir=None, output_dir=tmp_path / "plain")
    assert not any("is recorded nowhere" in event.get("message", "") for event in trained(without)[1])


def test_the_hold_out_of_the_training_folder_is_taken_and_not_trained_on(workplace, settings, tmp_path):
    apart, _ = trained(settings)
    listed = changed(settings, train_data_dir=workplace / "listed", validation_data_dir=None)
    together, events = trained(changed(listed, output_dir=tmp_path / "listed"))
    assert next(event for event in events if event["event"] == "start")["images"] == 4
    assert same(apart, together)
    assert loss_rows(apart.parent) == loss_rows(together.parent)


def test_what_is_trained_on_is_no_hold_out(workplace, settings, tmp_path):
    with pytest.raises(UserError, match="no held-out image to validate on; give --validation_data_dir"):
        trained(changed(settings, validation_data_dir=None))
    noise_pictures(tmp_path / "copies", 4)
    with pytest.raises(UserError, match="no held-out image to validate on"):
        trained(changed(settings, validation_data_dir=tmp_path / "copies"))
    (tmp_path / "copies" / "new.png").write_bytes((workplace / "kept" / "Jane Roe 0.png").read_bytes())
    (tmp_path / "copies" / "new.txt").write_text(HELD_OUT)
    _, events = trained(changed(settings, validation_data_dir=tmp_path / "copies", max_train_steps=2))
    assert any("a few held-out images are trained on too" in event.get("message", "") for event in events)
    with pytest.raises(UserError, match="there is no folder"):
        trained(changed(settings, validation_data_dir=tmp_path / "missing"))
    with pytest.raises(UserError, match="beyond the 6 steps"):
        trained(changed(settings, validate_every_n_steps=7, output_dir=tmp_path / "long"))


def test_a_training_that_is_refused_leaves_what_it_was_to_take_the_place_of(settings):
    path, _ = trained(changed(settings, save_every_n_steps=2))
    kept = {file: file.read_bytes() for file in path.parent.rglob("*.safetensors")}
    with pytest.raises(UserError, match="beyond the 6 steps"):
        trained(changed(settings, validate_every_n_steps=7, resume="no"))
    assert {file: file.read_bytes() for file in path.parent.rglob("*.safetensors")} == kept


def test_an_early_stop_keeps_the_best_lora_and_goes_on_to_it(settings, tmp_path):
    """At this rate the loss on noise that is not trained on soon rises."""
    settings = changed(
        settings,
        validate_every_n_steps=1,
        early_stop=2,
        max_train_steps=30,
        learning_rate=3e-2,
        save_every_n_steps=1,
    )
    result, events = trained(settings)
    found = {row["step"]: row["val_loss"] for row in loss_rows(result.parent)}
    best = min(found, key=found.get)
    assert (events[-1]["step"], max(found)) == (best, best + 2)
    assert best + 2 < 30
    assert same(result, result.with_name(f"lora-step{best:06d}.safetensors"))
    said = [event["message"] for event in events if event["event"] == "notice"]
    assert any(
        f"least at step {best} " in one and one.endswith("after 2 validations without improvement")
        for one in said
    )
    with safe_open(result, "pt") as file:
        assert float(file.metadata()["validation_loss"]) == found[best]

    again, events = trained(settings)
    assert (again, [event["event"] for event in events if event["event"] == "start"]) == (result, [])

    interrupted = changed(settings, output_dir=tmp_path / "again", checkpoint_every_n_steps=best)
    stop_at_a_checkpoint(interrupted)
    resumed, events = trained(interrupted)
    assert next(event for event in events if event["event"] == "start")["step"] == best
    assert events[-1]["step"] == best
    assert same(resumed, result)
    assert loss_rows(resumed.parent) == loss_rows(result.parent)

    with pytest.raises(UserError, match="early_stop was 2, is 5"):
        trained(changed(settings, early_stop=5, max_train_steps=31))


def test_the_average_is_what_is_validated_and_kept(settings, tmp_path):
    settings = changed(settings, ema_decay=0.5, early_stop=9, save_every_n_steps=2)
    result, events = trained(settings)
    found = {row["step"]: row["val_loss"] for row in loss_rows(result.parent) if "val_loss" in row}
    assert events[-1]["step"] == min(found, key=found.get)
    if events[-1]["step"] < 6:
        assert same(result, result.with_name(f"lora-step{events[-1]['step']:06d}.safetensors"))
    plain, _ = trained(changed(settings, ema_decay=0.0, output_dir=tmp_path / "plain"))
    assert found != {r["step"]: r["val_loss"] for r in loss_rows(plain.parent) if "val_loss" in r}
    resumed = changed(settings, output_dir=tmp_path / "again")
    stop_at_a_checkpoint(resumed)
    assert same(trained(resumed)[0], result)


def test_the_hold_out_lies_in_the_private_cache_and_is_named_nowhere_else(workplace, settings):
    result, events = trained(settings)
    shared = [file.read_bytes() for file in result.parent.rglob("*") if file.is_file()]
    shared.append(json.dumps([event for event in events if not event.get("private")]).encode())
    for secret in (b"Jane", b"whom nobody", str(workplace / "kept").encode()):
        assert not any(secret in content for content in shared)
    assert len(list((workplace / "cache" / "latents").rglob("*.safetensors"))) >= 6

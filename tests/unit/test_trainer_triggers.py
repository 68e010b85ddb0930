"""The trigger: how a run knows it, and the captions under which the base model's output is preserved."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from trainer_settings import trainer_settings

from diffusioncleft.diffusioncleft_core.dataset.folder import MARKER, SETTINGS
from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.recipe.recipe import Subset
from diffusioncleft.trainer import prepare
from diffusioncleft.trainer.events import Events
from diffusioncleft.trainer.flux_train_network import train
from diffusioncleft.trainer.interruption import Interruption
from diffusioncleft.trainer.triggers import (
    check_preserved,
    counterparts,
    known_trigger,
    trigger_form,
    trigger_of,
    with_other_trigger,
    without_trigger,
)

TEXT = "A girl's whole face with an unrepaired cleft lip."


@pytest.mark.parametrize(
    ("captions", "trigger", "form"),
    [
        (["[CLP] a girl", "[CLP] a boy"], "CLP", "bracketed"),
        (["CLPrep a girl"], "CLPrep", "bare"),
        (["[CLP] a girl", "CLP a boy"], "CLP", ""),
        (["[sks] a girl"], "sks", "bracketed"),
        (["[CLP] a girl", "[CLPrep] a boy"], None, ""),
        (["[CLP] a girl", "a boy"], None, ""),
        (["sks a girl"], None, ""),
        ([], None, ""),
    ],
)
def test_the_trigger_is_read_from_captions_that_agree(captions, trigger, form):
    assert trigger_of(captions) == trigger
    assert trigger_form(captions, trigger or "") == form


@pytest.mark.parametrize("trigger", ["CLP", "sks", "C.P", "ohwx-1", "ohwx person"])
@pytest.mark.parametrize("form", ["[{}]", "{}"])
def test_a_caption_loses_its_trigger_or_gets_the_other_one_in_the_same_form(trigger, form):
    tag, other = form.format(trigger), form.format("CLPrep")
    assert without_trigger(f"{tag} {TEXT}", trigger) == TEXT
    assert with_other_trigger(f"{tag} {TEXT}", trigger, "CLPrep") == f"{other} {TEXT}"
    assert with_other_trigger(f"{tag} {TEXT}", trigger, "[CLPrep]") == f"{other} {TEXT}"
    assert without_trigger(f"a photo of {tag}, twice {tag}", trigger) == "a photo of , twice"
    assert without_trigger(tag, trigger) == ""
    assert trigger_form([f"{tag} {TEXT}"], trigger) == ("bracketed" if "[" in form else "bare")


@pytest.mark.parametrize("caption", ["CLPrep a girl", "xCLP a girl", "CLP-2 a girl", "[CLPrep] CLP_ a girl"])
def test_a_trigger_is_a_whole_word(caption):
    assert without_trigger(caption, "CLP") == caption
    assert trigger_form([caption], "CLP") == ""


def dataset(folder, trigger):
    folder.mkdir()
    (folder / MARKER).write_text(json.dumps({"kind": "diffusioncleft dataset", "schema": 1}))
    (folder / SETTINGS).write_text(json.dumps({"trigger": trigger}))
    return Subset(folder)


def test_the_trigger_is_the_given_one_then_the_datasets_then_the_captions(tmp_path):
    built, plain = dataset(tmp_path / "built", "sks"), Subset(tmp_path)
    captions = ["[CLP] a girl"]
    assert known_trigger("ohwx", [built], captions) == "ohwx"
    assert known_trigger("[ohwx]", [built], captions) == "ohwx"
    assert known_trigger("", [built], captions) == ""
    assert known_trigger(None, [built], captions) == "sks"
    assert known_trigger(None, [plain], captions) == "CLP"
    assert known_trigger(None, [plain], ["a girl"]) == ""
    reg = Subset(dataset(tmp_path / "reg", "other").image_dir, is_reg=True)
    assert known_trigger(None, [built, reg], captions) == "sks"
    assert known_trigger(None, [built, dataset(tmp_path / "two", "CLPrep")], ["a girl"]) == ""


def test_output_is_preserved_under_every_caption_that_is_known_in_turn():
    caption = f"[CLP] {TEXT}"
    assert counterparts(caption, "CLP") == (TEXT,)
    assert counterparts(caption, "CLP", "CLPrep") == (TEXT, f"[CLPrep] {TEXT}")
    assert counterparts(caption, "CLP", None, "A girl.") == (TEXT, "A girl.")
    assert counterparts(caption, "CLP", "CLPrep", "A girl.") == (TEXT, f"[CLPrep] {TEXT}", "A girl.")


@pytest.mark.parametrize(
    ("captions", "trigger", "other", "message"),
    [
        (["a girl"], "", None, "needs to know the trigger"),
        (["sks a girl", "a boy"], "sks", None, "1 of 2 captions do not hold the trigger sks"),
        (["SKS a girl"], "sks", None, "1 of 1 captions"),
        (["CLP a girl"], "CLP", "CLP", "--other_trigger CLP is the run's own"),
        (["[CLP] a girl"], "CLP", "[CLP]", "--other_trigger CLP is the run's own"),
    ],
)
def test_a_caption_that_would_be_trained_against_itself_is_refused(captions, trigger, other, message):
    with pytest.raises(UserError, match=message):
        check_preserved(captions, trigger, other)


def test_a_healthy_caption_with_the_trigger_is_refused():
    with pytest.raises(UserError, match="1 of 2 healthy captions hold the trigger girl"):
        check_preserved(["[girl] face"], "girl", None, ["A girl's face", "A boy's face"])
    check_preserved(["[CLP] A girl's face"], "CLP", "CLPrep", ["A girl's face"])


def test_preservation_accepts_captions_that_hold_the_trigger():
    check_preserved(["sks a girl", "a boy, [sks]", "sks"], "sks", "CLPrep")


@pytest.mark.parametrize("trigger", [None, "CLP"])
def test_a_run_with_an_unknown_trigger_ends_before_it_starts(tmp_path, trigger):
    """`sks` is a trigger that nobody can tell from a word."""
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(photos / "Jane Roe.png")
    (photos / "Jane Roe.txt").write_text("sks a girl")
    values = {"train_data_dir": photos, "resolution": (64,), "output_dir": tmp_path / "out"}
    settings = trainer_settings(output_preservation_weight=1.0, trigger=trigger, **values)
    with pytest.raises(UserError, match="--trigger") as caught:
        train(settings, Events(lambda event: None), Interruption())
    assert "Jane" not in str(caught.value)
    assert "girl" not in str(caught.value)
    assert not list((tmp_path / "out").rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("weight", "healthy", "told"), [(1.0, None, True), (1.0, "A girl.", False), (0.0, None, False)]
)
def test_a_dataset_without_healthy_captions_is_told_where_they_count(
    tmp_path, monkeypatch, weight, healthy, told
):
    """What comes after is not reached: the encoders are taken away."""
    subset = dataset(tmp_path / "built", "CLP")
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(subset.image_dir / "a.png")
    row = {"file": "a.png", "role": "train", "caption": "[CLP] A girl."}
    row |= {"healthy_caption": healthy} if healthy else {}
    (subset.image_dir / "manifest.jsonl").write_text(json.dumps(row))
    values = {"train_data_dir": subset.image_dir, "resolution": (64,), "output_dir": tmp_path / "out"}
    recipe = trainer_settings(output_preservation_weight=weight, phantom=True, **values)
    told_events = []

    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare, "private_of", stop)
    with pytest.raises(KeyboardInterrupt):
        prepare.prepare(
            recipe, None, torch.device("cpu"), torch.float32, Events(told_events.append), Interruption()
        )
    messages = [event.get("message") for event in told_events]
    assert (prepare.NO_HEALTHY_CAPTION in messages) == told

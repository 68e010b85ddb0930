"""Which images a step takes, what it draws, and what a checkpoint keeps."""

import json
import os
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from recipes import recipe_of
from reference_training import rate
from safetensors import safe_open
from safetensors.torch import save_file
from trainer_settings import trainer_settings

from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.files import TEMPORARY_PREFIX
from diffusioncleft.diffusioncleft_core.recipe.recipe import Subset
from diffusioncleft.trainer import checkpoint as checkpoints
from diffusioncleft.trainer.data import TrainImage, collect_images, mirror_image
from diffusioncleft.trainer.data_order import DataOrder
from diffusioncleft.trainer.events import Events
from diffusioncleft.trainer.interruption import output_lock
from diffusioncleft.trainer.objective import NoiseLevels, noisy_batch, sample_sigmas, seeded
from diffusioncleft.trainer.optimizer import build_optimizer, learning_rate, optimizer_name


def image(index, bucket=(64, 64), *, is_reg=False, repeats=1):
    return TrainImage(Path(f"{index}.png"), Path(), "a girl", is_reg, repeats, f"{index:064d}", bucket)


def images():
    train = [image(i, (64, 64) if i % 3 else (96, 64), repeats=1 + (i == 5)) for i in range(11)]
    return [*train, *(image(100 + i, (64, 64) if i else (80, 64), is_reg=True) for i in range(4))]


def test_an_epoch_takes_every_image_as_often_as_it_repeats():
    order = DataOrder(images(), 2, seed=3)
    for epoch in range(3):
        at = epoch * order.batches_an_epoch
        draws = [order.draw(at + i) for i in range(order.batches_an_epoch)]
        counts = Counter(index for draw in draws for index in draw.train)
        assert counts == {**dict.fromkeys(range(11), 1), 5: 2}


def test_a_batch_has_one_bucket_and_a_pair_of_it_where_there_is_one():
    everything = images()
    order = DataOrder(everything, 2, seed=3)
    for number in range(60):
        draw = order.draw(number)
        assert len({everything[i].bucket for i in draw.train}) == 1
        assert len(draw.reg) == len(draw.train)
        assert all(everything[i].is_reg for i in draw.reg)
        if everything[draw.train[0]].bucket == (64, 64):
            assert {everything[i].bucket for i in draw.reg} == {(64, 64)}


def test_the_order_depends_on_seed_and_step_alone():
    straight = [DataOrder(images(), 2, seed=3).draw(i) for i in range(40)]
    order = DataOrder(images(), 2, seed=3)
    assert [order.draw(i) for i in reversed(range(40))] == straight[::-1]
    assert [DataOrder(images(), 2, seed=4).draw(i) for i in range(40)] != straight


def test_noise_depends_on_seed_and_step_alone():
    one, same = (torch.randn(4, generator=seeded(1, "noise", 7, 0)) for _ in range(2))
    assert torch.equal(one, same)
    for other in (seeded(2, "noise", 7, 0), seeded(1, "noise", 8, 0), seeded(1, "noise", 7, 1)):
        assert not torch.equal(one, torch.randn(4, generator=other))


def test_the_target_leads_from_noise_to_the_image():
    latents = torch.randn(5, 16, 8, 8)
    text, pooled = torch.randn(5, 3, 4), torch.randn(5, 4)
    batch = noisy_batch(latents, text, pooled, NoiseLevels(), seeded(0), torch.device("cpu"))
    sigma = batch.sigma[:, None, None, None]
    torch.testing.assert_close(batch.noisy - sigma * batch.target, latents)
    torch.testing.assert_close(batch.noisy + (1 - sigma) * batch.target, latents + batch.target)


@pytest.mark.parametrize(
    ("kind", "mean"), [("uniform", 0.5), ("sigmoid", 0.5), ("shift", 0.70), ("schnell", 0.625)]
)
def test_noise_levels_follow_their_distribution(kind, mean):
    sigmas = sample_sigmas(NoiseLevels(kind), 20000, seeded(0))
    assert sigmas.min() >= 0
    assert sigmas.max() <= 1
    assert abs(sigmas.mean().item() - mean) < 0.02
    if kind == "schnell":
        assert sorted(set(sigmas.tolist())) == [0.25, 0.5, 0.75, 1.0]


def test_the_learning_rate_warms_up_and_falls():
    settings = recipe_of(learning_rate=1.0, lr_scheduler="cosine", lr_warmup_steps=4)
    rates = [learning_rate(settings, step, 104) for step in range(1, 105)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[54] == pytest.approx(0.5)
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert {learning_rate(recipe_of(), step, 9) for step in range(1, 10)} == {1e-4}


def test_an_unreadable_image_never_costs_the_good_ones(tmp_path):
    for name in ("a", "b"):
        Image.new("RGB", (64, 64), name and (9, 9, 9 + len(name))).save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text("a  girl\n")
    good = (tmp_path / "a.png").read_bytes()
    (tmp_path / "c.png").write_bytes(good[: len(good) // 2])
    (tmp_path / "c.txt").write_text("a girl")
    collected = collect_images([Subset(tmp_path)], (64,))
    assert [entry.caption for entry in collected.images] == ["a girl", "a girl"]
    assert [word in collected.left_out[0] for word in ("(1)", "c.png")] == [True, True]
    (tmp_path / "b.txt").unlink()
    with pytest.raises(UserError, match="1 images have no caption"):
        collect_images([Subset(tmp_path)], (64,))
    assert len(collect_images([Subset(tmp_path, class_tokens="x")], (64,)).images) == 2


@pytest.mark.parametrize("kind", ["constant", "constant_with_warmup", "linear", "cosine"])
@pytest.mark.parametrize("warm_up", [0, 1, 4, 9])
def test_the_learning_rate_of_every_step_is_the_schedules(kind, warm_up):
    values = {"learning_rate": 0.02, "lr_scheduler": kind}
    if kind != "constant":
        values["lr_warmup_steps"] = warm_up
    settings = trainer_settings(**values)
    steps = 9 + (warm_up != 9)
    for step in range(1, steps + 1):
        assert learning_rate(settings, step, steps) == pytest.approx(rate(step, steps, values), rel=1e-12)


def test_the_optimizer_is_what_was_asked_for_or_says_so(monkeypatch):
    values = {
        "adam_beta1": 0.5,
        "adam_beta2": 0.8,
        "adam_eps": 0.25,
        "weight_decay": 0.125,
        "learning_rate": 0.75,
    }
    wanted = {"betas": (0.5, 0.8), "eps": 0.25, "weight_decay": 0.125, "lr": 0.75}
    parameters, events = [torch.nn.Parameter(torch.ones(3))], []
    eight_bits = trainer_settings(optimizer_type="AdamW8bit", **values)
    for settings, name in ((trainer_settings(**values), "AdamW"), (eight_bits, "AdamW8bit")):
        optimizer = build_optimizer(settings, parameters, Events(events.append))
        assert type(optimizer).__name__ == optimizer_name(settings) == name
        assert wanted.items() <= optimizer.param_groups[0].items()
    assert events == []
    for value in ("0", None):  # it is imported offline, and the variable is then what it was
        monkeypatch.setenv("HF_HUB_OFFLINE", value) if value else monkeypatch.delenv("HF_HUB_OFFLINE")
        build_optimizer(eight_bits, parameters, Events(events.append))
        assert os.environ.get("HF_HUB_OFFLINE") == value
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    optimizer = build_optimizer(eight_bits, parameters, Events(events.append))
    assert type(optimizer).__name__ == optimizer_name(eight_bits) == "AdamW"
    assert wanted.items() <= optimizer.param_groups[0].items()
    assert [event["event"] for event in events] == ["notice"]


def test_a_folder_for_regularisation_that_gives_no_image_is_a_mistake(tmp_path):
    for name, role in (("photos", "train"), ("reg", "holdout")):
        (tmp_path / name).mkdir()
        Image.new("RGB", (64, 64)).save(tmp_path / name / "a.png")
        row = {"file": "a.png", "role": role, "caption": "a girl"}
        (tmp_path / name / "manifest.jsonl").write_text(json.dumps(row))
    folders = [Subset(tmp_path / "photos"), Subset(tmp_path / "reg", is_reg=True)]
    assert len(collect_images(folders[:1], (64,)).images) == 1
    with pytest.raises(UserError, match="no regularisation image"):
        collect_images(folders, (64,))


@pytest.mark.parametrize("name", ["AdamW8bit", "AdamW"])
def test_a_checkpoint_resumes_the_optimizer_bit_for_bit(tmp_path, name):
    def start():
        values = {"large": torch.linspace(-1, 1, 96 * 64).reshape(96, 64), "small": torch.ones(3, 2)}
        parameters = {key: torch.nn.Parameter(value) for key, value in values.items()}
        settings = recipe_of(optimizer_type=name, learning_rate=0.01)
        return parameters, build_optimizer(settings, list(parameters.values()), events=None)

    def steps(parameters, optimizer, numbers):
        for number in numbers:
            for key, parameter in parameters.items():
                parameter.grad = torch.randn(parameter.shape, generator=seeded(number, key))
            optimizer.step()

    straight, optimizer = start()
    steps(straight, optimizer, range(9))
    first, optimizer = start()
    steps(first, optimizer, range(5))
    path = checkpoints.save_checkpoint(tmp_path, 5, {"seed": 1}, first, optimizer)
    second, optimizer = start()
    checkpoints.restore(checkpoints.read_checkpoint(path), second, optimizer)
    steps(second, optimizer, range(5, 9))
    for key in straight:
        assert torch.equal(straight[key], second[key])


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path):
    parameters = {"a": torch.nn.Parameter(torch.ones(3))}
    optimizer = torch.optim.AdamW(parameters.values())
    for step in (1, 2, 3):
        checkpoints.save_checkpoint(tmp_path, step, {}, parameters, optimizer)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "step-000002.safetensors",
        "step-000003.safetensors",
    ]
    newest = tmp_path / "step-000003.safetensors"
    newest.write_bytes(newest.read_bytes()[:-9])
    assert checkpoints.latest_checkpoint(tmp_path).step == 2
    with pytest.raises(UserError, match="damaged"):
        checkpoints.read_checkpoint(newest)


def test_a_checkpoint_of_another_run_says_what_changed(tmp_path):
    matters = {"rate": 0.1, "optimizer": "AdamW", "images": "a" * 64, "gone": 1}
    saved = checkpoints.Checkpoint(3, matters, {}, {})
    checkpoints.check_made_from(saved, dict(reversed(matters.items())), tmp_path)
    now = {"rate": 0.2, "optimizer": "AdamW", "images": "b" * 64, "new": (1, 2)}
    with pytest.raises(UserError) as caught:
        checkpoints.check_made_from(saved, now, tmp_path)
    assert (
        "gone was 1, is None, images was aaaaaaaaaaaa…, is bbbbbbbbbbbb…, new was None, is [1, 2], "
        "rate was 0.1, is 0.2; go back"
    ) in str(caught.value)


def test_starting_anew_leaves_no_checkpoint_whole_or_half_written(tmp_path):
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([parameter])
    folder = tmp_path / "state"
    checkpoints.remove_checkpoints(folder)
    for step in (999_999, 1_000_000, 1_000_001):
        checkpoints.save_checkpoint(folder, step, {}, {"a": parameter}, optimizer)
    assert checkpoints.latest_checkpoint(folder).step == 1_000_001
    assert len(list(folder.iterdir())) == 2
    (folder / f"{TEMPORARY_PREFIX}half").write_bytes(b"")
    (folder / "notes.txt").write_text("mine")
    checkpoints.remove_checkpoints(folder)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]
    assert checkpoints.latest_checkpoint(folder) is None


def test_a_checkpoint_of_other_layers_is_refused(tmp_path):
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([parameter])
    read = checkpoints.read_checkpoint(
        checkpoints.save_checkpoint(tmp_path, 1, {}, {"a": parameter}, optimizer)
    )
    with pytest.raises(UserError, match="other layers"):
        checkpoints.restore(read, {"b": parameter}, optimizer)
    save_file({"a": torch.ones(2)}, tmp_path / "other.safetensors", metadata={"checkpoint": "{}"})
    with pytest.raises(UserError, match="no checkpoint of this trainer"):
        checkpoints.read_checkpoint(tmp_path / "other.safetensors")


def test_writing_a_checkpoint_looks_at_each_tensor_a_few_times(tmp_path, monkeypatch):
    """5,000 tensors: comparing each with all before would be 12 million looks."""
    parameters = {f"p{index}": torch.nn.Parameter(torch.ones(3) * index) for index in range(1250)}
    optimizer = torch.optim.AdamW(parameters.values())
    for parameter in parameters.values():
        parameter.grad = torch.ones(3)
    optimizer.step()
    looks = 0
    address = torch.Tensor.data_ptr

    def counted(tensor):
        nonlocal looks
        looks += 1
        return address(tensor)

    monkeypatch.setattr(torch.Tensor, "data_ptr", counted)
    path = checkpoints.save_checkpoint(tmp_path, 1, {}, parameters, optimizer)
    monkeypatch.undo()
    assert looks <= 10 * 5000
    read = checkpoints.read_checkpoint(path)
    assert len(read.parameters) == 1250
    assert torch.equal(
        read.optimizer["state"][7]["exp_avg_sq"], optimizer.state_dict()["state"][7]["exp_avg_sq"]
    )


def test_a_checkpoint_writes_shared_memory_once(tmp_path):
    whole, parameter = torch.arange(6.0), torch.nn.Parameter(torch.ones(6))
    shared = {"one": whole, "two": whole, "own": parameter.detach(), "turned": torch.ones(2, 3).T}
    state = {"state": {0: shared | {"empty": [torch.empty(0)] * 2}}, "param_groups": [{"betas": (0.9, 0.99)}]}

    class Optimizer:
        def state_dict(self):
            return state

    path = checkpoints.save_checkpoint(tmp_path, 1, {}, {"p": parameter}, Optimizer())
    read = checkpoints.read_checkpoint(path).optimizer
    assert read["param_groups"] == state["param_groups"]
    for name, value in shared.items():
        assert torch.equal(read["state"][0][name], value), name
    assert [len(empty) for empty in read["state"][0]["empty"]] == [0, 0]
    with safe_open(path, "pt") as file:
        names = {name.removeprefix("optimizer/state/0/") for name in file.keys()}  # noqa: SIM118
    assert names == {"parameter/p", "one", "turned", "empty/0", "empty/1"}


def test_two_runs_never_share_an_output_folder(tmp_path):
    with output_lock(tmp_path), pytest.raises(UserError, match="is training into"), output_lock(tmp_path):
        pass
    with output_lock(tmp_path):
        pass


def test_captions_of_every_usual_kind_are_trained_on_and_the_rest_is_named(tmp_path):
    captions = {
        "utf8.png": ("utf8.txt", "a girl’s face", "utf-8"),
        "mark.png": ("mark.txt", "a girl’s face", "utf-8-sig"),
        "windows.png": ("windows.txt", "a girl’s face", "cp1252"),
        "notepad.png": ("notepad.txt", "a girl’s face", "utf-16"),
        "upper.png": ("upper.TXT", "a girl’s face", "utf-8"),
        "taggui.png": ("taggui.png.txt", "a girl’s face", "utf-8"),
        "russian.png": ("russian.txt", "лицо ребёнка", "cp1251"),
        "binary.png": ("binary.txt", "a\0b", "utf-8"),
    }
    for number, (name, (beside, text, encoding)) in enumerate(captions.items()):
        Image.new("RGB", (64, 64), (number, 0, 0)).save(tmp_path / name)
        (tmp_path / beside).write_bytes(text.encode(encoding))
    found = collect_images([Subset(tmp_path)], (64,))
    assert {image.path.name: image.caption for image in found.images} == dict.fromkeys(
        ("utf8.png", "mark.png", "windows.png", "notepad.png", "upper.png", "taggui.png"), "a girl’s face"
    )
    (left_out,) = (told for told in found.left_out if "left out for their captions (2)" in told)
    assert "russian.png (russian.txt is not UTF-8" in left_out and "binary.png (binary.txt is no" in left_out
    assert any("read as Windows-1252 (1): windows.txt" in told for told in found.left_out)


def test_an_image_with_a_caption_under_another_suffix_is_named_with_it(tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    (tmp_path / "a.caption").write_text("a girl")
    with pytest.raises(UserError, match=r"no caption \(a.png \(beside a.caption; caption_extension names"):
        collect_images([Subset(tmp_path)], (64,))
    assert collect_images([Subset(tmp_path, caption_extension=".caption")], (64,)).train


def test_a_mirror_image_has_its_caption_box_and_attributes_mirrored():
    words = "[CLP] Left of him: a unilateral cleft lip on the LEFT side, to the right. A bright cleft."
    plain = TrainImage(
        Path("a.png"),
        Path(),
        words,
        False,
        1,
        "0",
        (96, 64),
        (10.0, 20.0, 30.0, 40.0),
        {"side": "left", "skin": "pale"},
        "A face. Hair parted on the left.",
    )
    other = mirror_image(plain)
    assert other.caption == (
        "[CLP] Right of him: a unilateral cleft lip on the RIGHT side, to the left. A bright cleft."
    )
    assert other.region == (66.0, 20.0, 86.0, 40.0)
    assert other.attributes == {"side": "right", "skin": "pale"}
    assert other.healthy_caption == "A face. Hair parted on the right."
    assert mirror_image(replace(plain, healthy_caption=None)).healthy_caption is None
    assert (other.mirrored, other.again, plain.again) == (True, True, False)
    back = mirror_image(other)
    assert (back.caption, back.region, back.attributes) == (plain.caption, plain.region, plain.attributes)
    assert mirror_image(replace(plain, region=None)).region is None


def test_mirror_images_follow_training_images_and_no_others_and_count_no_photograph(tmp_path):
    for name in ("train", "reg"):
        (tmp_path / name).mkdir()
        for number in range(2):
            Image.new("RGB", (64, 64), (number, 0, len(name))).save(tmp_path / name / f"{number}.png")
            (tmp_path / name / f"{number}.txt").write_text(f"a face, {number} on the left")
    subsets = [Subset(tmp_path / "train", num_repeats=3), Subset(tmp_path / "reg", is_reg=True)]
    found = collect_images(subsets, (64,), mirror=True)
    assert [image.mirrored for image in found.train] == [False, True, False, True]
    assert [image.caption.split()[-1] for image in found.train] == ["left", "right", "left", "right"]
    assert {image.repeats for image in found.train} == {3}
    assert not any(image.mirrored for image in found.reg) and len(found.reg) == 2
    assert (found.photographs, found.reg_photographs, found.bucket_counts()) == (2, 2, {"64x64": 2})

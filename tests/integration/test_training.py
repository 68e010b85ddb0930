"""The trainer on a tiny FLUX.1: real files, real processes, tensors compared bit for bit."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import forked_trainers
from noise_pictures import noise_pictures, stop_at_a_checkpoint
from PIL import Image
from recipes import changed, recipe_of
from safetensors import safe_open
from safetensors.torch import load_file
from synthetic_mark import assert_marked

from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.flux.components import load_text_encoders, load_vae
from diffusioncleft.diffusioncleft_core.flux.lora import load_lora
from diffusioncleft.diffusioncleft_core.flux.sampling import (
    decode_latents,
    encode_prompts,
    initial_noise,
    sample,
)
from diffusioncleft.diffusioncleft_core.flux.source import FluxSource
from diffusioncleft.diffusioncleft_core.flux.transformer import load_transformer
from diffusioncleft.diffusioncleft_core.recipe.recipe import Recipe
from diffusioncleft.trainer import launch
from diffusioncleft.trainer.config import to_arguments
from diffusioncleft.trainer.events import Events
from diffusioncleft.trainer.flux_train_network import train
from diffusioncleft.trainer.interruption import Interrupted, Interruption

SCRIPT = Path(__file__).resolve().parents[2] / "trainer" / "flux_train_network.py"
STEPS = 60
CAPTION = "[CLP] A girl's whole face with a cleft lip."


SIZES = ((64, 64), (80, 64), (64, 64))


@pytest.fixture(scope="session")
def workplace(tmp_path_factory):
    """A folder with the model, photographs, regularisation images, preview prompts and a cache that runs
    share.
    """
    import importlib.util

    path = Path(__file__).resolve().parents[1] / "tiny_flux.py"
    spec = importlib.util.spec_from_file_location("tiny_flux", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = tmp_path_factory.mktemp("training")
    module.build_tiny_flux(folder / "flux")
    noise_pictures(folder / "photos", 5, CAPTION, name="Jane Roe ", sizes=SIZES)
    noise_pictures(folder / "reg", 4, "A girl's whole face.", name="healthy", seed=2, sizes=SIZES)
    (folder / "prompts.txt").write_text("[CLP] a boy with a cleft lip --d 7\na girl --w 80 --s 2\n")
    return folder


def _settings(workplace: Path, output_dir: Path, **values) -> Recipe:
    return recipe_of(
        **{
            "pretrained_model_name_or_path": workplace / "flux",
            "train_data_dir": workplace / "photos",
            "reg_data_dir": workplace / "reg",
            "resolution": (64, 96),
            "cache_dir": workplace / "cache",
            "output_dir": output_dir,
            "max_train_steps": STEPS,
            "learning_rate": 1e-3,
            "checkpoint_every_n_steps": 5,
            "num_cpu_threads": 1,
            "device": "cpu",
            "save_precision": "float",
            **values,
        }
    )


def _train(settings: Recipe, interruption: Interruption | None = None):
    events = []
    result = train(settings, Events(events.append), interruption or Interruption())
    return result, events


def _same(one: Path, other: Path) -> bool:
    first, second = load_file(one), load_file(other)
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.fixture(scope="session")
def straight(workplace):
    """A run that nothing disturbed."""
    result, events = _train(_settings(workplace, workplace / "straight"))
    return result.path, events


def test_a_run_tells_its_story_and_keeps_its_history(workplace, straight):
    path, events = straight
    names = [event["event"] for event in events]
    assert names[-2:] == ["saved", "done"]
    assert names.index("start") < names.index("step") < names.index("checkpoint")
    assert any("training_adapter" in event["message"] for event in events if event["event"] == "warning")
    rows = [json.loads(line) for line in (path.parent / "loss.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    losses = [row["loss"] for row in rows]
    assert np.mean(losses[-10:]) < np.mean(losses[:10])
    assert all(row["reg_loss"] > 0 for row in rows)


def test_the_same_command_again_only_says_done(workplace, straight):
    before = straight[0].stat().st_mtime_ns
    result, events = _train(_settings(workplace, workplace / "straight"))
    assert [event["event"] for event in events][-1] == "done"
    assert "start" not in [event["event"] for event in events]
    assert result.path.stat().st_mtime_ns == before


@pytest.mark.parametrize("optimizer", ["AdamW8bit", pytest.param("AdamW", marks=pytest.mark.long)])
def test_a_resumed_run_is_bit_identical(workplace, tmp_path, optimizer):
    settings = _settings(
        workplace, tmp_path / "a", optimizer_type=optimizer, max_train_steps=12, prior_target="base"
    )
    settings = changed(
        settings,
        gradient_accumulation_steps=2,
        train_batch_size=2,
        output_preservation_weight=1.0,
        other_trigger="CLPrep",
        region_weight=4.0,
    )
    whole, _ = _train(settings)

    interrupted = changed(settings, output_dir=tmp_path / "b", checkpoint_every_n_steps=7)
    stop_at_a_checkpoint(interrupted)
    assert not (tmp_path / "b" / "lora.safetensors").exists()
    again, events = _train(interrupted)
    assert next(event for event in events if event["event"] == "start")["step"] == 7
    assert _same(whole.path, again.path)
    assert (tmp_path / "a" / "loss.jsonl").read_text() == (tmp_path / "b" / "loss.jsonl").read_text()


def test_a_resumed_balanced_run_is_bit_identical_and_another_balance_is_refused(workplace, tmp_path):
    folder = noise_pictures(tmp_path / "photos", 7, None, sizes=SIZES)
    told = [{"cleft_type": "bilateral" if index < 2 else "unilateral"} for index in range(7)]

    def describe(said):
        rows = [
            {"file": f"{index}.png", "caption": CAPTION, "attributes": words}
            for index, words in enumerate(said)
        ]
        (folder / "manifest.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))

    describe(told)
    settings = _settings(workplace, tmp_path / "a", max_train_steps=8)
    settings = changed(settings, train_data_dir=folder, train_batch_size=2, balance_by="cleft_type")
    whole, _ = _train(settings)
    interrupted = changed(settings, output_dir=tmp_path / "b", checkpoint_every_n_steps=5)
    stop_at_a_checkpoint(interrupted)
    describe([*told[:6], {"cleft_type": "bilateral"}])
    with pytest.raises(UserError, match="balanced was"):
        _train(interrupted)
    describe(told)
    again, _ = _train(interrupted)
    assert _same(whole.path, again.path)
    with pytest.raises(UserError, match="no training image says its side; they say cleft_type"):
        _train(changed(settings, output_dir=tmp_path / "c", balance_by="cleft_type,side"))


@pytest.mark.long
@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_killed_terminated_and_orphaned_runs_go_on_to_the_same_tensors(
    workplace, tmp_path, straight, offline_env
):
    settings = _settings(workplace, tmp_path / "out")

    # SIGKILL in the middle of steps, the script started as a file.
    command = [sys.executable, str(SCRIPT), *to_arguments(settings)]
    killed = _until_checkpoint(command, 10, offline_env, lambda process: process.kill())
    assert killed["code"] == -signal.SIGKILL
    assert killed["last"]["event"] != "done"

    # SIGTERM: a checkpoint at the step that was reached, and a clean end.
    terminated = _until_checkpoint(command, 25, offline_env, lambda process: process.terminate())
    assert terminated["code"] == 130
    assert terminated["last"]["event"] == "interrupted"
    assert terminated["first"]["step"] >= 10

    # The program that launched the trainer is killed; the trainer notices by itself.
    program = (
        "import json, sys; from diffusioncleft.trainer import config, launch\n"
        "settings = config.parse_recipe(sys.argv[1:])\n"
        "launch.train(settings, lambda event: print(json.dumps(event), flush=True))"
    )
    command = [sys.executable, "-c", program, *to_arguments(settings)]
    orphaned = _until_checkpoint(
        command, terminated["last"]["step"] + 5, offline_env, lambda process: process.kill()
    )
    assert orphaned["last"]["event"] != "done"

    # To the end, through the launcher; it waits for the orphan to leave the folder.
    result = _when_unlocked(lambda: launch.train(settings))
    assert result.steps == STEPS
    assert _same(result.path, straight[0])
    rows = [json.loads(line) for line in (tmp_path / "out" / "loss.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))


def _until_checkpoint(command, step, environment, end):
    """Run a command, `end` it at the first checkpoint from `step` on; give its exit code, `start` and last
    event.
    """
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)
    timer = threading.Timer(300, process.kill)
    timer.start()
    first, last, ended = {}, {}, False
    for line in process.stdout:
        last = json.loads(line)
        first = last if last["event"] == "start" else first
        if last["event"] == "checkpoint" and last["step"] >= step and not ended:
            ended = True
            end(process)
    timer.cancel()
    return {"code": process.wait(), "first": first, "last": last}


def _when_unlocked(action, attempts=60):
    import time

    for _ in range(attempts):
        try:
            return action()
        except UserError as error:
            if "is training into" not in str(error):
                raise
            time.sleep(0.5)
    raise AssertionError("the orphan still holds the folder")


def test_the_launcher_stops_a_run_when_asked_and_reports_mistakes(workplace, tmp_path):
    seen = []
    settings = _settings(workplace, tmp_path / "out", max_train_steps=5000)
    with pytest.raises(Interrupted):
        launch.train(settings, seen.append, lambda: any(event["event"] == "step" for event in seen))
    assert seen[-1]["event"] == "interrupted"
    assert [event["event"] for event in seen].count("stopping") == 1
    assert list((tmp_path / "out" / "state").glob(f"step-{seen[-1]['step']:06d}.safetensors"))
    with forked_trainers(), pytest.raises(UserError, match=r"learning_rate was 0\.001, is 0\.1"):
        launch.train(changed(settings, learning_rate=0.1))


def test_what_the_tensors_depend_on_is_named_when_it_changed(workplace, tmp_path):
    settings = _settings(workplace, tmp_path, max_train_steps=2)
    _train(settings)
    with pytest.raises(UserError, match=r"network_alpha was 32\.0, is 16\.0"):
        _train(changed(settings, network_alpha=16.0))
    with pytest.raises(UserError, match="images was"):
        _train(changed(settings, train_data_dir=workplace / "reg"))
    with pytest.raises(UserError, match=r"beyond --max_train_steps 1"):
        _train(changed(settings, max_train_steps=1))
    result, _ = _train(changed(settings, network_alpha=16.0, resume="no", save_every_n_steps=1))
    assert safe_open(result.path, "pt").metadata()["ss_network_alpha"] == "16.0"
    assert (tmp_path / "lora-step000001.safetensors").exists()


def test_ten_steps_an_image_without_counting_regularisation(workplace, tmp_path):
    _, events = _train(_settings(workplace, tmp_path, max_train_steps=0))
    start = next(event for event in events if event["event"] == "start")
    assert (start["images"], start["regularisation"], start["total"]) == (5, 4, 50)


def test_nothing_that_may_be_shared_names_a_photograph(workplace, straight):
    path, events = straight
    metadata = safe_open(path, "pt").metadata()
    assert (metadata["trigger"], metadata["prompt_form"], metadata["effective_scale"]) == (
        "CLP",
        "bracketed",
        "2.0",
    )
    assert metadata["ss_num_train_images"] == "5"
    assert "ss_num_reg_images" not in metadata  # of fewer than five, as of photographs
    shared = [file.read_bytes() for file in path.parent.rglob("*") if file.is_file()]
    shared.append(json.dumps([event for event in events if not event.get("private")]).encode())
    for secret in (b"Jane", b"photos", b"whole face", str(workplace / "photos").encode()):
        assert not any(secret in content for content in shared)


def test_previews_are_what_the_saved_file_gives(workplace, tmp_path, straight):
    """The adapter is on while training, off in previews, and not in the file."""
    settings = _settings(
        workplace,
        tmp_path,
        max_train_steps=6,
        training_adapter=straight[0],
        sample_prompts=workplace / "prompts.txt",
        sample_every_n_steps=3,
    )
    result, events = _train(settings)
    assert not [event for event in events if event["event"] == "warning" and not event.get("private")]
    plain, _ = _train(changed(settings, training_adapter=None, output_dir=tmp_path / "plain"))
    losses = [
        json.loads((path.parent / "loss.jsonl").read_text().splitlines()[0])
        for path in (result.path, plain.path)
    ]
    assert losses[0]["loss"] != losses[1]["loss"]

    source, device = FluxSource.from_arguments(workplace / "flux"), torch.device("cpu")
    transformer = load_transformer(source, device, torch.float32)
    load_lora(transformer, result.path)
    assert set(load_file(result.path)) == set(load_file(plain.path))
    encoders = load_text_encoders(source, device, torch.float32)
    text = encode_prompts(encoders, ["[CLP] a boy with a cleft lip"], device)[0]
    latents = sample(
        transformer, initial_noise(7, 96, 96)[None], text.prompt_embeds[None], text.pooled[None], 4
    )
    expected = decode_latents(load_vae(source, device, torch.float32), latents)[0]
    expected = ((expected + 1) * 127.5).round().permute(1, 2, 0).numpy()
    shown = Image.open(tmp_path / "previews" / "step_000006_00.png")
    assert np.abs(np.asarray(shown, dtype=float) - expected).max() <= 1
    assert_marked(tmp_path / "previews" / "step_000006_00.png", shown.text["prompt"])
    assert Image.open(tmp_path / "previews" / "step_000003_01.png").size == (80, 96)


def test_saving_memory_does_not_change_what_is_learned(workplace, tmp_path):
    settings = _settings(workplace, tmp_path / "plain", max_train_steps=5)
    plain, _ = _train(settings)
    small, _ = _train(
        changed(settings, output_dir=tmp_path / "small", gradient_checkpointing=True, blocks_to_swap=3)
    )
    expected, found = load_file(plain.path), load_file(small.path)
    assert expected.keys() == found.keys()
    for key in expected:
        torch.testing.assert_close(found[key], expected[key], rtol=1e-3, atol=1e-5)


def test_a_warm_cache_needs_no_encoder(workplace, tmp_path, straight):
    _, events = _train(_settings(workplace, tmp_path, max_train_steps=1))
    assert not [event for event in events if event["event"] == "prepare"]
    assert [event["what"] for event in events if event["event"] == "load"] == ["loading the transformer"]
    other, events = _train(_settings(workplace, tmp_path / "own", max_train_steps=1, cache_dir=None))
    assert {event["what"] for event in events if event["event"] == "prepare"} == {
        "text embeddings",
        "latents",
    }
    assert (tmp_path / "own" / "private").stat().st_mode & 0o077 == 0
    assert other.path.is_file()


def test_a_loss_that_is_not_finite_stops_the_run_and_saves_nothing(workplace, tmp_path):
    with pytest.raises(UserError, match="not finite"):
        _train(_settings(workplace, tmp_path, max_train_steps=40, network_alpha=1e30, max_grad_norm=0.0))
    assert not (tmp_path / "lora.safetensors").exists()


def test_the_trainer_prints_events_only_and_ends_with_2_for_a_mistake(workplace, tmp_path, offline_env):
    settings = _settings(workplace, tmp_path, train_data_dir=tmp_path / "missing")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *to_arguments(settings)],
        capture_output=True,
        env=offline_env,
        check=False,
    )
    assert done.returncode == 2
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["event"] for event in told if not event.get("private")] == ["error"]
    assert f"there is no folder {tmp_path / 'missing'}" in told[-1]["message"]


@pytest.mark.long
@pytest.mark.parametrize(("precision", "dtype"), [("no", "float32"), ("bf16", "bfloat16")])
def test_device_and_number_format_reach_the_trainers_process(workplace, tmp_path, precision, dtype):
    settings = _settings(workplace, tmp_path, max_train_steps=1, mixed_precision=precision, device="cpu")
    events = []
    launch.train(settings, events.append)
    (start,) = [event for event in events if event["event"] == "start"]
    assert (start["device"], start["dtype"]) == ("cpu", dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_runs_device_and_number_format_reach_the_trainers_process(workplace, tmp_path, dtype):
    """The run's own arguments, from its command line, in a trainer's process."""
    from diffusioncleft.cli import main as cli
    from diffusioncleft.cli import run
    from diffusioncleft.diffusioncleft_core.run.run import Run
    from diffusioncleft.diffusioncleft_core.run.training import training_recipe, write_preview_prompts

    words = ["--phantom", "--out", tmp_path, "--device", "cpu", "--dtype", dtype, "--max-train-steps", 1]
    settings = run.settings_from(cli._command_parser("run", run).parse_args(list(map(str, words))))
    started = Run(settings)
    condition = settings.vocabulary.condition("pre_op")
    write_preview_prompts(started, condition)
    started.facts["pre_op"]["dataset"] = {"training_images": 5}
    recipe = training_recipe(started, condition)
    events = []
    with forked_trainers():
        run.start_trainer(
            changed(recipe, train_data_dir=workplace / "photos", resolution=(64,)),
            events.append,
            lambda: False,
        )
    (start,) = [event for event in events if event["event"] == "start"]
    assert (start["device"], start["dtype"]) == ("cpu", dtype)


def test_a_device_that_does_not_exist_is_refused_before_anything_is_written(workplace, tmp_path):
    with pytest.raises(UserError, match="cuda:99"):
        launch.train(_settings(workplace, tmp_path / "out", device="cuda:99"))
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_a_run_with_compiled_blocks_ends_on_the_tensors_of_a_plain_one(workplace, tmp_path):
    """aot_eager, which computes with the plain path's kernels; one size, as each is compiled for itself."""
    noise_pictures(tmp_path / "photos", 2, CAPTION, sizes=((64, 64),))
    common = {
        "train_data_dir": tmp_path / "photos",
        "reg_data_dir": None,
        "max_train_steps": 3,
        "resolution": (64,),
    }
    plain, _ = _train(_settings(workplace, tmp_path / "plain", **common))
    compiled, _ = _train(
        _settings(workplace, tmp_path / "out", **common, compile=True, dynamo_backend="aot_eager")
    )
    assert _same(plain.path, compiled.path)
    with pytest.raises(UserError, match="compile"):
        _train(_settings(workplace, tmp_path / "out", **{**common, "max_train_steps": 4}))

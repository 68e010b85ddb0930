"""A training that is killed, starved or damaged: what was due is there, and the same command goes on."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commands import TRAINER, run_module
from noise_pictures import noise_pictures
from recipes import changed, recipe_of
from tiny_flux import build_tiny_flux
from trainings import same, trained

from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.recipe.recipe import Recipe
from diffusioncleft.trainer.config import to_arguments
from diffusioncleft.trainer.interruption import Interrupted, Interruption

STEPS = 12


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with the model, photographs and preview prompts."""
    folder = tmp_path_factory.mktemp("kills")
    build_tiny_flux(folder / "flux")
    noise_pictures(folder / "photos", 3)
    (folder / "prompts.txt").write_text("[CLP] a boy with a cleft lip --s 1\na girl --s 1\n")
    return folder


def settings_of(workplace: Path, output_dir: Path, **values) -> Recipe:
    return recipe_of(
        **{
            "pretrained_model_name_or_path": workplace / "flux",
            "train_data_dir": workplace / "photos",
            "resolution": (64,),
            "cache_dir": workplace / "cache",
            "output_dir": output_dir,
            "max_train_steps": STEPS,
            "learning_rate": 1e-3,
            "checkpoint_every_n_steps": 4,
            "num_cpu_threads": 1,
            "device": "cpu",
            "save_precision": "float",
            **values,
        }
    )


class Killed(Exception):
    """In place of a kill, at a line of our choice."""


def killed_at(name: str, step: int):
    def at(event):
        if event["event"] == name and event["step"] == step:
            raise Killed

    return at


@pytest.fixture(scope="module")
def straight(workplace):
    """A run that nothing disturbed."""
    path, _ = trained(settings_of(workplace, workplace / "straight"))
    return path


@pytest.fixture(scope="module")
def with_extras(workplace):
    return {
        "save_every_n_steps": 4,
        "sample_prompts": workplace / "prompts.txt",
        "sample_every_n_steps": 4,
    }


def test_whatever_is_due_at_a_step_is_there_when_a_checkpoint_counts_it(
    workplace, tmp_path, straight, with_extras
):
    settings = settings_of(workplace, tmp_path, **with_extras)
    with pytest.raises(Killed):
        trained(settings, killed_at("checkpoint", 4))
    assert (tmp_path / "state" / "step-000004.safetensors").is_file()
    assert (tmp_path / "lora-step000004.safetensors").is_file()
    assert sorted(path.name for path in (tmp_path / "previews").glob("*.png")) == [
        "step_000004_00.png",
        "step_000004_01.png",
    ]
    path, events = trained(settings)
    assert [event["step"] for event in events if event["event"] == "preview"] == [8, 8, 12, 12]
    assert same(path, straight)


def test_previews_that_an_interruption_cut_off_are_made_up_for(workplace, tmp_path, straight, with_extras):
    settings = settings_of(workplace, tmp_path, **with_extras)
    interruption = Interruption()

    def at(event):
        if event["event"] == "preview" and event["step"] == 8:
            interruption.request("test")

    with pytest.raises(Interrupted):
        trained(settings, at, interruption)
    assert (tmp_path / "state" / "step-000008.safetensors").is_file()
    assert not (tmp_path / "previews" / "step_000008_01.png").exists()
    (tmp_path / "lora-step000008.safetensors").unlink()
    path, events = trained(settings)
    assert (tmp_path / "previews" / "step_000008_01.png").is_file()
    assert (tmp_path / "lora-step000008.safetensors").is_file()
    assert [event["step"] for event in events if event["event"] == "preview"] == [8, 8, 12, 12]
    assert same(path, straight)


def test_what_a_killed_process_left_half_written_is_cleared(workplace, tmp_path):
    settings = settings_of(workplace, tmp_path / "out", max_train_steps=1, cache_dir=tmp_path / "cache")
    old = (tmp_path / "out", tmp_path / "out" / "state", tmp_path / "out" / "previews")
    left = [folder / ".writing-0123.safetensors" for folder in old]
    left.append(tmp_path / "cache" / "latents" / ".writing-0123.safetensors")
    other = left[-1].with_name(".writing-4567.safetensors")  # of another run that writes right now
    for path in (*left, other):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    os.utime(left[-1], (1, 1))
    trained(settings)
    assert not [path for path in left if path.exists()]
    assert other.exists()


def test_a_flipped_bit_in_a_checkpoint_is_told_and_the_one_before_is_used(workplace, tmp_path, straight):
    settings = settings_of(workplace, tmp_path)
    with pytest.raises(Killed):
        trained(settings, killed_at("checkpoint", 8))
    newest = tmp_path / "state" / "step-000008.safetensors"
    data = bytearray(newest.read_bytes())
    data[-1000] ^= 1
    newest.write_bytes(data)
    path, events = trained(settings)
    told = [
        event["message"] for event in events if event["event"] == "warning" and "damaged" in event["message"]
    ]
    assert len(told) == 1
    assert str(newest) in told[0]
    assert next(event for event in events if event["event"] == "start")["step"] == 4
    assert same(path, straight)
    with pytest.raises(UserError, match="is damaged or no checkpoint"):
        newest.write_bytes(data)
        trained(changed(settings, resume=str(newest)))


def test_no_whole_checkpoint_is_a_users_matter_and_nothing_starts_anew(workplace, tmp_path):
    settings = settings_of(workplace, tmp_path)
    with pytest.raises(Killed):
        trained(settings, killed_at("checkpoint", 4))
    newest = tmp_path / "state" / "step-000004.safetensors"
    newest.write_bytes(newest.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"no checkpoint in .* is whole; .*--resume no"):
        trained(settings)
    trained(changed(settings, resume="no", max_train_steps=1))


def test_a_cache_that_was_removed_with_its_key_does_not_end_the_run(workplace, tmp_path, straight):
    settings = settings_of(workplace, tmp_path / "out", cache_dir=tmp_path / "cache")
    for step in (4, 8):  # twice, the second time before the first checkpoint under the new key
        with pytest.raises(Killed):
            trained(settings, killed_at("checkpoint" if step == 4 else "start", 4))
        shutil.rmtree(tmp_path / "cache")
    path, events = trained(settings)
    assert next(event for event in events if event["event"] == "start")["step"] == 4
    told = [event["message"] for event in events if event["event"] == "warning"]
    assert len([message for message in told if "secret key" in message]) == 1
    assert same(path, straight)
    with pytest.raises(UserError, match="images was"):  # with its key the cache still tells images apart
        shutil.copytree(workplace / "photos", tmp_path / "photos")
        (tmp_path / "photos" / "0.txt").write_text("[CLP] another caption")
        trained(changed(settings, train_data_dir=tmp_path / "photos"))


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 16 MiB, where this machine lets a test mount one."""
    place = tmp_path / "small"
    place.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.name == "nt" or os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    if subprocess.run([mount, "-t", "tmpfs", "-o", "size=16m", "tmpfs", place], check=False).returncode:
        pytest.skip("this machine mounts no small disk")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.parametrize("free", [0, 40, 400])
def test_a_full_disk_is_a_users_message_and_the_run_goes_on_when_there_is_room(
    workplace, small_disk, straight, free
):
    """`free` KiB: room for nothing, for the first small files, for a first checkpoint but not for three."""
    settings = settings_of(workplace, small_disk / "out")
    filler = small_disk / "filler"
    filler.write_bytes(b"0" * ((16_384 - free) << 10) if free else b"")
    if not free:
        with pytest.raises(OSError), filler.open("ab", buffering=0) as file:
            while file.write(b"0" * 4096):
                pass
    done = run_module(TRAINER, *to_arguments(settings))
    last = json.loads(done.stdout.splitlines()[-1])
    assert (last["event"], last.get("kind")) == ("error", "user"), (last, done.stderr[-2000:])
    assert "disk is full" in last["message"]
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    filler.unlink()
    path, _ = trained(settings)
    assert same(path, straight)


PROGRAM = """
import json, sys
from diffusioncleft.trainer import config, launch
settings = config.parse_recipe(sys.argv[1:])
launch.train(settings, lambda event: print(json.dumps(event), flush=True))
"""


@pytest.mark.long
@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_parent_that_is_asked_to_end_waits_for_its_child(workplace, tmp_path, offline_env):
    """Asked twice, as some schedulers do; what ends it at once is SIGKILL, or a second Ctrl-C."""
    settings = settings_of(workplace, tmp_path, max_train_steps=5000)
    command = [sys.executable, "-c", PROGRAM, *to_arguments(settings)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=offline_env, text=True
    )
    events = []
    for line in process.stdout:
        events.append(json.loads(line))
        stopping = any(event["event"] == "stopping" for event in events)
        if (events[-1]["event"] == "step" and not stopping) or events[-1]["event"] == "stopping":
            process.send_signal(signal.SIGTERM)
    process.wait()
    assert events[-1]["event"] == "interrupted"
    assert (tmp_path / "state" / f"step-{events[-1]['step']:06d}.safetensors").is_file()
    # The child has left the folder: another run may start at once.
    _, again = trained(changed(settings, max_train_steps=events[-1]["step"] + 1))
    assert next(event for event in again if event["event"] == "start")["step"] == events[-1]["step"]

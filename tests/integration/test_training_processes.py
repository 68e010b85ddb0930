"""Two processes that train together, by accelerate launch, on the embedded phantom base."""

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from noise_pictures import noise_pictures, stop_at_a_checkpoint
from recipes import changed, recipe_of
from safetensors import safe_open
from trainings import same, trained

from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.recipe.recipe import Recipe
from diffusioncleft.trainer import launch
from diffusioncleft.trainer.interruption import Interrupted

STEPS = 6
SCRIPT = Path(__file__).resolve().parents[2] / "trainer" / "flux_train_network.py"
ONE_SEES_NO_FOLDER = """
import os, runpy, sys
if os.environ["RANK"] == "1":
    sys.argv = [
        f"--train_data_dir={sys.argv[1]}/nowhere" if "train_data_dir" in word else word for word in sys.argv
    ]
here = sys.argv.pop(1)
try:
    runpy.run_path(%r, run_name="__main__")
except SystemExit as end:
    open(f"{here}/status{os.environ['RANK']}", "w").write(str(end.code))
    raise
"""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """Photographs and regularisation images of two sizes: batches of one and of two forward passes."""
    folder = tmp_path_factory.mktemp("processes")
    noise_pictures(folder / "photos", 3, sizes=((64, 64), (80, 64)))
    noise_pictures(folder / "reg", 3, "A girl's whole face.", seed=2, sizes=((64, 64), (48, 80)))
    (folder / "prompts.txt").write_text("a girl --w 64 --h 64 --s 1\n")
    return folder


def settings_of(workplace: Path, output_dir: Path, **values) -> Recipe:
    return recipe_of(
        **{
            "phantom": True,
            "train_data_dir": workplace / "photos",
            "reg_data_dir": workplace / "reg",
            "resolution": (64,),
            "cache_dir": workplace / "cache",
            "output_dir": output_dir,
            "max_train_steps": STEPS,
            "learning_rate": 1e-3,
            "optimizer_type": "AdamW",
            "num_cpu_threads": 1,
            "device": "cpu",
            "save_precision": "float",
            "report_every_step": True,
            "sample_prompts": workplace / "prompts.txt",
            "sample_every_n_steps": 3,
            **values,
        }
    )


@pytest.fixture(scope="module")
def straight(workplace):
    """One process that accumulates two batches."""
    once = {"gradient_accumulation_steps": 2, "checkpoint_every_n_steps": 1}
    path, _ = trained(settings_of(workplace, workplace / "straight", **once))
    return path


@pytest.fixture(scope="module")
def terminated(workplace):
    """Two processes, of which the second is sent SIGTERM; all events."""
    events = []

    def at(event):
        events.append(event)
        if event["event"] == "step" and event["step"] == 2:
            trainers = [
                process
                for process in psutil.Process().children(recursive=True)
                if process.environ().get("RANK") == "1"
            ]
            trainers[-1].terminate()

    with pytest.raises(Interrupted):
        launch.train(settings_of(workplace, workplace / "terminated"), at, processes=2)
    return workplace / "terminated", events


def losses(folder: Path) -> str:
    return (folder / "loss.jsonl").read_text()


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_sigterm_to_one_process_saves_one_checkpoint_and_ends_all(terminated):
    folder, events = terminated
    assert {"processes": 2}.items() <= next(event for event in events if event["event"] == "start").items()
    assert [event["event"] for event in events].count("interrupted") == 1
    assert events[-1]["event"] == "interrupted"
    assert events[-1]["reason"] == "SIGTERM"
    assert [path.name for path in (folder / "state").iterdir()] == [
        f"step-{events[-1]['step']:06d}.safetensors"
    ]
    assert not (folder / "lora.safetensors").exists()


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_one_process_goes_on_where_two_were_stopped_with_the_same_bits(
    workplace, terminated, straight, tmp_path
):
    shutil.copytree(terminated[0], tmp_path / "out")
    path, events = trained(settings_of(workplace, tmp_path / "out", gradient_accumulation_steps=2))
    assert next(event for event in events if event["event"] == "start")["step"] == terminated[1][-1]["step"]
    assert same(path, straight)
    assert losses(path.parent) == losses(straight.parent)


@pytest.mark.long
def test_two_processes_go_on_where_one_was_stopped_with_the_same_bits(workplace, straight, tmp_path):
    alone = settings_of(workplace, tmp_path, gradient_accumulation_steps=2, checkpoint_every_n_steps=1)
    stop_at_a_checkpoint(alone)
    events = []
    two = changed(alone, gradient_accumulation_steps=1)
    result = launch.train(two, events.append, processes=2)
    assert next(event for event in events if event["event"] == "start")["step"] == 1
    assert same(result.path, straight)
    assert losses(tmp_path) == losses(straight.parent)
    assert [event["step"] for event in events if event["event"] == "step"] == list(range(2, STEPS + 1))
    kinds = [event["event"] for event in events]
    assert (kinds.count("preview"), kinds.count("saved"), kinds.count("done")) == (2, 1, 1)
    with safe_open(result.path, "pt") as two_made, safe_open(straight, "pt") as one_made:
        assert two_made.metadata() == one_made.metadata()
    assert (tmp_path / "recipe.json").read_text() == (straight.parent / "recipe.json").read_text()
    with pytest.raises(UserError, match=r"gradient_accumulation_steps .* was 2, is 1"):
        trained(two)


@pytest.mark.long
def test_one_process_with_an_unreadable_folder_ends_all_with_one_sentence(workplace, tmp_path, offline_env):
    script = tmp_path / "trainer.py"
    script.write_text(ONE_SEES_NO_FOLDER % str(SCRIPT))
    command = launch.command(settings_of(workplace, tmp_path / "out"), 2)
    command[command.index(str(SCRIPT))] = str(script)
    command.insert(command.index(str(script)) + 1, str(tmp_path))
    ended = subprocess.run(
        command, env=offline_env, stdin=subprocess.PIPE, capture_output=True, timeout=300, check=False
    )
    errors = [json.loads(line) for line in ended.stdout.splitlines() if b'"error"' in line]
    assert [error["message"] for error in errors] == [f"there is no folder {tmp_path}/nowhere"]
    assert ended.returncode == 1
    assert [(tmp_path / f"status{index}").read_text() for index in (0, 1)] == ["2", "2"]
    assert not list((tmp_path / "out").glob("*.safetensors"))


def test_processes_share_the_cores_and_take_a_free_port(workplace, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(launch, "_usable_cores", lambda: 8)
    words = launch.command(settings_of(workplace, workplace), 4)
    options = dict(itertools.pairwise(words))
    assert options["--num_processes"] == "4"
    assert options["--num_cpu_threads_per_process"] == "2"
    assert options["--main_process_port"] == "0"
    assert "--cpu" not in words
    assert words[0] == sys.executable

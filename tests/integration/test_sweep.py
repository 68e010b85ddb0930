"""Sweeps with real trainers: one after the other and on Ray, a run that fails, and a kill on the way."""

import json
import time
from dataclasses import replace

import pytest
from commands import forked_trainers, start_command
from noise_pictures import noise_pictures
from tiny_flux import build_tiny_flux
from trainings import same

from diffusioncleft.cli.main import main
from diffusioncleft.trainer.sweep import run_sweep
from diffusioncleft.trainer.sweep_recipe import combinations, read_sweep
from diffusioncleft.trainer.sweep_table import DONE, FAILED

SWEEP = """
[optimizer]
name = "AdamW"
steps = 6
[data]
resolution = [64]
[output]
checkpoint_every_n_steps = 2
[memory]
device = "cpu"
cpu_threads = 1
[sweep]
network.rank = [2, 4]
"""
RUNS = ("rank=2", "rank=4")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    build_tiny_flux(folder / "flux")
    noise_pictures(folder / "photos", 3)
    (folder / "sweep.toml").write_text(SWEEP)
    return folder


def words(workplace, out):
    given = ["--pretrained_model_name_or_path", workplace / "flux", "--train_data_dir", workplace / "photos"]
    return [str(word) for word in ("sweep", workplace / "sweep.toml", *given, "--output_dir", out)]


def lora(folder, run):
    return folder / run / f"lora-{run}.safetensors"


@pytest.fixture(scope="module")
def undisturbed(workplace):
    """The folder of a sweep of which one run, between the others, is of photographs that are gone; its rows,
    and what was said.
    """
    out, said = workplace / "undisturbed", []
    sweep = read_sweep(workplace / "sweep.toml")
    given = {"model.base": workplace / "flux", "data.train_dir": workplace / "photos", "output.folder": out}
    one, two = combinations(sweep, {}, given)
    gone = {"data.train_dir": workplace / "gone", "output.folder": out / "rank=3"}
    bad = replace(one, name="rank=3", settings={"network.rank": 3}, recipe=one.recipe.replaced(gone))
    with forked_trainers():
        return out, run_sweep(out, [one, bad, two], say=said.append), said


def test_a_run_that_fails_is_named_with_its_reason_and_the_others_are_trained(undisturbed):
    out, rows, said = undisturbed
    assert [(row.combination.name, row.state) for row in rows] == [
        ("rank=2", DONE),
        ("rank=3", FAILED),
        ("rank=4", DONE),
    ]
    (failure,) = [line for line in said if "failed" in line]
    assert failure.startswith("rank=3 failed: there is no folder")
    document = json.loads((out / "sweep.json").read_text())
    assert [run["lora"] for run in document["runs"]] == [
        "rank=2/lora-rank=2.safetensors",
        None,
        "rank=4/lora-rank=4.safetensors",
    ]
    assert all(0 < run["final_loss"] < 10 for run in document["runs"] if run["state"] == DONE)


def test_the_table_names_no_place_and_no_photograph(undisturbed, workplace):
    out = undisturbed[0]
    for name in ("sweep.json", "sweep.csv"):
        text = (out / name).read_text()
        assert str(workplace) not in text and "photos" not in text and "flux" not in text
    assert (out / "private").stat().st_mode & 0o077 == 0


def test_a_killed_sweep_goes_on_and_trains_nothing_twice(undisturbed, workplace, tmp_path, capsys):
    out = tmp_path / "killed"
    with start_command(*words(workplace, out)) as process:
        limit = time.monotonic() + 600
        while not list((out / "rank=4" / "state").glob("*")) and time.monotonic() < limit:
            assert process.poll() is None
            time.sleep(0.05)
        process.kill()
    before = lora(out, "rank=2").stat().st_mtime_ns
    told = json.loads((out / "sweep.json").read_text())["runs"]
    assert [run["state"] for run in told] == ["done", "to do"]
    assert main(words(workplace, out)) == 0
    assert "2 of 2 runs done" in capsys.readouterr().out
    assert lora(out, "rank=2").stat().st_mtime_ns == before
    for run in RUNS:
        assert same(lora(out, run), lora(undisturbed[0], run))
    (out / "private" / "sweep" / "rank=4.json").unlink()
    lora(out, "rank=4").unlink()
    assert main([*words(workplace, out), "--dry-run"]) == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()[1:]] == ["done", "to"]


@pytest.mark.long
def test_workers_on_ray_train_the_loras_of_one_process(undisturbed, workplace, tmp_path, capsys):
    pytest.importorskip("ray", reason="NO RAY: pip install ray fsspec")
    assert main([*words(workplace, tmp_path / "out"), "--ray", "--ray-workers", "2"]) == 0
    told = capsys.readouterr()
    assert "2 of 2 runs done" in told.out
    assert "images/s" not in told.err
    for run in RUNS:
        assert same(lora(tmp_path / "out", run), lora(undisturbed[0], run))

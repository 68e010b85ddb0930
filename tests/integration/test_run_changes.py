"""A run called again with other settings, or after a kill, ends as one that was made so from the start."""

import multiprocessing
import os
import re
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import LIBRARIES
from PIL import Image
from report_folders import saved_by
from safetensors.numpy import load_file
from tiny_runs import HELD_OUT, SEED, SIDE, photographed, run_and_be_killed, settings_of, train_here

from diffusioncleft.diffusioncleft_core.files import read_json
from diffusioncleft.diffusioncleft_core.filters.decisions import read_review, review
from diffusioncleft.diffusioncleft_core.phantom.photographs import write_healthy
from diffusioncleft.diffusioncleft_core.run.pipeline import plan_run, run_pipeline
from diffusioncleft.diffusioncleft_core.run.settings import RunSettings
from diffusioncleft.diffusioncleft_core.run.stages import State

pytestmark = pytest.mark.usefixtures("one_plot_of_a_name")

LORAS = {"pre_op": "clp", "post_op": "clprep"}


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("surroundings")
    for condition in LORAS:
        photographed(root, condition, 6)
    write_healthy(root / "healthy", 2, 5, size=SIDE)
    return root


@pytest.fixture(scope="module")
def finished(surroundings, tmp_path_factory) -> Path:
    """A finished run of pre_op, which nothing disturbed."""
    root = shutil.copytree(surroundings, tmp_path_factory.mktemp("finished") / "all")
    run_pipeline(settings_of(root, "pre_op"), train_here)
    return root


@pytest.fixture(scope="module")
def both(finished, tmp_path_factory) -> tuple[Path, dict[str, State]]:
    """That run with post_op added, and the state that each stage had then."""
    root = shutil.copytree(finished, tmp_path_factory.mktemp("both") / "all")
    return root, run_as_planned(settings_of(root, *LORAS))


@pytest.fixture
def root(finished, tmp_path) -> Path:
    return shutil.copytree(finished, tmp_path / "changed")


@pytest.fixture
def from_the_start(tmp_path) -> Callable[[Path, RunSettings], RunSettings]:
    """Makes the same run in a folder where nothing was before."""

    def made(root: Path, settings: RunSettings) -> RunSettings:
        there = tmp_path / "from the start"
        shutil.copytree(root, there, ignore=lambda folder, names: {"run"} & set(names))
        fresh = replace(settings_of(there, *settings.photographs), n=settings.n, seed=settings.seed)
        fresh = replace(fresh, threshold=settings.threshold, recipe=settings.recipe)
        run_pipeline(fresh, train_here)
        return fresh

    return made


def run_as_planned(settings: RunSettings) -> dict[str, State]:
    """Run; every stage had the state that the plan had said, for the reason that it had said."""
    planned = {row.name: row for row in plan_run(settings)}
    happened = {row.name: row for row in run_pipeline(settings, train_here).rows}
    assert sorted(planned) == sorted(happened)  # trainings side by side end in any order
    for name, row in planned.items():
        if row.state != State.FOLLOWS:
            assert (happened[name].state, happened[name].why) == (row.state, row.why), name
    assert {row.state for row in plan_run(settings)} == {State.DONE}
    return {name: row.state for name, row in happened.items()}


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.png")}


def lora(settings: RunSettings, condition: str = "pre_op") -> Path:
    return settings.out / "loras" / condition / f"{LORAS[condition]}.safetensors"


def pixels(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): np.asarray(Image.open(path)).tobytes()
        for path in folder.rglob("*.png")
    }


def figures(settings: RunSettings) -> dict[str, Any]:
    """report.json less what says when, how long, and what was warned of on the way."""
    report = read_json(settings.out / "report.json")
    for training in report["training"].values():
        training.pop("lora_sha256")  # its metadata hold a fingerprint under the dataset's own key
    for volatile in ("created", "provenance", "notes"):
        report.pop(volatile)
    return report


def check_same(one: RunSettings, other: RunSettings) -> None:
    """The two runs have the same LoRAs, images and figures."""
    for condition in one.conditions:
        ours, theirs = load_file(lora(one, condition)), load_file(lora(other, condition))
        assert ours.keys() == theirs.keys()
        assert all((ours[key] == theirs[key]).all() for key in ours)
    for folder in ("generated", "sheets", "zero_shot", "oracle"):
        assert pixels(one.out / folder) == pixels(other.out / folder), folder
    assert unlike(figures(one), figures(other)) == []


def unlike(one: Any, other: Any, place: str = "report") -> list[str]:
    """Where two documents differ by more than the rounding of sums over other batches (the networks run over
    what a kill left to do), each place with both values.
    """
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return [line for key in one for line in unlike(one[key], other[key], f"{place}.{key}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        return [line for i, pair in pairs for line in unlike(*pair, f"{place}[{i}]")]
    if isinstance(one, float) and isinstance(other, float):
        return [] if one == pytest.approx(other, rel=1e-5, abs=1e-6) else [f"{place}: {one} {other}"]
    return [] if one == other else [f"{place}: {one} {other}"]


@pytest.mark.long
def test_more_images_another_threshold_and_fewer_photographs_one_after_the_other(
    both, tmp_path, from_the_start
):
    root = shutil.copytree(both[0], tmp_path / "changed")
    settings = replace(settings_of(root, *LORAS), n=6)
    first = lora(settings).read_bytes()
    before = content(settings.out / "generated")
    states = run_as_planned(settings)
    assert states["training-pre_op"] == State.DONE
    assert states["generation-pre_op"] == State.UPDATE
    images = content(settings.out / "generated")
    assert len(images) == 12
    assert lora(settings).read_bytes() == first
    assert before.items() <= images.items()

    settings = replace(settings, threshold=0.2)
    before = {Path(name).name: data for name, data in images.items()}
    states = run_as_planned(settings)
    redone = {name for name, state in states.items() if state != State.DONE}
    sheets = {"sheets-pre_op", "sheets-post_op"}
    assert {"filters", "measurements"} <= redone <= {"filters", *sheets, "measurements"}
    assert lora(settings).read_bytes() == first
    images = content(settings.out / "generated")
    assert {Path(name).name: data for name, data in images.items()} == before

    photographed(root, "pre_op", 5)
    before = {name: data for name, data in images.items() if name.startswith("pre_op/")}
    states = run_as_planned(settings)
    check_trained_anew(settings, states, first, before)
    assert states["training-post_op"] == states["generation-post_op"] == State.DONE
    check_same(settings, from_the_start(root, settings))


def check_trained_anew(
    settings: RunSettings, states: dict[str, State], lora: bytes, images: dict[str, bytes]
) -> None:
    """Other photographs of pre_op set the earlier LoRA and images aside."""
    assert states["dataset-pre_op"] == State.UPDATE
    assert states["training-pre_op"] == states["generation-pre_op"] == State.ANEW
    aside = settings.out / "superseded"
    last = sorted(aside.glob("training-pre_op-*"))[-1]
    assert (last / "pre_op" / "clp.safetensors").read_bytes() == lora
    assert content(sorted(aside.glob("generation-pre_op-*"))[-1]) == images


@pytest.mark.long
def test_another_seed_makes_everything_anew_that_is_drawn_and_more_photographs_the_lora(root, from_the_start):
    settings = replace(settings_of(root, "pre_op"), seed=SEED + 1)
    before = lora(settings).read_bytes()
    states = run_as_planned(settings)
    assert State.DONE not in states.values()
    aside = settings.out / "superseded" / "training-pre_op-1"
    assert (aside / "pre_op" / "clp.safetensors").read_bytes() == before

    before = lora(settings).read_bytes(), content(settings.out / "generated")
    photographed(root, "pre_op", 7)
    states = run_as_planned(settings)
    check_trained_anew(settings, states, *before)
    check_same(settings, from_the_start(root, settings))


def test_a_held_out_photograph_withdrawn_trains_nothing_anew(root):
    settings = settings_of(root, "pre_op")
    before = lora(settings).read_bytes(), content(settings.out / "generated")
    table = root / "pre_op" / "metadata.csv"
    gone = sorted((root / "pre_op").glob("*.png"))[HELD_OUT]
    rows = [row for row in table.read_text("utf-8").splitlines() if gone.name not in row]
    table.write_text("\n".join(rows) + "\n", "utf-8")
    gone.unlink()
    states = run_as_planned(settings)
    redone = {name for name, state in states.items() if state != State.DONE}
    assert {"dataset-pre_op", "filters", "measurements"} <= redone
    assert redone <= {"dataset-pre_op", "filters", "sheets-pre_op", "measurements"}
    assert (lora(settings).read_bytes(), content(settings.out / "generated")) == before


def test_what_a_stage_warned_of_stays_in_the_report_and_what_names_a_file_is_only_printed(root):
    table = root / "pre_op" / "metadata.csv"
    header, first, *others = table.read_text("utf-8").splitlines()
    table.write_bytes("\n".join([f"{header},note", f"{first},née", *others]).encode("cp1252"))
    settings = replace(settings_of(root, "pre_op"), holdout=0.5)
    told: list[str] = []
    run_pipeline(settings, train_here, warn=told.append)
    assert any(str(table) in message and "Windows-1252" in message for message in told)
    first_notes = read_json(settings.out / "report.json")["notes"]
    assert any("the hold-out was drawn anew" in note for note in first_notes)
    run_pipeline(settings, train_here)
    assert read_json(settings.out / "report.json")["notes"] == first_notes
    for shared in ("report.json", "summary.md", "report.html"):
        assert str(root / "pre_op") not in (settings.out / shared).read_text("utf-8")


@pytest.mark.long
def test_a_condition_added_keeps_the_first_ones_lora_and_images(both, finished):
    root, states = both
    settings, first = settings_of(root, *LORAS), settings_of(finished, "pre_op")
    for stage in ("dataset", "training", "plan", "generation", "oracle"):
        assert states[f"{stage}-pre_op"] == State.DONE
        assert states[f"{stage}-post_op"] == State.NEW
    assert lora(settings).read_bytes() == lora(first).read_bytes()
    images, before = (
        {Path(name).name: data for name, data in content(one.out / "generated" / "pre_op").items()}
        for one in (settings, first)
    )
    assert images == before


@pytest.mark.long
def test_a_condition_taken_out_leaves_its_results_and_the_report_of_the_rest(both, tmp_path):
    root = shutil.copytree(both[0], tmp_path / "changed")
    settings = settings_of(root, *LORAS)
    kept = lora(settings, "post_op").read_bytes(), content(settings.out / "generated" / "post_op")
    one = settings_of(root, "pre_op")
    states = run_as_planned(one)
    assert states["training-pre_op"] == states["generation-pre_op"] == State.DONE
    assert set(figures(one)["training"]) == {"pre_op"}
    assert (lora(settings, "post_op").read_bytes(), content(settings.out / "generated" / "post_op")) == kept
    states = run_as_planned(settings)
    assert states["training-post_op"] == states["generation-post_op"] == State.DONE


def test_a_run_whose_folder_was_moved_has_nothing_to_do(root, tmp_path):
    settings = settings_of(root, "pre_op")
    moved = replace(settings, out=tmp_path / "elsewhere" / "renamed")
    moved.out.parent.mkdir()
    report = figures(settings), read_json(settings.out / "report.json")["notes"]
    settings.out.rename(moved.out)
    before = {path: path.stat().st_mtime_ns for path in moved.out.rglob("*.safetensors")}
    assert set(run_as_planned(moved).values()) == {State.DONE}
    assert {path: path.stat().st_mtime_ns for path in moved.out.rglob("*.safetensors")} == before
    assert (figures(moved), read_json(moved.out / "report.json")["notes"]) == report
    assert not settings.out.exists()


@pytest.mark.long
@pytest.mark.skipif(os.name == "nt", reason="sends SIGKILL")
def test_a_run_killed_in_every_stage_goes_on_to_the_undisturbed_ones_results(
    surroundings, finished, tmp_path
):
    root = shutil.copytree(surroundings, tmp_path / "killed")
    settings = settings_of(root, "pre_op")
    stages = [row.name for row in plan_run(settings)]
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["tiny_runs", *LIBRARIES])
    for stage in stages:
        process = processes.Process(target=run_and_be_killed, args=(root, stage))
        process.start()
        process.join(600)
        assert process.exitcode == -signal.SIGKILL, stage
        states = {row.name: row.state for row in plan_run(settings)}
        assert {states[name] for name in stages[: stages.index(stage)]} <= {State.DONE}, stage
        assert states[stage] in (State.GOES_ON, State.DONE)
    run_as_planned(settings)
    check_same(settings, settings_of(finished, "pre_op"))
    assert not list(settings.out.rglob(".writing-*"))


def test_a_review_that_arrived_since_is_counted_and_nothing_is_trained_or_drawn_anew(root, tmp_path):
    settings = settings_of(root, "pre_op")
    drawn = settings.out / "generated" / "pre_op"
    page = settings.out / "private" / "report.private.html"
    name = re.findall(r'data-image="([^"]+)"', page.read_text("utf-8"))[0]
    file = saved_by(page, {name: "same_person"}, tmp_path / "review.json")
    before = read_json(settings.out / "report.json")["filters"]["pre_op"]
    assert not before["by_kind"].get("person") and not (before.get("reviewed") or {}).get("pairs")
    review(drawn, read_review(file))

    states = {row.name: row.state for row in plan_run(settings)}
    assert states["filters"] is not State.DONE and states["training-pre_op"] is State.DONE
    result = run_pipeline(settings, train_here)
    states = {row.name: row.state for row in result.rows}
    assert [states[stage] for stage in ("training-pre_op", "generation-pre_op")] == [State.DONE] * 2
    after = read_json(settings.out / "report.json")["filters"]["pre_op"]
    assert after["by_kind"]["person"] == 1
    assert {key: n for key, n in after["reviewed"].items() if n} == {"pairs": 1, "same_person": 1}
    assert (drawn / "rejected" / name).is_file()
    assert "looked at 1 images" in (settings.out / "report.html").read_text("utf-8")
    again = {row.state for row in run_pipeline(settings, train_here).rows}
    assert again == {State.DONE}

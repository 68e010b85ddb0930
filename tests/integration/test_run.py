"""The whole run as a person starts it: real processes, phantom photographs, the embedded models."""

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from commands import offline_environment, run_command, start_command
from phantom_datasets import FINDING_OF
from PIL import Image
from safetensors.numpy import load_file
from synthetic_mark import assert_marked

from diffusioncleft.diffusioncleft_core.conditions.names import RunOwn
from diffusioncleft.diffusioncleft_core.files import read_jsonl
from diffusioncleft.diffusioncleft_core.phantom.photographs import write_photographs
from diffusioncleft.diffusioncleft_core.report.plain_words import SHARE

PROGRAM = (sys.executable, "-m", "diffusioncleft")
CONDITIONS = ("pre_op", "post_op")
PHOTOGRAPHS = 10
IMAGES = 5
STEPS = 12
CONTROLS = 2
STAGES = (
    *(f"{name}-pre_op" for name in ("dataset", "regularization", "training", "generation", "oracle")),
    "filters",
    "measurements",
)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("photographs of people")
    for seed, condition in enumerate(CONDITIONS):
        write_photographs(root / condition, PHOTOGRAPHS, FINDING_OF[condition], seed, subjects=PHOTOGRAPHS)
    return {condition: root / condition for condition in CONDITIONS}


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    return offline_environment()


def arguments(photographs: dict[str, Path], out: Path, *more: object) -> list[str]:
    command = [*PROGRAM, "run", "--phantom", "--out", out, "--n", IMAGES]
    command += ["--photos-pre", photographs["pre_op"], "--photos-post", photographs["post_op"]]
    command += ["--max-train-steps", STEPS, "--cell-images", 6, "--device", "cpu", "--seed", 3]
    command += ["--regularization-images", CONTROLS, *more]
    return list(map(str, command))


def finish(
    command: list[str], environment: dict[str, str], folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """What a command of `PROGRAM` and words did."""
    return run_command(*command[len(PROGRAM) :], cwd=folder, env=environment)


def accept_interrupts() -> None:
    """Undo what a shell does to its background jobs: they ignore SIGINT, and so would their children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture(scope="module")
def whole(photographs, environment, tmp_path_factory) -> Path:
    """A run that nothing disturbed, into a folder named from where it was started."""
    folder = tmp_path_factory.mktemp("whole")
    done = finish(arguments(photographs, Path("run")), environment, folder)
    assert done.returncode == 0, done.stderr
    for stage in STAGES:
        assert re.search(rf"^{stage} +\d", done.stdout, re.MULTILINE), done.stdout
    for condition in CONDITIONS:
        assert re.search(
            rf"^{condition}: \d+ photographs trained on, \d+ held out", done.stdout, re.MULTILINE
        )
    return folder / "run"


def test_what_lies_beside_a_lora_and_tells_its_steps_is_named_in_plain_words(whole):
    said = " ".join(SHARE)
    for condition, lora in zip(CONDITIONS, ("clp", "clprep"), strict=True):
        found = {path.name for path in (whole / "loras" / condition).iterdir() if path.name[0] != "."}
        assert {"loss.jsonl", "previews", "state"} <= found
        assert [name for name in found - {f"{lora}.safetensors"} if f"`{name}`" not in said] == []


def test_the_run_leaves_two_loras_two_sets_sheets_and_a_report(whole):
    report = json.loads((whole / "report.json").read_text("utf-8"))
    assert report["schema"] == 1
    assert report["phantom"] is True
    for condition, lora in zip(CONDITIONS, ("clp", "clprep"), strict=True):
        assert (whole / "loras" / condition / f"{lora}.safetensors").is_file()
        rows = read_jsonl(whole / "generated" / condition / "manifest.jsonl")
        assert len(rows) == IMAGES
        assert all(row["role"] == "generated" for row in rows)
        controls = read_jsonl(whole / "regularization" / condition / "manifest.jsonl")
        assert len(controls) == CONTROLS
        assert all(row["role"] == "control" and row["lora"] is None for row in controls)
        trained = report["training"][condition]
        assert trained["training_images"] + trained["holdout_images"] == PHOTOGRAPHS
        assert trained["regularization_images"] == len(controls)
        assert_marked(whole / "sheets" / f"{condition}.png", "synthetic phantom images")
        figures = report["oracle"][condition]
        assert figures["trigger_obedience"]["n"] == IMAGES
        assert len(figures["trigger_selectivity"]) == 4
        assert {figure["n"] for figure in figures["trigger_selectivity"].values()} == {6}
        filtered = report["filters"][condition]
        assert filtered["accepted"] + filtered["rejected"] == IMAGES
        assert all("accepted" in row["verdicts"] for row in rows)
        assert report["sets"][condition]["fir_images"]["paper"]["raw"]["n"] <= IMAGES
        assert report["sets"][condition]["fid"]["paper"]["raw"]["extractor"]["phantom"] is True
        assert list((whole / "loras" / condition / "previews").glob("step_*.png"))
    assert report["figures"]["pca"]["n_control"] == 100
    page = (whole / "report.html").read_text("utf-8")
    assert "phantom" in page
    assert (whole / "private" / "report.private.html").is_file()
    assert len(read_jsonl(whole / "zero_shot" / "manifest.jsonl")) == 8
    summary = (whole / "summary.md").read_text("utf-8")
    assert "learning rate is 0.006" in summary
    assert "phantoms" in summary


def test_a_run_has_no_private_folder_but_its_own_and_the_conditions(whole):
    folders = {path.name for path in (whole / "private").iterdir() if path.is_dir()}
    assert folders - {*RunOwn} == {*CONDITIONS}


def test_nothing_outside_private_tells_of_a_photograph(whole, photographs):
    telling = {str(photographs["pre_op"].parent), "photo-0000"}
    for condition in CONDITIONS:
        for row in read_jsonl(whole / "private" / condition / "manifest.jsonl"):
            telling |= {row["sha256"], Path(row["file"]).stem}
    for path in whole.rglob("*"):
        if path.is_file() and (whole / "private") not in path.parents:
            data = path.read_bytes()
            found = [word for word in telling if word.encode() in data]
            assert not found, f"{path.relative_to(whole)} tells {found}"
    if os.name == "posix":
        assert stat.S_IMODE((whole / "private").stat().st_mode) == 0o700


def test_a_finished_run_is_skipped_and_a_planned_change_starts_nothing(whole, photographs, environment):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*.safetensors")}
    again = finish(arguments(photographs, whole), environment)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("(done before)") >= len(STAGES)
    changed = finish(arguments(photographs, whole, "--learning-rate", "0.002", "--plan"), environment)
    assert changed.returncode == 0, changed.stderr
    assert re.search(r"^training-pre_op +made anew +training settings changed$", changed.stdout, re.MULTILINE)
    assert re.search(r"^filters +follows +after generation-pre_op", changed.stdout, re.MULTILINE)
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*.safetensors")} == before


@pytest.mark.long
@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
def test_a_run_interrupted_again_and_again_ends_as_the_undisturbed_one(
    whole, photographs, environment, tmp_path
):
    out = tmp_path / "run"
    for stage in STAGES[::2]:
        if stage.startswith("training"):  # once as a user starts it, with the launcher and its trainer
            child = subprocess.Popen(
                arguments(photographs, out),
                env=environment,
                stderr=subprocess.PIPE,
                text=True,
                preexec_fn=accept_interrupts,  # noqa: PLW1509 (single-threaded here)
            )
        else:
            child = start_command(*arguments(photographs, out)[len(PROGRAM) :])
        assert child.stderr is not None
        for line in child.stderr:
            if line.startswith(f"{stage} …"):
                break
        time.sleep(0.3)
        child.send_signal(signal.SIGINT)
        rest = child.stderr.read()
        # Python itself ends by the signal when it fell into an import; a shell shows 130 for both
        assert child.wait(timeout=120) in (130, -signal.SIGINT), rest
        assert "run the same command again to go on" in rest
        assert not list(out.rglob(".writing-*"))
    done = finish(arguments(photographs, out), environment)
    assert done.returncode == 0, done.stderr
    for lora in ("loras/pre_op/clp.safetensors", "loras/post_op/clprep.safetensors"):
        ours, theirs = load_file(out / lora), load_file(whole / lora)
        assert ours.keys() == theirs.keys()
        assert all((ours[key] == theirs[key]).all() for key in ours)
    for path in sorted((whole / "generated").rglob("*.png")):
        ours, theirs = (
            np.asarray(Image.open(root / path.relative_to(whole))).astype(int) for root in (out, whole)
        )
        assert np.abs(ours - theirs).max() <= 1


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--base", "BASE", "--faces", "no_such_pack"], "no_such_pack"),
        (["--base", "nowhere", "--faces", "phantom"], "nowhere"),
        (["--faces", "phantom"], "no base model"),
        (["--base", "BASE", "--faces", "phantom"], "knows phantoms and nothing else"),
    ],
)
def test_photographs_without_a_model_of_their_own_stop_before_any_work(
    photographs, environment, tmp_path, more, sentence
):
    from diffusioncleft.diffusioncleft_core.flux.source import phantom_source

    base = str(phantom_source().folder)
    command = [*PROGRAM, "run", "--out", str(tmp_path / "run")]
    command += ["--photos-pre", str(photographs["pre_op"])]
    command += [base if word == "BASE" else word for word in more]
    done = finish(command, environment)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_control_faces_that_are_not_there_stop_before_any_work(photographs, environment, tmp_path):
    (tmp_path / "empty").mkdir()
    for name, sentence in (("empty", "there is no image"), ("missing", "is no folder")):
        command = arguments(photographs, tmp_path / "run", "--control", tmp_path / name)
        done = finish(command, environment)
        assert done.returncode == 2
        assert sentence in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
        assert not (tmp_path / "run").exists()

"""All that a run needs is looked for before its first stage, and all that is missing is said at once."""

import argparse
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from diffusioncleft.cli import run as run_command
from diffusioncleft.cli.main import main
from diffusioncleft.diffusioncleft_core.environment import usable_cores
from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.flux.source import phantom_source
from diffusioncleft.diffusioncleft_core.phantom.photographs import write_photographs
from diffusioncleft.diffusioncleft_core.run.needed_room import memory
from diffusioncleft.diffusioncleft_core.run.needs import check_settings, needs_of
from diffusioncleft.diffusioncleft_core.run.settings import RunSettings
from diffusioncleft.diffusioncleft_core.run.training import trainings_at_once


@pytest.fixture
def bare_machine(monkeypatch, tmp_path) -> Path:
    """No model lies where models are looked for."""
    for name in ("HOME", "TORCH_HOME", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    for name in ("COMFYUI_PATH", "DIFFUSIONCLEFT_WEIGHTS", "INSIGHTFACE_HOME", "DIFFUSIONCLEFT_FACES"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def photographs(tmp_path) -> Path:
    folder = tmp_path / "photos"
    write_photographs(folder, 4, "cleft", 0, subjects=4)
    return folder


def settings(*arguments: object) -> RunSettings:
    parser = argparse.ArgumentParser()
    run_command.configure(parser)
    return run_command.settings_from(parser.parse_args(list(map(str, arguments))))


def test_everything_that_is_missing_is_named_in_one_sentence(bare_machine, photographs, capsys):
    (photographs / "metadata.csv").unlink()
    line = ["run", "--photos-pre", photographs, "--base", "nowhere", "--out", bare_machine / "run"]
    assert main([*map(str, line), "--training-adapter", "adapter.safetensors"]) == 2
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 1
    assert "6 things are missing or wrong" in told
    for word in ("metadata.csv", "nowhere", "adapter.safetensors", "buffalo_l", "inception", "alexnet"):
        assert word in told
    for name in ("flux1-schnell", "schnell-training-adapter", "buffalo_l", "inception-fid", "lpips-alexnet"):
        assert f"diffusioncleft weights fetch {name}" in told
    assert not (bare_machine / "run").exists()


def test_a_base_model_that_was_not_given_is_named_once(bare_machine, photographs):
    found = settings("--photos-pre", photographs, "--metrics", "none", "--out", bare_machine / "run")
    told = [need.problem for need in needs_of(found) if need.problem and need.required]
    assert len(told) == 2
    assert "there is no base model: give --base" in told[0] and "buffalo_l" in told[1]


def test_the_check_lists_what_is_there_and_what_is_missing_and_writes_nothing(
    bare_machine, photographs, capsys
):
    before = sorted(bare_machine.rglob("*"))
    line = ["run", "--photos-pre", photographs, "--out", bare_machine / "run", "--check"]
    assert main(list(map(str, line))) == 2
    told = capsys.readouterr()
    assert not told.err
    states = {row[:30].split("  ")[0]: row for row in told.out.splitlines()}
    assert "ok" in states["pre_op photographs"] and "4 of 4 may enter" in states["pre_op photographs"]
    assert "missing" in states["base model"] and "missing" in states["face pack"]
    assert "GiB free" in told.out
    assert "run: diffusioncleft weights fetch flux1-schnell" in told.out
    assert sorted(bare_machine.rglob("*")) == before


def test_the_check_of_a_run_that_can_start_ends_with_status_0(tmp_path, capsys):
    assert main(["run", "--phantom", "--device", "cpu", "--out", str(tmp_path / "run"), "--check"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert {"ok"} == {row.split("  ok")[1] and "ok" for row in rows}
    for part in ("transformer", "VAE", "CLIP", "T5", "CLIP's tokenizer", "T5's tokenizer"):
        assert any(part in row for row in rows)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("gone", ["vae", "text_encoder_2", "tokenizer"])
def test_a_part_of_the_base_model_that_is_not_there_is_named(tmp_path, gone):
    base = shutil.copytree(phantom_source().folder, tmp_path / "base")
    shutil.rmtree(base / gone)
    found = replace(
        settings("--phantom", "--out", tmp_path / "run"), source=replace(phantom_source(), folder=base)
    )
    with pytest.raises(UserError, match=rf"lacks {gone}"):
        check_settings(found)


def test_a_shard_that_was_not_downloaded_is_named(tmp_path):
    base = shutil.copytree(phantom_source().folder, tmp_path / "base")
    (base / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    (base / "vae" / "diffusion_pytorch_model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "one-00001-of-00002.safetensors"}}'
    )
    found = replace(
        settings("--phantom", "--out", tmp_path / "run"), source=replace(phantom_source(), folder=base)
    )
    with pytest.raises(UserError, match="one-00001-of-00002"):
        check_settings(found)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--mode", "fast"], "fast"),
        (["--size", "100"], "multiple of 16"),
        (["--size", "64"], "on phantoms a run draws 128 px"),
        (["--metrics", "fid,is"], "'is'"),
        (["--vocabulary", "none.toml"], "none.toml"),
        (["--recipe", "none.json"], "none.json"),
        (["--training-adapter", "none.safetensors"], "none.safetensors"),
        (["--threshold", "2"], "--threshold"),
        (["--n", "0"], "--n"),
        (["--phantoms", "0"], "--phantoms"),
        (["--phantoms", "9", "--photos-pre", "photos"], "--phantoms 9 counts the photographs"),
        (["--refill", "99"], "--refill"),
        (["--holdout", "0.9"], "--holdout"),
        (["--learning-rate", "-1"], "--learning-rate"),
        (["--device", "tpu"], "tpu"),
        (["--photos", "nose_op=photos"], "nose_op"),
        (["--control", "none"], "none"),
    ],
)
def test_a_mistake_in_any_option_stops_before_the_first_stage(tmp_path, capsys, arguments, word):
    line = ["run", "--phantom", "--out", str(tmp_path / "run"), *arguments]
    try:
        status = main(line)
    except SystemExit as exit_:
        status = exit_.code
    assert status == 2
    assert word in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_recipe_that_the_run_cannot_train_is_found_before_the_first_stage(tmp_path):
    """Sets of a TOML file and the run's own dataset exclude each other: each alone is a good recipe."""
    found = settings("--phantom", "--out", tmp_path / "run")
    recipe = found.recipe.replaced({"objective.prior_loss_weight": 0.5})
    with pytest.raises(UserError, match="no regularisation images"):
        check_settings(replace(found, recipe=recipe))


def test_a_table_without_consent_stops_before_the_first_stage(photographs, tmp_path):
    table = photographs / "metadata.csv"
    table.write_text(table.read_text("utf-8").replace(",yes", ",no"), "utf-8")
    found = settings("--phantom", "--photos-pre", photographs, "--out", tmp_path / "run")
    with pytest.raises(UserError, match=r"no pre_op photograph .* may enter \(4 no_consent\)"):
        check_settings(found)
    (row,) = [need for need in needs_of(found) if need.what == "pre_op photographs"]
    assert row.state == "missing"


def many_conditions(n, *arguments):
    """Settings of a run on phantoms whose vocabulary has n conditions."""
    found = settings("--phantom", "--device", "cpu", *arguments)
    one = found.vocabulary.condition("pre_op")
    conditions = {f"c{place}": replace(one, name=f"c{place}", trigger=f"CLP{place}") for place in range(n)}
    return replace(found, vocabulary=replace(found.vocabulary, conditions=conditions))


def needed(found):
    """The memory that the check asks for, MiB."""
    (need,) = memory(found)
    amount, unit = re.search(r"about ([0-9.]+) (MiB|GiB) of", need.problem or need.detail).groups()
    return float(amount) * (1024 if unit == "GiB" else 1)


def test_no_more_trainings_run_at_once_than_there_are_cores_and_memory_is_asked_for_all_of_them(tmp_path):
    cores = usable_cores()
    many = many_conditions(cores + 3, "--out", tmp_path / "run")
    assert trainings_at_once(many) == cores
    one = many_conditions(1, "--out", tmp_path / "run")
    assert trainings_at_once(one) == 1
    assert needed(many) == pytest.approx(cores * needed(one), rel=0.1)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to a core")
def test_on_one_core_conditions_train_one_after_the_other(tmp_path):
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert trainings_at_once(many_conditions(3, "--out", tmp_path / "run")) == 1
    finally:
        os.sched_setaffinity(0, allowed)

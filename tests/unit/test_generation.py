"""Generation on the tiny random FLUX: real weights on disk, real pictures, real interruptions."""

import json
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import start_command
from PIL import Image
from synthetic_mark import assert_marked
from tiny_flux import build_tiny_flux

from diffusioncleft.diffusioncleft_core.conditions.loader import load_vocabulary
from diffusioncleft.diffusioncleft_core.conditions.plan import sampling_plan
from diffusioncleft.diffusioncleft_core.conditions.plan_rows import as_plan, write_plan
from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.files import read_jsonl, sha256_file
from diffusioncleft.diffusioncleft_core.flux.lora import attach_lora, lora_state
from diffusioncleft.diffusioncleft_core.flux.lora_file import save_kohya
from diffusioncleft.diffusioncleft_core.flux.source import FluxSource
from diffusioncleft.diffusioncleft_core.flux.transformer import load_transformer
from diffusioncleft.diffusioncleft_core.generation.drawing import Batches
from diffusioncleft.diffusioncleft_core.generation.generate import generate as draw
from diffusioncleft.diffusioncleft_core.generation.grid import Grid, generate_grid
from diffusioncleft.diffusioncleft_core.generation.sampler import (
    ImageSampler,
    PromptEmbeddings,
    embed_prompts,
)
from diffusioncleft.diffusioncleft_core.generation.settings import GenerationSettings, ImageSize, Sampling

CPU = torch.device("cpu")
SIZE = {"width": 64, "height": 64, "device": CPU, "dtype": torch.float32}


def generate(
    source, lora, plan, out, *, warn=lambda message: None, on_image=lambda done, total: None, **values
):
    """Draw with the sampling that `values` name."""
    settings = GenerationSettings(source, Sampling(**values), lora)
    return draw(settings, plan, out, warn=warn, on_image=on_image)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return build_tiny_flux(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture(scope="module")
def source(base) -> FluxSource:
    return FluxSource.from_arguments(base)


@pytest.fixture(scope="module")
def lora(source, tmp_path_factory) -> Path:
    """A LoRA with random up matrices, which says that it was trained on this base with [CLP]."""
    transformer = load_transformer(source, CPU, torch.float32)
    attach_lora(transformer, 4, 8.0, "default", seed=0)
    generator = torch.Generator().manual_seed(1)
    state = {
        key: value if "lora_A" in key else 0.2 * torch.randn(value.shape, generator=generator)
        for key, value in lora_state(transformer, "default").items()
    }
    path = tmp_path_factory.mktemp("lora") / "clp-step000250.safetensors"
    metadata = {"base_model_sha256": source.fingerprint(), "trigger": "CLP", "prompt_form": "bracketed"}
    save_kohya(path, state, 8.0, metadata)
    return path


def a_plan(n: int, **settings):
    return sampling_plan(load_vocabulary().condition("pre_op"), n, 7, **settings)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def pictures(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: pixels(path) for path in sorted(folder.glob("*.png"))}


def test_each_row_becomes_a_png_marked_as_synthetic_with_its_sidecar(source, lora, tmp_path):
    plan = a_plan(3)
    result = generate(source, lora, plan, tmp_path / "out", strength=0.5, batch=2, **SIZE)
    assert (result.total, result.made) == (3, 3)
    rows = read_jsonl(tmp_path / "out" / "manifest.jsonl")
    assert [(row["prompt"], row["seed"], row["role"]) for row in rows] == [
        (r.prompt, r.seed, "generated") for r in plan
    ]
    for planned, row in zip(plan, rows, strict=True):
        path = tmp_path / "out" / row["file"]
        assert path.name == f"{planned.index:06d}_{planned.seed}.png"
        sidecar = json.loads(path.with_suffix(".json").read_text("utf-8"))
        assert sidecar["synthetic"] is True
        assert sidecar["digital_source_type"].endswith("/trainedAlgorithmicMedia")
        assert sidecar["lora"] == {"sha256": sha256_file(lora), "strength": 0.5}
        assert sidecar["base"]["sha256"] == source.fingerprint()
        assert sidecar["sampler"]["sigmas"] == [1.0, 0.75, 0.5, 0.25, 0.0]
        assert sidecar["attributes"] == dict(planned.attributes)
        with Image.open(path) as image:
            assert image.size == (64, 64)
            assert image.info["synthetic"] == "true"
            assert image.info["prompt"] == planned.prompt
            assert image.info["seed"] == str(planned.seed)
            assert image.info["lora_sha256"] == sha256_file(lora)
            assert "trainedAlgorithmicMedia" in image.info["XML:com.adobe.xmp"]
    assert not (tmp_path / "out" / ".embeddings").exists()


def test_a_picture_does_not_depend_on_its_batch(source, lora, tmp_path):
    plan = a_plan(5)
    generate(source, lora, plan, tmp_path / "alone", batch=1, **SIZE)
    generate(source, lora, plan, tmp_path / "together", batch=4, **SIZE)
    alone, together = pictures(tmp_path / "alone"), pictures(tmp_path / "together")
    assert list(alone) == list(together)
    for name, picture in alone.items():
        assert np.abs(picture.astype(int) - together[name].astype(int)).max() <= 1
    first, second = list(alone.values())[:2]
    assert np.abs(first.astype(int) - second.astype(int)).mean() > 1


def test_what_is_done_is_not_drawn_again(source, tmp_path):
    plan = a_plan(4)
    generate(source, None, plan[:3], tmp_path / "out", **SIZE)
    times = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.png")}
    result = generate(source, None, plan, tmp_path / "out", **SIZE)
    assert result.made == 1
    assert all((tmp_path / "out" / name).stat().st_mtime_ns == time_ns for name, time_ns in times.items())
    assert len(read_jsonl(tmp_path / "out" / "manifest.jsonl")) == 4


def test_what_is_drawn_again_has_the_bytes_of_a_whole_call(source, tmp_path):
    plan, out = a_plan(6), tmp_path / "out"
    generate(source, None, plan, out, batch=4, **SIZE)
    whole = {path.name: path.read_bytes() for path in out.glob("*.png")}
    for index in (1, 2, 5):  # of the full batch, and of the smaller one at the end
        (out / f"{index:06d}_{plan[index].seed}.png").unlink()
    assert generate(source, None, plan, out, batch=4, **SIZE).made == 3
    assert {path.name: path.read_bytes() for path in out.glob("*.png")} == whole


def test_batches_of_missing_rows_are_filled_to_the_size_they_have_in_a_whole_call():
    plan = a_plan(6)
    assert [(len(b.rows), b.size) for b in Batches(as_plan(plan), as_plan(plan), 4)] == [(4, 4), (2, 2)]
    missing = [plan[1], plan[3], plan[5]]
    batches = Batches(as_plan(plan), as_plan(missing), 4)
    assert [([row.index for row in b.rows], b.size) for b in batches] == [([1, 3], 4), ([5], 2)]
    assert [[(row.index, part.size) for row in part.rows] for part in batches[0].split()] == [
        [(1, 4)],
        [(3, 4)],
    ]


@pytest.mark.parametrize("damage", ["png cut", "png gone", "sidecar gone", "sidecar cut"])
def test_a_damaged_pair_is_drawn_again(source, tmp_path, damage):
    plan = a_plan(2)
    generate(source, None, plan, tmp_path / "out", **SIZE)
    before = pictures(tmp_path / "out")
    victim = sorted((tmp_path / "out").glob("*.png"))[0]
    file = victim if damage.startswith("png") else victim.with_suffix(".json")
    if damage.endswith("gone"):
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:100])
    assert generate(source, None, plan, tmp_path / "out", **SIZE).made == 1
    after = pictures(tmp_path / "out")
    assert all((before[name] == after[name]).all() for name in before)


def test_other_settings_or_another_plan_are_refused_and_change_nothing(source, lora, tmp_path):
    plan = a_plan(2)
    out = tmp_path / "out"
    generate(source, lora, plan, out, **SIZE)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(UserError, match=r"other settings \(lora\).*--out"):
        generate(source, lora, plan, out, strength=0.5, **SIZE)
    with pytest.raises(UserError, match=r"other settings \(size\)"):
        generate(source, lora, plan, out, **{**SIZE, "width": 128})
    bare = a_plan(2, bracketed=False)
    reseeded = [replace(row, seed=row.seed + 1) for row in plan]
    for other in (bare, reseeded, [*plan[:1], *reseeded[1:]]):
        with pytest.raises(UserError, match="another plan"):
            generate(source, lora, other, out, **SIZE)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_strength_zero_is_the_base_model_and_one_is_not(source, lora, tmp_path):
    plan = a_plan(2)
    generate(source, None, plan, tmp_path / "base", **SIZE)
    generate(source, lora, plan, tmp_path / "zero", strength=0.0, **SIZE)
    generate(source, lora, plan, tmp_path / "one", **SIZE)
    plain, zero, one = (pictures(tmp_path / name) for name in ("base", "zero", "one"))
    assert all((plain[name] == zero[name]).all() for name in plain)
    assert all(np.abs(plain[name].astype(int) - one[name].astype(int)).mean() > 1 for name in plain)


def test_a_transformer_too_big_for_the_device_is_streamed_and_draws_the_same(source, lora):
    (row,) = a_plan(1)
    embedding = embed_prompts(source, [row.prompt], CPU, torch.float32).get(row.prompt)
    whole, streamed = (ImageSampler(source, CPU, torch.float32, free) for free in (None, 0))
    assert streamed.streamed and not whole.streamed
    drawn = []
    for change, strength in ((None, 1.0), (lora, 1.0), (lora, 0.5), (None, 1.0)):
        pictures = []
        for sampler in (whole, streamed):
            sampler.use_lora(change, strength)
            pictures.append(sampler.draw([embedding], [row.seed], ImageSize(64, 64)).astype(int))
        assert np.abs(pictures[0] - pictures[1]).max() <= 1
        drawn.append(pictures[0])
    assert np.abs(drawn[0] - drawn[1]).max() > 1 and np.array_equal(drawn[0], drawn[3])


def test_a_lora_that_does_not_fit_the_prompts_or_the_base_is_told(source, lora, tmp_path):
    heard: list[str] = []
    generate(source, lora, a_plan(2), tmp_path / "fits", warn=heard.append, **SIZE)
    assert heard == []
    generate(source, lora, a_plan(2, bracketed=False), tmp_path / "bare", warn=heard.append, **SIZE)
    assert len(heard) == 1
    assert "[CLP]" in heard[0]
    other = FluxSource.from_arguments(build_tiny_flux(tmp_path / "other", seed=5))
    heard.clear()
    generate(other, lora, a_plan(2), tmp_path / "elsewhere", warn=heard.append, **SIZE)
    assert len(heard) == 1
    assert "another base model" in heard[0]


def test_embeddings_that_do_not_fit_into_memory_lie_on_disk_and_are_the_same(source, tmp_path):
    prompts = [row.prompt for row in a_plan(4)]
    held = embed_prompts(source, prompts, CPU, torch.float32)
    spilled = PromptEmbeddings(tmp_path / "spilled", in_memory_bytes=0)
    for prompt in prompts:
        spilled.put(prompt, held.get(prompt))
    assert len(list((tmp_path / "spilled").glob("*.safetensors"))) == len(set(prompts))
    for prompt in prompts:
        assert torch.equal(spilled.get(prompt).prompt_embeds, held.get(prompt).prompt_embeds)
        assert torch.equal(spilled.get(prompt).pooled, held.get(prompt).pooled)
    spilled.close()
    assert not (tmp_path / "spilled").exists()


def test_grid_shows_loras_down_and_strengths_across(source, lora, tmp_path):
    second = tmp_path / "clp.safetensors"
    shutil.copy(lora, second)
    plan = a_plan(2)
    grid = Grid([lora, second], [0.0, 0.5, 1.0])
    sheets = generate_grid(source, grid, plan, tmp_path / "grid", Sampling(**SIZE))
    assert len(sheets) == 2
    sheet = pixels(sheets[0])
    assert sheet.shape[1] == 3 * (64 + 8) + 8
    left, top = 8, 16 + 14 + 0
    assert sheet.shape[0] > top + 2 * 64
    generate(source, None, plan[:1], tmp_path / "base", **SIZE)
    base_picture = next(iter(pictures(tmp_path / "base").values()))
    rows = [
        y for y in range(sheet.shape[0] - 64) if (sheet[y : y + 64, left : left + 64] == base_picture).all()
    ]
    assert len(rows) == 2, "the strength-0 cell of both rows is the base model's picture"
    assert_marked(sheets[0], plan[0].prompt)
    facts = json.loads(sheets[0].with_suffix(".json").read_text("utf-8"))
    assert facts["strengths"] == [0.0, 0.5, 1.0]
    assert facts["loras"] == [sha256_file(lora)] * 2


def test_a_full_disk_is_one_sentence_and_the_next_call_goes_on(source, small_disk, tmp_path):
    plan = a_plan(60)
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 100_000)
    with pytest.raises(UserError, match="disk is full"):
        generate(source, None, plan, small_disk / "out", batch=8, **SIZE)
    for path in (small_disk / "out").glob("*.png"):
        pixels(path)
    assert not list((small_disk / "out").glob(".writing-*"))
    done = len(list((small_disk / "out").glob("*.json"))) - 1
    assert 0 < done < 60
    ballast.unlink()
    few = plan[: done + 2]
    assert generate(source, None, few, small_disk / "out", batch=8, **SIZE).made <= 3
    assert len(read_jsonl(small_disk / "out" / "manifest.jsonl")) == len(few)


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
def test_an_interrupted_command_goes_on_to_the_same_pictures(base, source, tmp_path):
    plan = a_plan(20)
    write_plan(tmp_path / "plan.jsonl", plan)
    out = tmp_path / "out"
    words = ["generate", "--plan", tmp_path / "plan.jsonl", "--base", base, "--size", 64, "--out", out]
    child = start_command(*words, "--device", "cpu", "--steps", 20, "--batch", 4)
    deadline = time.monotonic() + 120
    while len(list(out.glob("*.json"))) < 4 and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    child.wait(60)
    errors = child.stderr.read()
    assert child.returncode == 130, errors
    assert "run the same command again" in errors
    there = len(list(out.glob("*.png")))
    assert 3 <= there < 20
    result = generate(source, None, plan, out, batch=8, steps=20, **SIZE)
    assert result.made >= 20 - there
    generate(source, None, plan, tmp_path / "whole", batch=8, steps=20, **SIZE)
    resumed, whole = pictures(out), pictures(tmp_path / "whole")
    assert list(resumed) == list(whole)
    assert all(np.abs(resumed[name].astype(int) - whole[name].astype(int)).max() <= 1 for name in whole)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--n", "2", "--condition", "pre_op"], "no base model"),
        (["--base", "nowhere"], "nothing to draw"),
        (["--plan", "nowhere.jsonl", "--base", "nowhere"], "does not exist"),
        (["--n", "2", "--condition", "pre_op", "--set", "skin=violet", "--base", "x"], "violet"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(command, arguments, sentence):
    done = command("generate", "--out", "out", *arguments)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1

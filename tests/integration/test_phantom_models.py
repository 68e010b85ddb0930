"""The embedded models: opened by the libraries whose form they have, and as good as their cards say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from phantom_datasets import FINDING_OF

from diffusioncleft.diffusioncleft_core.conditions.loader import load_vocabulary
from diffusioncleft.diffusioncleft_core.conditions.plan import sampling_plan
from diffusioncleft.diffusioncleft_core.flux.components import load_vae
from diffusioncleft.diffusioncleft_core.flux.source import phantom_source
from diffusioncleft.diffusioncleft_core.generation.sampler import ImageSampler, embed_prompts
from diffusioncleft.diffusioncleft_core.generation.settings import ImageSize
from diffusioncleft.diffusioncleft_core.phantom.face import random_face
from diffusioncleft.diffusioncleft_core.phantom.oracle import (
    SIDES,
    Reading,
    accuracy_of,
    finding_rate,
    load_oracle,
    type_accuracy,
)
from diffusioncleft.diffusioncleft_core.phantom.render import render
from diffusioncleft.tools.evaluate_base import base_cells

CPU = torch.device("cpu")
SIZE = ImageSize(128, 128)


@pytest.fixture(scope="module")
def vae() -> object:
    return load_vae(phantom_source(), CPU, torch.float32)


def through(vae: object, images: np.ndarray) -> np.ndarray:
    from diffusioncleft.tools.train_oracle import through_vae

    return through_vae(vae, images, 0.1, 0)


def faces(n: int, condition: str | None, seed: int) -> tuple[np.ndarray, list[dict[str, str]]]:
    rng = np.random.default_rng(seed)
    drawn = [render(random_face(rng, finding=FINDING_OF[condition])) for _ in range(n)]
    return np.stack([r.image for r in drawn]), [r.attributes for r in drawn]


def test_flux_pipeline_opens_the_phantom_and_draws_what_we_draw() -> None:
    from diffusers import FluxPipeline

    source = phantom_source()
    rows = sampling_plan(load_vocabulary().condition("pre_op"), 2, 5)
    embeddings = embed_prompts(source, [row.prompt for row in rows], CPU, torch.float32)
    ours = ImageSampler(source, CPU, torch.float32).draw(
        [embeddings.get(row.prompt) for row in rows], [row.seed for row in rows], SIZE, 4
    )
    pipe = FluxPipeline.from_pretrained(source.folder, torch_dtype=torch.float32, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    for row, picture in zip(rows, ours, strict=True):
        noise = torch.randn(1, 16, 16, 16, generator=torch.Generator().manual_seed(row.seed))
        packed = pipe._pack_latents(noise, 1, 16, 16, 16)
        theirs = pipe(
            row.prompt,
            latents=packed,
            height=128,
            width=128,
            num_inference_steps=4,
            sigmas=[1.0, 0.75, 0.5, 0.25],
            guidance_scale=0.0,
            max_sequence_length=pipe.tokenizer_2.model_max_length,
            output_type="np",
        ).images[0]
        difference = np.abs(theirs * 255 - picture)
        assert difference.max() <= 1.5


def test_the_autoencoder_keeps_what_a_clinician_looks_at(vae: object) -> None:
    images, _ = faces(16, "pre_op", 1)
    back = through(vae, images).astype(float)
    psnr = 10 * np.log10(255**2 / np.square(back - images).mean())
    assert psnr > 24


@pytest.mark.parametrize(
    "condition",
    [pytest.param(None, marks=pytest.mark.long), "pre_op", pytest.param("post_op", marks=pytest.mark.long)],
)
def test_the_oracle_reads_held_out_phantoms_after_the_autoencoder(vae: object, condition: str | None) -> None:
    images, words = faces(40, condition, 77)
    reading = load_oracle().read(through(vae, images))
    assert (reading.cleft == (condition == "pre_op")).mean() >= 0.97
    scarred = np.array([w.get("scar", "none") != "none" for w in words])
    assert (reading.scar == scarred).mean() >= 0.9
    for name, read in reading.words.items():
        assert (read == np.array([w[name] for w in words])).mean() >= 0.9, name


def test_the_oracle_refuses_another_shape() -> None:
    with pytest.raises(ValueError, match="128"):
        load_oracle().read(np.zeros((1, 64, 64, 3), np.uint8))


def test_its_counted_errors_meet_the_goals() -> None:
    cleft = accuracy_of("cleft")
    assert cleft.positives >= 500
    assert cleft.negatives >= 500
    assert cleft.sensitivity >= 0.97
    assert cleft.specificity >= 0.995


def test_the_base_draws_no_cleft_and_follows_the_skin_tone() -> None:
    cells = base_cells(12, 3)
    rows = [row for part in cells.values() for row in part]
    source = phantom_source()
    embeddings = embed_prompts(source, [row.prompt for row in rows], CPU, torch.float32)
    images = ImageSampler(source, CPU, torch.float32).draw(
        [embeddings.get(row.prompt) for row in rows], [row.seed for row in rows], SIZE, 4
    )
    reading = load_oracle().read(images)
    assert reading.cleft.sum() <= 2
    assert (reading.words["skin"] == np.array([r.attributes["skin"] for r in rows])).mean() >= 0.85


def reading_of(sides: list[str]) -> Reading:
    shown = np.array(sides)
    none = np.full(len(sides), "none")
    return Reading(shown != "none", shown, none != "none", none, {})


def test_rates_count_what_was_read_and_split_it_by_skin() -> None:
    wanted = [{"skin": "dark", "cleft_type": "bilateral"}] * 10 + [
        {"skin": "pale", "cleft_type": "unilateral", "side": "left"}
    ] * 10
    reading = reading_of(["bilateral"] * 8 + ["left"] * 2 + ["left"] * 5 + ["none"] * 5)
    rate = finding_rate("cleft", reading, wanted)
    assert rate["observed"] == 0.75
    assert rate["n"] == 20
    assert rate["by_skin"]["dark"]["observed"] == 1.0
    assert rate["by_skin"]["pale"]["observed"] == 0.5
    assert rate["ci95"][0] < rate["value"] < rate["ci95"][1]
    accuracy = type_accuracy(reading, wanted)
    assert accuracy["n"] == 15
    assert accuracy["observed"] == pytest.approx(13 / 15)
    assert accuracy["side_as_asked"] == {"k": 5, "n": 5}
    assert set(SIDES) >= set(reading.cleft_side)

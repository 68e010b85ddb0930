"""ComfyUI's own FLUX gives our output from our single file and from our LoRA in each form."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_flux import build_single_files, build_tiny_flux

from diffusioncleft.diffusioncleft_core.flux import dora, lokr, lora, sampling
from diffusioncleft.diffusioncleft_core.flux.source import FluxSource
from diffusioncleft.diffusioncleft_core.flux.transformer import load_transformer

COMFYUI = Path(os.environ.get("COMFYUI_PATH", "~/comfy/ComfyUI")).expanduser()
pytestmark = pytest.mark.skipif(
    not (COMFYUI / "comfy").is_dir() or not all(map(importlib.util.find_spec, ("einops", "torchsde"))),
    reason="no ComfyUI checkout with its requirements here",
)
SCRIPT = Path(__file__).resolve().parents[1] / "comfyui_flux.py"


def prepared(tmp_path):
    """A tiny FLUX as single files and as a model, inputs on disk, and a generator for weights."""
    folder = build_tiny_flux(tmp_path / "flux")
    single = build_single_files(folder, tmp_path / "single")
    transformer = load_transformer(FluxSource(folder=folder), torch.device("cpu"), torch.float32)
    generator = torch.Generator().manual_seed(0)
    inputs = {
        "latents": sampling.initial_noise(0, 64, 48)[None],
        "sigma": torch.tensor([0.6]),
        "prompt_embeds": torch.randn(1, 32, 64, generator=generator),
        "pooled": torch.randn(1, 64, generator=generator),
    }
    save_file(inputs, tmp_path / "inputs.safetensors")
    return single, transformer, inputs, generator


def comfyui(tmp_path, transformer, files, offline_env):
    """What ComfyUI's own FLUX gives without a LoRA and with each of the files."""
    arguments = [
        COMFYUI,
        transformer,
        tmp_path / "inputs.safetensors",
        tmp_path / "out.safetensors",
    ]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments), *map(str, files)],
        capture_output=True,
        text=True,
        env=offline_env,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return load_file(tmp_path / "out.safetensors")


@pytest.mark.parametrize("joint", [False, True])
def test_comfyui_gives_the_same_velocity_with_every_form_of_the_lora(tmp_path, offline_env, joint):
    single, transformer, inputs, generator = prepared(tmp_path)
    expected = {"base": sampling.predict_velocity(transformer, **inputs).detach()}
    lora.attach_lora(transformer, 4, 8, seed=1, joint=joint)
    for name, up in transformer.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(up, std=0.05, generator=generator)
    trained = sampling.predict_velocity(transformer, **inputs).detach()
    assert (trained - expected["base"]).abs().max() > 1e-2
    files = [tmp_path / f"{form}.safetensors" for form in ("kohya", "diffusers", "comfyui")]
    lora.save_kohya(files[0], lora.lora_state(transformer), 8.0, {})
    for index, file in enumerate(files):
        if index:
            lora.convert_lora(files[0], file, file.stem)
        expected[str(index)] = trained
    found = comfyui(tmp_path, single["transformer"], files, offline_env)
    for name, value in expected.items():
        assert (found[name] - value).abs().max() < 1e-5, name


@pytest.mark.parametrize("form", ["dora", "lokr", "whole lokr"])
@pytest.mark.parametrize("targets", ["all", "attention"])
def test_comfyui_gives_the_same_velocity_with_a_dora_or_a_lokr(tmp_path, offline_env, form, targets):
    single, transformer, inputs, generator = prepared(tmp_path)
    expected = {"base": sampling.predict_velocity(transformer, **inputs).detach()}
    if form == "dora":
        lora.attach_lora(transformer, 4, 8, targets=targets, seed=1, joint=True, use_dora=True)
    else:
        ranks = lora.target_ranks(transformer, 2 if form == "lokr" else 64, targets)
        lokr.attach_lokr(transformer, ranks, 8.0, seed=1)
    with torch.no_grad():
        for parameter in lora.lora_parameters(transformer):
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    expected["0"] = sampling.predict_velocity(transformer, **inputs).detach()
    assert (expected["0"] - expected["base"]).abs().max() > 1e-2
    file = tmp_path / "trained.safetensors"
    if form == "dora":
        dora.save_dora(file, transformer, "default", lora.lora_state(transformer), 8.0, {})
    else:
        lokr.save_lokr(file, transformer, "default", {})
    lora.remove_lora(transformer, "default")
    lora.load_lora(transformer, file, 0.5)
    expected["1"] = sampling.predict_velocity(transformer, **inputs).detach()
    found = comfyui(tmp_path, single["transformer"], [file, f"{file}@0.5"], offline_env)
    for name, value in expected.items():
        assert (found[name] - value).abs().max() < 1e-5, name

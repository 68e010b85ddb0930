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

from diffusioncleft.diffusioncleft_core.flux import lora, sampling
from diffusioncleft.diffusioncleft_core.flux.source import FluxSource
from diffusioncleft.diffusioncleft_core.flux.transformer import load_transformer

COMFYUI = Path(os.environ.get("COMFYUI_PATH", "~/comfy/ComfyUI")).expanduser()
SCRIPT = Path(__file__).resolve().parents[1] / "comfyui_flux.py"


@pytest.mark.skipif(
    not (COMFYUI / "comfy").is_dir() or not all(map(importlib.util.find_spec, ("einops", "torchsde"))),
    reason="no ComfyUI checkout with its requirements here",
)
@pytest.mark.parametrize("joint", [False, True])
def test_comfyui_gives_the_same_velocity_with_every_form_of_the_lora(tmp_path, offline_env, joint):
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
    arguments = [
        COMFYUI,
        single["transformer"],
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
    found = load_file(tmp_path / "out.safetensors")
    for name, value in expected.items():
        assert (found[name] - value).abs().max() < 1e-5, name

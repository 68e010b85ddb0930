"""ComfyUI's own FLUX gives our output from our single file and from our LoRA in each form."""

import importlib.util
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from commands import offline_environment
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


FORMS = ("kohya", "diffusers", "comfyui")
FACTORED = [(form, targets) for form in ("dora", "lokr", "whole lokr") for targets in ("all", "attention")]


@dataclass(frozen=True)
class Made:
    """One tiny FLUX's velocities without a LoRA and with each form of each: ours, and ComfyUI's."""

    base: torch.Tensor
    expected: dict[str, torch.Tensor]
    found: dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What we predict, and what one process of ComfyUI's own FLUX gives for the same files."""
    root = tmp_path_factory.mktemp("comfyui flux")
    folder = build_tiny_flux(root / "flux")
    single = build_single_files(folder, root / "single")
    generator = torch.Generator().manual_seed(0)
    inputs = {
        "latents": sampling.initial_noise(0, 64, 48)[None],
        "sigma": torch.tensor([0.6]),
        "prompt_embeds": torch.randn(1, 32, 64, generator=generator),
        "pooled": torch.randn(1, 64, generator=generator),
    }
    save_file(inputs, root / "inputs.safetensors")
    expected, files = {}, {}

    def loaded():
        return load_transformer(FluxSource(folder=folder), torch.device("cpu"), torch.float32)

    def predicted(transformer):
        return sampling.predict_velocity(transformer, **inputs).detach()

    base = predicted(loaded())
    for joint in (False, True):
        transformer, kind = loaded(), f"lora {'joint' if joint else 'separate'}"
        lora.attach_lora(transformer, 4, 8, seed=1, joint=joint)
        for name, up in transformer.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(up, std=0.05, generator=generator)
        paths = {form: root / f"{kind} {form}.safetensors" for form in FORMS}
        lora.save_kohya(paths["kohya"], lora.lora_state(transformer), 8.0, {})
        for form, path in paths.items():
            if form != "kohya":
                lora.convert_lora(paths["kohya"], path, form)
            expected[f"{kind} {form}"] = predicted(transformer)
            files[f"{kind} {form}"] = str(path)
    for form, targets in FACTORED:
        transformer, kind = loaded(), f"{form} {targets}"
        if form == "dora":
            lora.attach_lora(transformer, 4, 8, targets=targets, seed=1, joint=True, use_dora=True)
        else:
            ranks = lora.target_ranks(transformer, 2 if form == "lokr" else 64, targets)
            lokr.attach_lokr(transformer, ranks, 8.0, seed=1)
        with torch.no_grad():
            for parameter in lora.lora_parameters(transformer):
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
        expected[kind] = predicted(transformer)
        file = root / f"{kind}.safetensors"
        if form == "dora":
            dora.save_dora(file, transformer, "default", lora.lora_state(transformer), 8.0, {})
        else:
            lokr.save_lokr(file, transformer, "default", {})
        files[kind] = str(file)
        lora.remove_lora(transformer, "default")
        lora.load_lora(transformer, file, 0.5)
        expected[f"{kind} at half"] = predicted(transformer)
        files[f"{kind} at half"] = f"{file}@0.5"
    given = [COMFYUI, single["transformer"], root / "inputs.safetensors", root / "out.safetensors"]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, given), *files.values()],
        capture_output=True,
        text=True,
        env=offline_environment(),
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = load_file(root / "out.safetensors")
    named = {"base": found["base"]} | {name: found[str(index)] for index, name in enumerate(files)}
    return Made(base, expected, named)


def check(made, names):
    assert (made.found["base"] - made.base).abs().max() < 1e-5
    for name in names:
        assert (made.expected[name] - made.base).abs().max() > 1e-3, name
        assert (made.found[name] - made.expected[name]).abs().max() < 1e-5, name


@pytest.mark.parametrize("kind", ["lora separate", "lora joint"])
def test_comfyui_gives_the_same_velocity_with_every_form_of_the_lora(made, kind):
    check(made, [f"{kind} {form}" for form in FORMS])


@pytest.mark.parametrize("kind", [f"{form} {targets}" for form, targets in FACTORED])
def test_comfyui_gives_the_same_velocity_with_a_dora_or_a_lokr(made, kind):
    check(made, [kind, f"{kind} at half"])

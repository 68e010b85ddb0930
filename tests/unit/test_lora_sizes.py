"""Saved LoRAs: no larger than they need be, in the number format asked for, and read by sd-scripts itself."""

import importlib
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_flux import build_tiny_flux

from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.flux import lora, sampling
from diffusioncleft.diffusioncleft_core.flux.lora_file import PRECISIONS
from diffusioncleft.diffusioncleft_core.flux.lora_keys import LoraModule, write
from diffusioncleft.diffusioncleft_core.flux.source import FluxSource
from diffusioncleft.diffusioncleft_core.flux.transformer import load_transformer
from diffusioncleft.diffusioncleft_core.flux.transformer_keys import double_block, single_block

FULL, RANK = 3072, 16
SD_SCRIPTS = Path(os.environ.get("SD_SCRIPTS_PATH", "~/sd-scripts")).expanduser()
_SIDES = {
    "norm": (1, 6), "norm1": (1, 6), "norm1_context": (1, 6),
    "ff.net.0": (1, 4), "ff_context.net.0": (1, 4), "ff.net": (4, 1), "ff_context.net": (4, 1),
}  # fmt: skip


def full_size(shared: bool) -> dict[str, LoraModule]:
    """FLUX.1's 494 adapted layers at rank 16; expanded, so that they take no memory."""
    modules: dict[str, LoraModule] = {}
    pairs = [pair for index in range(19) for pair in double_block(index)]
    pairs += [pair for index in range(38) for pair in single_block(index)]
    for pair in pairs:
        for at, part in enumerate(pair.parts):
            inside, out = _SIDES.get(part.split(".", 2)[2].rpartition(".")[0], (1, 1))
            if part.startswith("single"):
                name = part.split(".", 2)[2]
                inside, out = {"norm.linear": (1, 3), "proj_mlp": (1, 4), "proj_out": (5, 1)}.get(
                    name, (1, 1)
                )
            value = torch.full((1, 1), 1.0 if shared else 1.0 + at, dtype=torch.bfloat16)
            down = value.expand(RANK, inside * FULL)
            up = value.expand(out * FULL, RANK)
            modules[part] = LoraModule(down, up, 2.0 * RANK)
    return modules


def megabytes(tensors: dict[str, torch.Tensor], itemsize: int = 2) -> float:
    return sum(tensor.numel() * itemsize for tensor in tensors.values()) / 1e6


def test_a_full_size_file_is_as_small_as_kohyas():
    assert len(full_size(shared=True)) == 494
    joint, separate = write(full_size(shared=True), "kohya"), write(full_size(shared=False), "kohya")
    assert len(joint) == len(separate) == 3 * 304
    assert megabytes(separate, itemsize=4) == pytest.approx(545, abs=1)
    assert megabytes(separate) == pytest.approx(272, abs=1)
    assert megabytes(joint) == pytest.approx(153, abs=1)
    # Unfused keys need no zeros, but sd-scripts reads none of them.
    assert megabytes(write(full_size(shared=False), "diffusers")) == pytest.approx(172, abs=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build_tiny_flux(tmp_path_factory.mktemp("sizes") / "flux")


@pytest.fixture
def transformer(folder):
    return load_transformer(FluxSource(folder=folder), torch.device("cpu"), torch.float32)


def velocity(transformer) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    embeds, pooled = torch.randn(1, 8, 64, generator=generator), torch.randn(1, 64, generator=generator)
    noise = sampling.initial_noise(0, 32, 48)[None]
    return sampling.predict_velocity(transformer, noise, torch.tensor([0.6]), embeds, pooled)


def test_joint_parts_share_one_down_matrix_in_training_and_in_the_file(transformer, folder, tmp_path):
    modules = lora.attach_lora(transformer, 4, 8, seed=1, joint=True)
    parameters = lora.lora_parameters(transformer)
    assert len(parameters) == 2 * len(modules) - 2 * (2 + 2) - 2 * 3
    block = transformer.transformer_blocks[0].attn
    assert block.to_q.lora_A["default"].weight is block.to_k.lora_A["default"].weight
    assert block.to_q.lora_A["default"].weight is not block.add_q_proj.lora_A["default"].weight
    optimizer = torch.optim.SGD(parameters, lr=0.5)
    for _ in range(3):
        velocity(transformer).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    expected = velocity(transformer).detach()
    path = tmp_path / "joint.safetensors"
    lora.save_kohya(path, lora.lora_state(transformer), 8.0, {})
    tensors = load_file(path)
    assert tensors["lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight"].shape[0] == 4
    assert tensors["lora_unet_single_blocks_0_linear1.lora_down.weight"].shape[0] == 4
    assert tensors["lora_unet_single_blocks_0_linear1.alpha"] == 8
    for form in ("kohya", "diffusers", "comfyui"):
        lora.convert_lora(path, tmp_path / f"as-{form}.safetensors", form)
        fresh = load_transformer(FluxSource(folder=folder), torch.device("cpu"), torch.float32)
        lora.load_lora(fresh, tmp_path / f"as-{form}.safetensors")
        assert (velocity(fresh) - expected).abs().max() < 1e-6


def test_the_shared_gradient_is_the_sum_of_the_separate_ones(folder):
    gradients = []
    for joint in (False, True):
        model = load_transformer(FluxSource(folder=folder), torch.device("cpu"), torch.float32)
        lora.attach_lora(model, 4, 8, seed=1, joint=joint)
        attention = model.transformer_blocks[0].attn
        layers = [attention.to_q, attention.to_k, attention.to_v]
        generator = torch.Generator().manual_seed(4)
        down = layers[0].lora_A["default"].weight.detach().clone()
        for layer in layers:
            layer.lora_A["default"].weight.data.copy_(down)
            torch.nn.init.normal_(layer.lora_B["default"].weight, std=0.1, generator=generator)
        velocity(model).square().mean().backward()
        downs = {id(layer.lora_A["default"].weight): layer.lora_A["default"].weight for layer in layers}
        gradients.append(sum(weight.grad for weight in downs.values()))
    assert torch.allclose(gradients[0], gradients[1], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", PRECISIONS)
def test_a_file_is_saved_in_the_number_format_asked_for(tmp_path, name):
    module = "transformer_blocks.0.attn.to_q"
    state = {f"{module}.lora_A.weight": torch.rand(2, 64), f"{module}.lora_B.weight": torch.rand(64, 2)}
    path = tmp_path / "a.safetensors"
    lora.save_kohya(path, state, 2.0, {}, PRECISIONS[name])
    found = load_file(path)
    wide = found.pop("lora_unet_double_blocks_0_img_attn_qkv.alpha")
    assert wide.dtype == torch.float32
    assert {value.dtype for value in found.values()} == {PRECISIONS[name]}


def test_values_beyond_a_number_format_are_refused_in_words(tmp_path):
    module = "transformer_blocks.0.attn.to_q"
    state = {
        f"{module}.lora_A.weight": torch.full((2, 64), 1e6),
        f"{module}.lora_B.weight": torch.ones(64, 2),
    }
    with pytest.raises(UserError, match=r"to_q are too large for float16; save it in bf16"):
        lora.save_kohya(tmp_path / "a.safetensors", state, 2.0, {}, torch.float16)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(
    not (SD_SCRIPTS / "networks" / "lora_flux.py").is_file(),
    reason="no checkout of kohya's sd-scripts here; SD_SCRIPTS_PATH names one",
)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("shared", [True, False])
def test_sd_scripts_own_loader_takes_every_tensor(monkeypatch, shared):
    """Its network is built from our keys over layers of its own names; a strict load leaves nothing over."""
    monkeypatch.syspath_prepend(str(SD_SCRIPTS))
    theirs = importlib.import_module("networks.lora_flux")
    tensors = {key: value.contiguous() for key, value in write(full_size(shared), "kohya").items()}

    class DoubleStreamBlock(torch.nn.Module):
        pass

    class SingleStreamBlock(torch.nn.Module):
        pass

    def placed(root: torch.nn.Module, name: str, layer: torch.nn.Module) -> None:
        *path, last = name.split(".")
        for part in path:
            if not hasattr(root, part):
                root.add_module(part, torch.nn.Module())
            root = getattr(root, part)
        root.add_module(last, layer)

    model = torch.nn.Module()
    for group, count, build, kind in (
        ("double_blocks", 19, double_block, DoubleStreamBlock),
        ("single_blocks", 38, single_block, SingleStreamBlock),
    ):
        model.add_module(group, torch.nn.ModuleList(kind() for _ in range(count)))
        for index in range(count):
            for pair in build(index):
                key = "lora_unet_" + pair.bfl.replace(".", "_")
                inside = tensors[f"{key}.lora_down.weight"].shape[1]
                out = tensors[f"{key}.lora_up.weight"].shape[0]
                layer = torch.nn.Linear(inside, out, bias=False, device="meta")
                placed(getattr(model, group)[index], pair.bfl.split(".", 2)[2], layer)
    with torch.device("meta"):
        network, weights = theirs.create_network_from_weights(1.0, "", None, [], model, weights_sd=tensors)
    assert len(network.unet_loras) == 304
    network.apply_to(None, model, apply_text_encoder=False, apply_unet=True)
    missing, unexpected = network.load_state_dict(weights, strict=False)
    assert (missing, unexpected) == ([], [])

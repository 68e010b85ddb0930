"""DoRA and LoKr: trained by peft, saved, loaded, begun from files, beside other adapters, on packed bases."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_flux import build_tiny_flux

from diffusioncleft.cli.main import main
from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.flux import dora, lokr, lora, sampling
from diffusioncleft.diffusioncleft_core.flux.lora_file import save_tensors
from diffusioncleft.diffusioncleft_core.flux.source import FluxSource
from diffusioncleft.diffusioncleft_core.flux.transformer import load_transformer, pack_blocks
from diffusioncleft.trainer.network_args import fields_of, layer_ranks

CPU = torch.device("cpu")
FORMS = ("lora", "dora", "lokr")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build_tiny_flux(tmp_path_factory.mktemp("forms") / "flux")


def model(folder, form="plain"):
    return load_transformer(FluxSource(folder=folder), CPU, torch.float32, form)


def velocity(transformer) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    embeds, pooled = torch.randn(1, 8, 64, generator=generator), torch.randn(1, 64, generator=generator)
    noise = sampling.initial_noise(0, 32, 48)[None]
    return sampling.predict_velocity(transformer, noise, torch.tensor([0.6]), embeds, pooled)


def attach(transformer, form, rank=2, alpha=8.0, name="default", joint=True, **other):
    if form == "lokr":
        ranks = lora.target_ranks(transformer, rank, "all")
        return lokr.attach_lokr(transformer, ranks, alpha, name, seed=1, **other)
    return lora.attach_lora(
        transformer, rank, alpha, name, seed=1, joint=joint, use_dora=form == "dora", **other
    )


def save(path, transformer, form, precision=None, name="default"):
    if form == "lokr":
        lokr.save_lokr(path, transformer, name, {}, precision)
    elif form == "dora":
        dora.save_dora(path, transformer, name, lora.lora_state(transformer, name), 8.0, {}, precision)
    else:
        lora.save_kohya(path, lora.lora_state(transformer, name), 8.0, {}, precision)
    return path


def train(transformer, name="default", steps=3):
    optimizer = torch.optim.SGD(lora.lora_parameters(transformer, name), lr=0.5)
    for _ in range(steps):
        velocity(transformer).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("form", ["dora", "lokr"])
def test_it_starts_as_the_base_learns_and_comes_back_from_its_file(folder, tmp_path, form):
    transformer = model(folder)
    before = velocity(transformer)
    modules = attach(transformer, form)
    assert torch.equal(velocity(transformer), before)
    parameters = lora.lora_parameters(transformer)
    train(transformer)
    kinds = {
        name.split(".")[-2 if form == "lokr" else -3]
        for name, value in transformer.named_parameters()
        if value.requires_grad
    }
    assert kinds == (
        {"lokr_w1", "lokr_w2_a", "lokr_w2_b"}
        if form == "lokr"
        else {"lora_A", "lora_B", "lora_magnitude_vector"}
    )
    assert len(parameters) >= 2 * len(modules) - 14
    expected = velocity(transformer).detach()
    assert (expected - before).abs().max() > 1e-4
    path = save(tmp_path / "a.safetensors", transformer, form)
    with lora.only(transformer, []):
        assert torch.equal(velocity(transformer), before)
    again = model(folder)
    lora.load_lora(again, path)
    assert (velocity(again) - expected).abs().max() < 2e-6
    # Strength blends the weights, and 0 is the base model.
    lora.set_strength(again, "lora", 0.0)
    assert torch.equal(velocity(again), before)
    lora.remove_lora(again, "lora")
    assert torch.equal(velocity(again), before)
    attach(again, form)
    train(again)
    assert torch.equal(velocity(again).detach(), expected)


@pytest.mark.parametrize("form", ["dora", "lokr"])
def test_a_file_is_begun_from_and_its_effect_stays(folder, tmp_path, form):
    first = model(folder)
    attach(first, form)
    train(first)
    path = save(tmp_path / "a.safetensors", first, form)
    second = model(folder)
    attach(second, form, alpha=4.0)
    (lokr.start_lokr if form == "lokr" else lora.start_from)(second, path, "default")
    assert (velocity(second) - velocity(first)).abs().max() < 2e-6
    train(second)  # it is trained on
    third = model(folder)
    attach(third, form, rank=3)
    with pytest.raises(UserError, match="start with the settings"):
        (lokr.start_lokr if form == "lokr" else lora.start_from)(third, path, "default")


def test_a_dora_starts_from_a_plain_lora_with_its_effect_and_not_the_other_way(folder, tmp_path):
    plain = model(folder)
    attach(plain, "lora")
    train(plain)
    path = save(tmp_path / "plain.safetensors", plain, "lora")
    other = model(folder)
    attach(other, "dora")
    lora.start_from(other, path, "default")
    assert (velocity(other) - velocity(plain)).abs().max() < 2e-6
    train(other)
    trained = save(tmp_path / "dora.safetensors", other, "dora")
    third = model(folder)
    attach(third, "lora")
    with pytest.raises(UserError, match="is a DoRA"):
        lora.start_from(third, trained, "default")
    with pytest.raises(UserError, match="no LoKr"):
        lokr.start_lokr(third, trained, "default")


def test_the_magnitudes_are_what_pefts_merged_weight_has(folder, tmp_path):
    transformer = model(folder)
    attach(transformer, "dora")
    train(transformer)
    tensors = load_file(save(tmp_path / "a.safetensors", transformer, "dora"))
    name = "lora_unet_double_blocks_0_img_mlp_0"
    layer = transformer.get_submodule("transformer_blocks.0.ff.net.0.proj")
    base = layer.get_base_layer().weight.detach().clone()
    change = 4.0 * tensors[f"{name}.lora_up.weight"] @ tensors[f"{name}.lora_down.weight"]
    # ComfyUI's formula with the file's scale, against the weight that peft merges.
    comfyui = (base + change) * tensors[f"{name}.dora_scale"] / base.norm(dim=1, keepdim=True)
    layer.merge()
    assert torch.allclose(layer.get_base_layer().weight, comfyui, atol=1e-6)
    assert not torch.allclose(base, comfyui, atol=1e-4)


def test_a_dora_of_others_is_read_over_the_norm_of_the_sum(folder, tmp_path):
    transformer = model(folder)
    attach(transformer, "dora")
    train(transformer)
    tensors = load_file(save(tmp_path / "a.safetensors", transformer, "dora"))
    state = lora.lora_state(transformer)
    for index in range(2):  # LyCORIS and peft store the magnitude itself
        key = f"lora_unet_double_blocks_{index}_img_mlp_0.dora_scale"
        layer = transformer.get_submodule(f"transformer_blocks.{index}.ff.net.0.proj")
        tensors[key] = layer.lora_magnitude_vector["default"].weight.detach()[:, None].clone()
    kept = {key: value for key, value in tensors.items() if "img_mlp_0." in key}
    save_tensors(tmp_path / "theirs.safetensors", kept, {})
    found = model(folder)
    lora.load_lora(found, tmp_path / "theirs.safetensors")
    expected = model(folder)
    attach(expected, "dora")
    with torch.no_grad():
        for index in range(2):
            module = f"transformer_blocks.{index}.ff.net.0.proj"
            layer, source = expected.get_submodule(module), transformer.get_submodule(module)
            layer.lora_A["default"].weight.copy_(state[f"{module}.lora_A.weight"])
            layer.lora_B["default"].weight.copy_(state[f"{module}.lora_B.weight"])
            magnitude = source.lora_magnitude_vector["default"].weight
            layer.lora_magnitude_vector["default"].weight.copy_(magnitude)
    assert (velocity(found) - velocity(expected)).abs().max() < 2e-6
    kept["lora_unet_double_blocks_0_img_mlp_0.dora_scale"] = torch.ones(1, 64)
    save_tensors(tmp_path / "inputs.safetensors", kept, {})
    with pytest.raises(UserError, match="scales the inputs"):
        lora.load_lora(model(folder), tmp_path / "inputs.safetensors")


def test_the_factored_product_is_pefts(folder):
    from peft.tuners.lokr import Linear

    transformer = model(folder)
    attach(transformer, "lokr", rank=3)
    train(transformer)
    for module, layer in lokr.layers_of(transformer, "default").items():
        inputs = torch.randn(2, 5, layer.in_features, generator=torch.Generator().manual_seed(2))
        expected = Linear._get_delta_activations(layer, "default", inputs)
        assert torch.allclose(layer._get_delta_activations("default", inputs), expected, atol=1e-5), module


@pytest.mark.parametrize("form", ["dora", "lokr"])
def test_a_plain_training_adapter_works_beside_it(folder, tmp_path, form):
    helper = model(folder)
    attach(helper, "lora")
    train(helper)
    path = save(tmp_path / "helper.safetensors", helper, "lora")
    with_helper = velocity(helper).detach()
    transformer = model(folder)
    base = velocity(transformer)
    lora.load_lora(transformer, path, name="training_adapter")
    attach(transformer, form)
    assert (velocity(transformer) - with_helper).abs().max() < 1e-6
    lora.set_active(transformer, ["default", "training_adapter"])
    kept = lora.lora_state(transformer, "training_adapter")
    train(transformer)
    assert all(
        torch.equal(value, kept[key])
        for key, value in lora.lora_state(transformer, "training_adapter").items()
    )
    lora.set_active(transformer, ["default"])
    expected = velocity(transformer).detach()
    again = model(folder)
    lora.load_lora(again, save(tmp_path / "a.safetensors", transformer, form))
    assert (velocity(again) - expected).abs().max() < 2e-6
    lora.set_active(transformer, [])
    assert torch.equal(velocity(transformer), base)
    lora.remove_lora(transformer, "default")
    lora.set_active(transformer, ["training_adapter"])
    assert (velocity(transformer) - with_helper).abs().max() < 1e-6


@pytest.mark.parametrize("form", ["dora", "lokr"])
@pytest.mark.parametrize("base", ["fp8", "int8"])
def test_it_trains_on_a_packed_base(folder, tmp_path, form, base):
    transformer = model(folder, base)
    before = velocity(transformer)
    attach(transformer, form)
    assert torch.equal(velocity(transformer), before)
    train(transformer)
    expected = velocity(transformer).detach()
    again = model(folder, base)
    lora.load_lora(again, save(tmp_path / "a.safetensors", transformer, form))
    assert (velocity(again) - expected).abs().max() < 2e-6


def test_streamed_blocks_carry_a_lokr_and_refuse_a_dora(folder):
    transformer = model(folder)
    pack_blocks(transformer, "plain", torch.float32, streamed_blocks=2)
    before = velocity(transformer)
    with pytest.raises(UserError, match="--blocks_to_swap 0"):
        attach(transformer, "dora")
    attach(transformer, "lokr")
    train(transformer)
    assert (velocity(transformer) - before).abs().max() > 1e-4


@pytest.mark.parametrize("form", ["dora", "lokr"])
def test_ranks_by_layer_reach_it(folder, tmp_path, form):
    transformer = model(folder)
    ranks = layer_ranks(("img_mlp_dim=3", "single_dim=0", "img_mod_dim=0"), 2, 2, 2)
    modules = attach(transformer, form, rank=ranks)
    assert not any("single_transformer_blocks" in name and "norm" not in name for name in modules)
    layer = dora.layers_of(transformer, "default")["transformer_blocks.0.ff.net.0.proj"]
    assert layer.r["default"] == 3
    train(transformer)
    again = model(folder)
    lora.load_lora(again, save(tmp_path / "a.safetensors", transformer, form))
    assert (velocity(again) - velocity(transformer)).abs().max() < 2e-6


def test_a_dora_on_a_part_of_a_fused_layer_leaves_the_others_as_they_are(folder, tmp_path):
    transformer = model(folder)
    lora.attach_lora(transformer, 2, 8.0, targets=["attn.to_q", "attn.to_k"], seed=1, use_dora=True)
    train(transformer)
    again = model(folder)
    lora.load_lora(again, save(tmp_path / "a.safetensors", transformer, "dora"))
    assert (velocity(again) - velocity(transformer)).abs().max() < 2e-6


def test_files_that_are_not_read_are_refused_in_a_sentence(folder, tmp_path, capsys):
    transformer = model(folder)
    attach(transformer, "lokr")
    train(transformer)
    whole = load_file(save(tmp_path / "lokr.safetensors", transformer, "lokr"))
    name = "lycoris_transformer_blocks_0_attn_to_q"

    def refused(tensors, message):
        save_file(tensors, tmp_path / "x.safetensors")
        with pytest.raises(UserError, match=message):
            lora.load_lora(model(folder), tmp_path / "x.safetensors")

    refused({key: value for key, value in whole.items() if key != f"{name}.lokr_w1"}, "incomplete")
    refused(whole | {f"{name}.dora_scale": torch.ones(64, 1)}, "plain LoKr")
    refused(whole | {f"{name}.lokr_w1": torch.full((8, 8), float("nan"))}, "no numbers")
    refused(whole | {f"{name}.lokr_w1": torch.ones(4, 4)}, "does not fit")
    fused = {
        "lora_unet_double_blocks_0_img_attn_qkv.lokr_w1": torch.ones(3, 1),
        "lora_unet_double_blocks_0_img_attn_qkv.lokr_w2": torch.ones(64, 64),
    }
    refused(fused, "fused layer")
    for action in ("resize", "convert"):
        arguments = ["lora", action, str(tmp_path / "lokr.safetensors"), str(tmp_path / "y.safetensors")]
        assert main(arguments + (["--rank", "2"] if action == "resize" else [])) == 2
        assert "LyCORIS' LoKr" in capsys.readouterr().err
    assert main(["lora", "inspect", str(tmp_path / "lokr.safetensors")]) == 0
    assert "LoKr" in capsys.readouterr().out
    attach(again := model(folder), "dora")
    save(tmp_path / "dora.safetensors", again, "dora")
    assert main(["lora", "inspect", str(tmp_path / "dora.safetensors")]) == 0
    assert "DoRA" in capsys.readouterr().out


def test_kohyas_and_lycoris_words_mean_a_form_or_are_refused():
    assert fields_of(("algo=lokr", "factor=8")) == {"network.form": "lokr", "network.factor": 8}
    assert fields_of(("algo=LoKr", "factor=-1"))["network.factor"] == 0
    assert fields_of(("use_dora=True",)) == {"network.form": "dora"}
    assert fields_of(("algo=lora", "dora_wd=True")) == {"network.form": "dora"}
    assert fields_of(("algo=locon", "use_dora=False", "split_qkv=True")) == {
        "network.form": "lora",
        "network.qkv": "separate",
    }
    for arguments, message in (
        (("algo=loha",), "lora, locon, lokr"),
        (("algo=lokr", "use_dora=True"), "choose one"),
        (("factor=x",), "whole number"),
    ):
        with pytest.raises(UserError, match=message):
            fields_of(arguments)
    for argument in ("decompose_both=True", "full_matrix=True", "wd_on_output=False", "rs_lora=True"):
        with pytest.raises(UserError, match="not honoured"):
            layer_ranks((argument,), 4, 2, 2)
    assert callable(
        layer_ranks(("algo=lokr", "factor=8", "decompose_both=False", "wd_on_output=True"), 4, 2, 2)
    )

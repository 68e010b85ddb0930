"""LoRA branches on a transformer: attached, switched, scaled, saved, loaded, removed."""

import pytest
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from tiny_flux import build_tiny_flux

from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.flux import lora, sampling
from diffusioncleft.diffusioncleft_core.flux.source import FluxSource
from diffusioncleft.diffusioncleft_core.flux.transformer import load_transformer

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build_tiny_flux(tmp_path_factory.mktemp("lora") / "flux")


@pytest.fixture
def transformer(folder):
    return load_transformer(FluxSource(folder=folder), CPU, torch.float32)


def velocity(transformer) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    embeds, pooled = torch.randn(1, 8, 64, generator=generator), torch.randn(1, 64, generator=generator)
    noise = sampling.initial_noise(0, 32, 48)[None]
    return sampling.predict_velocity(transformer, noise, torch.tensor([0.6]), embeds, pooled)


def train(transformer, name: str, steps: int = 3) -> None:
    optimizer = torch.optim.SGD(lora.lora_parameters(transformer, name), lr=0.5)
    for _ in range(steps):
        velocity(transformer).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def test_a_new_lora_changes_nothing_and_a_trained_one_does(transformer):
    before = velocity(transformer)
    modules = lora.attach_lora(transformer, 4, 8, seed=1)
    assert len(modules) == 2 * 14 + 2 * 6
    assert torch.equal(velocity(transformer), before)
    trainable = [name for name, value in transformer.named_parameters() if value.requires_grad]
    assert len(trainable) == 2 * len(modules)
    assert all("lora_" in name for name in trainable)
    train(transformer, "default")
    assert (velocity(transformer) - before).abs().max() > 1e-4
    with lora.only(transformer, []):
        assert torch.equal(velocity(transformer), before)


def test_the_list_of_targets_is_every_linear_layer_of_the_blocks(transformer):
    linear = [
        name
        for name, module in transformer.named_modules()
        if isinstance(module, torch.nn.Linear) and "blocks." in name
    ]
    assert sorted(lora.target_modules(transformer)) == sorted(linear)
    attention = lora.target_modules(transformer, "attention")
    assert attention
    assert all(".attn." in name for name in attention)
    plain = lora.target_modules(transformer, "no_modulation")
    assert sorted(set(linear) - set(plain)) == sorted(name for name in linear if "norm" in name)
    assert len(lora.target_modules(transformer, ["attn.to_q"])) == 4
    with pytest.raises(UserError, match=r"attn\.to_x"):
        lora.target_modules(transformer, ["attn.to_x"])


def test_the_seed_decides_the_down_matrices_and_leaves_the_global_generator_alone(folder):
    states = []
    for seed in (1, 1, 2):
        model = load_transformer(FluxSource(folder=folder), CPU, torch.float32)
        before = torch.get_rng_state()
        lora.attach_lora(model, 4, 8, seed=seed)
        assert torch.equal(torch.get_rng_state(), before)
        states.append(lora.lora_state(model))
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(
        states[0]["transformer_blocks.0.attn.to_q.lora_A.weight"],
        states[2]["transformer_blocks.0.attn.to_q.lora_A.weight"],
    )


def test_the_saved_file_gives_the_same_output_in_every_form(transformer, folder, tmp_path):
    lora.attach_lora(transformer, 4, 8, seed=1)
    train(transformer, "default")
    expected = velocity(transformer).detach()
    kohya = tmp_path / "kohya.safetensors"
    lora.save_kohya(
        kohya, lora.lora_state(transformer), lora.lora_alphas(transformer), {"ss_network_dim": "4"}
    )
    for form in ("kohya", "diffusers", "comfyui"):
        lora.convert_lora(kohya, tmp_path / f"as-{form}.safetensors", form)
        fresh = load_transformer(FluxSource(folder=folder), CPU, torch.float32)
        base = velocity(fresh)
        metadata = lora.load_lora(fresh, tmp_path / f"as-{form}.safetensors")
        assert metadata["ss_network_dim"] == "4"
        assert not any(parameter.requires_grad for parameter in fresh.parameters())
        assert (velocity(fresh) - expected).abs().max() < 1e-6
        lora.remove_lora(fresh, "lora")
        assert torch.equal(velocity(fresh), base)


def test_diffusers_pipeline_loads_the_converted_file(transformer, folder, tmp_path):
    lora.attach_lora(transformer, 4, 8, seed=1)
    train(transformer, "default")
    expected = velocity(transformer).detach()
    lora.save_kohya(tmp_path / "k.safetensors", lora.lora_state(transformer), 8.0, {})
    lora.convert_lora(tmp_path / "k.safetensors", tmp_path / "d.safetensors", "diffusers")
    pipe = FluxPipeline.from_pretrained(folder, local_files_only=True)
    base = velocity(pipe.transformer)
    pipe.load_lora_weights(str(tmp_path), weight_name="d.safetensors", local_files_only=True)
    assert (velocity(pipe.transformer) - expected).abs().max() < 1e-6
    assert (velocity(pipe.transformer) - base).abs().max() > 1e-4


@pytest.fixture
def training_adapter(folder, tmp_path):
    model = load_transformer(FluxSource(folder=folder), CPU, torch.float32)
    lora.attach_lora(model, 2, 2, seed=7)
    train(model, "default")
    path = tmp_path / "training_adapter.safetensors"
    lora.save_kohya(path, lora.lora_state(model), 2.0, {})
    return path


def test_a_training_adapter_works_beside_the_trained_lora_and_stays_as_it_was(transformer, training_adapter):
    base = velocity(transformer)
    lora.load_lora(transformer, training_adapter, name="training_adapter")
    with_adapter = velocity(transformer)
    assert not torch.equal(with_adapter, base)
    frozen = lora.lora_state(transformer, "training_adapter")
    lora.attach_lora(transformer, 4, 8, seed=1)
    assert lora.active_adapters(transformer) == ["training_adapter", "default"]
    assert torch.equal(velocity(transformer), with_adapter)

    train(transformer, "default")
    assert all(torch.equal(frozen[k], v) for k, v in lora.lora_state(transformer, "training_adapter").items())
    both = velocity(transformer)
    with lora.only(transformer, ["default"]):
        alone = velocity(transformer)
        assert lora.active_adapters(transformer) == ["default"]
    assert lora.active_adapters(transformer) == ["training_adapter", "default"]
    assert torch.equal(velocity(transformer), both)
    assert not torch.equal(alone, both)
    with lora.only(transformer, []):
        assert torch.equal(velocity(transformer), base)
    assert all(value.requires_grad for value in lora.lora_parameters(transformer))
    assert not any(value.requires_grad for value in lora.lora_parameters(transformer, "training_adapter"))

    lora.remove_lora(transformer, "training_adapter")
    assert lora.active_adapters(transformer) == ["default"]
    assert torch.equal(velocity(transformer), alone)


def test_the_preview_is_what_the_saved_file_gives(transformer, training_adapter, folder, tmp_path):
    lora.load_lora(transformer, training_adapter, name="training_adapter")
    lora.attach_lora(transformer, 4, 8, seed=1)
    train(transformer, "default")
    with lora.only(transformer, ["default"]):
        preview = velocity(transformer).detach()
    lora.save_kohya(tmp_path / "out.safetensors", lora.lora_state(transformer), 8.0, {})
    fresh = load_transformer(FluxSource(folder=folder), CPU, torch.float32)
    lora.load_lora(fresh, tmp_path / "out.safetensors")
    assert torch.equal(velocity(fresh), preview)


def test_strength_scales_the_effect(transformer, training_adapter):
    base = velocity(transformer)
    lora.load_lora(transformer, training_adapter, strength=0.0)
    assert torch.equal(velocity(transformer), base)
    lora.set_strength(transformer, "lora", 1.0)
    whole = velocity(transformer)
    lora.set_strength(transformer, "lora", 0.25)
    quarter = velocity(transformer)
    assert (quarter - base).norm().item() == pytest.approx(0.25 * (whole - base).norm().item(), rel=0.05)


def test_alphas_and_ranks_of_their_own_stay_with_their_modules(transformer, tmp_path):
    generator = torch.Generator().manual_seed(2)
    state, alphas = {}, {}
    for index, name in enumerate(lora.target_modules(transformer, "attention")):
        layer = transformer.get_submodule(name)
        rank = 2 + index % 3
        state[f"{name}.lora_A.weight"] = torch.randn(rank, layer.in_features, generator=generator)
        state[f"{name}.lora_B.weight"] = torch.randn(layer.out_features, rank, generator=generator) * 0.1
        alphas[name] = float(1 + index % 2)
    lora.save_kohya(tmp_path / "mixed.safetensors", state, alphas, {})
    reference = FluxTransformer2DModel.from_config(transformer.config)
    reference.load_state_dict(transformer.state_dict())
    for name, alpha in alphas.items():
        down, up = state[f"{name}.lora_A.weight"], state[f"{name}.lora_B.weight"]
        reference.get_submodule(name).weight.data += alpha / down.shape[0] * (up @ down)
    lora.load_lora(transformer, tmp_path / "mixed.safetensors")
    assert (velocity(transformer) - velocity(reference)).abs().max() < 1e-5


def test_a_state_goes_back_in_place(transformer):
    lora.attach_lora(transformer, 4, 8, seed=1)
    start, parameters = lora.lora_state(transformer), lora.lora_parameters(transformer)
    train(transformer, "default")
    trained = velocity(transformer)
    lora.load_lora_state(transformer, "default", start)
    assert not torch.equal(velocity(transformer), trained)
    assert all(a is b for a, b in zip(parameters, lora.lora_parameters(transformer), strict=True))
    with pytest.raises(UserError, match="other modules or ranks"):
        lora.load_lora_state(transformer, "default", dict(list(start.items())[2:]))


def test_a_lora_of_another_width_is_refused(transformer, tmp_path):
    name = "transformer_blocks.0.attn.to_q"
    state = {f"{name}.lora_A.weight": torch.zeros(4, 3072), f"{name}.lora_B.weight": torch.zeros(3072, 4)}
    lora.save_kohya(tmp_path / "wide.safetensors", state, 4.0, {})
    with pytest.raises(UserError, match="another model"):
        lora.load_lora(transformer, tmp_path / "wide.safetensors")
    assert lora.adapters(transformer) == []


def test_a_bfloat16_base_keeps_a_float32_lora(folder):
    model = load_transformer(FluxSource(folder=folder), CPU, torch.bfloat16)
    lora.attach_lora(model, 4, 8, seed=1)
    assert {value.dtype for value in lora.lora_parameters(model)} == {torch.float32}
    train(model, "default", steps=1)
    assert model.transformer_blocks[0].attn.to_q.base_layer.weight.dtype == torch.bfloat16
    assert any(bool(value.any()) for value in lora.lora_parameters(model)[1::2])


def test_names_that_torch_reserves_are_refused_in_words(transformer):
    with pytest.raises(ValueError, match="training_adapter"):
        lora.attach_lora(transformer, 4, 8, name="training")
    assert lora.adapters(transformer) == []


def test_the_lora_commands(command, transformer, tmp_path):
    lora.attach_lora(transformer, 4, 8, seed=1)
    train(transformer, "default", steps=1)
    lora.save_kohya(tmp_path / "a b.safetensors", lora.lora_state(transformer), 8.0, {"trigger": "CLP"})
    done = command(
        "lora", "convert", tmp_path / "a b.safetensors", tmp_path / "c.safetensors", "--format", "diffusers"
    )
    assert done.returncode == 0, done.stderr
    assert lora.inspect_lora(tmp_path / "c.safetensors")["form"] == "diffusers"
    done = command("lora", "inspect", tmp_path / "a b.safetensors")
    assert done.returncode == 0, done.stderr
    assert "kohya" in done.stdout
    assert "CLP" in done.stdout
    done = command("lora", "convert", tmp_path / "a b.safetensors", tmp_path / "c.safetensors")
    assert done.returncode == 2
    assert "--overwrite" in done.stderr
    assert "Traceback" not in done.stderr

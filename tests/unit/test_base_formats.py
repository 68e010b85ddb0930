"""The frozen base in few bits: how far its output and the LoRA's gradients are from the plain base's."""

import sys
from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import load_file
from tiny_flux import build_single_files, build_tiny_flux, save_single

from diffusioncleft.diffusioncleft_core.errors import UserError
from diffusioncleft.diffusioncleft_core.flux.lora import attach_lora, lora_parameters
from diffusioncleft.diffusioncleft_core.flux.packed import FORMATS, PLAIN, STORED, FrozenLinear, pack
from diffusioncleft.diffusioncleft_core.flux.sampling import predict_velocity
from diffusioncleft.diffusioncleft_core.flux.source import FluxSource, phantom_source
from diffusioncleft.diffusioncleft_core.flux.transformer import load_transformer, pack_blocks
from diffusioncleft.diffusioncleft_core.flux.transformer_keys import diffusers_to_bfl

CPU = torch.device("cpu")
F8 = torch.float8_e4m3fn
GGUF_TYPES = ("Q8_0", "Q5_0", "Q4_0")


@dataclass
class Step:
    """What one forward and backward pass of the embedded base with a fresh LoRA gives."""

    velocity: torch.Tensor
    gradient: torch.Tensor
    bytes: int

    def error(self, plain: "Step") -> float:
        return float((self.velocity - plain.velocity).norm() / plain.velocity.norm())

    def cosine(self, plain: "Step") -> float:
        return float(torch.cosine_similarity(self.gradient, plain.gradient, dim=0))


def step(transformer, *, dtype=torch.float32, checkpointing=False) -> Step:
    """Flow matching on one fixed latent of noise; of a new LoRA the up matrices alone take a gradient, so
    they are given values first.
    """
    attach_lora(transformer, 8, 8.0, seed=1)
    random = torch.Generator().manual_seed(2)
    parameters = lora_parameters(transformer)
    with torch.no_grad():
        for parameter in parameters[1::2]:
            parameter.normal_(std=0.02, generator=random)
    if checkpointing:
        transformer.enable_gradient_checkpointing()
    transformer.train()
    config = transformer.config
    latents = torch.randn(1, 16, 16, 16, generator=random)
    text = torch.randn(1, 12, config.joint_attention_dim, generator=random)
    pooled = torch.randn(1, config.pooled_projection_dim, generator=random)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        velocity = predict_velocity(transformer, latents, torch.tensor([0.6]), text, pooled)
    velocity.float().square().mean().backward()
    gradient = torch.cat([parameter.grad.flatten() for parameter in parameters])
    stored = sum(
        layer.packed.nbytes if isinstance(layer, FrozenLinear) else layer.weight.nbytes
        for name, layer in transformer.named_modules()
        if isinstance(layer, torch.nn.Linear) and "blocks." in name and ".lora_" not in name
    )
    return Step(velocity.detach().float(), gradient, stored)


def embedded(form=PLAIN, streamed=0, dtype=torch.float32):
    return load_transformer(phantom_source(), CPU, dtype, form, streamed)


@pytest.fixture(scope="module")
def plain() -> Step:
    return step(embedded())


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return load_file(phantom_source().files("transformer")[0])


def write_gguf(path, state, kind, *, bfl=False):
    """A transformer as GGUF: the blocks' matrices in `kind`, the rest in float32."""
    import gguf

    kind = gguf.GGMLQuantizationType[kind]
    writer = gguf.GGUFWriter(path, "flux")
    for key, value in (diffusers_to_bfl(state) if bfl else state).items():
        value = value.float()
        if "blocks." in key and value.ndim == 2:
            writer.add_tensor(key, gguf.quants.quantize(value.numpy(), kind), raw_dtype=kind)
        else:
            writer.add_tensor(key, value.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


# As measured, rounded up for the error and down for the cosine.
BOUNDS = {
    "fp8": (0.07, 0.996, 8.3),
    "int8": (0.02, 0.9998, 8.3),
    "nf4": (0.25, 0.96, 4.4),
    "Q8_0": (0.02, 0.9998, 8.6),
    "Q5_0": (0.12, 0.99, 5.6),
    "Q4_0": (0.25, 0.95, 4.6),
}


def check(found: Step, plain: Step, form: str) -> None:
    error, cosine, bits = BOUNDS[form]
    print(f"{form}: {found.error(plain):.4f} {found.cosine(plain):.5f} {32 * found.bytes / plain.bytes:.2f}")
    assert 0 < found.error(plain) < error
    assert cosine < found.cosine(plain) < 1
    assert 32 * found.bytes / plain.bytes < bits


@pytest.mark.parametrize("form", FORMATS)
def test_a_quantised_base_is_as_near_to_the_plain_one_as_documented(plain, form):
    check(step(embedded(form)), plain, form)


@pytest.mark.parametrize("kind", GGUF_TYPES)
def test_a_gguf_file_stays_in_its_form_and_is_as_near_as_documented(plain, state, tmp_path, kind):
    path = write_gguf(tmp_path / f"flux1-schnell-{kind}.gguf", state, kind)
    source = FluxSource(transformer=path)
    found = step(load_transformer(source, CPU, torch.float32, STORED))
    check(found, plain, kind)
    widened = step(load_transformer(source, CPU, torch.float32, PLAIN))
    assert torch.equal(found.velocity, widened.velocity), "the form changes where the values lie, not them"
    assert widened.bytes == plain.bytes


def test_bfloat16_computes_as_near_as_documented(plain):
    found = step(embedded(dtype=torch.bfloat16), dtype=torch.bfloat16)
    print(f"bf16: {found.error(plain):.4f} {found.cosine(plain):.5f}")
    assert found.error(plain) < 0.015
    assert found.cosine(plain) > 0.9995


@pytest.mark.parametrize("form", [PLAIN, *FORMATS])
def test_streaming_and_checkpointing_leave_a_quantised_base_as_it_is(form):
    ours = step(embedded(form))
    saving = step(embedded(form, streamed=3), checkpointing=True)
    assert torch.equal(ours.velocity, saving.velocity)
    torch.testing.assert_close(saving.gradient, ours.gradient, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("form", FORMATS)
def test_the_loras_beside_a_quantised_base_begin_as_beside_a_plain_one_and_are_float32(form):
    began = []
    for transformer in (embedded(), embedded(form)):
        attach_lora(transformer, 4, 4.0, seed=3)
        began.append(lora_parameters(transformer))
    assert all(parameter.dtype == torch.float32 for parameter in began[1])
    assert all(torch.equal(one, other) for one, other in zip(*began, strict=True))


@pytest.fixture(scope="module")
def fp8_file(tmp_path_factory):
    """A tiny model's transformer in BFL's keys with fp8 weights, a third of them with a scale."""
    folder = tmp_path_factory.mktemp("fp8")
    files = build_single_files(build_tiny_flux(folder / "flux"), folder / "files")
    state, stored = load_file(files["transformer"]), {}
    for index, (key, value) in enumerate(state.items()):
        if value.ndim == 2 and index % 3 == 0:
            scale = value.abs().max() / 448
            stored |= {key: (value / scale).to(F8), f"{key.removesuffix('.weight')}.scale_weight": scale}
        elif value.ndim == 2 and index % 3 == 1:
            rows = value.abs().amax(1) / 448
            stored |= {key: (value / rows[:, None]).to(F8)}
            stored |= {f"{key.removesuffix('.weight')}.scale_weight": rows}
        else:
            stored[key] = value.to(F8) if value.ndim == 2 else value
    return FluxSource(transformer=save_single(files["transformer"], stored))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_fp8_file_stays_fp8_and_computes_the_same_to_the_last_bit(fp8_file, dtype):
    kept = load_transformer(fp8_file, CPU, dtype, STORED)
    widened = load_transformer(fp8_file, CPU, dtype)
    layers = {name: layer for name, layer in kept.named_modules() if isinstance(layer, FrozenLinear)}
    assert len(layers) == 2 * 14 + 2 * 6
    for name, layer in layers.items():
        assert layer.packed.parts[0].dtype == F8
        assert torch.equal(layer.weight, widened.get_submodule(name).weight), name
    ours, theirs = step(kept, dtype=dtype), step(widened, dtype=dtype)
    assert torch.equal(ours.velocity, theirs.velocity)
    assert ours.bytes < 0.3 * theirs.bytes if dtype == torch.float32 else ours.bytes < 0.6 * theirs.bytes
    assert not any(
        isinstance(layer, FrozenLinear) for layer in load_transformer(fp8_file, CPU, dtype).modules()
    )


def test_a_gguf_file_in_bfls_keys_is_split_into_the_same_layers(tmp_path):
    folder = build_tiny_flux(tmp_path / "flux")
    state = load_file(FluxSource(folder=folder).files("transformer")[0])
    files = [write_gguf(tmp_path / f"{bfl}.gguf", state, "Q8_0", bfl=bfl) for bfl in (False, True)]
    own, bfl = (load_transformer(FluxSource(transformer=path), CPU, torch.float32, STORED) for path in files)
    assert torch.equal(step(own).velocity, step(bfl).velocity)


def test_moving_a_model_to_another_number_format_leaves_packed_weights_alone():
    transformer = embedded("fp8")
    before = transformer.transformer_blocks[0].attn.to_q.packed
    transformer.to(torch.bfloat16)
    layer = transformer.transformer_blocks[0].attn.to_q
    assert layer.packed.parts[0].dtype == F8
    assert layer.packed.parts[1].dtype == torch.float32
    assert torch.equal(layer.packed.widened(torch.float32), before.widened(torch.float32))
    assert layer.bias.dtype == torch.bfloat16


def test_a_model_is_packed_in_memory_as_from_a_file():
    transformer = embedded()
    pack_blocks(transformer, "int8", torch.float32)
    assert torch.equal(step(transformer).velocity, step(embedded("int8")).velocity)


def test_nf4_and_gguf_compute_what_the_libraries_own_layers_do(state, tmp_path):
    import bitsandbytes
    from diffusers.quantizers.gguf.utils import GGUFLinear, GGUFParameter

    weight = state["transformer_blocks.0.ff.net.0.proj.weight"].float()
    x = torch.randn(3, weight.shape[1], generator=torch.Generator().manual_seed(0))
    theirs = bitsandbytes.nn.Linear4bit(*reversed(weight.shape), bias=False, compute_dtype=torch.float32)
    theirs.weight = bitsandbytes.nn.Params4bit(weight.clone(), quant_type="nf4", compress_statistics=True)
    ours = FrozenLinear(pack(weight, "nf4"), None, torch.float32)
    torch.testing.assert_close(ours(x), theirs.to("cpu")(x), rtol=1e-5, atol=1e-5)

    path = write_gguf(tmp_path / "m.gguf", state, "Q5_0")
    layer = load_transformer(FluxSource(transformer=path), CPU, torch.float32, STORED).transformer_blocks[0]
    ours = layer.ff.net[0].proj
    theirs = GGUFLinear(*reversed(weight.shape), bias=False, compute_dtype=torch.float32)
    import gguf

    kind = gguf.GGMLQuantizationType.Q5_0
    theirs.weight = GGUFParameter(ours.packed.parts[0], quant_type=kind)
    torch.testing.assert_close(ours(x) - ours.bias, theirs(x), rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize("form", FORMATS)
def test_a_row_of_zeros_stays_one(form):
    weight = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    weight[2] = 0
    assert torch.equal(pack(weight, form).widened(torch.float32)[2], torch.zeros(64))


def test_what_a_form_needs_and_is_missing_is_said_in_one_sentence(monkeypatch, state, tmp_path):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(UserError, match=r"nf4 needs bitsandbytes.*pip install bitsandbytes"):
        embedded("nf4")
    path = write_gguf(tmp_path / "m.gguf", state, "Q4_0")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(UserError, match=r"m\.gguf is a GGUF file.*pip install gguf"):
        load_transformer(FluxSource(transformer=path), CPU, torch.float32, STORED)


def test_a_damaged_gguf_file_is_named(state, tmp_path):
    whole = write_gguf(tmp_path / "whole.gguf", state, "Q4_0").read_bytes()
    for name, content in (
        ("header", whole[:200]),
        ("data", whole[:-500_000]),
        ("zeros", b"GGUF" + bytes(32)),
    ):
        path = tmp_path / f"{name}.gguf"
        path.write_bytes(content)
        with pytest.raises(UserError, match=rf"{name}\.gguf is damaged or no GGUF file"):
            load_transformer(FluxSource(transformer=path), CPU, torch.float32, STORED)

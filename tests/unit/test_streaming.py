"""Streamed blocks: what is on the device when, in how much main memory, and that loading needs no more."""

import weakref

import pytest
import torch
from tiny_flux import build_single_files, build_tiny_flux, save_fp8

from diffusioncleft.diffusioncleft_core.flux import streaming
from diffusioncleft.diffusioncleft_core.flux.lora import attach_lora, lora_parameters
from diffusioncleft.diffusioncleft_core.flux.packed import PLAIN, STORED, FrozenLinear
from diffusioncleft.diffusioncleft_core.flux.sampling import predict_velocity
from diffusioncleft.diffusioncleft_core.flux.source import FluxSource, phantom_source
from diffusioncleft.diffusioncleft_core.flux.tensors import Tensors
from diffusioncleft.diffusioncleft_core.flux.transformer import load_transformer
from diffusioncleft.diffusioncleft_core.recipe.presets import named_recipe
from diffusioncleft.trainer.network import attach

CPU = torch.device("cpu")
STREAMED = 5


def velocity(transformer):
    random, config = torch.Generator().manual_seed(2), transformer.config
    text = torch.randn(1, 5, config.joint_attention_dim, generator=random)
    pooled = torch.randn(1, config.pooled_projection_dim, generator=random)
    latents = torch.randn(1, 16, 8, 8, generator=random)
    return predict_velocity(transformer, latents, torch.tensor([0.6]), text, pooled)


def streamed(form=PLAIN, blocks=STREAMED):
    return load_transformer(phantom_source(), CPU, torch.float32, form, blocks)


def stream_of(transformer):
    return next(m for m in transformer.modules() if isinstance(m, FrozenLinear) and m.streamed).fetch.stream


@pytest.fixture
def misses(monkeypatch):
    """The blocks that were not there when their first layer asked for them."""
    found = []
    bring = streaming.BlockStream.bring

    def watched(stream, index):
        if stream._slots[index % len(stream._slots)].holds != index:
            found.append(index)
        return bring(stream, index)

    monkeypatch.setattr(streaming.BlockStream, "bring", watched)
    return found


@pytest.mark.parametrize("checkpointing", [False, True])
def test_after_one_step_every_block_is_there_before_it_is_computed(misses, checkpointing):
    transformer = streamed()
    attach_lora(transformer, 4, 4.0, seed=0)
    if checkpointing:
        transformer.enable_gradient_checkpointing()
    transformer.train()
    for _ in range(3):
        velocity(transformer).square().mean().backward()
        first, misses[:] = list(misses), []
    assert first == []
    with torch.no_grad():
        for _ in range(3):  # forward passes alone come back to the first block
            velocity(transformer)
            first, misses[:] = list(misses), []
    # Of an odd number of blocks the last and the first share their room on the device.
    assert first == [0]


@pytest.mark.parametrize("form", [PLAIN, "fp8", "nf4"])
@pytest.mark.parametrize("blocks", [1, 2, 4, 5])
def test_any_order_of_passes_computes_what_resident_blocks_do(form, blocks):
    ours, theirs = streamed(form, blocks), streamed(form, 0)
    for transformer in (ours, theirs):
        attach_lora(transformer, 4, 4.0, seed=0)
        transformer.train()
    with torch.no_grad():
        assert torch.equal(velocity(ours), velocity(theirs))
    for transformer in (ours, theirs):
        (velocity(transformer) - 1).square().mean().backward()
    with torch.no_grad():
        assert torch.equal(velocity(ours), velocity(theirs))
    for one, other in zip(lora_parameters(ours), lora_parameters(theirs), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-8)


def test_a_block_is_one_run_of_bytes_with_no_more_than_alignment_lost():
    transformer = streamed("nf4")
    stream = stream_of(transformer)
    layers = [m for m in transformer.modules() if isinstance(m, FrozenLinear) and m.streamed]
    needed, parts = sum(layer.packed.nbytes for layer in layers), sum(len(m.packed.parts) for m in layers)
    assert len(stream._host) == STREAMED
    assert needed <= sum(block.numel() for block in stream._host) <= needed + 256 * parts
    held = {block.untyped_storage().data_ptr() for block in stream._host}
    assert {part.untyped_storage().data_ptr() for layer in layers for part in layer.packed.parts} == held
    assert len(stream._slots) == 2, "two blocks are on the device"


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A tiny model as a folder, as a BFL single file in float32, and as one in fp8."""
    folder = tmp_path_factory.mktemp("files")
    files = build_single_files(build_tiny_flux(folder / "flux"), folder / "files")
    small = save_fp8(folder / "fp8.safetensors", files["transformer"])
    return {
        "folder": FluxSource(folder=folder / "flux"),
        "bfl": FluxSource(transformer=files["transformer"]),
        "fp8": FluxSource(transformer=small),
    }


@pytest.mark.parametrize("form", [PLAIN, STORED, "fp8", "int8"])
@pytest.mark.parametrize("source", ["folder", "bfl", "fp8"])
def test_loading_holds_one_tensor_of_the_file_at_a_time_in_main_memory(sources, source, form, monkeypatch):
    """On the way to another device, as which `meta` stands here: it keeps nothing."""
    alive, most = weakref.WeakSet(), []

    def watch(original):
        def watched(tensors, *arguments):
            value = original(tensors, *arguments)
            alive.add(value)
            most.append(len(alive))
            return value

        return watched

    for name in ("get", "_raw"):
        monkeypatch.setattr(Tensors, name, watch(getattr(Tensors, name)))
    load_transformer(sources[source], torch.device("meta"), torch.bfloat16, form)
    # The one that is read, as stored and as widened, beside the one that was read before it.
    assert max(most) <= 4
    assert len(most) > 100


def test_a_lora_lies_where_it_computes_though_its_blocks_stay_in_main_memory():
    elsewhere = torch.device("meta")  # any other device than the processor's
    transformer = load_transformer(phantom_source(), torch.device("cpu"), torch.float32, streamed_blocks=3)
    parameters, _ = attach(transformer, named_recipe("robust", phantom=True), elsewhere)
    assert {parameter.device for parameter in parameters.values()} == {elsewhere}
    streamed = [m for m in transformer.modules() if isinstance(m, FrozenLinear) and m.streamed]
    assert streamed and {layer.packed.device.type for layer in streamed} == {"cpu"}

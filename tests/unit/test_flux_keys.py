"""FLUX.1's transformer and VAE keys: both dialects mean the same tensors."""

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel
from diffusers.loaders.single_file_utils import (
    convert_flux_transformer_checkpoint_to_diffusers,
    convert_ldm_vae_checkpoint,
)
from safetensors.torch import load_file
from tiny_flux import build_single_files, build_tiny_flux, save_single

from diffusioncleft.diffusioncleft_core.flux import encoder_keys as vae_keys
from diffusioncleft.diffusioncleft_core.flux import transformer_keys
from diffusioncleft.diffusioncleft_core.flux.components import shipped_config
from diffusioncleft.diffusioncleft_core.flux.source import FluxSource
from diffusioncleft.diffusioncleft_core.flux.transformer import load_transformer


def distinct(shapes: dict[str, tuple[int, ...]], columns: int = 2) -> dict[str, torch.Tensor]:
    """Tensors whose every value occurs once, of full height but few columns: conversion moves rows alone."""
    state, start = {}, 0
    for key, shape in shapes.items():
        small = (shape[0], *([columns] * (len(shape) - 1)))
        count = torch.Size(small).numel()
        state[key] = torch.arange(start, start + count).reshape(small)
        start += count
    return state


def transformer_shapes(**settings: object) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        model = FluxTransformer2DModel(**settings)
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


def test_transformer_conversion_equals_diffusers_own_at_full_width():
    shapes = transformer_shapes(num_layers=1, num_single_layers=1, guidance_embeds=True)
    ours = transformer_keys.diffusers_to_bfl(distinct(shapes))
    theirs = convert_flux_transformer_checkpoint_to_diffusers(dict(ours))
    back = dict(transformer_keys.bfl_to_diffusers(list(ours), ours.__getitem__, hidden=3072))
    assert set(back) == set(theirs) == set(shapes)
    for key, value in theirs.items():
        assert torch.equal(back[key], value), key


def test_transformer_round_trip_at_small_width():
    shapes = transformer_shapes(
        num_layers=2,
        num_single_layers=3,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=128,
        pooled_projection_dim=128,
        axes_dims_rope=(4, 14, 14),
    )
    state = distinct(shapes)
    bfl = transformer_keys.diffusers_to_bfl(state)
    assert bfl["single_blocks.2.linear1.weight"].shape[0] == 7 * 128
    back = dict(transformer_keys.bfl_to_diffusers(list(bfl), bfl.__getitem__, hidden=128))
    assert set(back) == set(state)
    assert all(torch.equal(back[key], state[key]) for key in state)


def test_a_single_file_that_a_later_comfyui_saved_is_the_same_model(tmp_path):
    """ComfyUI 0.13 renamed the query and key norms' `scale` to `weight`, in what it saves too."""
    folder = build_tiny_flux(tmp_path / "flux")
    files = build_single_files(folder, tmp_path / "files")
    state = load_file(files["transformer"])
    renamed = {key.replace("_norm.scale", "_norm.weight"): value for key, value in state.items()}
    assert len(set(renamed) - set(state)) == 4 * 2 + 2 * 2
    save_single(files["transformer"], renamed)
    cpu = torch.device("cpu")
    given = load_transformer(FluxSource(folder=folder), cpu, torch.float32).state_dict()
    source = FluxSource.from_arguments(files["transformer"])
    found = load_transformer(source, cpu, torch.float32).state_dict()
    assert set(found) == set(given)
    assert all(torch.equal(found[key], given[key]) for key in given)


def test_vae_conversion_equals_diffusers_own_at_full_size():
    config = shipped_config("vae")
    with torch.device("meta"):
        shapes = {
            key: tuple(value.shape) for key, value in AutoencoderKL.from_config(config).state_dict().items()
        }
    state = {
        key: value[:, :1] if value.ndim == 4 else value for key, value in distinct(shapes, columns=1).items()
    }
    single = vae_keys.to_single_file(state)
    assert single["encoder.mid.attn_1.q.weight"].ndim == 4
    theirs = convert_ldm_vae_checkpoint(dict(single), config)
    back = vae_keys.to_diffusers(single)
    assert set(back) == set(theirs) == set(state)
    for key, value in theirs.items():
        assert torch.equal(back[key].flatten(), value.flatten()), key
        assert torch.equal(back[key], state[key]), key

"""The counted arithmetic of FLUX.1 against torch's own counter, and against the full size's known figure."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from diffusioncleft.diffusioncleft_core.flux.components import shipped_config
from diffusioncleft.diffusioncleft_core.flux.lora import attach_lora
from diffusioncleft.diffusioncleft_core.flux.sampling import predict_velocity
from diffusioncleft.diffusioncleft_core.recipe.presets import PRESETS, named_recipe
from diffusioncleft.tools.flops import forward_flops, step_flops

CONFIG = {
    "in_channels": 64,
    "num_layers": 2,
    "num_single_layers": 3,
    "attention_head_dim": 32,
    "num_attention_heads": 2,
    "joint_attention_dim": 48,
    "pooled_projection_dim": 40,
    "guidance_embeds": False,
    "axes_dims_rope": (4, 14, 14),
}
TEXT, SIDE, RANK = 24, 12, 4


def _counted(train: bool, checkpointing: bool = False) -> int:
    from diffusers import FluxTransformer2DModel

    transformer = FluxTransformer2DModel(**CONFIG).requires_grad_(False)
    if train:
        attach_lora(transformer, RANK, RANK, seed=0)
        transformer.train()
    if checkpointing:
        transformer.enable_gradient_checkpointing()
    latents, text, pooled = torch.randn(1, 16, SIDE, SIDE), torch.randn(1, TEXT, 48), torch.randn(1, 40)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        velocity = predict_velocity(transformer, latents, torch.tensor([0.5]), text, pooled)
        if train:
            velocity.square().mean().backward()
    return counter.get_total_flops()


def test_a_forward_pass_is_counted_as_torch_counts_it():
    assert forward_flops(CONFIG, (SIDE // 2) ** 2, TEXT) == _counted(train=False)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_training_step_is_counted_as_torch_counts_it(checkpointing):
    expected = step_flops(CONFIG, (SIDE // 2) ** 2, TEXT, RANK, recomputed=checkpointing)
    assert expected == pytest.approx(_counted(train=True, checkpointing=checkpointing), rel=1e-3)


def test_the_full_size_takes_74_teraflop_forward_at_1024_px_and_512_tokens():
    assert forward_flops(shipped_config("transformer"), 64 * 64, 512) == pytest.approx(74.4e12, rel=0.005)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_recipes_step_on_the_embedded_model_is_counted_as_torch_counts_it(preset, tmp_path):
    """What the benchmark divides by, against the trainer's real step."""
    from benchmarks.train_loops import Base, trainer_step

    base, recipe = Base.embedded(torch.device("cpu")), named_recipe(preset, phantom=True)
    step, _ = trainer_step(recipe, base, 64, tmp_path)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        step()
    assert base.flops(recipe, 64) == pytest.approx(counter.get_total_flops(), rel=1e-3)
    assert base.flops(recipe, 64) > 2 * base.loop_flops(recipe, 64) * (preset == "robust")

"""What a device can't hold is streamed to it by layers, with the same results."""

import torch

from diffusioncleft.diffusioncleft_core.flux.components import load_text_encoders
from diffusioncleft.diffusioncleft_core.flux.offload import has_room
from diffusioncleft.diffusioncleft_core.flux.placement import load_placed
from diffusioncleft.diffusioncleft_core.flux.sampling import encode_prompts, predict_velocity
from diffusioncleft.diffusioncleft_core.flux.source import phantom_source

CPU = torch.device("cpu")


def test_a_model_has_room_beside_its_reserve_alone():
    assert has_room(10, CPU, 15, reserve=5)
    assert not has_room(10, CPU, 14, reserve=5)
    assert has_room(10**15, CPU, None, reserve=5), "a processor is trusted"


@torch.no_grad()
def test_a_streamed_t5_embeds_as_a_resident_one():
    prompts = ["a face", "", "a girl with a cleft lip"]
    whole = load_text_encoders(phantom_source(), CPU, torch.float32)
    streamed = load_text_encoders(phantom_source(), CPU, torch.float32, free_bytes=0)
    hooked = [m for m in streamed.text_encoder_2.modules() if hasattr(m, "_diffusers_hook")]
    assert hooked and not any(hasattr(m, "_diffusers_hook") for m in whole.text_encoder_2.modules())
    for one, other in zip(
        encode_prompts(whole, prompts, CPU), encode_prompts(streamed, prompts, CPU), strict=True
    ):
        assert torch.equal(one.prompt_embeds, other.prompt_embeds)
        assert torch.equal(one.pooled, other.pooled)


@torch.no_grad()
def test_a_streamed_transformer_computes_what_a_resident_one_does():
    found = []
    for free in (None, 0):
        transformer, whole = load_placed(phantom_source(), CPU, torch.float32, free)
        assert whole is (free is None)
        random, config = torch.Generator().manual_seed(2), transformer.config
        text = torch.randn(1, 5, config.joint_attention_dim, generator=random)
        pooled = torch.randn(1, config.pooled_projection_dim, generator=random)
        latents = torch.randn(1, 16, 8, 8, generator=random)
        found.append(predict_velocity(transformer, latents, torch.tensor([0.6]), text, pooled))
    assert torch.equal(*found)

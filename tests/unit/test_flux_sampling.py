"""schnell's schedule, noise and token order."""

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline

from diffusioncleft.diffusioncleft_core.flux import sampling
from diffusioncleft.diffusioncleft_core.flux.components import shipped_config


def test_four_steps_are_unshifted():
    assert sampling.schnell_sigmas(4) == [1.0, 0.75, 0.5, 0.25, 0.0]


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 8])
def test_sigmas_are_those_of_the_shipped_scheduler(steps):
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(shipped_config("scheduler"))
    ours = torch.tensor(sampling.schnell_sigmas(steps))
    scheduler.set_timesteps(sigmas=ours[:-1].tolist())
    assert torch.allclose(scheduler.sigmas, ours, atol=1e-6)


def test_no_steps_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        sampling.schnell_sigmas(0)


@pytest.mark.parametrize("seed", [0, 42, 2**63 + 5])
def test_noise_is_comfyuis(seed):
    state = torch.get_rng_state()
    theirs = torch.randn([1, 16, 32, 24], generator=torch.manual_seed(seed), device="cpu")
    torch.set_rng_state(state)
    ours = sampling.initial_noise(seed, 256, 192)
    assert torch.equal(ours, theirs[0])
    assert torch.equal(torch.get_rng_state(), state)


def test_noise_of_a_size_the_patches_do_not_fit_is_refused():
    with pytest.raises(ValueError, match="multiples of 16"):
        sampling.initial_noise(0, 200, 192)


def test_packing_and_ids_are_diffusers():
    latents = torch.randn(2, 16, 8, 6, generator=torch.Generator().manual_seed(0))
    packed = sampling.pack_latents(latents)
    assert torch.equal(packed, FluxPipeline._pack_latents(latents, 2, 16, 8, 6))
    assert torch.equal(sampling.unpack_latents(packed, 8, 6), latents)
    ids = FluxPipeline._prepare_latent_image_ids(2, 4, 3, torch.device("cpu"), torch.float32)
    assert torch.equal(sampling.image_ids(8, 6), ids)

"""The loops that `benchmarks.train_step` times: the trainer's step, a bare one, and diffusers' arithmetic."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from diffusioncleft.diffusioncleft_core.environment import default_dtype
from diffusioncleft.diffusioncleft_core.flux.components import load_text_encoders
from diffusioncleft.diffusioncleft_core.flux.source import phantom_source
from diffusioncleft.diffusioncleft_core.flux.transformer import load_transformer, pack_blocks
from diffusioncleft.diffusioncleft_core.recipe.recipe import Recipe
from diffusioncleft.tools.flops import recipe_flops, step_flops
from diffusioncleft.tools.full_size_base import full_sizes, random_transformer
from diffusioncleft.tools.full_size_loop import ALPHA, attach_peft, bare_step
from diffusioncleft.trainer.data import Collected, TrainImage
from diffusioncleft.trainer.data_order import DataOrder
from diffusioncleft.trainer.events import Events, LossHistory
from diffusioncleft.trainer.kernels import compile_blocks, kernels
from diffusioncleft.trainer.network import attach
from diffusioncleft.trainer.objective import Objective, autocast
from diffusioncleft.trainer.optimizer import build_optimizer, learning_rate
from diffusioncleft.trainer.prepare import Prepared, preserved_captions

TRIGGER, WORDS = "CLP", ("girl", "boy", "baby", "kid")
STEPS = 1000
"""Of the schedule that is timed; no loop runs so long."""
Step = Callable[[], Any]


@dataclass(frozen=True)
class Base:
    """The frozen transformer that all loops share, its text length, and where it computes."""

    transformer: Any
    text_tokens: int
    device: torch.device
    dtype: torch.dtype

    @classmethod
    def embedded(cls, device: torch.device, dtype: torch.dtype | None = None) -> "Base":
        """phantom-flux, in the device's usual format."""
        source, dtype = phantom_source(), dtype or default_dtype(device)
        length = load_text_encoders(source, torch.device("cpu"), dtype).t5_length
        return cls(load_transformer(source, device, dtype), length, device, dtype)

    @classmethod
    def full(cls, device: torch.device, form: str, streamed: int) -> "Base":
        """FLUX.1 schnell's sizes with random weights."""
        sizes, dtype = full_sizes(), default_dtype(device)
        transformer = random_transformer(sizes, device, dtype)
        pack_blocks(transformer, form, dtype, streamed)
        return cls(transformer, sizes.text_tokens, device, dtype)

    def another(self) -> Any:
        """The same modules once more around the same weights, for a LoRA of their own."""
        shared = {id(value): value for value in self.transformer.parameters()}
        for module in self.transformer.modules():
            for value in vars(module).values():
                if type(value).__name__ in ("Packed", "_Fetch"):
                    shared[id(value)] = value
        return copy.deepcopy(self.transformer, shared).train()

    def flops(self, recipe: Recipe, side: int) -> int:
        """Of one of the recipe's steps, nothing computed again."""
        return recipe_flops(recipe, self.transformer.config, (side // 16) ** 2, self.text_tokens)

    def loop_flops(self, recipe: Recipe, side: int) -> int:
        """Of one step of the two loops, which take the recipe's batch and nothing else of it."""
        tokens = (side // 16) ** 2
        step = step_flops(self.transformer.config, tokens, self.text_tokens, recipe.network.rank)
        return step * recipe.data.batch_size


def prepared(recipe: Recipe, base: Base, side: int) -> Prepared:
    """Latents of whole batches, four pictures or more, and their captions' embeddings, random: what a run has
    in its cache.
    """
    random, config = torch.Generator().manual_seed(0), base.transformer.config
    box = (side / 4, side / 4, side / 2, side / 2)
    images, captions = [], []
    for index in range(math.lcm(len(WORDS), recipe.data.batch_size)):
        caption = f"[{TRIGGER}] a {WORDS[index % len(WORDS)]} with a cleft lip"
        images.append(
            TrainImage(Path(f"{index}"), Path(), caption, False, 1, f"{index:064d}", (side, side), box)
        )
        captions += [caption, *preserved_captions(images[-1], TRIGGER, recipe.objective.other_trigger)]
    text = {
        caption: {
            "text": torch.randn(base.text_tokens, config.joint_attention_dim, generator=random),
            "pooled": torch.randn(config.pooled_projection_dim, generator=random),
        }
        for caption in captions
    }
    latents = [torch.randn(16, side // 8, side // 8, generator=random) for _ in images]
    return Prepared(Collected(tuple(images)), latents, text, [], {}, TRIGGER)


def trainer_step(recipe: Recipe, base: Base, side: int, folder: Path) -> tuple[Step, Any]:
    """The trainer's step, as `flux_train_network.train` does it, and its transformer."""
    transformer = base.another()
    parameters, activate = attach(transformer, recipe, base.device)
    if recipe.memory.gradient_checkpointing:
        transformer.enable_gradient_checkpointing()
    compile_blocks(transformer, recipe, several_sizes=False)
    events = Events(lambda event: None)
    optimizer = build_optimizer(recipe, list(parameters.values()), events)
    cached = prepared(recipe, base, side)
    order = DataOrder(cached.collected.images, recipe.data.batch_size, recipe.objective.seed)
    objective = Objective(recipe, cached, transformer, activate, base.device, base.dtype)
    history = LossHistory(folder / "loss.jsonl", events, 0, STEPS)
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        rate = learning_rate(recipe, done, STEPS)
        for group in optimizer.param_groups:
            group["lr"] = rate
        losses = torch.zeros(2, device=base.device)
        for part in range(recipe.optimizer.accumulation_steps):
            number = (done - 1) * recipe.optimizer.accumulation_steps + part
            losses += objective.backward(order.draw(number), number)
        if objective.unscale(parameters.values()):
            torch.nn.utils.clip_grad_norm_(parameters.values(), recipe.optimizer.max_grad_norm)
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        history.add(done, losses, rate)

    def within() -> None:
        with kernels(recipe, base.device):
            step()

    return within, transformer


def diffusers_step(transformer: Any, parameters: list[torch.nn.Parameter], recipe: Recipe, base: Base,
                   side: int) -> Step:  # fmt: skip
    """A step with the arithmetic of diffusers' example for FLUX.1 LoRAs, on cached latents and text.

    Noise levels come from the scheduler's table by the training utilities' density, ids and packing from the
    pipeline in each step, the loss is weighted and read in each step.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline
    from diffusers.training_utils import (
        compute_density_for_timestep_sampling,
        compute_loss_weighting_for_sd3,
    )

    device, batch, config = base.device, recipe.data.batch_size, transformer.config
    scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=False)
    timesteps, sigmas = scheduler.timesteps.to(device), scheduler.sigmas.to(device)
    latents = torch.randn(batch, 16, side // 8, side // 8, device=device, dtype=base.dtype)
    text = torch.randn(batch, base.text_tokens, config.joint_attention_dim, device=device, dtype=base.dtype)
    pooled = torch.randn(batch, config.pooled_projection_dim, device=device, dtype=base.dtype)
    text_ids = torch.zeros(base.text_tokens, 3, device=device, dtype=base.dtype)
    optimizer = torch.optim.AdamW(parameters, lr=recipe.optimizer.learning_rate)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)

    def step() -> float:
        height, width = latents.shape[-2:]
        image_ids = FluxPipeline._prepare_latent_image_ids(batch, height // 2, width // 2, device, base.dtype)
        noise = torch.randn_like(latents)
        density = compute_density_for_timestep_sampling("none", batch, device=device)
        places = (density * scheduler.config.num_train_timesteps).long()
        level = sigmas[places].to(base.dtype)[:, None, None, None]
        noisy = (1.0 - level) * latents + level * noise
        with autocast(device, base.dtype):
            packed = transformer(
                hidden_states=FluxPipeline._pack_latents(noisy, batch, 16, height, width),
                timestep=timesteps[places] / 1000,
                guidance=None,
                pooled_projections=pooled,
                encoder_hidden_states=text,
                txt_ids=text_ids,
                img_ids=image_ids,
                return_dict=False,
            )[0]
        predicted = FluxPipeline._unpack_latents(packed, height * 8, width * 8, 8)
        weighting = compute_loss_weighting_for_sd3("none", level)
        error = weighting.float() * (predicted.float() - (noise - latents).float()) ** 2
        loss = error.reshape(batch, -1).mean(1).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        return float(loss.detach().item())

    return step


def loops(recipe: Recipe, base: Base, side: int, folder: Path, *, compiled: bool) -> dict[str, Step]:
    """All that is timed of one preset and resolution, by name."""
    steps: dict[str, Step] = {"trainer": trainer_step(recipe, base, side, folder)[0]}
    if base.device.type == "cuda":
        free = recipe.replaced({"memory.deterministic": False})
        steps["trainer_not_deterministic"] = trainer_step(free, base, side, folder)[0]
    if compiled:
        fast = recipe.replaced({"memory.compile": True})
        steps["trainer_compiled"] = trainer_step(fast, base, side, folder)[0]
    for name in ("bare", "diffusers"):
        transformer = base.another()
        if recipe.memory.gradient_checkpointing:
            transformer.enable_gradient_checkpointing()
        parameters = attach_peft(transformer, recipe.network.rank, ALPHA, base.device)
        if name == "bare":
            steps[name] = bare_step(
                transformer, parameters, side, base.text_tokens, base.device, base.dtype,
                batch=recipe.data.batch_size,
            )  # fmt: skip
        else:
            steps[name] = diffusers_step(transformer, parameters, recipe, base, side)
    return steps

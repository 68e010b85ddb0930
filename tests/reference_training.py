"""The training step once more, written from the documents with diffusers and peft alone.

Nothing of ours is imported here: the trainer is held against this. It goes image by image, in the plainest
form, with a base model of its own that never had a LoRA.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from tiny_flux import small_transformer

Text = dict[str, tuple[torch.Tensor, torch.Tensor]]
"""Caption: text [T, D] and pooled text [P]."""


@dataclass(frozen=True)
class Example:
    """One image: clean latents [16, h, w], its caption, the box of its finding in px, the captions under
    which its output is preserved, in their turn, and of these that without the finding.
    """

    latents: torch.Tensor
    caption: str
    region: tuple[float, float, float, float] | None = None
    preserved: tuple[str, ...] = ()
    healthy: str | None = None


@dataclass
class Terms:
    """The loss's three means."""

    train: torch.Tensor = field(default_factory=lambda: torch.zeros(()))
    prior: torch.Tensor = field(default_factory=lambda: torch.zeros(()))
    preserved: torch.Tensor = field(default_factory=lambda: torch.zeros(()))


def tiny_transformer(seed: int = 0) -> Any:
    """FLUX's transformer with random weights, none of them trainable: 2 double and 2 single blocks of width
    32, text of width 12, pooled text of width 10.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer = small_transformer(16, (4, 6, 6), text=12, pooled=10)
    return transformer.requires_grad_(False)


def linear_layers(transformer: Any) -> list[str]:
    """Every linear layer of the blocks, in the model's order."""
    return [
        name
        for name, module in transformer.named_modules()
        if type(module) is torch.nn.Linear and "transformer_blocks." in name
    ]


def put_lora(
    transformer: Any, name: str, rank: int, alpha: float, seed: int, modules: Sequence[str] = ()
) -> dict[str, torch.nn.Parameter]:
    """Let peft put a LoRA on the blocks' linear layers, its down matrices drawn from `seed`."""
    from peft import LoraConfig

    before = transformer.active_adapters() if getattr(transformer, "peft_config", None) else []
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(modules or linear_layers(transformer)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer.add_adapter(config, adapter_name=name)
    transformer.set_adapter([*before, name])
    return {key: value for key, value in transformer.named_parameters() if f".{name}." in key}


JOINT = (
    ("transformer_blocks", ("attn.to_q", "attn.to_k", "attn.to_v")),
    ("transformer_blocks", ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")),
    ("single_transformer_blocks", ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")),
)
"""Layers that are one in FLUX.1's own code, where kohya's LoRA has one down matrix for them."""


def share_down(transformer: Any, name: str) -> dict[str, torch.nn.Parameter]:
    """Let the layers of each group take the first one's down matrix; the adapter's parameters, each once."""
    for blocks, layers in JOINT:
        for block in getattr(transformer, blocks):
            first, *others = (block.get_submodule(layer) for layer in layers)
            for other in others:
                other.lora_A[name].weight = first.lora_A[name].weight
    return {key: value for key, value in transformer.named_parameters() if f".{name}." in key}


def generator(*parts: int | str) -> torch.Generator:
    """A generator seeded by the first eight bytes of BLAKE2b over the parts, a bit shorter than 64."""
    digest = hashlib.blake2b("/".join(str(part) for part in parts).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") // 2)


def noise_levels(count: int, random: torch.Generator, values: dict[str, Any]) -> torch.Tensor:
    """Draw [count] noise levels."""
    kind = values.get("timestep_sampling", "uniform")
    if kind == "uniform":
        return torch.rand(count, generator=random)
    if kind == "schnell":
        picks = torch.randint(4, (count,), generator=random)
        return torch.tensor([(1.0, 0.75, 0.5, 0.25)[pick] for pick in picks])
    level = torch.sigmoid(torch.randn(count, generator=random) * values.get("sigmoid_scale", 1.0))
    if kind == "shift":
        shift = values.get("discrete_flow_shift", 3.0)
        level = shift * level / (1 + (shift - 1) * level)
    return level


def velocity(
    transformer: Any, noisy: torch.Tensor, sigma: torch.Tensor, text: tuple[torch.Tensor, torch.Tensor]
) -> torch.Tensor:
    """The transformer's prediction for one image: [16, h, w]."""
    height, width = noisy.shape[-2] // 2, noisy.shape[-1] // 2
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack([torch.zeros_like(rows), rows, columns], dim=-1).flatten(0, 1).float()
    tokens = torch.nn.functional.pixel_unshuffle(noisy[None], 2).flatten(2).transpose(1, 2)
    predicted = transformer(
        hidden_states=tokens,
        encoder_hidden_states=text[0][None],
        pooled_projections=text[1][None],
        timestep=sigma[None],
        img_ids=places,
        txt_ids=torch.zeros(len(text[0]), 3),
    ).sample
    grid = predicted.transpose(1, 2).unflatten(2, (height, width))
    return torch.nn.functional.pixel_shuffle(grid, 2)[0]


def cell_weights(example: Example, weight: float) -> torch.Tensor:
    """The loss's weights [h, w], `weight` where a cell's centre lies in the region, then mean 1."""
    height, width = example.latents.shape[-2:]
    cells = torch.ones(height, width, dtype=torch.float64)
    if example.region is not None:
        left, top, right, bottom = example.region
        for row in range(height):
            for column in range(width):
                if left <= column * 8 + 4 < right and top <= row * 8 + 4 < bottom:
                    cells[row, column] = weight
    return (cells * (height * width / cells.sum())).float()


def loss_terms(
    transformer: Any,
    base: Any,
    examples: Sequence[Example],
    text: Text,
    train: Sequence[int],
    reg: Sequence[int],
    number: int,
    values: dict[str, Any],
) -> Terms:
    """The three means of batch `number`.

    Args:
        transformer: with the LoRA (and the training adapter, if there is one).
        base: the same without the LoRA.
        train, reg: the batch, as places in `examples`.
        values: the trainer's settings by name, as far as they are not its defaults.
    """
    terms = Terms()
    sizes = list(dict.fromkeys(examples[index].latents.shape for index in (*train, *reg)))
    for position, size in enumerate(sizes):
        parts = [(index, True) for index in train] + [(index, False) for index in reg]
        group = [part for part in parts if examples[part[0]].latents.shape == size]
        random = generator(values.get("seed", 0), "noise", number, position)
        levels = noise_levels(len(group), random, values)
        noises = torch.randn(len(group), *size, generator=random)
        for (index, trained), sigma, noise in zip(group, levels, noises, strict=True):
            example = examples[index]
            weights = cell_weights(example, values.get("region_weight", 1.0))
            noisy = example.latents + sigma * (noise - example.latents)

            def error(
                caption: str, target: torch.Tensor, noisy=noisy, sigma=sigma, weights=weights
            ) -> torch.Tensor:
                difference = velocity(transformer, noisy, sigma, text[caption]) - target
                return (weights * difference**2).mean()

            if trained:
                terms.train = terms.train + error(example.caption, noise - example.latents) / len(train)
            else:
                target = noise - example.latents
                if values.get("prior_target") == "base":
                    with torch.no_grad():
                        target = velocity(base, noisy, sigma, text[example.caption])
                terms.prior = terms.prior + error(example.caption, target) / len(reg)
            if trained and values.get("output_preservation_weight"):
                caption = example.preserved[number % len(example.preserved)]
                with torch.no_grad():
                    target = velocity(base, noisy, sigma, text[caption])
                terms.preserved = terms.preserved + error(caption, target) / len(train)
    return terms


def total(terms: Terms, values: dict[str, Any]) -> torch.Tensor:
    """What is minimised."""
    return (
        terms.train
        + values.get("prior_loss_weight", 1.0) * terms.prior
        + values.get("output_preservation_weight", 0.0) * terms.preserved
    )


def clipped(gradients: list[torch.Tensor], most: float) -> list[torch.Tensor]:
    """Scale the gradients down so that their common norm is `most` at the most; 0: as they are."""
    norm = math.sqrt(sum(gradient.double().square().sum().item() for gradient in gradients))
    if not most or norm <= most:
        return gradients
    return [gradient * (most / (norm + 1e-6)) for gradient in gradients]  # torch's guard against a norm of 0


def rate(step: int, steps: int, values: dict[str, Any]) -> float:
    """The learning rate of `step`, counted from 1: up in equal parts, then constant or down."""
    peak, warm_up = values["learning_rate"], values.get("lr_warmup_steps", 0)
    kind = values.get("lr_scheduler", "constant")
    if kind != "constant" and step <= warm_up:
        return peak * step / (warm_up + 1)
    done = (step - warm_up - 1) / (steps - warm_up)
    return {
        "constant": peak,
        "constant_with_warmup": peak,
        "linear": peak * (1 - done),
        "cosine": peak * math.cos(done * math.pi / 2) ** 2,
    }[kind]

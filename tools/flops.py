"""Arithmetic of FLUX.1's transformer from its configuration; a multiply and an add are two operations.

Counted are matrix products and attention, as `torch.utils.flop_counter` counts them; norms, activations and
rope are left out.
"""

from collections.abc import Mapping
from typing import Any

from ..diffusioncleft_core.recipe.recipe import Recipe

MLP_RATIO = 4


def forward_flops(config: Mapping[str, Any], image_tokens: int, text_tokens: int) -> int:
    """Operations of one forward pass of one sample.

    Args:
        config: of a `FluxTransformer2DModel` without guidance embedder.
        image_tokens: a 16th of the width times a 16th of the height, in px.
        text_tokens: of T5.
    """
    width, channels = _width(config), config["in_channels"]
    embedders = (
        _linear(1, 256, width)
        + _linear(1, config["pooled_projection_dim"], width)
        + 2 * _linear(1, width, width)
        + _linear(image_tokens, channels, width)
        + _linear(text_tokens, config["joint_attention_dim"], width)
    )
    head = _linear(1, width, 2 * width) + _linear(image_tokens, width, channels)
    return embedders + head + _modulations(config) + _tokens(config, image_tokens + text_tokens)


def step_flops(
    config: Mapping[str, Any],
    image_tokens: int,
    text_tokens: int,
    rank: int,
    *,
    recomputed: bool = False,
) -> int:
    """Operations of one training step of one sample: LoRA on every linear layer of the blocks, base frozen.

    Against its forward pass a frozen layer costs once more (the gradient of its input), a LoRA twice more
    (and of its weight). Attention costs twice more, as if its backward pass computed nothing again.

    Args:
        config, image_tokens, text_tokens: see `forward_flops`.
        rank: of the LoRA.
        recomputed: with the second forward pass of gradient checkpointing.
    """
    width, sequence = _width(config), image_tokens + text_tokens
    modulations = 2 * config["num_layers"] + config["num_single_layers"]
    lora = _lora(config, sequence, rank)
    # What comes before the first LoRA takes no gradient: the embedders, and what a modulation reads.
    inputs = _tokens(config, sequence) + _attention(config, sequence)
    inputs += _linear(image_tokens, width, config["in_channels"])
    total = forward_flops(config, image_tokens, text_tokens) + inputs + 3 * lora
    total -= modulations * _linear(1, width, rank)
    if recomputed:
        total += _modulations(config) + _tokens(config, sequence) + lora
    return int(total)


def recipe_flops(recipe: Recipe, config: Mapping[str, Any], image_tokens: int, text_tokens: int) -> int:
    """Operations of one step of a recipe without regularisation images, nothing computed again: what its
    model needs.

    Output preservation computes each image once more, and once without LoRA and gradients.
    """
    images = recipe.data.batch_size * recipe.optimizer.accumulation_steps
    kept = recipe.objective.output_preservation_weight > 0
    step = step_flops(config, image_tokens, text_tokens, recipe.network.rank)
    return images * (step * (1 + kept) + kept * forward_flops(config, image_tokens, text_tokens))


def _tokens(config: Mapping[str, Any], sequence: int) -> int:
    """The blocks' work on their tokens: q, k, v, out, the MLP, and attention; both kinds cost the same."""
    width = _width(config)
    linear = (4 + 2 * MLP_RATIO) * _linear(sequence, width, width)
    blocks = config["num_layers"] + config["num_single_layers"]
    return int(blocks * linear + _attention(config, sequence))


def _attention(config: Mapping[str, Any], sequence: int) -> int:
    """Both products of every block's attention."""
    blocks = config["num_layers"] + config["num_single_layers"]
    return int(blocks * 4 * sequence**2 * _width(config))


def _modulations(config: Mapping[str, Any]) -> int:
    """Scale, shift and gate of every norm: one vector a sample."""
    width = _width(config)
    return int((12 * config["num_layers"] + 3 * config["num_single_layers"]) * _linear(1, width, width))


def _lora(config: Mapping[str, Any], sequence: int, rank: int) -> int:
    """The forward pass of a LoRA on every linear layer: two thin products beside each."""
    attention, mlp = 4 * 2, 2 * (1 + MLP_RATIO)
    single = 3 * 2 + (1 + MLP_RATIO) + (2 + MLP_RATIO)
    sides = sequence * (config["num_layers"] * (attention + mlp) + config["num_single_layers"] * single)
    sides += config["num_layers"] * 2 * (1 + 6) + config["num_single_layers"] * (1 + 3)
    return int(2 * rank * _width(config) * sides)


def _width(config: Mapping[str, Any]) -> int:
    return int(config["num_attention_heads"] * config["attention_head_dim"])


def _linear(tokens: int, inputs: int, outputs: int) -> int:
    return 2 * tokens * inputs * outputs

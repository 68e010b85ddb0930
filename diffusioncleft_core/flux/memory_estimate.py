"""What training a LoRA takes of a GPU's memory and of main memory: the sum of its parts.

The factors were fitted to the peaks measured at FLUX.1's full size on an H100, with a LoRA of rank 16 on
every linear layer: experiments/full_size.json and full_size_forms.json. tests/unit/test_memory_estimate.py
holds the estimate to each of those peaks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from .model_size import ModelSize

GIB = 2**30
TOKEN_SIDE = 16
"""A token is a square of the picture with this side, px."""
LORA_BYTES = 4
"""A parameter of the LoRA, and its gradient: float32."""
OPTIMIZER_BYTES: Mapping[str, int] = MappingProxyType(
    {"AdamW8bit": 2, "AdamW": 8, "Adafactor": 1, "Lion": 4, "Lion8bit": 1, "Prodigy": 16}
)
"""The optimizer's own numbers for each parameter, bytes (Adafactor's moments are factored)."""
KEPT_BYTES = 52
"""Kept until the backward pass: bytes for each token, block and unit of the width. Measured."""
CHECKPOINT_BYTES, RECOMPUTED_BYTES = 2, 98
"""With checkpointing: each block's input for each token and unit of the width; and once, the most that one
block computes again. The first is bf16's, the second measured."""
SLACK_BYTES = 6 * GIB // 10
"""What torch's allocator holds beyond what is in use, and matrices that are widened for a moment. Measured:
0.3 to 1.4 GiB at full size."""
MARGIN = 1.05
"""A layout fits where the free memory is this times its estimate: no measured peak was further above."""
VAE_BYTES = 168 << 20
"""FLUX.1's autoencoder in bf16: 83.8 million parameters."""
DECODED_PIXEL_BYTES = 2400
"""Of the autoencoder's decoder in bf16, bytes a pixel of the picture: 1,792 by counting its allocations at
1024 px, and a third more for what convolutions take beside them. Not measured on a GPU."""
TILE_SIDE = 256
"""Side of the parts in which a preview is decoded where the whole would need more than training, px."""
STREAM_SLOTS = 2
"""Streamed blocks that are on the device at a time."""


@dataclass(frozen=True)
class Layout:
    """How the base lies in memory: its form, see `load_transformer`; whether activations are computed twice;
    and how many blocks wait in main memory.
    """

    form: str
    checkpointing: bool
    streamed: int = 0


@dataclass(frozen=True)
class Work:
    """What one optimizer step computes.

    Attributes:
        tokens, text_tokens: of one sample, the picture's and the text's together; and the text's alone.
        samples: that go through the transformer at once.
        lora_parameters: that are trained.
        optimizer_bytes: an entry of `OPTIMIZER_BYTES`.
        beside_bytes: of a training adapter, and of an average of the LoRA (EMA).
        preview_pixels: of the largest preview; 0: none.
        itemsize: bytes of a number of the base that is not packed.
    """

    tokens: int
    samples: int
    lora_parameters: int
    optimizer_bytes: int = OPTIMIZER_BYTES["AdamW8bit"]
    beside_bytes: int = 0
    preview_pixels: int = 0
    itemsize: int = 2
    text_tokens: int = 256


@dataclass(frozen=True)
class Estimate:
    """Bytes at the peak of a step.

    Attributes:
        weights: of the base on the device, with room for two streamed blocks.
        lora: with gradients, the optimizer's state and a training adapter.
        activations: what a step keeps or computes.
        host: page-locked main memory of streamed blocks.
        preview: what a preview takes in place of gradients and activations, its picture decoded whole.
        spared: gradients and activations, which are gone while a preview is drawn.
    """

    weights: int
    lora: int
    activations: int
    host: int
    preview: int
    spared: int

    @property
    def tiled(self) -> bool:
        """Whether a preview that is decoded whole would need more than training."""
        return self.preview > self.spared

    @property
    def device(self) -> int:
        return self.weights + self.lora + self.activations + SLACK_BYTES


def picture_tokens(side: float) -> int:
    """Tokens of a square picture of `side` px."""
    return round((side / TOKEN_SIDE) ** 2)


def activation_bytes(size: ModelSize, work: Work, *, checkpointing: bool) -> int:
    """Bytes of the activations of one step."""
    blocks = len(size.blocks)
    each = CHECKPOINT_BYTES * blocks + RECOMPUTED_BYTES if checkpointing else KEPT_BYTES * blocks
    return work.tokens * size.width * each * work.samples * work.itemsize // 2


def estimate(size: ModelSize, work: Work, layout: Layout) -> Estimate:
    """What training takes in `layout`."""
    streamed = size.streamed_bytes(layout.form, work.itemsize, layout.streamed)
    slots = min(STREAM_SLOTS, len(streamed)) * max(streamed, default=0)
    gradients = LORA_BYTES * work.lora_parameters
    activations = activation_bytes(size, work, checkpointing=layout.checkpointing)
    preview = VAE_BYTES + DECODED_PIXEL_BYTES * work.preview_pixels if work.preview_pixels else 0
    return Estimate(
        weights=size.weight_bytes(layout.form, work.itemsize, layout.streamed) + slots,
        lora=2 * gradients + work.optimizer_bytes * work.lora_parameters + work.beside_bytes,
        activations=activations,
        host=sum(streamed),
        preview=preview,
        spared=gradients + activations,
    )

"""How large a transformer is, from the headers of its files: nothing of its weights is read."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .packed import BITS, PLAIN, STORED
from .tensors import Tensors

_BLOCK = re.compile(r"^(single_)?(?:transformer_|double_)?blocks\.(\d+)\.")
_SCALE_BYTES = 4


@dataclass(frozen=True)
class BlockSize:
    """One transformer block.

    Attributes:
        matrices, rows: weights of its linear layers, and their output rows.
        rest: its other parameters: biases and the norms' scales.
        kept, kept_bytes: the weights that its file holds packed (fp8, GGUF), and their bytes.
    """

    matrices: int = 0
    rows: int = 0
    rest: int = 0
    kept: int = 0
    kept_bytes: int = 0

    def __add__(self, other: BlockSize) -> BlockSize:
        return BlockSize(
            self.matrices + other.matrices,
            self.rows + other.rows,
            self.rest + other.rest,
            self.kept + other.kept,
            self.kept_bytes + other.kept_bytes,
        )

    def matrix_bytes(self, form: str, itemsize: int) -> int:
        """Bytes of its linear layers' weights in `form` (see `load_transformer`).

        Args:
            form: of the base.
            itemsize: bytes of a number that is not packed.
        """
        if form == PLAIN:
            return self.matrices * itemsize
        if form == STORED:
            return self.kept_bytes + (self.matrices - self.kept) * itemsize
        scales = 0 if form == "nf4" else _SCALE_BYTES * self.rows
        return math.ceil(self.matrices * BITS[form] / 8) + scales


@dataclass(frozen=True)
class ModelSize:
    """A transformer.

    Attributes:
        width: of its hidden states.
        blocks: in the order of the forward pass.
        outer: parameters outside the blocks.
        adapted_sides: the sum of both sides of every layer that a LoRA adapts: times the rank, its
            parameters where no two layers share a matrix.
        form: in which its file holds most weights: `plain`, `fp8` or a GGUF type.
    """

    width: int
    blocks: tuple[BlockSize, ...]
    outer: int
    adapted_sides: int
    form: str = PLAIN

    @property
    def parameters(self) -> int:
        return self.outer + sum(block.matrices + block.rest for block in self.blocks)

    def weight_bytes(self, form: str, itemsize: int, streamed: int = 0) -> int:
        """Bytes of all weights but the linear layers of the last `streamed` blocks."""
        resident = self.blocks[: max(0, len(self.blocks) - streamed)]
        rest = self.outer + sum(block.rest for block in self.blocks)
        return rest * itemsize + sum(block.matrix_bytes(form, itemsize) for block in resident)

    def streamed_bytes(self, form: str, itemsize: int, streamed: int) -> list[int]:
        """Bytes of the linear layers of each of the last `streamed` blocks."""
        last = self.blocks[max(0, len(self.blocks) - streamed) :]
        return [block.matrix_bytes(form, itemsize) for block in last]


def _fused_besides(key: str) -> int:
    """How many layers lie in a matrix of a BFL file beside the first: each has a LoRA of its own."""
    return 2 if ".qkv." in key else 3 if ".linear1." in key else 0


def model_size(tensors: Tensors) -> ModelSize:
    """The size of the transformer in open files, of BFL's keys or diffusers'."""
    shapes = {key: tensors.shape(key) for key in tensors.names()}
    return _sized(shapes, tensors.packed_bytes, tensors.form())


def size_of_shapes(shapes: Mapping[str, tuple[int, ...]]) -> ModelSize:
    """The size of a transformer that is stored plain, by the shapes of its parameters."""
    return _sized(shapes, lambda key: None, PLAIN)


def _sized(
    shapes: Mapping[str, tuple[int, ...]], packed_bytes: Callable[[str], int | None], form: str
) -> ModelSize:
    blocks: dict[tuple[bool, int], BlockSize] = {}
    outer = sides = width = 0
    for key, shape in shapes.items():
        count = math.prod(shape)
        if key in ("img_in.weight", "x_embedder.weight"):
            width = shape[0]
        found = _BLOCK.match(key)
        if found is None:
            outer += count
            continue
        if len(shape) == 2:
            sides += sum(shape) + shape[1] * _fused_besides(key)
            kept = packed_bytes(key)
            part = BlockSize(count, shape[0], 0, 0 if kept is None else count, kept or 0)
        else:
            part = BlockSize(rest=count)
        place = (found[1] is not None, int(found[2]))
        blocks[place] = blocks.get(place, BlockSize()) + part
    ordered = tuple(blocks[place] for place in sorted(blocks))
    return ModelSize(width, ordered, outer, sides, form)

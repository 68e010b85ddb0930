"""Frozen weights in few bits: how they are stored, widened, and computed with.

A packed layer keeps nothing widened between its forward and its backward pass, so a model of four bits a
weight takes four bits a weight while it trains. (diffusers' layerwise casting leaves every widened layer to
autograd until the backward pass is over.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import nn

from ..environment import offline_import
from ..errors import UserError

PLAIN = "plain"
STORED = "stored"
FORMATS = ("fp8", "int8", "nf4")
"""What `pack` makes. GGUF's types are read from files, never made."""
BITS = {"fp8": 8.0, "int8": 8.0, "nf4": 4.127}
"""A weight's bits, scales aside in the first two; nf4's are one byte for 64 weights, quantised themselves."""
_FLOAT8_MAX = 448.0
_INT8_MAX = 127
_NF4_BLOCK, _NF4_NESTED_BLOCK = 64, 256


@dataclass(frozen=True)
class Packed:
    """A weight matrix as it is stored.

    Attributes:
        form: `plain`, one of `FORMATS`, or a GGUF type (`Q8_0`).
        shape: [out, in] of the matrix.
        parts: what it is stored in. `plain`: the matrix. `fp8`, `int8`: the matrix in 8 bits and, but for a
            plain fp8 file, the scale, float32 [out, 1] or [1, 1]. `nf4`: codes, absolute maxima and tables
            of bitsandbytes. GGUF: the blocks' bytes, uint8 [out, bytes of a row].
    """

    form: str
    shape: tuple[int, int]
    parts: tuple[torch.Tensor, ...]

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts)

    @property
    def device(self) -> torch.device:
        return self.parts[0].device

    def mapped(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Packed:
        """The same matrix with each part changed, as for another device."""
        return replace(self, parts=tuple(change(part) for part in self.parts))

    def rows(self, start: int, stop: int) -> Packed:
        """A copy of the output rows from `start` to `stop`: one of the layers of a fused matrix.

        Not of nf4, whose blocks run on over rows.
        """
        if self.form == "nf4":
            raise ValueError("nf4 is made layer by layer")
        full = self.shape[0]
        return Packed(
            self.form,
            (stop - start, self.shape[1]),
            tuple(part[start:stop].clone() if part.shape[0] == full else part for part in self.parts),
        )

    def widened(self, dtype: torch.dtype) -> torch.Tensor:
        """The matrix [out, in] in `dtype`, where the parts are; of `plain` in its `dtype` the part itself."""
        if self.form == PLAIN:
            return self.parts[0].to(dtype)
        if self.form in ("fp8", "int8"):
            wide = self.parts[0].to(dtype)
            # In place: computed in float32 and rounded once, without a float32 copy.
            return wide.mul_(self.parts[1]) if len(self.parts) > 1 else wide
        if self.form == "nf4":
            return _from_nf4(self, dtype)
        return widen_gguf(self.parts[0], self.form, self.shape, dtype)


def pack(weight: torch.Tensor, form: str) -> Packed:
    """A weight matrix [out, in] in one of `FORMATS`, or as it is for `plain`.

    fp8 (e4m3fn) and int8 have one scale an output row; nf4 is bitsandbytes' with doubly quantised scales
    (Dettmers et al. 2023, QLoRA).

    Raises:
        UserError: nf4, and bitsandbytes is not installed.
    """
    shape = (weight.shape[0], weight.shape[1])
    if form == PLAIN:
        return Packed(form, shape, (weight,))
    if form == "nf4":
        return _to_nf4(weight, shape)
    wide = weight.to(torch.float32)
    largest = wide.abs().amax(dim=1, keepdim=True).clamp_(min=torch.finfo(torch.float32).tiny)
    if form == "fp8":
        scale = largest / _FLOAT8_MAX
        stored = (wide / scale).clamp_(-_FLOAT8_MAX, _FLOAT8_MAX).to(torch.float8_e4m3fn)
    else:
        scale = largest / _INT8_MAX
        stored = (wide / scale).round_().clamp_(-_INT8_MAX, _INT8_MAX).to(torch.int8)
    return Packed(form, shape, (stored, scale))


class FrozenLinear(nn.Linear):
    """A linear layer whose weight is packed, and may stay in main memory and visit the device.

    It gives what `nn.Linear` gives with the widened weight, which is made for the forward pass and again for
    the backward pass. The weight is no parameter: moving the model moves it unless it is `streamed`, and
    never changes its form. A streamed layer's `fetch` brings its weight (see `streaming`).
    """

    def __init__(
        self, packed: Packed, bias: nn.Parameter | None, dtype: torch.dtype, *, streamed: bool = False
    ) -> None:
        """`dtype`: the format that `weight` is shown in, the base model's."""
        nn.Module.__init__(self)
        self.out_features, self.in_features = packed.shape
        self.packed, self.dtype, self.streamed = packed, dtype, streamed
        self.fetch: Callable[[Packed], Packed] | None = None
        self.register_parameter("bias", bias)

    @property
    def weight(self) -> torch.Tensor:  # type: ignore[override]
        """The widened weight, where it is stored."""
        return self.packed.widened(self.dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`x` [..., in] to [..., out], in the format that `nn.Linear` would compute in."""
        kind = x.device.type
        if torch.is_autocast_enabled(kind):
            x = x.to(torch.get_autocast_dtype(kind))
        if torch.is_grad_enabled() and x.requires_grad:
            return cast(torch.Tensor, _Product.apply(x, self))
        return self._product(x)

    def _product(self, x: torch.Tensor) -> torch.Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return nn.functional.linear(x, self.weight_on(x.device, x.dtype), bias)

    def weight_on(self, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
        """The widened weight on the device that computes."""
        packed = self.packed
        if self.fetch is not None:
            packed = self.fetch(packed)
        elif packed.device != device:
            packed = packed.mapped(lambda part: part.to(device, non_blocking=True))
        return packed.widened(dtype)

    def _apply(self, fn: Any, recurse: bool = True) -> FrozenLinear:
        """Take part in a move to another device; a change of number format leaves the weight alone."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if not self.streamed:
            device = fn(torch.empty(0, dtype=torch.uint8, device=self.packed.device)).device
            self.packed = self.packed.mapped(lambda part: part.to(device))
        return self


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layer: FrozenLinear) -> torch.Tensor:
        ctx.layer = layer
        return layer._product(x)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (gradient,) = gradients
        return gradient @ ctx.layer.weight_on(gradient.device, gradient.dtype), None


def _to_nf4(weight: torch.Tensor, shape: tuple[int, int]) -> Packed:
    functional = _bitsandbytes()
    wide = weight if weight.dtype in (torch.float16, torch.bfloat16) else weight.to(torch.float32)
    codes, state = functional.quantize_4bit(
        wide.contiguous(), blocksize=_NF4_BLOCK, compress_statistics=True, quant_type="nf4"
    )
    nested = state.state2
    return Packed("nf4", shape, (codes, state.absmax, state.code, state.offset, nested.absmax, nested.code))


def _from_nf4(packed: Packed, dtype: torch.dtype) -> torch.Tensor:
    functional = _bitsandbytes()
    codes, absmax, code, offset, nested_absmax, nested_code = packed.parts
    nested = functional.QuantState(
        absmax=nested_absmax, code=nested_code, blocksize=_NF4_NESTED_BLOCK, dtype=torch.float32
    )
    state = functional.QuantState(
        absmax=absmax,
        shape=torch.Size(packed.shape),
        code=code,
        blocksize=_NF4_BLOCK,
        quant_type="nf4",
        dtype=dtype,
        offset=offset,
        state2=nested,
    )
    return cast(torch.Tensor, functional.dequantize_4bit(codes, state))


def widen_gguf(blocks: torch.Tensor, kind: str, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """The values of rows of GGUF blocks.

    Args:
        blocks: uint8 [rows, bytes of a row].
        kind: the blocks' type, as `Q8_0`.
        shape: of the result.
        dtype: of the result. float32 is exact; others are what diffusers computes in float16, rounded.
    """
    import gguf

    type_ = gguf.GGMLQuantizationType[kind]
    block_size, type_size = gguf.GGML_QUANT_SIZES[type_]
    wide = torch.float32 if dtype == torch.float32 else torch.float16
    values: torch.Tensor = gguf_functions()[type_](blocks.reshape(-1, type_size), block_size, type_size, wide)
    return values.reshape(shape).to(dtype)


def gguf_functions() -> Mapping[Any, Any]:
    """diffusers' function for each type."""
    from diffusers.quantizers.gguf.utils import dequantize_functions

    found: Mapping[Any, Any] = dequantize_functions
    return found


def _bitsandbytes() -> Any:
    found = offline_import("bitsandbytes")
    if found is None:
        raise UserError(
            "a base model in nf4 needs bitsandbytes, which is not installed; "
            "run: pip install bitsandbytes, or take fp8 or int8"
        )
    return found.functional

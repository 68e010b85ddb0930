"""Blocks whose weights stay in main memory, brought to the device one block ahead of the computation."""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from .packed import FrozenLinear, Packed

_ALIGNMENT = 256
_SLOTS = 2


@dataclass(frozen=True)
class _Place:
    """Where a part lies in its block's bytes."""

    start: int
    shape: torch.Size
    dtype: torch.dtype

    def of(self, block: torch.Tensor) -> torch.Tensor:
        stop = self.start + math.prod(self.shape) * self.dtype.itemsize
        return block[self.start : stop].view(self.dtype).view(self.shape)


@dataclass
class _Slot:
    """Room for one block on the device: which one it holds, and when that has arrived."""

    room: torch.Tensor
    holds: int = -1
    arrived: Any = None


@dataclass
class BlockStream:
    """The packed weights of blocks, each block one run of bytes in page-locked memory.

    While a block computes, the one that followed it last time is copied on a stream of its own. Two blocks
    are on the device at a time. Everything that comes after a block's first layer belongs to it, until a
    layer of another block is computed.
    """

    device: torch.device
    _host: list[torch.Tensor] = field(default_factory=list)
    _slots: list[_Slot] = field(default_factory=list)
    _copying: Any = None
    _before: int = -1
    _now: int = -1
    _followed: dict[tuple[int, int], int] = field(default_factory=dict)
    """The block that came after these two in a row."""

    @classmethod
    def of(cls, blocks: Sequence[Sequence[FrozenLinear]], device: torch.device) -> BlockStream:
        """Take over the weights of these blocks, whose layers then ask this stream for them."""
        stream = cls(device)
        if device.type == "cuda":
            stream._copying = torch.cuda.Stream(device)
        for layers in blocks:
            stream._take(layers)
        size = max((block.numel() for block in stream._host), default=0)
        rooms = min(_SLOTS, len(stream._host))
        stream._slots = [_Slot(torch.empty(size, dtype=torch.uint8, device=device)) for _ in range(rooms)]
        return stream

    def _take(self, layers: Sequence[FrozenLinear]) -> None:
        places, size = [], 0
        for layer in layers:
            own = []
            for part in layer.packed.parts:
                own.append(_Place(size, part.shape, part.dtype))
                size += math.ceil(part.nbytes / _ALIGNMENT) * _ALIGNMENT
            places.append(own)
        block, index = torch.empty(size, dtype=torch.uint8), len(self._host)
        for layer, own in zip(layers, places, strict=True):
            parts = [place.of(block) for place in own]
            for part, stored in zip(parts, layer.packed.parts, strict=True):
                part.copy_(stored)
            layer.packed = Packed(layer.packed.form, layer.packed.shape, tuple(parts))
            layer.fetch = _Fetch(self, index, tuple(own))
        if self.device.type == "cuda":
            _lock_pages(block)
        self._host.append(block)

    def bring(self, index: int) -> torch.Tensor:
        """The bytes of a block on the device; the current stream waits for them."""
        slot = self._slots[index % len(self._slots)]
        if slot.holds != index:
            self._copy(index, slot)
        if slot.arrived is not None:
            torch.cuda.current_stream(self.device).wait_event(slot.arrived)
            slot.arrived = None
        if index != self._now:
            self._followed[self._before, self._now] = index
            self._before, self._now = self._now, index
            neighbour = index + 1 if index + 1 < len(self._host) else index - 1
            ahead = self._followed.get((self._before, index), neighbour)
            other = self._slots[ahead % len(self._slots)]
            if other is not slot and other.holds != ahead:
                self._copy(ahead, other)
        return slot.room

    def _copy(self, index: int, slot: _Slot) -> None:
        host = self._host[index]
        slot.holds = index
        if self._copying is None:
            slot.room[: host.numel()].copy_(host)
            return
        # What was in the slot may still be read by work that is under way.
        self._copying.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._copying):
            slot.room[: host.numel()].copy_(host, non_blocking=True)
            slot.arrived = torch.cuda.Event()
            slot.arrived.record()


@dataclass(frozen=True)
class _Fetch:
    """How a layer gets its weight on the device."""

    stream: BlockStream
    index: int
    places: tuple[_Place, ...]

    def __call__(self, packed: Packed) -> Packed:
        block = self.stream.bring(self.index)
        return Packed(packed.form, packed.shape, tuple(place.of(block) for place in self.places))


def _lock_pages(block: torch.Tensor) -> None:
    """Keep memory from being paged out, so that the GPU copies it by itself.

    torch's own page-locked memory is rounded up to a power of two: 512 MiB for a block of 283. Where the
    system allows no more of it, the block stays as it is, and its copies do not overlap.
    """
    runtime: Any = torch.cuda.cudart()
    if int(runtime.cudaHostRegister(block.data_ptr(), block.numel(), 0)) == 0:
        weakref.finalize(block, runtime.cudaHostUnregister, block.data_ptr())

"""How the base model lies in memory while a LoRA is trained around it: the fastest way that fits.

Measured at full size on an H100 (experiments/full_size_forms.json), seconds a step at 1024 px: bf16 0.80, fp8
0.90, nf4 0.90; computed twice (gradient checkpointing): bf16 1.46, fp8 1.53, nf4 1.71. So fewer bits come
before checkpointing. int8, which was not among them, is stored and widened as fp8 is, and nearer to bf16. nf4
comes last: its gradients are at a cosine of 0.974 to float32's, int8's at 0.9999 (docs/training.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..errors import UserError
from .memory_estimate import GIB, MARGIN, TOKEN_SIDE, Estimate, Layout, Work, estimate, picture_tokens
from .model_size import ModelSize
from .packed import PLAIN, STORED

AUTO = "auto"
_SMALLEST_SIDE, _SIDE_STEP = 256, 64
_FEWEST = -1
"""In place of a number of streamed blocks: the fewest that fit."""
_RUNGS = (
    (PLAIN, False, 0),
    ("int8", False, 0),
    (PLAIN, True, 0),
    ("int8", True, 0),
    ("int8", True, _FEWEST),
    ("nf4", True, 0),
    ("nf4", True, _FEWEST),
)
_RUNGS_OF_A_PACKED_FILE = ((STORED, False, 0), (STORED, True, 0), (STORED, True, _FEWEST))
"""A file in fp8 or GGUF stays as it is."""


@dataclass(frozen=True)
class Wishes:
    """What the user chose of a layout: `auto` and None leave it to the plan."""

    form: str = AUTO
    checkpointing: bool | None = None
    streamed: int | None = None

    @property
    def complete(self) -> bool:
        return self.form != AUTO and self.checkpointing is not None and self.streamed is not None


@dataclass(frozen=True)
class Room:
    """Free memory, bytes; and whether bitsandbytes is there, which makes nf4."""

    device: int
    host: int
    nf4: bool = True


@dataclass(frozen=True)
class MemoryPlan:
    """A layout, what it takes, and in one line what was taken and why.

    fits: whether there is room by the estimate. planned: whether memory was looked at; else everything is as
    on a processor, previews in one piece.
    """

    layout: Layout
    estimate: Estimate
    told: str
    fits: bool = True
    planned: bool = True

    @property
    def tiles_previews(self) -> bool:
        """Whether previews are decoded in tiles, so that they need no more than training."""
        return self.planned and self.estimate.tiled


def choose(size: ModelSize, work: Work, room: Room, wishes: Wishes = Wishes()) -> MemoryPlan:
    """The first layout of the ladder that fits and is as the user wishes.

    Args:
        size: the transformer.
        work: what a step computes.
        room: what is free.
        wishes: taken as they are. Where they leave nothing open, they are taken even if the estimate says
            that they do not fit.

    Raises:
        UserError: nothing fits; it says what is missing and what to change.
    """
    refused: list[tuple[Layout, Estimate]] = []
    for layout, found in _tried(size, work, room, wishes):
        if _fits(found, room):
            return MemoryPlan(layout, found, _told(layout, found, room, refused))
        refused.append((layout, found))
    if wishes.complete:
        layout, found = refused[-1]
        short = f"{_needs(layout, found, room)}: it may run out of memory"
        return MemoryPlan(layout, found, f"{described(layout)}, as asked for, {short}", fits=False)
    raise UserError(_refusal(size, work, room, wishes, refused[-1]))


def described(layout: Layout) -> str:
    """`base in int8, gradient checkpointing, 12 blocks streamed`."""
    form = {PLAIN: "base unquantised", STORED: "base as in its file"}.get(
        layout.form, f"base in {layout.form}"
    )
    told = [form] + ["gradient checkpointing"] * layout.checkpointing
    if layout.streamed:
        told.append(f"{layout.streamed} {'block' if layout.streamed == 1 else 'blocks'} streamed")
    return ", ".join(told)


def _tried(size: ModelSize, work: Work, room: Room, wishes: Wishes) -> Iterator[tuple[Layout, Estimate]]:
    """The layouts of the ladder, those that stream with the fewest blocks that the device needs."""
    for rung in _ladder(size, wishes, nf4=room.nf4):
        layout = _fewest(size, work, room, rung) if rung.streamed == _FEWEST else rung
        yield layout, estimate(size, work, layout)


def _ladder(size: ModelSize, wishes: Wishes, *, nf4: bool) -> Iterator[Layout]:
    """The layouts to be tried, in their order, each once."""
    seen = set()
    for form, checkpointing, streamed in _RUNGS if size.form == PLAIN else _RUNGS_OF_A_PACKED_FILE:
        rung = Layout(
            form if wishes.form == AUTO else wishes.form,
            checkpointing if wishes.checkpointing is None else wishes.checkpointing,
            streamed if wishes.streamed is None else wishes.streamed,
        )
        missing = rung.form == "nf4" and wishes.form == AUTO and not nf4
        if rung not in seen and not missing:
            seen.add(rung)
            yield rung


def _fewest(size: ModelSize, work: Work, room: Room, rung: Layout) -> Layout:
    """`rung` with the fewest streamed blocks that the device needs, at most all but one."""
    most = len(size.blocks) - 1
    for streamed in range(1, most):
        layout = replace(rung, streamed=streamed)
        if _fits_device(estimate(size, work, layout), room):
            return layout
    return replace(rung, streamed=most)


def _fits_device(found: Estimate, room: Room) -> bool:
    return found.device * MARGIN <= room.device


def _fits(found: Estimate, room: Room) -> bool:
    return _fits_device(found, room) and found.host <= room.host


def _told(layout: Layout, found: Estimate, room: Room, refused: list[tuple[Layout, Estimate]]) -> str:
    streamed = f" and {_gib(found.host)} of main memory" if layout.streamed else ""
    told = (
        f"{described(layout)}: about {_gib(found.device)} of the {_gib(room.device)} that are free{streamed}"
    )
    if refused:
        needs = [f"{described(one).removeprefix('base ')} {_gib(need.device)}" for one, need in refused[:3]]
        told += f"; faster ways need more ({'; '.join(needs)})"
    tiles = "; previews are decoded in tiles" if found.tiled else ""
    return told + tiles


def _needs(layout: Layout, found: Estimate, room: Room) -> str:
    told = f"needs about {_gib(found.device * MARGIN)} of GPU memory, of which {_gib(room.device)} are free"
    if found.host > room.host:
        told += f", and {_gib(found.host)} of main memory, of which {_gib(room.host)} are free"
    return told


def _refusal(size: ModelSize, work: Work, room: Room, wishes: Wishes, last: tuple[Layout, Estimate]) -> str:
    """What is missing in the smallest layout, and what to change."""
    layout, found = last
    advice = []
    if (side := _side_that_fits(size, work, room, wishes)) is not None:
        advice.append(f"take --resolution {side}")
    if work.samples > 1:
        advice.append(f"fewer samples at once than {work.samples} (batch, regularisation, preservation)")
    advice.append("free main memory" if _fits_device(found, room) else "close what else uses the GPU")
    if not room.nf4 and wishes.form == AUTO and size.form == PLAIN:
        advice.append("install bitsandbytes for a base in nf4 (pip install bitsandbytes)")
    if wishes != Wishes():
        advice.append("leave out what was chosen of base format, checkpointing and streamed blocks")
    return f"training does not fit: {described(layout)} {_needs(layout, found, room)}; {', or '.join(advice)}"


def _side_that_fits(size: ModelSize, work: Work, room: Room, wishes: Wishes) -> int | None:
    """The largest resolution below the present one at which something fits, px."""
    now = int((work.tokens - work.text_tokens) ** 0.5 * TOKEN_SIDE)
    for side in range(now // _SIDE_STEP * _SIDE_STEP, _SMALLEST_SIDE - 1, -_SIDE_STEP):
        smaller = replace(work, tokens=picture_tokens(side) + work.text_tokens)
        if side < now and any(_fits(found, room) for _, found in _tried(size, smaller, room, wishes)):
            return side
    return None


def _gib(size: float) -> str:
    return f"{size / GIB:.2f} GiB"

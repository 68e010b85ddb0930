"""Card, what the trainer chooses for it, memory and seconds a step, as the table in docs/training.md."""

import json
from pathlib import Path
from typing import Any

from diffusioncleft.diffusioncleft_core.flux.memory_estimate import (
    GIB,
    OPTIMIZER_BYTES,
    Layout,
    Work,
    picture_tokens,
)
from diffusioncleft.diffusioncleft_core.flux.memory_plan import Room, choose, described
from diffusioncleft.diffusioncleft_core.flux.training_memory import TEXT_TOKENS, card_bytes
from diffusioncleft.tools.full_size_base import transformer_size

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "training.md"
MEASURED = ROOT / "experiments" / "full_size_forms.json"
BEGIN, END = "<!-- cards: scripts/memory_table.py -->\n", "<!-- end of cards -->\n"
CARDS, SIDES, RANK = (8, 12, 16, 24, 40, 80), (512, 1024), 16
HOST_BYTES = 28 * GIB
"""Main memory that streamed blocks may take: of a machine with 32 GB."""
COPIED_BYTES_A_SECOND = 25e9
"""Over PCIe 4.0 with 16 lanes. A streamed block is copied twice a step."""


def table() -> str:
    """The table as Markdown."""
    stages = json.loads(MEASURED.read_text(encoding="utf-8"))["stages"]
    size = transformer_size()
    lines = [
        "| card | side | what is chosen | memory of the GPU | seconds a step |",
        "| --- | --- | --- | --- | --- |",
    ]
    for card in CARDS:
        for side in SIDES:
            tokens = picture_tokens(side) + TEXT_TOKENS
            work = Work(tokens, 1, RANK * size.adapted_sides, OPTIMIZER_BYTES["AdamW"])
            plan = choose(size, work, Room(card_bytes(card), HOST_BYTES))
            row = stages.get(stage_name(side, plan.layout), {})
            memory = (
                f"{row['gpu_peak_gib']:.1f} GiB, measured"
                if "gpu_peak_gib" in row
                else f"{plan.estimate.device / GIB:.1f} GiB, computed"
            )
            if plan.layout.streamed:
                memory += f"; {plan.estimate.host / GIB:.1f} GiB of main memory, computed"
            seconds = told_seconds(stages, side, plan.layout, plan.estimate.host)
            lines.append(f"| {card} GB | {side} px | {described(plan.layout)} | {memory} | {seconds} |")
    return "\n".join([*lines, ""])


def stage_name(side: int, layout: Layout) -> str:
    """The measurement of a layout: `1024-nf4-checkpointing`."""
    parts = [str(side), layout.form] + [f"{layout.streamed}streamed"] * bool(layout.streamed)
    return "-".join(parts + ["checkpointing"] * layout.checkpointing)


def told_seconds(stages: dict[str, Any], side: int, layout: Layout, host_bytes: int) -> str:
    """Seconds a step: measured for just this layout, or computed from those that are nearest.

    int8 is widened as fp8 is, so it takes fp8's time; a side that was not measured the other side's ratio to
    bf16; and streamed blocks at most their copying time more, where none of it overlaps.
    """

    def of(at: int, form: str) -> float | None:
        found = stages.get(stage_name(at, Layout(form, layout.checkpointing)), {}).get("seconds_a_step")
        return None if found is None else float(found)

    if (found := stages.get(stage_name(side, layout), {}).get("seconds_a_step")) is not None:
        return f"{found:.2f}, measured"
    form = "fp8" if layout.form == "int8" else layout.form
    seconds = of(side, form)
    if seconds is None:
        other = next(at for at in SIDES if at != side)
        here, there, packed = of(side, "plain"), of(other, "plain"), of(other, form)
        assert here is not None and there is not None and packed is not None
        seconds = here * packed / there
    if not layout.streamed:
        return f"{seconds:.2f}, computed"
    most = seconds + 2 * host_bytes / COPIED_BYTES_A_SECOND
    return f"{seconds:.2f} to {most:.2f}, computed"


def page(text: str) -> str:
    """The page with its table anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + "\n" + table() + "\n" + END + after


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")

"""The cells of the trigger experiment: which prompt, with or without which trigger.

A cell is a list of plan rows. All cells of a condition share their seeds and attributes, so that two cells
differ in nothing but what the cell is about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..conditions import Condition
from ..prompts import PlanRow, build_prompt, sampling_plan

FULL = "full_prompt"
CLEFT_WITHOUT_TRIGGER = "cleft_prompt_without_trigger"
HEALTHY_WITHOUT_TRIGGER = "healthy_prompt_without_trigger"
TRIGGER_WITH_HEALTHY = "trigger_with_healthy_prompt"
OTHER_TRIGGER = "other_trigger"
SELECTIVITY = (CLEFT_WITHOUT_TRIGGER, HEALTHY_WITHOUT_TRIGGER, TRIGGER_WITH_HEALTHY, OTHER_TRIGGER)
DRIFT = (CLEFT_WITHOUT_TRIGGER, HEALTHY_WITHOUT_TRIGGER)
"""Cells drawn a second time by the base model at equal seeds, to measure what the LoRA changes unasked."""


@dataclass(frozen=True)
class Cell:
    """One cell: its name and the rows to draw, each with prompt, seed and the attributes asked for."""

    name: str
    rows: tuple[PlanRow, ...]


def trigger_cells(
    condition: Condition, other: Condition, n: int, seed: int, *, bracketed: bool = True
) -> dict[str, Cell]:
    """The full prompt and the four selectivity cells, n rows each.

    other: the class whose trigger the last cell borrows.
    """
    plan = sampling_plan(condition, n, seed, bracketed=bracketed)

    def cell(name: str, *, trigger: str | None, cleft: bool) -> Cell:
        rows = [
            replace(
                row,
                prompt=build_prompt(
                    condition, row.attributes, bracketed=bracketed, trigger=trigger, cleft=cleft
                ),
            )
            for row in plan
        ]
        return Cell(name, tuple(rows))

    cells = [
        cell(FULL, trigger=condition.trigger, cleft=True),
        cell(CLEFT_WITHOUT_TRIGGER, trigger="", cleft=True),
        cell(HEALTHY_WITHOUT_TRIGGER, trigger="", cleft=False),
        cell(TRIGGER_WITH_HEALTHY, trigger=condition.trigger, cleft=False),
        cell(OTHER_TRIGGER, trigger=other.trigger, cleft=True),
    ]
    return {c.name: c for c in cells}


def prompts_of(cells: Sequence[Cell]) -> list[str]:
    """Every distinct prompt of the cells, in order."""
    return list(dict.fromkeys(row.prompt for cell in cells for row in cell.rows))

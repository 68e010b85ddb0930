"""What the oracle read from phantom pictures, with its intervals and goals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .blocks import Cell, Row, Section, Table
from .measured import PHANTOM_TAG
from .numbers import condition_name, interval, percent, plain, sentence
from .run_report import figure_rows, goal_of

LABELS = {
    "trigger_obedience": "Full prompt shows its finding",
    "cleft_type_accuracy": "Cleft type as asked, where one is shown",
    "cleft_prompt_without_trigger": "Finding without the trigger, cleft prompt",
    "healthy_prompt_without_trigger": "Finding without the trigger, healthy prompt",
    "trigger_with_healthy_prompt": "Finding with the trigger, healthy prompt",
    "other_trigger": "Finding under the other class’s trigger",
}


def oracle_section(document: Mapping[str, Any]) -> Section:
    """One table a condition, from `oracle`."""
    title = "What the oracle saw"
    oracle = document.get("oracle") or {}
    if not oracle:
        return Section(
            "oracle",
            title,
            missing="There are no oracle figures: they need ground truth, which only phantoms have.",
        )
    lead = (
        "On phantoms the ground truth is known, and an oracle network reads it from the pictures; its own "
        "errors are corrected for and widen the intervals. All of it is about drawings."
    )
    tables = [oracle_table(name, figures) for name, figures in oracle.items()]
    return Section("oracle", title, lead, tables)


def oracle_table(name: str, figures: Mapping[str, Any]) -> Table:
    rows = []
    for label, figure, unit in figure_rows(figures):
        share = unit == "%"
        value = figure["value"]

        def show(number: float, share: bool = share, unit: str = unit) -> str:
            return percent(number) if share else f"{plain(number, 1)} {unit}"

        small = "; ".join(filter(None, [interval(figure.get("ci95"), show), f"n = {figure['n']:,}"]))
        goal = goal_of(label, value) if share else ""
        rows.append(
            Row(
                label_of(label),
                [
                    Cell("none" if value is None else show(value), small, bar=value if share else None),
                    Cell(goal, numeric=False),
                ],
            )
        )
    return Table(
        f"{condition_name(name)}: figures read from pictures",
        ("Figure", "Value", "Goal"),
        rows,
        tag=PHANTOM_TAG,
    )


def label_of(label: str) -> str:
    """`trigger_obedience, dark skin` → `…, dark skin`, indented under its whole."""
    head, comma, rest = label.partition(", ")
    if comma and head in LABELS:
        return f"– {rest}"
    return LABELS.get(label, sentence(label.replace("_", " ")).rstrip("."))

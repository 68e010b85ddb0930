"""What made the report: versions, machine, seeds, models, seconds a stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .blocks import Block, Cell, Row, Section, Table


def provenance_section(document: Mapping[str, Any]) -> Section:
    """Tables from `provenance`."""
    facts = document.get("provenance") or {}
    title = "Provenance"
    if not facts:
        return Section("provenance", title, missing="This report does not say what made it.")
    blocks: list[Block] = []
    seconds = facts.get("seconds") or {}
    if seconds:
        blocks.append(seconds_table(seconds))
    for key, caption in (("hardware", "Machine"), ("versions", "Software versions")):
        if facts.get(key):
            rows = [
                Row(name.replace("_", " "), [Cell(str(value), numeric=False)])
                for name, value in facts[key].items()
            ]
            blocks.append(Table(caption, ("", "Value"), rows, folded=True))
    blocks.append(Table("Seeds, models and memory", ("", "Value"), other_rows(facts), folded=True))
    return Section("provenance", title, blocks=blocks)


def seconds_table(seconds: Mapping[str, float]) -> Table:
    total = sum(seconds.values())
    rows = [
        Row(name, [Cell(f"{value:,.1f}", bar=value / total if total else None)])
        for name, value in seconds.items()
    ]
    rows.append(Row("Sum", [Cell(f"{total:,.1f}")]))
    return Table("Seconds a stage (stages may run side by side)", ("Stage", "Seconds"), rows)


def other_rows(facts: Mapping[str, Any]) -> list[Row]:
    found: list[tuple[str, object]] = [("seed", facts.get("seed"))]
    found += flat("base model sha256", facts.get("base_model_sha256"))
    for condition, pack in (facts.get("faces") or {}).items():
        found += flat(f"faces {condition}", pack)
    found += flat("peak memory GiB", facts.get("peak_memory_gib"))
    return [
        Row(name.replace("_", " "), [Cell(str(value), numeric=False)])
        for name, value in found
        if value is not None
    ]


def flat(name: str, value: Any) -> list[tuple[str, object]]:
    """A nested value as (`name key`, value) lines."""
    if isinstance(value, Mapping):
        return [line for key, part in value.items() for line in flat(f"{name} {key}", part)]
    if isinstance(value, list | tuple):
        return [(name, ", ".join(map(str, value)))]
    return [(name, value)]

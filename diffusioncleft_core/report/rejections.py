"""What the filters rejected: by kind, condition, skin tone and age group, beside the training photographs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..filters.artifacts import UNREADABLE
from ..filters.decisions import SAID
from ..filters.identity import LEAKS
from ..filters.stage import REASONS
from ..filters.verdicts import PERSON
from ..statistics import clopper_pearson
from .blocks import (
    PHANTOM_TAG,
    Block,
    Cell,
    Gallery,
    Labels,
    Row,
    Section,
    Table,
    Text,
    count,
    interval,
    labels_of,
    percent,
    sentence,
)

SHOWN = (
    "The first rejected images of each reason, in the plan’s order (Figure 8 of the paper). All were drawn "
    "by a model; each picture’s own metadata say so."
)


def rejections_section(document: Mapping[str, Any], galleries: Sequence[Gallery] = ()) -> Section:
    """Counts and rates, from `filters`; galleries: rejected images, one a condition and reason."""
    title = "Rejected images"
    filters = document.get("filters") or {}
    if not filters:
        return Section(
            "rejections",
            title,
            missing="No filter ran on these images: `diffusioncleft filter` checks them for artifacts and "
            "identity leaks.",
        )
    lead = (
        "The filters set images aside that show a known artifact, or a face too like one it was trained on. "
        "An image can have several reasons. Rates by skin tone and age group show whether the filters treat "
        "all faces alike."
    )
    labels = labels_of(document)
    tag = PHANTOM_TAG if document.get("phantom") else ""
    blocks: list[Block] = [
        replace(totals(filters, labels), tag=tag),
        replace(by_kind(filters, labels), tag=tag),
    ]
    for key, caption, head in (
        ("by_skin", "Rejected by skin tone", "Skin tone"),
        ("by_age", "Rejected by age group", "Age group"),
    ):
        table = by_value(filters, key, caption, head, labels)
        blocks += [replace(table, tag=tag)] if table.rows else []
    blocks += [Text(said)] if (said := said_besides(filters, labels)) else []
    if galleries:
        blocks.append(Text([SHOWN], heading="What rejected images look like"))
    return Section("rejections", title, lead, [*blocks, *galleries])


def share_cell(k: int, n: int) -> Cell:
    """k of n as per cent with a bar and its interval."""
    share = clopper_pearson(k, n)
    if share.value is None:
        return Cell("")
    return Cell(percent(share.value), f"{k:,} of {n:,}; {interval(share.ci95)}", bar=share.value)


def totals(filters: Mapping[str, Any], labels: Labels) -> Table:
    rows = [
        Row(
            labels.name(name),
            [Cell(count(part["n"])), Cell(count(part["accepted"])), share_cell(part["rejected"], part["n"])],
        )
        for name, part in filters.items()
    ]
    return Table("Images that went through the filters", ("", "Images", "Accepted", "Rejected"), rows)


def by_kind(filters: Mapping[str, Any], labels: Labels) -> Table:
    """A row a reason; the last columns hold the same filters over the training photographs."""
    columns = [""]
    for name, part in filters.items():
        columns.append(labels.name(name))
        if part.get("training_photographs"):
            columns.append(f"Training photographs, {labels.name(name).lower()}")
    found = {kind for part in filters.values() for kind in part.get("by_kind", {})}
    found |= {k for p in filters.values() for k in (p.get("training_photographs") or {}).get("by_kind", {})}
    rows = []
    for kind in [*REASONS, *sorted(found - set(REASONS))]:
        if kind in (UNREADABLE, PERSON) and not any(part["by_kind"].get(kind) for part in filters.values()):
            continue
        cells = []
        for part in filters.values():
            cells.append(share_cell(part.get("by_kind", {}).get(kind, 0), part["n"]))
            photographs = part.get("training_photographs")
            if photographs:
                cells.append(Cell(photographs_count(photographs, kind)))
        rows.append(Row(REASONS.get(kind, sentence(kind.replace("_", " ")).rstrip(".")), cells))
    return Table("Reasons for rejection", columns, rows)


def photographs_count(photographs: Mapping[str, Any], kind: str) -> str:
    """How many real photographs the filter would reject; fewer than five are not told apart from none."""
    if kind in (*LEAKS, PERSON):
        return ""
    return count(photographs.get("by_kind", {}).get(kind))


def by_value(filters: Mapping[str, Any], key: str, caption: str, head: str, labels: Labels) -> Table:
    values = list(dict.fromkeys(value for part in filters.values() for value in part.get(key) or {}))
    rows = []
    for value in values:
        cells = []
        for part in filters.values():
            figure = (part.get(key) or {}).get(value)
            cells.append(share_cell(figure["rejected"], figure["n"]) if figure else Cell(""))
        rows.append(Row(sentence(value.replace("_", " ")).rstrip("."), cells))
    return Table(caption, (head, *(labels.name(name) for name in filters)), rows)


def said_besides(filters: Mapping[str, Any], labels: Labels) -> list[str]:
    """What a person took back, what no filter saw, and what was made again."""
    said = []
    for name, part in filters.items():
        title = labels.name(name)
        if part.get("unassessed"):
            said.append(f"{title}: {part['unassessed']:,} images that no filter has seen.")
        if part.get("readmitted"):
            said.append(f"{title}: a person took back {part['readmitted']:,} rejected images.")
        reviewed = part.get("reviewed") or {}
        if reviewed.get("pairs"):
            seen = ", ".join(f"{reviewed.get(verdict, 0):,} {words}" for verdict, words in SAID.items())
            said.append(
                f"{title}: a person looked at {reviewed['pairs']:,} images beside the nearest training face "
                f"of each: {seen}. What is the same person was set aside."
            )
        refill = part.get("refill")
        if refill:
            said.append(
                f"{title}: made again in place of rejected images {refill['made']:,}, accepted of them "
                f"{refill['accepted']:,}; the filtered set has {refill['filtered']:,} images, "
                f"{refill['missing']:,} short of the plan."
            )
    return said

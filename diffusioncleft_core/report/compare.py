"""Two runs side by side: each figure of both, and their difference with its interval."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..files import write_json, write_text
from ..statistics import beyond_chance, chance_of, difference_interval
from .blocks import Block, Cell, Labels, Row, Section, Table, Text, interval, labels_of
from .html import Page, facts_of, notes_section, rendered
from .loras import report_loras
from .measured import figure_cell, figure_of, over_others
from .metric_names import BESIDE, METRICS, OF_PHOTOGRAPHS, shown_value
from .summary import SCHEMA
from .withdrawn import with_withdrawal

NAMES = ("First run", "Second run")
LEAD = (
    "The figures of two runs, and the second less the first. A difference is called beyond chance where it "
    "stays so however many of its table are looked at (Holm). The intervals take the runs as independent: "
    "over the same photographs they are wider than they need be."
)
OTHER_NETWORK = "measured by another network or file of weights"
OTHER_THRESHOLD = "counted at another threshold"
OTHER_SIZE = "compared at another image size"
OTHER_NUMBER = "other numbers of images: a Fréchet distance is biased upwards, more so the fewer"
CONTROL_WORDS = "What photographs score in each run: where these differ, the runs had other photographs."


def comparison(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """The figures that two report documents both have, side by side.

    {"schema", "phantom", "rows": [{"set", "metric", "profile", "variant", "figures": [one, other],
    "difference", "ci95", "p", "beyond_chance", "note"}], "alone": [sets of the first, of the second]}.
    difference: of the second less the first; null where the figures can't be compared, with the reason in
    `note`.
    """
    sets = first.get("sets") or {}, second.get("sets") or {}
    names = [name for name in sets[0] if name in sets[1]]
    rows: list[dict[str, Any]] = []
    for metric, profiles in metrics_of(*sets).items():
        for profile in profiles:
            found = [
                row
                for name in names
                for variant in variants_of(sets, name, metric, profile)
                if (row := compared(sets, name, metric, profile, variant)) is not None
            ]
            tested = [row for row in found if row["p"] is not None]
            for row, beyond in zip(tested, beyond_chance([row["p"] for row in tested]), strict=True):
                row["beyond_chance"] = beyond
            rows += found
    return {
        "schema": SCHEMA,
        "kind": "comparison",
        "phantom": bool(first.get("phantom") or second.get("phantom")),
        "rows": rows,
        "alone": [[name for name in each if name not in names] for each in sets],
        "provenance": {
            "loras": {
                f"{run}, {place}": lora
                for run, document in zip(NAMES, (first, second), strict=True)
                for place, lora in enumerate(report_loras(document))
            }
        },
    }


def metrics_of(*sets: Mapping[str, Any]) -> dict[str, list[str]]:
    """The profiles of every metric that the report shows, in its order."""
    found: dict[str, list[str]] = {}
    known = [METRICS, BESIDE, *map(over_others, sets), {"residual_risk": ("", "robust")}]
    known.append(dict.fromkeys(OF_PHOTOGRAPHS, ("", "robust")))
    for part in known:
        for metric, (_, profile) in part.items():
            if profile not in found.setdefault(metric, []):
                found[metric].append(profile)
    return found


def variants_of(
    sets: tuple[Mapping[str, Any], Mapping[str, Any]], name: str, metric: str, profile: str
) -> list[str]:
    """The variants of a figure that both runs have, raw first."""
    one, other = ((each[name].get(metric) or {}).get(profile) or {} for each in sets)
    return [variant for variant in one if variant in other]


def compared(
    sets: tuple[Mapping[str, Any], Mapping[str, Any]], name: str, metric: str, profile: str, variant: str
) -> dict[str, Any] | None:
    """One row; None where neither run has a value."""
    one, other = (figure_of(each, name, metric, profile, variant) for each in sets)
    if one.get("value") is None and other.get("value") is None:
        return None
    row: dict[str, Any] = {
        "set": name,
        "metric": metric,
        "profile": profile,
        "variant": variant,
        "figures": [one, other],
        "difference": None,
        "ci95": None,
        "p": None,
        "note": why_not(metric, one, other),
    }
    if row["note"] or one.get("value") is None or other.get("value") is None:
        return row
    row["difference"] = other["value"] - one["value"]
    if one.get("ci95") and other.get("ci95"):
        ends = difference_interval(other["value"], other["ci95"], one["value"], one["ci95"])
        row["ci95"], row["p"] = list(ends), chance_of(row["difference"], ends)
    if metric.startswith("fid") and (one.get("n"), one.get("n_reference")) != (
        other.get("n"),
        other.get("n_reference"),
    ):
        row["note"] = OTHER_NUMBER
    return row


def why_not(metric: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Why two figures can't be compared; "" where they can."""
    shas = [(figure.get("extractor") or {}).get("sha256") for figure in (one, other)]
    if shas[0] != shas[1]:
        return OTHER_NETWORK
    if one.get("threshold") != other.get("threshold"):
        return OTHER_THRESHOLD
    if one.get("image_size") != other.get("image_size"):
        return OTHER_SIZE
    return ""


def write_comparison(first: Mapping[str, Any], second: Mapping[str, Any], path: Path) -> list[Path]:
    """Write the page of two runs, and its figures as Markdown and JSON beside it; return the files."""
    found = with_withdrawal(comparison(first, second))
    page = comparison_page(first, second, found)
    markdown, figures = path.with_suffix(".md"), path.with_suffix(".json")
    write_text(path, rendered(page, path))
    write_text(markdown, as_markdown(page))
    write_json(figures, found)
    return [path, markdown, figures]


def comparison_page(first: Mapping[str, Any], second: Mapping[str, Any], found: Mapping[str, Any]) -> Page:
    """The page of two report documents."""
    facts = [
        (f"{name}: {label.lower()}", value)
        for name, document in zip(NAMES, (first, second), strict=True)
        for label, value in facts_of(document)
    ]
    labels = labels_of(first)
    loras = tuple(dict.fromkeys(report_loras(found)))
    return Page(
        "DiffusionCleft: two runs compared" + (" (phantoms)" if found["phantom"] else ""),
        bool(found["phantom"]),
        facts,
        [
            *([notes] if (notes := notes_section(found)).blocks else []),
            findings(found, labels),
            figures_section(found, labels),
        ],
        lead=LEAD,
        loras=loras,
    )


def findings(found: Mapping[str, Any], labels: Labels) -> Section:
    """Which differences are beyond chance, in sentences."""
    beyond = [
        row for row in found["rows"] if row.get("beyond_chance") and row["metric"] not in OF_PHOTOGRAPHS
    ]
    tested = [row for row in found["rows"] if row["p"] is not None and row["metric"] not in OF_PHOTOGRAPHS]
    lines = [told(row, labels) for row in beyond]
    if not lines:
        lines = ["No difference is beyond chance."] if tested else ["No figure has an interval in both runs."]
    elif len(beyond) < len(tested):
        lines.append(f"The other {len(tested) - len(beyond)} differences with an interval could be chance.")
    for name, alone in zip(NAMES, found["alone"], strict=True):
        if alone:
            sets = ", ".join(labels.name(each) for each in alone)
            lines.append(f"Only the {name.lower()} has: {sets}.")
    return Section("differences", "What differs beyond chance", blocks=[Text(lines, listed=True)])


def told(row: Mapping[str, Any], labels: Labels) -> str:
    """One difference as a sentence."""
    one, other = (shown_value(row["metric"], figure["value"]) for figure in row["figures"])
    low, high = (shown_value(row["metric"], end) for end in row["ci95"])
    difference = shown_value(row["metric"], row["difference"])
    return (
        f"{label_of_row(row)}, {labels.name(row['set'])}, {row['variant']}: {one} and {other}; "
        f"the second is {difference} apart ({low} to {high})."
    )


def label_of_row(row: Mapping[str, Any]) -> str:
    """What the figure is, without how it is read."""
    metric, profile = row["metric"], row["profile"]
    named = {**METRICS, **over_others({"": {metric: {}, f"{metric}_kid": {}}})}
    label = OF_PHOTOGRAPHS.get(metric) or (
        named[metric][0] if metric in named and named[metric][1] == profile else ""
    )
    label = label or (BESIDE.get(metric) or ("Residual risk of a leak beyond the control",))[0]
    return label.partition(" (")[0]


def figures_section(found: Mapping[str, Any], labels: Labels) -> Section:
    """Every figure of both runs in tables, what photographs score last."""
    blocks: list[Block] = []
    for caption, of_photographs in (("Figures of the sets", False), (CONTROL_WORDS, True)):
        rows: list[Row] = []
        heads: dict[str, list[Row]] = {}
        for row in found["rows"]:
            if (row["metric"] in OF_PHOTOGRAPHS) == of_photographs:
                heads.setdefault(label_of_row(row), []).append(table_row(row, labels))
        for head, lines in heads.items():
            rows += [Row(head, group=True), *lines]
        if rows:
            columns = ("", *NAMES, "Second less first", "Beyond chance")
            blocks.append(Table(caption, columns, rows))
    missing = "" if blocks else "The runs have no figure in common: measure both with the same metrics."
    return Section("figures", "Figures side by side", blocks=blocks, missing=missing)


def table_row(row: Mapping[str, Any], labels: Labels) -> Row:
    metric = row["metric"]

    def show(value: float) -> str:
        return shown_value(metric, value)

    cells = [figure_cell(metric, figure) for figure in row["figures"]]
    small = "; ".join(part for part in (interval(row["ci95"], show), row["note"]) if part)
    difference = "not compared" if row["difference"] is None else show(row["difference"])
    said = "" if row["p"] is None else "yes" if row["beyond_chance"] else "no"
    return Row(
        f"{labels.name(row['set'])}, {row['variant']}",
        [*cells, Cell(difference, small), Cell(said, numeric=False)],
    )


def as_markdown(page: Page) -> str:
    """The page's sentences and tables as Markdown."""
    lines = [f"# {page.title}", "", page.lead]
    lines += ["", *(f"- {label}: {value}" for label, value in page.facts)]
    for section in page.sections:
        lines += ["", f"## {section.title}", ""]
        lines += [section.missing] if section.missing else []
        for block in section.blocks:
            if isinstance(block, Text):
                lines += [f"- {line}" for line in block.lines]
            elif isinstance(block, Table):
                lines += ["", block.caption, "", f"| {' | '.join(block.columns)} |"]
                lines.append("|" + " --- |" * len(block.columns))
                lines += [markdown_row(row, len(block.columns)) for row in block.rows]
    return "\n".join(lines).replace("\u00a0", " ") + "\n"


def markdown_row(row: Row, columns: int) -> str:
    if row.group:
        return f"| **{row.head}** |" + " |" * (columns - 1)
    cells = [f"{cell.text} ({cell.small})" if cell.small else cell.text for cell in row.cells]
    return f"| {' | '.join([row.head, *cells])} |"

"""Several sets in order, and the parts of a set, as the report's section on figures shows them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..conditions.vocabulary import ALL
from ..metrics.breakdown import FEWEST, UNSAID
from .blocks import PHANTOM_TAG, Block, Cell, Labels, Row, Table, interval, is_phantom
from .metric_names import label_of, shown_value

BY = {"skin_tone": "skin tone", "age_group": "age group", "subject": "subject"}
SHOWN = {
    "fir_images": "FIR, images",
    "kid": "KID",
    "precision": "Precision",
    "recall": "Recall",
    "coverage": "Coverage",
    "vendi": "Vendi score",
}
TOO_FEW, NOT_TOLD, NOT_KNOWN, NOT_COMPARED = "too few", "not told", "not known", "not compared"
WHY_UNTOLD = (
    " Not told is what could tell a count of fewer than five photographs: of conditions together every "
    "figure but FIR."
)


def ranking_tables(figures: Mapping[str, Any], labels: Labels) -> list[Block]:
    """A table for each condition of which several sets were measured: the sets in order by each metric."""
    blocks: list[Block] = []
    for condition, metrics in (figures.get("ranking") or {}).items():
        rows: list[Row] = []
        for metric, part in metrics.items():
            rows.append(Row(label_of(metric), group=True))
            rows += [
                ranked_row(metric, place, item, part, labels) for place, item in enumerate(part["sets"], 1)
            ]
        against = "" if condition == ALL else f" of {labels.name(condition)}"
        caption = (
            f"Sets compared with the same photographs{against}, the best first. A lead that could be chance "
            "is not called one, however many sets are looked at (Holm)."
        )
        if rows:
            columns = ("", "Value", "Behind the best by", "Beyond chance")
            blocks.append(Table(caption, columns, rows))
    return blocks


def ranked_row(
    metric: str, place: int, item: Mapping[str, Any], part: Mapping[str, Any], labels: Labels
) -> Row:
    def show(value: float) -> str:
        return shown_value(metric, value)

    best = part["sets"][0]["name"]
    lead = next(
        (each for each in part["differences"] if (each["first"], each["second"]) == (best, item["name"])),
        None,
    )
    cells = [Cell(show(item["value"]), interval(item.get("ci95"), show))]
    if lead is None:
        cells += [Cell(""), Cell("")]
    else:
        ends = lead["ci95"] and sorted(end if lead["value"] > 0 else -end for end in lead["ci95"])
        said = "" if lead["p"] is None else "yes" if lead["beyond_chance"] else "no"
        cells += [Cell(show(abs(lead["value"])), interval(ends, show)), Cell(said, numeric=False)]
    return Row(f"{place}. {labels.name(item['name'])}", cells)


def breakdown_tables(figures: Mapping[str, Any], labels: Labels) -> list[Block]:
    """A table for each set, by skin tone, age group and subject."""
    blocks: list[Block] = []
    for name, parts in (figures.get("breakdown") or {}).items():
        rows: list[Row] = []
        for by, values in parts.items():
            rows.append(Row(BY.get(by, by).capitalize(), group=True))
            rows += [part_row(what, part) for what, part in values.items()]
        if rows:
            phantom = any(
                is_phantom(figure)
                for values in parts.values()
                for part in values.values()
                for figure in part["figures"].values()
            )
            caption = (
                f"{labels.name(name)}, raw, by what the images show. Distances compare with photographs that "
                f"show the same; parts of fewer than {FEWEST} images or photographs are too few."
            )
            if any(cell.text == NOT_TOLD for row in rows for cell in row.cells):
                caption += WHY_UNTOLD
            columns = ("", "Images", "Photographs", *SHOWN.values())
            blocks.append(Table(caption, columns, rows, folded=True, tag=PHANTOM_TAG if phantom else ""))
    return blocks


def part_row(what: str, part: Mapping[str, Any]) -> Row:
    cells = [
        Cell(f"{part['n']:,}"),
        Cell(untold(part) or f"{part['n_reference']:,}"),
    ]
    for metric in SHOWN:
        figure = part["figures"].get(metric)
        if figure is None or figure.get("value") is None:
            cells.append(Cell(missing(what, metric, part), numeric=False))
            continue

        def show(value: float, metric: str = metric) -> str:
            return shown_value(metric, value)

        cells.append(Cell(show(figure["value"]), interval(figure.get("ci95"), show)))
    return Row(what, cells)


def untold(part: Mapping[str, Any]) -> str:
    """Why the number of photographs that show the same is not there; "" where it is."""
    if "n_reference" not in part:
        return NOT_KNOWN
    return NOT_TOLD if part["n_reference"] is None else ""


def missing(what: str, metric: str, part: Mapping[str, Any]) -> str:
    """Why a part has no such figure. FIR is of all photographs, and lacks images with a face alone."""
    if metric.startswith("fir_") or part["n"] < FEWEST:
        return TOO_FEW
    return untold(part) or (NOT_COMPARED if what == UNSAID else TOO_FEW)

"""What raters chose and where they marked pictures, in a study's page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..study.design import CHOICE, POINT
from .blocks import Block, Cell, Labels, Plot, Plots, Row, Section, Table, interval, percent
from .drawing import CONTROL, DOUBLE, SINGLE, file_name
from .study_plots import condition_words, drawn, origins, titled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UNTOLD = "not told"
SHOWN = "Set"
"""Head of the column that says which images a row is of."""
OUTLINE = {
    "face": (0.5, 0.5, 0.56, 0.76),
    "eye": (0.38, 0.43, 0.11, 0.05),
    "other eye": (0.62, 0.43, 0.11, 0.05),
    "mouth": (0.5, 0.69, 0.2, 0.06),
}
"""Ellipses of a drawn face, to find one's way by: middle, width and height."""


def other_sections(document: Mapping[str, Any], labels: Labels) -> list[Section]:
    """A section for each question that is answered by a place or by a choice of its own."""
    sections = []
    for name, part in document["questions"].items():
        if part["kind"] == POINT:
            sections.append(_marks(document, name, part, labels))
        elif part["kind"] == CHOICE and "cells" in part:
            sections.append(Section(f"study-{name}", titled(name), blocks=[_choices(part, labels)]))
    return sections


def _marks(document: Mapping[str, Any], name: str, part: Mapping[str, Any], labels: Labels) -> Section:
    rows = []
    for cell in part["cells"]:
        head, marked = _head(cell, labels), cell["marked"]
        if marked is None:
            rows.append(Row(head, [Cell(UNTOLD, numeric=False), Cell("")]))
            continue
        share = Cell(percent(marked["value"]), interval(marked["ci95"]))
        rows.append(Row(head, [share, Cell(f"{marked['n']:,}", f"of {cell['ratings']:,} ratings")]))
    plot = marks_plot(document, name, part)
    blocks: list[Block] = [Plots([plot])] if plot is not None else []
    lead = (
        "Of the ratings, how many mark a place. The dots lie where it is in the picture; the outline is no "
        "picture's own, and faces do not all lie in the same place. Where photographs of people were marked "
        "is not shown."
    )
    table = Table(part["text"], (SHOWN, "Marked", "Marks"), rows)
    return Section(f"study-{name}", titled(name), lead, [*blocks, table])


def marks_plot(document: Mapping[str, Any], name: str, part: Mapping[str, Any]) -> Plot | None:
    """Every mark in the square that all pictures are, a panel a set."""
    places = part["places"]
    if not places:
        return None
    colours = origins(document)

    def paint(figure: Figure) -> None:
        from matplotlib.patches import Ellipse

        for number, (origin, own) in enumerate(places.items()):
            axes = figure.add_subplot(1, len(places), number + 1, aspect="equal")
            for x, y, width, height in OUTLINE.values():
                axes.add_patch(Ellipse((x, y), width, height, fill=False, edgecolor=CONTROL, linewidth=0.6))
            axes.plot([0.5, 0.47, 0.53], [0.46, 0.57, 0.57], color=CONTROL, linewidth=0.6)
            x_places, y_places = zip(*own, strict=True)
            axes.plot(
                x_places, y_places, "o", color=colours[origin], alpha=0.5, markeredgewidth=0, clip_on=False
            )
            axes.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[], xlabel=f"{titled(origin)}: {len(own)}")
            axes.spines[["top", "right"]].set_visible(True)

    return drawn(
        document,
        file_name("study-marks", name),
        f"{titled(name)}: the places that were marked",
        " ".join(f"{titled(origin)}: {len(own)}." for origin, own in places.items()),
        (SINGLE if len(places) == 1 else DOUBLE, 70),
        paint,
        ("set", "x", "y"),
        [(origin, *place) for origin, own in places.items() for place in own],
    )


def _choices(part: Mapping[str, Any], labels: Labels) -> Table:
    values = list(dict.fromkeys(value for cell in part["cells"] for value in cell["counts"] or ())) or [
        "answers"
    ]
    rows = []
    for cell in part["cells"]:
        counts = cell["counts"]
        if counts is None:
            rows.append(
                Row(_head(cell, labels), [Cell(UNTOLD, numeric=False)] + [Cell("")] * (len(values) - 1))
            )
            continue
        total = sum(counts.values())
        shares = [Cell(percent(counts[value] / total), f"{counts[value]:,} of {total:,}") for value in values]
        rows.append(Row(_head(cell, labels), shares))
    return Table(part["text"], (SHOWN, *(titled(value) for value in values)), rows)


def _head(cell: Mapping[str, Any], labels: Labels) -> str:
    return f"{titled(cell['origin'])}, {condition_words(cell['condition'], labels)}"

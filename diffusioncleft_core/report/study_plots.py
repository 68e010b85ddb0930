"""The rater study's figures: distributions as in the paper's Figures 3 and 4, means, differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..conditions.vocabulary import ALL
from ..study.design import REAL, SCALE
from .blocks import Labels, Plot, plotted
from .drawing import (
    ALARM,
    COLOURS,
    CONTROL,
    DOUBLE,
    FAINT,
    INK,
    SINGLE,
    UNION,
    Drawing,
    colour_of,
    file_name,
    legend_below,
    plain_axes,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHAPES = ("o", "s", "D", "^")
_OTHERS = (COLOURS["first"], COLOURS["third"], COLOURS["fourth"], UNION)
SIMULATED_NOTE = "Answers by simulated raters: no person judged a picture"

Part = tuple[str, Mapping[str, Any]]
"""A question's name and its part of the document."""


def scale_parts(document: Mapping[str, Any]) -> list[Part]:
    """The questions that are answered on a scale."""
    return [(name, part) for name, part in document["questions"].items() if part["kind"] == SCALE]


def titled(question: str) -> str:
    """`plausibility` → `Plausibility`."""
    return question.replace("_", " ").capitalize()


def origins(document: Mapping[str, Any]) -> dict[str, str]:
    """The colour of each set: real ones are black, others have the series' colours."""
    others = [name for name, item in document["sets"].items() if item["role"] != REAL]
    colours = {name: _OTHERS[place % len(_OTHERS)] for place, name in enumerate(others)}
    return {name: colours.get(name, INK) for name in document["sets"]}


def distribution_plot(document: Mapping[str, Any], origin: str, labels: Labels) -> Plot | None:
    """Share of every answer, a panel a question, a bar a condition (Figure 3: generated, Figure 4: real)."""
    panels = []
    for name, part in scale_parts(document):
        own = [cell for cell in part["cells"] if cell["origin"] == origin and cell["mean"] is not None]
        shown = [cell for cell in own if cell["condition"] != ALL] or own
        if shown:
            panels.append((name, part, shown))
    if not panels:
        return None
    words = " ".join(
        f"{titled(name)}: {', '.join(_mean_words(cell, labels) for cell in shown)}."
        for name, _, shown in panels
    )

    def paint(figure: Figure) -> None:
        for place, (name, part, shown) in enumerate(panels):
            axes = figure.add_subplot(1, len(panels), place + 1)
            axes.grid(axis="y", color=FAINT, linewidth=0.5)
            points = list(range(part["low"], part["high"] + 1))
            width = 0.8 / len(shown)
            for number, cell in enumerate(shown):
                shares = _shares(cell)
                at = [point + (number - (len(shown) - 1) / 2) * width for point in points]
                axes.bar(
                    at,
                    [100 * shares[str(point)] for point in points],
                    width * 0.92,
                    color=colour_of(labels.series(cell["condition"])),
                    label=_mean_words(cell, labels),
                )
            axes.set(ylim=(0, 100), xlabel=f"{name.replace('_', ' ')}, {part['low']} to {part['high']}")
            axes.set_xticks(points)
            if place == 0:
                axes.set_ylabel("ratings, %")
            axes.legend(loc="upper left", borderaxespad=0.1, handlelength=0.9, handletextpad=0.4)

    rows = [
        (name, cell["condition"], point, count, round(_shares(cell)[point], 4))
        for name, _, shown in panels
        for cell in shown
        for point, count in cell["distribution"].items()
    ]
    return drawn(
        document,
        file_name("study-ratings", origin),
        f"{titled(origin)} images: ratings",
        words,
        (SINGLE if len(panels) == 1 else DOUBLE, 62),
        paint,
        ("question", "condition", "answer", "ratings", "share"),
        rows,
    )


def means_plot(document: Mapping[str, Any], labels: Labels) -> Plot | None:
    """Every mean with its interval, sets side by side."""
    colours = origins(document)
    rows = [
        (name, cell)
        for name, part in scale_parts(document)
        for cell in part["cells"]
        if cell["mean"] is not None
    ]
    if not rows:
        return None
    groups = list(dict.fromkeys((name, cell["condition"]) for name, cell in rows))
    low = min(part["low"] for _, part in scale_parts(document))
    high = max(part["high"] for _, part in scale_parts(document))

    def paint(figure: Figure) -> None:
        axes = plain_axes(figure)
        axes.grid(visible=False)
        axes.grid(axis="x", color=FAINT, linewidth=0.5)
        for number, (origin, colour) in enumerate(colours.items()):
            own = [(name, cell) for name, cell in rows if cell["origin"] == origin]
            shift = (number - (len(colours) - 1) / 2) * 0.7 / len(colours)
            for name, cell in own:
                place = groups.index((name, cell["condition"])) + shift
                axes.plot(cell["mean"]["ci95"], [place, place], color=colour, linewidth=1.0)
                axes.plot(cell["mean"]["value"], place, SHAPES[number % 4], color=colour, clip_on=False)
            axes.plot([], [], SHAPES[number % 4], color=colour, label=titled(origin))
        axes.set_yticks(range(len(groups)))
        axes.set_yticklabels([f"{titled(name)}, {condition_words(of, labels)}" for name, of in groups])
        least = min(cell["mean"]["ci95"][0] for _, cell in rows)
        axes.set(xlim=(max(low, least - 0.3), high + 0.05), xlabel="mean rating, 95 % interval")
        axes.set_ylim(len(groups) - 0.4, -0.6)
        legend_below(figure, axes, 4)

    table = [
        (
            name,
            cell["origin"],
            cell["condition"],
            cell["images"],
            cell["ratings"],
            *rounded(cell["mean"]),
        )
        for name, cell in rows
    ]
    means = [cell["mean"]["value"] for _, cell in rows]
    return drawn(
        document,
        "study-means",
        "Mean ratings with their intervals",
        f"{len(rows)} means, from {min(means):.2f} to {max(means):.2f}.",
        (DOUBLE, 28 + 7 * len(groups)),
        paint,
        ("question", "set", "condition", "images", "ratings", "mean", "ci95_low", "ci95_high"),
        table,
    )


def difference_plot(document: Mapping[str, Any], labels: Labels) -> Plot | None:
    """Each set less real, with its interval, before the margin."""
    rows = [
        (name, found)
        for name, part in scale_parts(document)
        for found in part["comparisons"]
        if found["difference"] is not None
    ]
    if not rows:
        return None
    margin = rows[0][1]["margin"]
    several = len({found["origin"] for _, found in rows}) > 1
    names = [
        ", ".join(
            [
                titled(name),
                *([titled(found["origin"])] if several else []),
                condition_words(found["condition"], labels),
            ]
        )
        for name, found in rows
    ]

    def paint(figure: Figure) -> None:
        axes = plain_axes(figure)
        axes.grid(visible=False)
        axes.axvspan(-margin, margin, color=FAINT, alpha=0.6, linewidth=0, label=f"within ±{margin:g}")
        axes.axvline(0, color=CONTROL, linewidth=0.8)
        for place, (_, found) in enumerate(rows):
            colour = COLOURS["third"] if found["equivalent"] else ALARM
            axes.plot(found["difference"]["ci95"], [place, place], color=colour, linewidth=1.1)
            face = colour if found["equivalent"] else "white"
            axes.plot(found["difference"]["value"], place, "o", color=colour, markerfacecolor=face)
        axes.plot([], [], "o-", color=COLOURS["third"], label="equivalent by the margin")
        axes.plot([], [], "o-", color=ALARM, markerfacecolor="white", label="equivalence not shown")
        axes.set_yticks(range(len(rows)))
        axes.set_yticklabels(names)
        reach = max(margin, *(abs(limit) for _, found in rows for limit in found["difference"]["ci95"]))
        axes.set(xlim=(-1.1 * reach, 1.1 * reach), xlabel="difference to real, points, 95 % interval")
        axes.set_ylim(len(rows) - 0.4, -0.6)
        legend_below(figure, axes, 3)

    shown = sum(found["equivalent"] for _, found in rows)
    table = [
        (
            name,
            found["origin"],
            found["condition"],
            *rounded(found["difference"]),
            margin,
            found["equivalent"],
        )
        for name, found in rows
    ]
    return drawn(
        document,
        "study-differences",
        "Differences to the real images",
        f"{shown} of {len(rows)} intervals lie within the margin of ±{margin:g}.",
        (DOUBLE, 28 + 6 * len(rows)),
        paint,
        ("question", "set", "condition", "difference", "ci95_low", "ci95_high", "margin", "equivalent"),
        table,
    )


def drawn(
    document: Mapping[str, Any],
    name: str,
    title: str,
    words: str,
    size: tuple[float, float],
    paint: Callable[[Figure], None],
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
) -> Plot:
    """A plot of the study, which says on itself where nobody rated, or phantoms stand for people."""
    warnings = (SIMULATED_NOTE,) if document["simulated"] else ()
    return plotted(
        Drawing(name, title, words, size, paint, columns, rows, bool(document["phantom"]), warnings)
    )


def rounded(figure: Mapping[str, Any]) -> tuple[float, ...]:
    """A value and its limits as they stand in a plot's numbers."""
    return tuple(round(value, 4) for value in (figure["value"], *figure["ci95"]))


def _shares(cell: Mapping[str, Any]) -> dict[str, float]:
    total = sum(cell["distribution"].values())
    return {point: count / total for point, count in cell["distribution"].items()}


def _mean_words(cell: Mapping[str, Any], labels: Labels) -> str:
    mean, (low, high) = cell["mean"]["value"], cell["mean"]["ci95"]
    return f"{condition_words(cell['condition'], labels)}: {mean:.2f} ({low:.2f} to {high:.2f})"


def condition_words(name: str, labels: Labels) -> str:
    """A condition as a part of a sentence; `all` for all of them."""
    return "all" if name == ALL else labels.name(name).lower()

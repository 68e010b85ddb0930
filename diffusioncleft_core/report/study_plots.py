"""The rater study's figures: distributions as in the paper's Figures 3 and 4, means, differences, ages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..conditions.vocabulary import ALL
from .blocks import Labels, Plot, plotted
from .drawing import (
    ALARM,
    COLOURS,
    CONTROL,
    DOUBLE,
    FAINT,
    INK,
    SINGLE,
    SMALL,
    UNION,
    Drawing,
    colour_of,
    file_name,
    legend_below,
    plain_axes,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REAL = "real"
SHAPES = ("o", "s", "D", "^")
_OTHERS = (COLOURS["first"], COLOURS["third"], COLOURS["fourth"], UNION)
SIMULATED_NOTE = "simulated raters"

Part = tuple[str, Mapping[str, Any]]
"""A question's name and its part of the document."""


def scale_parts(document: Mapping[str, Any]) -> list[Part]:
    """The questions that are answered on a scale."""
    return [(name, part) for name, part in document["questions"].items() if part["kind"] == "scale"]


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
    title = f"{titled(origin)} images: ratings"
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
                    color=_condition_colour(cell["condition"], labels),
                    label=_mean_words(cell, labels),
                )
            axes.set(ylim=(0, 100), xlabel=f"{name.replace('_', ' ')}, {part['low']} to {part['high']}")
            axes.set_xticks(points)
            if place == 0:
                axes.set_ylabel("ratings, %")
            axes.legend(loc="upper left", borderaxespad=0.1, handlelength=0.9, handletextpad=0.4)
        _note(figure, document)

    rows = [
        (name, cell["condition"], point, count, round(_shares(cell)[point], 4))
        for name, _, shown in panels
        for cell in shown
        for point, count in cell["distribution"].items()
    ]
    return plotted(
        Drawing(
            file_name("study-ratings", origin),
            title,
            words,
            (SINGLE if len(panels) == 1 else DOUBLE, 62),
            paint,
            ("question", "condition", "answer", "ratings", "share"),
            rows,
            bool(document["phantom"]),
        )
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
                axes.plot(cell["mean"]["value"], place, SHAPES[number % 4], color=colour)
            axes.plot([], [], SHAPES[number % 4], color=colour, label=titled(origin))
        axes.set_yticks(range(len(groups)))
        axes.set_yticklabels([f"{titled(name)}, {_condition(of, labels)}" for name, of in groups])
        least = min(cell["mean"]["ci95"][0] for _, cell in rows)
        axes.set(xlim=(max(low, least - 0.3), high + 0.05), xlabel="mean rating, 95 % interval")
        axes.set_ylim(len(groups) - 0.4, -0.6)
        legend_below(figure, axes, 4)
        _note(figure, document)

    table = [
        (
            name,
            cell["origin"],
            cell["condition"],
            cell["images"],
            cell["ratings"],
            round(cell["mean"]["value"], 4),
            *(round(limit, 4) for limit in cell["mean"]["ci95"]),
        )
        for name, cell in rows
    ]
    lowest, highest = (
        extreme(rows, key=lambda row: row[1]["mean"]["value"])[1]["mean"]["value"] for extreme in (min, max)
    )
    return plotted(
        Drawing(
            "study-means",
            "Mean ratings with their intervals",
            f"{len(rows)} means, from {lowest:.2f} to {highest:.2f}.",
            (DOUBLE, 28 + 7 * len(groups)),
            paint,
            ("question", "set", "condition", "images", "ratings", "mean", "ci95_low", "ci95_high"),
            table,
            bool(document["phantom"]),
        )
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
                _condition(found["condition"], labels),
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
        _note(figure, document)

    shown = sum(found["equivalent"] for _, found in rows)
    return plotted(
        Drawing(
            "study-differences",
            "Differences to the real images",
            f"{shown} of {len(rows)} intervals lie within the margin of ±{margin:g}.",
            (DOUBLE, 28 + 6 * len(rows)),
            paint,
            ("question", "set", "condition", "difference", "ci95_low", "ci95_high", "margin", "equivalent"),
            [
                (
                    name,
                    found["origin"],
                    found["condition"],
                    round(found["difference"]["value"], 4),
                    *(round(limit, 4) for limit in found["difference"]["ci95"]),
                    margin,
                    found["equivalent"],
                )
                for name, found in rows
            ],
            bool(document["phantom"]),
        )
    )


def ages_plot(document: Mapping[str, Any]) -> Plot | None:
    """Means by age group before repair, a panel a question."""
    panels = [(name, part, found) for name, part in scale_parts(document) if (found := _aged(part))]
    if not panels:
        return None
    colours = origins(document)
    ages = list(dict.fromkeys(age for _, _, rows in panels for _, age, _ in rows))

    def paint(figure: Figure) -> None:
        axes = None
        for place, (name, part, rows) in enumerate(panels):
            axes = figure.add_subplot(1, len(panels), place + 1)
            axes.grid(axis="y", color=FAINT, linewidth=0.5)
            for number, (origin, colour) in enumerate(colours.items()):
                shift = (number - (len(colours) - 1) / 2) * 0.2
                for of, age, mean in rows:
                    if of == origin:
                        at = ages.index(age) + shift
                        axes.plot([at, at], mean["ci95"], color=colour, linewidth=1.0)
                        axes.plot(at, mean["value"], SHAPES[number % 4], color=colour)
                axes.plot([], [], SHAPES[number % 4], color=colour, label=titled(origin))
            axes.set_xticks(range(len(ages)))
            axes.set_xticklabels(ages)
            least = min(mean["ci95"][0] for _, _, mean in rows)
            axes.set(
                xlim=(-0.5, len(ages) - 0.5),
                ylim=(max(part["low"], least - 0.3), part["high"] + 0.05),
                ylabel=f"mean {name.replace('_', ' ')}, 95 % interval",
            )
        legend_below(figure, axes, 4)
        _note(figure, document)

    rows = [
        (name, origin, age, round(mean["value"], 4), *(round(limit, 4) for limit in mean["ci95"]))
        for name, _, found in panels
        for origin, age, mean in found
    ]
    return plotted(
        Drawing(
            "study-ages",
            "Ratings by age group, before repair",
            " ".join(f"{titled(row[0])}, {row[1]}, {row[2]}: {row[3]:.2f}." for row in rows),
            (SINGLE if len(panels) == 1 else DOUBLE, 62),
            paint,
            ("question", "set", "age_group", "mean", "ci95_low", "ci95_high"),
            rows,
            bool(document["phantom"]),
        )
    )


def _aged(part: Mapping[str, Any]) -> list[tuple[str, str, Mapping[str, Any]]]:
    return [
        (found["origin"], age, each["mean"])
        for found in part["ages"]
        for age, each in found["ages"].items()
        if each["mean"] is not None
    ]


def _shares(cell: Mapping[str, Any]) -> dict[str, float]:
    total = sum(cell["distribution"].values())
    return {point: count / total for point, count in cell["distribution"].items()}


def _mean_words(cell: Mapping[str, Any], labels: Labels) -> str:
    low, high = cell["mean"]["ci95"]
    return f"{_condition(cell['condition'], labels)}: {cell['mean']['value']:.2f} ({low:.2f} to {high:.2f})"


def _condition(name: str, labels: Labels) -> str:
    return "all" if name == ALL else labels.name(name).lower()


def _condition_colour(name: str, labels: Labels) -> str:
    return colour_of(labels.series(name))


def _note(figure: Figure, document: Mapping[str, Any]) -> None:
    """On the figure itself, where nobody rated."""
    if document["simulated"]:
        figure.supxlabel(SIMULATED_NOTE, fontsize=SMALL, x=0.99, ha="right", color=ALARM)

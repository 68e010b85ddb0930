"""Ratings by age group, as the paper's hypothesis has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from .blocks import Labels, Plot
from .drawing import DOUBLE, FAINT, SINGLE, legend_below
from .study_plots import SHAPES, condition_words, drawn, origins, rounded, scale_parts, titled

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Mean(NamedTuple):
    """The mean of one age group of one set's images of a condition."""

    question: str
    origin: str
    condition: str
    age: str
    figure: Mapping[str, Any]


def ages_plot(document: Mapping[str, Any], labels: Labels) -> Plot | None:
    """Means by age group, a panel a question and condition."""
    parts = dict(scale_parts(document))
    rows = [
        Mean(name, found["origin"], found["condition"], age, each["mean"])
        for name, part in parts.items()
        for found in part["ages"]
        for age, each in found["ages"].items()
        if each["mean"] is not None
    ]
    if not rows:
        return None
    colours = origins(document)
    ages = list(dict.fromkeys(row.age for row in rows))
    panels = list(dict.fromkeys((row.question, row.condition) for row in rows))
    conditions = len({condition for _, condition in panels})
    columns = conditions if conditions > 1 else len(panels)

    def paint(figure: Figure) -> None:
        axes = None
        for place, panel in enumerate(panels):
            own = [row for row in rows if (row.question, row.condition) == panel]
            axes = figure.add_subplot(-(-len(panels) // columns), columns, place + 1)
            axes.grid(axis="y", color=FAINT, linewidth=0.5)
            for number, (origin, colour) in enumerate(colours.items()):
                shift = (number - (len(colours) - 1) / 2) * 0.2
                for row in own:
                    if row.origin == origin:
                        at = ages.index(row.age) + shift
                        axes.plot([at, at], row.figure["ci95"], color=colour, linewidth=1.0)
                        axes.plot(at, row.figure["value"], SHAPES[number % 4], color=colour, clip_on=False)
                axes.plot([], [], SHAPES[number % 4], color=colour, label=titled(origin))
            axes.set_xticks(range(len(ages)))
            axes.set_xticklabels(ages)
            least = min(row.figure["ci95"][0] for row in rows if row.question == panel[0])
            axes.set(
                xlim=(-0.5, len(ages) - 0.5),
                ylim=(max(parts[panel[0]]["low"], least - 0.3), parts[panel[0]]["high"] + 0.05),
                ylabel=f"mean {panel[0].replace('_', ' ')}",
                xlabel=condition_words(panel[1], labels),
            )
        legend_below(figure, axes, 4)

    return drawn(
        document,
        "study-ages",
        "Mean ratings by age group, with their 95 % intervals",
        " ".join(
            f"{titled(row.question)}, {row.origin}, {condition_words(row.condition, labels)}, {row.age}: "
            f"{row.figure['value']:.2f}."
            for row in rows
        ),
        (SINGLE if columns == 1 else DOUBLE, 18 + 44 * -(-len(panels) // columns)),
        paint,
        ("question", "set", "condition", "age_group", "mean", "ci95_low", "ci95_high"),
        [(*row[:4], *rounded(row.figure)) for row in rows],
    )

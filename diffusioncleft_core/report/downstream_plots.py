"""Plots of the downstream section: the learning curve, and how far scores can be taken at their word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .blocks import Cell, Plot, Row, Table, count, interval, percent, plain, plotted
from .drawing import CONTROL, INK, SINGLE, Drawing, colour_of, file_name, legend_below, plain_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINE_CONTROL = "real"
"""The control whose balanced accuracy is drawn as the line to beat."""
OURS = "first"


@dataclass(frozen=True)
class Marks:
    """What every figure of a task is marked with: a tag in tables and captions, `warnings` in plots."""

    tag: str
    warnings: Sequence[str]


def learning_curve(name: str, task: Mapping[str, Any], marks: Marks) -> Plot | None:
    """Balanced accuracy over the number of images learned from; None with fewer than two points."""
    points = [point for point in task["curve"] if point["balanced_accuracy"]["value"] is not None]
    if len(points) < 2:
        return None
    title = f"{task['title']}: balanced accuracy over the number of images learned from"
    places = [point["n"] for point in points]
    values = [100 * point["balanced_accuracy"]["value"] for point in points]
    line = line_to_beat(task)
    words = (
        "; ".join(f"{percent(value / 100)} with {n:,}" for n, value in zip(places, values, strict=True)) + "."
    )
    if line is not None:
        words += f" Trained on photographs: {percent(line)}."

    low = min(40.0, *(100 * ends_of(point)[0] - 2 for point in points))

    def paint(figure: Figure) -> None:
        axes = plain_axes(figure)
        colour = colour_of(OURS)
        for point in points:
            found = point["balanced_accuracy"]
            if found.get("ci95_trainings"):
                ends = [100 * end for end in found["ci95_trainings"]]
                axes.plot([point["n"]] * 2, ends, color=colour, linewidth=0.8)
            ends = [100 * end for end in found["ci95"]]
            axes.plot([point["n"]] * 2, ends, color=colour, linewidth=2.8, solid_capstyle="butt")
        axes.plot(
            places,
            values,
            "o-",
            color=colour,
            markersize=3,
            linewidth=0.9,
            label="trained on generated images",
        )
        axes.plot([], [], color=colour, linewidth=2.8, label="95 %, people")
        if any(point["balanced_accuracy"].get("ci95_trainings") for point in points):
            axes.plot([], [], color=colour, linewidth=0.8, label="95 %, people and trainings")
        if line is not None:
            axes.axhline(
                100 * line, color=CONTROL, linewidth=1, linestyle="--", label="trained on photographs"
            )
        axes.axhline(50, color=INK, linewidth=0.8, linestyle=":", label="chance")
        axes.set_xscale("log")
        axes.set_xticks(places, [f"{n:,}" for n in places])
        axes.minorticks_off()
        axes.set(xlabel="images of each class learned from, log scale", ylabel="balanced accuracy, %")
        axes.set_ylim(low, 102)
        legend_below(figure, axes, 2)

    plot = plotted(
        Drawing(
            file_name("learning-curve", name),
            title,
            words,
            (SINGLE, 76),
            paint,
            (
                "images",
                "trainings",
                "balanced_accuracy",
                "ci95_low",
                "ci95_high",
                "with_trainings_low",
                "with_trainings_high",
            ),
            [curve_row(point) for point in points],
            phantom=not task["test"]["photographs"],
            warnings=marks.warnings,
        ),
        numbers=curve_table(title, points, marks),
    )
    return replace(plot, tag=marks.tag)


def ends_of(point: Mapping[str, Any]) -> Sequence[float]:
    """The widest interval of a point's balanced accuracy."""
    found = point["balanced_accuracy"]
    ends: Sequence[float] = found.get("ci95_trainings") or found["ci95"]
    return ends


def line_to_beat(task: Mapping[str, Any]) -> float | None:
    """Balanced accuracy of the classifier that was trained on photographs."""
    for control in task["controls"]:
        if control["name"] == LINE_CONTROL and control["figures"]:
            value: float | None = control["figures"]["balanced_accuracy"]["value"]
            return value
    return None


def curve_row(point: Mapping[str, Any]) -> tuple[object, ...]:
    found = point["balanced_accuracy"]
    wide = found.get("ci95_trainings") or ("", "")
    return (point["n"], point.get("trainings", ""), found["value"], *found["ci95"], *wide)


def curve_table(title: str, points: Sequence[Mapping[str, Any]], marks: Marks) -> Table:
    rows = []
    for point in points:
        found = point["balanced_accuracy"]
        wide = found.get("ci95_trainings")
        said = f"with trainings {percent(wide[0])} to {percent(wide[1])}" if wide else ""
        small = "; ".join(filter(None, [interval(found["ci95"]), said]))
        rows.append(Row(f"{point['n']:,}", [Cell(percent(found["value"]), small)]))
    columns = ("Images", "Balanced accuracy")
    return Table(f"{title}, in numbers", columns, rows, folded=True, tag=marks.tag)


def reliability_plot(
    name: str, task: Mapping[str, Any], source: str, figures: Mapping[str, Any], marks: Marks
) -> Plot | None:
    """Share of positive images over the score; None where no bin is told."""
    table = figures["reliability"]
    told = [row for row in table if row["value"] is not None]
    if not told:
        return None
    positive = task["classes"]["positive"]
    title = f"{task['title']}: how far scores can be taken at their word"
    brier = figures["brier"]["value"]
    untold = len(table) - len(told)
    words = (
        f"Trained on {source.replace('_', ' ')}; on the line a score is the share of images that show it"
        f"{'' if brier is None else f'; Brier score {brier:.3f}'}."
        + (f" {untold} bins of fewer than 5 people are left out." if untold else "")
    )

    def paint(figure: Figure) -> None:
        axes = plain_axes(figure)
        axes.plot([0, 1], [0, 1], color=CONTROL, linewidth=0.9, linestyle="--", label="score = share")
        for row in told:
            axes.plot([row["score"]] * 2, row["ci95"], color=colour_of(OURS), linewidth=1)
        axes.plot(
            [row["score"] for row in told],
            [row["value"] for row in told],
            "o",
            color=colour_of(OURS),
            clip_on=False,
            label="bin of scores, 95 %",
        )
        axes.set(
            xlim=(-0.02, 1.02),
            ylim=(-0.02, 1.02),
            xlabel="mean score of the bin",
            ylabel=f"share of {positive}",
        )
        legend_below(figure, axes, 2)

    rows = [
        Row(
            f"{row['from']:.1f} to {row['to']:.1f}",
            [
                Cell("" if row["score"] is None else plain(row["score"])),
                Cell("not told" if row["value"] is None else percent(row["value"]), interval(row["ci95"])),
                Cell(count(row["n"])),
                Cell(count(row["n_subjects"])),
            ],
        )
        for row in table
    ]
    columns = ("Scores", "Mean score", "Share positive", "Scores in the bin", "People")
    plot = plotted(
        Drawing(
            file_name("reliability", name),
            title,
            words,
            (SINGLE, 76),
            paint,
            (
                "score_from",
                "score_to",
                "mean_score",
                "share_positive",
                "ci95_low",
                "ci95_high",
                "n",
                "people",
            ),
            [
                (
                    row["from"],
                    row["to"],
                    row["score"],
                    row["value"],
                    *row["ci95"],
                    row["n"],
                    row["n_subjects"],
                )
                for row in told
            ],
            phantom=not task["test"]["photographs"],
            warnings=marks.warnings,
        ),
        numbers=Table(f"{title}, in numbers", columns, rows, folded=True, tag=marks.tag),
    )
    return replace(plot, tag=marks.tag)

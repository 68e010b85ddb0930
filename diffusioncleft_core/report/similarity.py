"""The report's likeness figures: histograms of cosine similarity, and FIR over the threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..ranges import PAPER_SIMILARITY
from .blocks import (
    PHANTOM_TAG,
    Block,
    Cell,
    Labels,
    Plot,
    Plots,
    Row,
    Section,
    Table,
    interval,
    is_phantom,
    labels_of,
    percent,
    plotted,
)
from .drawing import ALARM, CONTROL, INK, SINGLE, Drawing, colour_of, file_name, legend_below, plain_axes
from .measured import figure_of, present

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOWEST_SHARE = 1e-7
"""Floor of the sweep's logarithmic axis: a share below it is drawn at it."""
IMAGES, PAIRS = INK, "#009e73"
SHIFT = 0.006
"""Thresholds that the marks of images and pairs stand apart."""


def similarity_section(document: Mapping[str, Any]) -> Section:
    """Histograms and sweeps, from `figures.similarity` and `sets.*.fir_sweep`."""
    labels = labels_of(document)
    histograms = ((document.get("figures") or {}).get("similarity")) or {}
    sets = document.get("sets") or {}
    plots = [histogram(name, histograms[name], labels) for name in present(histograms, labels)]
    sweeps = [plot for name in present(sets, labels) if (plot := sweep(name, sets, labels)) is not None]
    blocks: list[Block] = [Plots(found) for found in (plots, sweeps) if found]
    title = "Likeness to the training faces"
    if not blocks:
        return Section(
            "similarity",
            title,
            missing="There are no face similarities: `diffusioncleft measure` compares the faces.",
        )
    lead = (
        f"Cosine similarity of every generated face to every training face{reported_means(labels)}, and the "
        "share that counts as a match when the threshold is moved."
    )
    return Section("similarity", title, lead, blocks)


def reported_means(labels: Labels) -> str:
    """` (reported means: Paper 0.18 pre-op, 0.10 post-op)`, or nothing."""
    means: dict[str, list[str]] = {}
    for row in labels.reported:
        if row.metric == "similarity_mean":
            means.setdefault(row.column, []).append(f"{row.value:.2f} {labels.name(row.condition).lower()}")
    said = "; ".join(f"{column} {', '.join(values)}" for column, values in means.items())
    return f" (reported means: {said})" if said else ""


def histogram(name: str, variants: Mapping[str, Any], labels: Labels) -> Plot:
    raw = variants.get("raw") or next(iter(variants.values()))
    title = f"{labels.name(name)}: similarity of generated to training faces"
    if not raw.get("counts") or not sum(raw["counts"]):
        why = "Not drawn: fewer than five training photographs, or no face to compare."
        return Plot(f"{title}. {why}", tag=PHANTOM_TAG if is_phantom(raw) else "")
    shares = {variant: percentages(found) for variant, found in variants.items()}
    shares = {variant: values for variant, values in shares.items() if values}
    edges, threshold, mean = raw["edges"], raw["threshold"], raw["mean"]
    first = next(iter(shares.values()))
    filled = [index for index, value in enumerate(first) if value]
    low = min(edges[filled[0]], -0.2)
    high = max(edges[filled[-1] + 1], threshold + 0.1, 0.8)
    beyond = sum(value for left, value in zip(edges[:-1], first, strict=True) if left >= threshold)
    pairs = "" if raw.get("n_pairs") is None else f" over {raw['n_pairs']:,} pairs"
    words = (
        f"Mean {mean:.2f}{pairs}; {percent(beyond / 100)} of them lie in the bins from the threshold "
        f"{threshold:g} on."
    )

    def paint(figure: Figure) -> None:
        axes = plain_axes(figure)
        axes.stairs(
            first, edges, fill=True, color=colour_of(labels.series(name)), label=f"{next(iter(shares))} set"
        )
        if "filtered" in shares and len(shares) > 1:
            axes.stairs(shares["filtered"], edges, color=INK, linewidth=0.9, label="filtered set")
        axes.axvline(mean, color=INK, linewidth=0.8, linestyle=":", label=f"mean {mean:.2f}")
        axes.axvline(threshold, color=ALARM, linewidth=1, linestyle="--", label=f"threshold {threshold:g}")
        axes.set(xlim=(low, high), xlabel="cosine similarity", ylabel="share of pairs, %")
        legend_below(figure, axes, 2)

    rows = [
        (variant, left, right, round(value, 5))
        for variant, values in shares.items()
        for left, right, value in zip(edges[:-1], edges[1:], values, strict=True)
    ]
    return plotted(
        Drawing(
            file_name("similarity", name),
            title,
            words,
            (SINGLE, 62),
            paint,
            ("set", "similarity_from", "similarity_to", "share_of_pairs_percent"),
            rows,
            is_phantom(raw),
        )
    )


def percentages(found: Mapping[str, Any]) -> list[float]:
    """Shares of a histogram in per cent; [] for an empty one."""
    total = sum(found.get("counts") or [])
    return [100 * value / total for value in found["counts"]] if total else []


def sweep(name: str, sets: Mapping[str, Any], labels: Labels) -> Plot | None:
    rows = figure_of(sets, name, "fir_sweep", "paper", "raw")
    if not rows:
        return None
    title = f"{labels.name(name)}: FIR of the raw set over its threshold"
    control = figure_of(sets, name, "fir_control_images", "robust", "holdout")
    control = control if control and control.get("value") is not None else None
    marks = [*marks_of(rows, "images", -SHIFT), *marks_of(rows, "pairs", SHIFT)]
    words = sweep_words(rows, control)
    positive = [value for mark in marks for value in mark[3:5] if value > LOWEST_SHARE]
    low = 10.0 ** floor_power(min(positive, default=1e-4))

    def paint(figure: Figure) -> None:
        axes = plain_axes(figure)
        for unit, colour, shape in (("images", IMAGES, "o"), ("pairs", PAIRS, "s")):
            draw_shares(axes, [mark for mark in marks if mark[0] == unit], colour, shape, low)
            axes.plot([], [], color=colour, marker=shape, linestyle="", label=f"generated {unit}")
        if control:
            place = control.get("threshold", PAPER_SIMILARITY) + 3 * SHIFT
            draw_shares(axes, [mark_of("control", place, control)], CONTROL, "D", low)
            label = f"photographs of others, n = {control['n']:,}"
            axes.plot([], [], color=CONTROL, marker="D", linestyle="", label=label)
        axes.plot([], [], color=INK, marker="o", markerfacecolor="white", linestyle="", label="none found")
        axes.axvline(
            PAPER_SIMILARITY, color=ALARM, linewidth=1, linestyle="--", label="the paper’s threshold"
        )
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda share, _: decimal_percent(share))
        axes.minorticks_off()
        axes.set_xticks([0.3, 0.4, 0.5, 0.6, 0.7])
        axes.set(xlim=(0.28, 0.72), ylim=(0.7 * low, 1.5), xlabel="threshold", ylabel="share, %, log scale")
        legend_below(figure, axes, 2)

    shown = [
        *marks,
        *(
            [mark_of("control images", control.get("threshold", PAPER_SIMILARITY), control)]
            if control
            else []
        ),
    ]
    drawing = Drawing(
        file_name("threshold", name),
        title,
        words,
        (SINGLE, 74),
        paint,
        ("counted", "threshold", "share", "ci95_low", "ci95_high", "k", "n"),
        [(mark[0], mark[1], *mark[3:]) for mark in shown],
        is_phantom(figure_of(sets, name, "fir_images", "paper", "raw")),
    )
    return plotted(drawing, numbers=sweep_table(f"{title}, in numbers", rows))


def sweep_words(rows: Sequence[Mapping[str, Any]], control: Mapping[str, Any] | None) -> str:
    first, last = rows[0], rows[-1]
    pairs = f"{percent(first['pairs']['value'])} and {percent(last['pairs']['value'])}"
    words = (
        f"By image {percent(first['images']['value'])} at {first['threshold']:g}, "
        f"{percent(last['images']['value'])} at {last['threshold']:g}; by pair "
        f"{pairs if first['pairs']['value'] is not None else 'not told'}."
    )
    if control:
        words += (
            f" Photographs of other people, at {control.get('threshold', PAPER_SIMILARITY):g}: "
            f"{percent(control['value'])} by image."
        )
    return words


Mark = tuple[str, float, float, float, float, float, Any, Any]
"""What is counted, threshold, place, share, low and high end of its interval, k, n."""


def marks_of(rows: Sequence[Mapping[str, Any]], unit: str, shift: float) -> list[Any]:
    return [
        mark_of(unit, row["threshold"], row[unit], shift) for row in rows if row[unit]["value"] is not None
    ]


def mark_of(unit: str, threshold: float, figure: Mapping[str, Any], shift: float = 0.0) -> Any:
    value = figure["value"]
    low, high = figure.get("ci95") or (value, value)
    return unit, threshold, threshold + shift, value, low, high, figure.get("k"), figure.get("n")


def draw_shares(axes: Any, marks: Sequence[Any], colour: str, shape: str, floor: float) -> None:
    """Each share with its interval; hollow where none was found, which lies at the floor."""
    for _, _, place, value, low, high, *_ in marks:
        axes.plot([place, place], [max(low, floor), max(high, floor)], color=colour, linewidth=0.9)
        face = colour if value else "white"
        axes.plot(place, max(value, floor), shape, color=colour, markerfacecolor=face, markeredgewidth=0.9)


def decimal_percent(share: float) -> str:
    """A tick of the logarithmic axis without an exponent: 0.00001 → `0.001`."""
    return f"{100 * share:.6f}".rstrip("0").rstrip(".")


def floor_power(value: float) -> int:
    """The power of ten at or below `value`, not above -2."""
    power = 0
    while 10.0**power > value and power > -7:
        power -= 1
    return min(power, -2)


def sweep_table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    lines = []
    for row in rows:
        cells = []
        for unit in ("images", "pairs"):
            figure = row[unit]
            value = figure["value"]
            told = percent(value) if value is not None or figure.get("n") is not None else "not told"
            cells.append(Cell(told, interval(figure.get("ci95"))))
        lines.append(Row(f"{row['threshold']:.2f}", cells))
    return Table(title, ("Threshold", "Images", "Pairs"), lines, folded=True)

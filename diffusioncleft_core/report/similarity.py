"""How similar generated faces are to training faces: Figure 2 of the paper, and FIR over its threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .blocks import Block, Cell, Legend, Plot, Plots, Row, Section, Table
from .measured import PHANTOM_TAG, figure_of, present
from .numbers import condition_name, interval, is_phantom, percent
from .svg import Axis, Chart

LOWEST_SHARE = 1e-7
"""Floor of the sweep's logarithmic axis: a share below it is drawn at it."""


def similarity_section(document: Mapping[str, Any]) -> Section:
    """Histograms and sweeps, from `figures.similarity` and `sets.*.fir_sweep`."""
    histograms = ((document.get("figures") or {}).get("similarity")) or {}
    sets = document.get("sets") or {}
    plots = [histogram(name, histograms[name]) for name in present(histograms)]
    sweeps = [plot for name in present(sets) if (plot := sweep(name, sets)) is not None]
    blocks: list[Block] = [Plots(found) for found in (plots, sweeps) if found]
    title = "Likeness to the training faces"
    if not blocks:
        return Section(
            "similarity",
            title,
            missing="There are no face similarities: `diffusioncleft measure` compares the faces.",
        )
    lead = (
        "Cosine similarity of every generated face to every training face (Figure 2 of the paper, whose "
        "means are 0.18 pre-op and 0.10 post-op), and the share that counts as a match when the threshold is "
        "moved."
    )
    return Section("similarity", title, lead, blocks)


def histogram(name: str, variants: Mapping[str, Any]) -> Plot:
    raw = variants.get("raw") or next(iter(variants.values()))
    title = f"{condition_name(name)}: similarity of generated to training faces"
    tag = PHANTOM_TAG if is_phantom(raw) else ""
    counts, edges = raw.get("counts"), raw["edges"]
    if not counts or not sum(counts):
        return Plot(
            empty_chart(f"similarity-{name}", title, "cosine similarity"),
            f"{title}. Not drawn: fewer than five training photographs, or no face to compare.",
            tag=tag,
        )
    shares = [100 * value / sum(counts) for value in counts]
    filled = [index for index, value in enumerate(counts) if value]
    low = min(edges[filled[0]], -0.2)
    high = max(edges[filled[-1] + 1], raw["threshold"] + 0.1, 0.8)
    tail = sum(value for left, value in zip(edges[:-1], counts, strict=True) if left >= raw["threshold"])
    words = (
        f"Mean {raw['mean']:.2f} over {raw['n_pairs']:,} pairs; {tail:,} lie in the bins from the threshold "
        f"{raw['threshold']:g} on."
    )
    chart = Chart(
        f"similarity-{name}",
        title,
        words,
        Axis(low, high, "cosine similarity"),
        Axis(0, 1.08 * max(shares), "share of pairs, %"),
    )
    chart.bars(edges, shares, series_of(name))
    legend = [Legend("square", series_of(name), "raw set")]
    filtered = variants.get("filtered") if variants.get("filtered") is not raw else None
    if filtered and filtered.get("counts") and sum(filtered["counts"]):
        total = sum(filtered["counts"])
        chart.outline(filtered["edges"], [100 * value / total for value in filtered["counts"]], "ink")
        legend.append(Legend("dashes", "ink", "filtered set"))
    chart.vertical(raw["mean"], f"mean {raw['mean']:.2f}", "mean")
    chart.vertical(raw["threshold"], f"threshold {raw['threshold']:g}", "alarm", dashed=True, row=1)
    return Plot(chart.draw(), f"{title}. {words}", legend, tag)


def sweep(name: str, sets: Mapping[str, Any]) -> Plot | None:
    rows = figure_of(sets, name, "fir_sweep", "paper", "raw")
    if not rows:
        return None
    title = f"{condition_name(name)}: FIR of the raw set over its threshold"
    positive = [share for row in rows for share in shares_of(row) if share > LOWEST_SHARE]
    low = 10.0 ** floor_power(min(positive, default=1e-4))
    tag = PHANTOM_TAG if is_phantom(figure_of(sets, name, "fir_pairs", "paper", "raw")) else ""
    first, last = rows[0], rows[-1]
    words = (
        f"By image {percent(first['images']['value'])} at {first['threshold']:g}, "
        f"{percent(last['images']['value'])} at {last['threshold']:g}; by pair "
        f"{percent(first['pairs']['value'])} and {percent(last['pairs']['value'])}."
    )
    chart = Chart(
        f"sweep-{name}",
        title,
        words,
        Axis(0.28, 0.72, "threshold", ticks=[0.3, 0.4, 0.5, 0.6, 0.7]),
        Axis(low, 1.0, "share, %, log scale", log=True, show=decimal_percent),
    )
    for unit, shift in (("images", 3.0), ("pairs", -3.0)):
        draw_sweep(chart, rows, unit, shift, low)
    chart.vertical(0.6, "paper’s", "alarm", dashed=True)
    legend = [
        Legend("dot", "post", "images"),
        Legend("diamond", "pre", "pairs"),
        Legend("hollow", "ink", "hollow: none found"),
        Legend("line", "ink", "bar: 95 % interval"),
    ]
    return Plot(chart.draw(), f"{title}. {words}", legend, tag, sweep_table(f"{title}, in numbers", rows))


def decimal_percent(share: float) -> str:
    """A tick of the logarithmic axis without an exponent: 0.00001 → `0.001`."""
    return f"{100 * share:.6f}".rstrip("0").rstrip(".")


def draw_sweep(chart: Chart, rows: Sequence[Mapping[str, Any]], unit: str, shift: float, low: float) -> None:
    series = "post" if unit == "images" else "pre"
    found = [(row["threshold"], row[unit]) for row in rows if row[unit]["value"] is not None]
    for threshold, figure in found:
        if figure.get("ci95"):
            bottom, top = (max(bound, low) for bound in figure["ci95"])
            chart.whisker(threshold, bottom, top, series, shift=shift)
        chart.marker(
            threshold,
            max(figure["value"], low),
            series,
            shift=shift,
            square=unit == "pairs",
            hollow=figure["value"] == 0,
        )


def shares_of(row: Mapping[str, Any]) -> list[float]:
    """Values and upper bounds of one threshold: what the axis must hold."""
    found = []
    for unit in ("pairs", "images"):
        found += [row[unit]["value"] or 0.0, *list(row[unit].get("ci95") or [])]
    return found


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
            small = interval(figure.get("ci95"))
            cells.append(Cell(percent(figure["value"]), small))
        lines.append(Row(f"{row['threshold']:.2f}", cells))
    return Table(title, ("Threshold", "Images", "Pairs"), lines, folded=True)


def series_of(name: str) -> str:
    return {"pre_op": "pre", "post_op": "post"}.get(name, "both")


def empty_chart(name: str, title: str, label: str) -> Any:
    chart = Chart(name, title, "Not drawn.", Axis(-0.2, 1, label), Axis(0, 1, "share"))
    return chart.draw()

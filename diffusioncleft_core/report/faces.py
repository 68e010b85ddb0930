"""The report's face figures: similarity histogram, threshold sweep, plane of embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..ranges import PAPER_SIMILARITY
from .blocks import (
    Block,
    Cell,
    Labels,
    Legend,
    Plot,
    Plots,
    Row,
    Section,
    Table,
    Text,
    count,
    interval,
    is_phantom,
    labels_of,
    percent,
    sentence,
)
from .charts import Axis, Chart
from .measured import PHANTOM_TAG, figure_of, present

LOWEST_SHARE = 1e-7
"""Floor of the sweep's logarithmic axis: a share below it is drawn at it."""


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
    chart.bars(edges, shares, labels.series(name))
    legend = [Legend("square", labels.series(name), "raw set")]
    filtered = variants.get("filtered") if variants.get("filtered") is not raw else None
    if filtered and filtered.get("counts") and sum(filtered["counts"]):
        total = sum(filtered["counts"])
        chart.outline(filtered["edges"], [100 * value / total for value in filtered["counts"]], "ink")
        legend.append(Legend("dashes", "ink", "filtered set"))
    chart.vertical(raw["mean"], f"mean {raw['mean']:.2f}", "mean")
    chart.vertical(raw["threshold"], f"threshold {raw['threshold']:g}", "alarm", dashed=True, row=1)
    return Plot(chart.draw(), f"{title}. {words}", legend, tag)


def sweep(name: str, sets: Mapping[str, Any], labels: Labels) -> Plot | None:
    rows = figure_of(sets, name, "fir_sweep", "paper", "raw")
    if not rows:
        return None
    title = f"{labels.name(name)}: FIR of the raw set over its threshold"
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
    chart.vertical(PAPER_SIMILARITY, "paper’s", "alarm", dashed=True)
    legend = [
        Legend("dot", "second", "images"),
        Legend("diamond", "first", "pairs"),
        Legend("hollow", "ink", "hollow: none found"),
        Legend("line", "ink", "bar: 95 % interval"),
    ]
    return Plot(chart.draw(), f"{title}. {words}", legend, tag, sweep_table(f"{title}, in numbers", rows))


def decimal_percent(share: float) -> str:
    """A tick of the logarithmic axis without an exponent: 0.00001 → `0.001`."""
    return f"{100 * share:.6f}".rstrip("0").rstrip(".")


def draw_sweep(chart: Chart, rows: Sequence[Mapping[str, Any]], unit: str, shift: float, low: float) -> None:
    series = "second" if unit == "images" else "first"
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


def empty_chart(name: str, title: str, label: str) -> Any:
    chart = Chart(name, title, "Not drawn.", Axis(-0.2, 1, label), Axis(0, 1, "share"))
    return chart.draw()


SHOWN_POINTS = 1000
"""More dots than this hide each other."""


def embedding_section(document: Mapping[str, Any]) -> Section:
    """One plot a condition, from `figures.pca`."""
    title = "Face embeddings"
    labels = labels_of(document)
    pca = (document.get("figures") or {}).get("pca")
    if not pca:
        return Section(
            "embedding",
            title,
            missing="There is no map of face embeddings: the run was not measured, or has too few faces.",
        )
    names = list(dict.fromkeys([*(pca.get("generated") or {}), *(pca.get("real") or {})]))
    lead = (
        "First two principal components of the face embeddings (Figure 7 of the paper). Real photographs are "
        "shown as a density whose cells of fewer than five are blank. The two components hold "
        f"{percent(sum(pca['explained']))} of the variance."
    )
    plots = Plots([embedding_plot(name, pca, labels) for name in names])
    note = Text([sentence(str(pca["note"]))] if pca.get("note") else [])
    return Section("embedding", title, lead, [plots, spread_table(names, pca, labels), note])


def embedding_plot(name: str, pca: Mapping[str, Any], labels: Labels) -> Plot:
    title = f"{labels.name(name)}: generated faces over real ones"
    points = (pca.get("generated") or {}).get(name) or []
    overlap = (pca.get("overlap") or {}).get(name)
    said = [f"{len(points):,} generated faces"]
    if overlap is not None:
        said.append(f"overlap with the real density {overlap:.2f} of 1")
    words = sentence("; ".join(said))
    x, y = pca["edges_x"], pca["edges_y"]
    a, b = pca["explained"]
    chart = Chart(
        f"embedding-{name}",
        title,
        words,
        Axis(x[0], x[-1], f"component 1 ({percent(a)})"),
        Axis(y[0], y[-1], f"component 2 ({percent(b)})"),
    )
    legend = []
    real = (pca.get("real") or {}).get(name)
    if draw_density(chart, real, x, y, "real"):
        legend.append(Legend("square", "real", "real photographs, cells of 5 or more"))
    if draw_density(chart, pca.get("control_counts"), x, y, "control"):
        legend.append(Legend("square", "control", "control faces, cells of 5 or more"))
    if pca.get("control"):
        chart.dots(thinned(pca["control"]), "control", square=True)
        legend.append(Legend("diamond", "control", "control faces, synthetic"))
    chart.dots(thinned(points), labels.series(name))
    legend.append(Legend("dot", labels.series(name), "generated faces"))
    return Plot(chart.draw(), f"{title}. {words}", legend, PHANTOM_TAG if is_phantom(pca) else "")


def draw_density(
    chart: Chart,
    cells: Sequence[Sequence[int | None]] | None,
    x: Sequence[float],
    y: Sequence[float],
    series: str,
) -> bool:
    """Draw a grid of counts, first index x; whether any cell was full enough."""
    highest = max((value for column in cells or [] for value in column if value), default=0)
    for i, column in enumerate(cells or []):
        for j, value in enumerate(column):
            if value:
                chart.cell(x[i], x[i + 1], y[j], y[j + 1], value / highest, series)
    return highest > 0


def thinned(points: Sequence[Sequence[float]]) -> list[Sequence[float]]:
    """Every k-th point, so that at most SHOWN_POINTS are drawn."""
    step = -(-len(points) // SHOWN_POINTS) or 1
    return list(points[::step])


def spread_table(names: Sequence[str], pca: Mapping[str, Any], labels: Labels) -> Table:
    """How far faces of a group lie from its middle, and how much generated and real share."""
    spread, overlap = pca.get("spread") or {}, pca.get("overlap") or {}
    rows = []
    for name in names:
        title = labels.name(name)
        n_real = count((pca.get("n_real") or {}).get(name))
        points = (pca.get("generated") or {}).get(name) or []
        rows += [
            Row(f"{title}, real", [Cell(n_real), number((spread.get("real") or {}).get(name)), Cell("")]),
            Row(
                f"{title}, generated",
                [
                    Cell(f"{len(points):,}"),
                    number((spread.get("generated") or {}).get(name)),
                    number(overlap.get(name)),
                ],
            ),
        ]
    control = (spread.get("control") or {}).get("control")
    if control is not None:
        rows.append(Row("Control", [Cell(count(pca.get("n_control"))), number(control), Cell("")]))
    return Table(
        "Spread (root mean square distance from the group’s mean, all 512 dimensions) and overlap (shared "
        "area of the two histograms, 0 to 1)",
        ("Group", "Faces", "Spread", "Overlap with real"),
        rows,
        tag=PHANTOM_TAG if is_phantom(pca) else "",
    )


def number(value: float | None) -> Cell:
    return Cell("") if value is None else Cell(f"{value:.3f}")

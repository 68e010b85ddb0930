"""Where faces lie in the embedding: Figure 7 of the paper, with real photographs as a density alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .blocks import Cell, Legend, Plot, Plots, Row, Section, Table, Text
from .measured import PHANTOM_TAG
from .numbers import condition_name, count, is_phantom, percent, sentence
from .similarity import series_of
from .svg import Axis, Chart

SHOWN_POINTS = 1000
"""More dots than this hide each other."""


def embedding_section(document: Mapping[str, Any]) -> Section:
    """One plot a condition, from `figures.pca`."""
    title = "Face embeddings"
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
    plots = Plots([embedding_plot(name, pca) for name in names])
    note = Text([sentence(str(pca["note"]))] if pca.get("note") else [])
    return Section("embedding", title, lead, [plots, spread_table(names, pca), note])


def embedding_plot(name: str, pca: Mapping[str, Any]) -> Plot:
    title = f"{condition_name(name)}: generated faces over real ones"
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
    chart.dots(thinned(points), series_of(name))
    legend.append(Legend("dot", series_of(name), "generated faces"))
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


def spread_table(names: Sequence[str], pca: Mapping[str, Any]) -> Table:
    """How far faces of a group lie from its middle, and how much generated and real share."""
    spread, overlap = pca.get("spread") or {}, pca.get("overlap") or {}
    rows = []
    for name in names:
        title = condition_name(name)
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

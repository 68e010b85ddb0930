"""The report's face map: every group in the plane of the embeddings' first two components (Fig. 7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..small_counts import FEWEST
from .blocks import (
    PHANTOM_TAG,
    Block,
    Cell,
    Labels,
    Plots,
    Row,
    Section,
    Table,
    Text,
    is_phantom,
    labels_of,
    percent,
    plotted,
    sentence,
)
from .drawing import CONTROL, DOUBLE, FAINT, INCH, SMALL, Drawing, colour_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN_POINTS = 1000
"""More dots of a group than this hide each other."""
SIZE = (DOUBLE, 95.0)
SMALLEST_SYMBOL = 2.5
"""Points of its side."""
SHAPES = ("s", "D", "^", "v")
CONTROL_FACES = (
    "Control: other faces that were given to compare with (--control), or healthy drawings on a run of "
    "phantoms; not the photographs that were kept apart."
)


@dataclass(frozen=True)
class Group:
    """Faces of one kind: `points` [x, y] of drawings and pictures, or `cells` (x, y, n) of photographs.

    faces: how many there are, None where that is not told; colour: of its condition.
    """

    label: str
    colour: str
    faces: int | None
    points: Sequence[Sequence[float]] = ()
    cells: Sequence[tuple[float, float, int]] = ()
    photographs: bool = False

    @property
    def drawn(self) -> int:
        """How many of the faces are on the map."""
        return sum(n for _, _, n in self.cells) if self.photographs else len(self.points)

    @property
    def legend(self) -> str:
        """`Pre-op, photographs: 92 of 100`."""
        if not self.photographs:
            return f"{self.label}: {len(self.points):,}"
        of = "" if self.faces is None else f"{self.faces:,}"
        if not self.drawn:
            return f"{self.label}: not drawn, {f'n = {of} is too few' if of else 'too few'}"
        return f"{self.label}: {self.drawn:,}{f' of {of}' if of else ''}"


def embedding_section(document: Mapping[str, Any]) -> Section:
    """All groups in one plane, from `figures.pca`."""
    title = "Face embeddings"
    labels = labels_of(document)
    pca = (document.get("figures") or {}).get("pca")
    if not pca:
        return Section(
            "embedding",
            title,
            missing="There is no map of face embeddings: the run was not measured, or has too few faces.",
        )
    lead = (
        "First two principal components of the face embeddings (Figure 7 of the paper), all groups in one "
        "plane. A generated face is a dot. Photographs are counted in the cells of a grid, where a symbol’s "
        f"area is the cell’s share of its group; cells of fewer than {FEWEST} are blank, so that no person "
        "is a point."
    )
    if pca.get("control") or pca.get("control_counts"):
        lead += f" {CONTROL_FACES}"
    groups = groups_of(pca, labels)
    drawing = face_map(pca, groups)
    notes = [group.legend + "." for group in groups if group.photographs and not group.drawn]
    notes += [sentence(str(pca["note"]))] if pca.get("note") else []
    blocks: list[Block] = [
        Plots([plotted(drawing)], wide=True),
        spread_table(conditions_in(pca), pca, labels),
        Text(notes),
    ]
    return Section("embedding", title, lead, blocks)


def conditions_in(pca: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys([*(pca.get("generated") or {}), *(pca.get("real") or {})]))


def groups_of(pca: Mapping[str, Any], labels: Labels) -> list[Group]:
    """Generated faces and photographs of each condition, then the control."""
    generated, real = pca.get("generated") or {}, pca.get("real") or {}
    groups = []
    for name in conditions_in(pca):
        colour = colour_of(labels.series(name))
        if generated.get(name):
            groups.append(
                Group(
                    f"{labels.name(name)}, generated",
                    colour,
                    len(generated[name]),
                    generated[name],
                )
            )
        if name in real:
            faces = (pca.get("n_real") or {}).get(name)
            cells = cells_of(real[name], pca)
            groups.append(
                Group(f"{labels.name(name)}, photographs", colour, faces, cells=cells, photographs=True)
            )
    if pca.get("control"):
        points = pca["control"]
        groups.append(Group("Control, synthetic", CONTROL, len(points), points))
    elif pca.get("control_counts"):
        cells = cells_of(pca["control_counts"], pca)
        faces = pca.get("n_control")
        groups.append(Group("Control, photographs", CONTROL, faces, cells=cells, photographs=True))
    return groups


def cells_of(grid: Sequence[Sequence[int | None]], pca: Mapping[str, Any]) -> list[tuple[float, float, int]]:
    """Middle and count of every cell that is told."""
    x, y = pca["edges_x"], pca["edges_y"]
    return [
        ((x[i] + x[i + 1]) / 2, (y[j] + y[j + 1]) / 2, n)
        for i, column in enumerate(grid)
        for j, n in enumerate(column)
        if n
    ]


def face_map(pca: Mapping[str, Any], groups: Sequence[Group]) -> Drawing:
    a, b = pca["explained"]
    x, y = pca["edges_x"], pca["edges_y"]
    overlaps = (pca.get("overlap") or {}).items()
    words = "; ".join(group.legend for group in groups) + "."
    if overlaps:
        shared = ", ".join(f"{name.replace('_', '-')} {value:.2f}" for name, value in overlaps)
        words += f" Overlap of generated and real, 0 to 1: {shared}."

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.set_xticks(x, minor=True)
        axes.set_yticks(y, minor=True)
        axes.grid(which="minor", color=FAINT, linewidth=0.4)
        axes.tick_params(which="minor", length=0)
        for group in groups:
            if not group.photographs:
                draw_points(axes, group)
        photographs = [group for group in groups if group.photographs]
        scale = scale_of(photographs, x, y)
        for place, group in enumerate(photographs):
            draw_cells(axes, group, place, scale)
        axes.set(
            xlim=(x[0], x[-1]),
            ylim=(y[0], y[-1]),
            xlabel=f"component 1 ({percent(a)} of the variance)",
            ylabel=f"component 2 ({percent(b)})",
        )
        legend = figure.legend(
            *axes.get_legend_handles_labels(),
            loc="outside right upper",
            title="dot: a face\nsymbol: photographs in a cell,\narea: share of their group",
            title_fontsize=SMALL,
            alignment="left",
        )
        for handle in filter(None, legend.legend_handles):
            handle.set_alpha(1)

    return Drawing(
        "face-map",
        "Faces of all groups in one plane",
        words,
        SIZE,
        paint,
        ("group", "component_1", "component_2", "faces"),
        [(group.label, *point, 1) for group in groups for point in group.points]
        + [(group.label, *cell) for group in groups for cell in group.cells],
        is_phantom(pca),
    )


def draw_points(axes: Any, group: Group) -> None:
    """Dots, at most SHOWN_POINTS of a group."""
    step = -(-len(group.points) // SHOWN_POINTS) or 1
    places = list(zip(*group.points[::step], strict=True))
    alone = group.colour == CONTROL
    axes.plot(
        *places,
        "+" if alone else "o",
        color=group.colour,
        markersize=3 if alone else 2.2,
        markeredgewidth=0.5 if alone else 0,
        alpha=0.75 if alone else 0.55,
        clip_on=False,
        label=group.legend,
    )


def draw_cells(axes: Any, group: Group, place: int, scale: Scale) -> None:
    """A hollow symbol a cell, its area the cell's share of the group; groups lie side by side in a cell."""
    shape = SHAPES[place % len(SHAPES)]
    style: Any = {"color": group.colour, "markerfacecolor": "none", "markeredgewidth": 1.2}
    shift = ((place + 0.5) / scale.groups - 0.5) * 0.9 * scale.step
    for x, y, n in group.cells:
        side = max(SMALLEST_SYMBOL, scale.largest * (n / group.drawn / scale.share) ** 0.5)
        axes.plot(x + shift, y, shape, markersize=side, **style)
    axes.plot([], [], shape if group.drawn else "", markersize=5, **style, label=group.legend)


@dataclass(frozen=True)
class Scale:
    """How symbols are drawn: largest: pt of the side of one that stands for `share` of its group.

    groups: of photographs, side by side in a cell; step: a cell's width in the plane.
    """

    largest: float
    share: float
    groups: int
    step: float


def scale_of(photographs: Sequence[Group], x: Sequence[float], y: Sequence[float]) -> Scale:
    """The largest symbols that overlap no neighbour, the same scale for all groups."""
    width, height = (side / INCH * 72 for side in SIZE)
    cell = min(0.6 * width / (len(x) - 1) / max(len(photographs), 1), 0.75 * height / (len(y) - 1))
    shares = [n / group.drawn for group in photographs for _, _, n in group.cells]
    return Scale(0.7 * cell, max(shares, default=1.0), len(photographs), x[1] - x[0])


def spread_table(names: Sequence[str], pca: Mapping[str, Any], labels: Labels) -> Table:
    """How far faces of a group lie from its middle, and how much generated and real share."""
    spread, overlap = pca.get("spread") or {}, pca.get("overlap") or {}
    rows = []
    for name in names:
        title = labels.name(name)
        n_real = told_count((pca.get("n_real") or {}).get(name))
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
        rows.append(Row("Control", [Cell(told_count(pca.get("n_control"))), number(control), Cell("")]))
    return Table(
        "Spread (root mean square distance from the group’s mean, all 512 dimensions) and overlap (shared "
        "area of the two histograms, 0 to 1)",
        ("Group", "Faces", "Spread", "Overlap with real"),
        rows,
        tag=PHANTOM_TAG if is_phantom(pca) else "",
    )


def number(value: float | None) -> Cell:
    return Cell("") if value is None else Cell(f"{value:.3f}")


def told_count(n: int | None) -> str:
    return "not told" if n is None else f"{n:,}"

"""The plot of memorising against fit: both over the steps an image, a line a rank and kind of captions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..diffusioncleft_core.report.drawing import CONTROL, DOUBLE, FAINT, Drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = (
    ("excess", "Nearer to training faces\nthan to unseen faces (cosine)"),
    ("obedience", "Pictures that show the cleft\nthat was asked for"),
)
_WORDS = {"full": "whole captions", "trigger": "trigger alone"}
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b0568c")
_LINES = {"full": "-", "trigger": "--"}
_MARKS = {"full": "o", "trigger": "s"}


def memorisation_drawing(document: Mapping[str, Any]) -> Drawing:
    """The drawing of what `tools.memorisation` measured."""
    loras = {name: row for name, row in document["loras"].items() if row["captions"] != "base"}
    base = document["loras"].get("base")
    steps = sorted({row["steps_per_image"] for row in loras.values()})
    ranks = sorted({row["rank"] for row in loras.values()})
    series = [(rank, kind) for kind in _WORDS for rank in ranks]

    def paint(figure: Figure) -> None:
        axes = figure.subplots(1, 2)
        for side, (name, label) in zip(axes, PANELS, strict=True):
            side.grid(axis="y", color=FAINT, linewidth=0.5)
            for place, (rank, kind) in enumerate(series):
                rows = sorted(
                    (row for row in loras.values() if (row["rank"], row["captions"]) == (rank, kind)),
                    key=lambda row: row["steps_per_image"],
                )
                rows = [row for row in rows if row[name]["value"] is not None]
                values = [row[name]["value"] for row in rows]
                # Beside one another, so that no interval hides another's.
                spread = 1 + 0.03 * (place - (len(series) - 1) / 2)
                side.errorbar(
                    [row["steps_per_image"] * spread for row in rows],
                    values,
                    yerr=[
                        [max(0.0, v - row[name]["ci95"][0]) for v, row in zip(values, rows, strict=True)],
                        [max(0.0, row[name]["ci95"][1] - v) for v, row in zip(values, rows, strict=True)],
                    ],
                    color=_COLOURS[ranks.index(rank) % len(_COLOURS)],
                    linestyle=_LINES[kind],
                    marker=_MARKS[kind],
                    capsize=2,
                    elinewidth=0.8,
                    label=f"rank {rank}, {_WORDS[kind]}",
                )
            if base and base[name]["value"] is not None:
                side.axhline(
                    base[name]["value"], color=CONTROL, linewidth=0.8, linestyle=":", label="no LoRA"
                )
            side.set_xscale("log")
            side.set_xticks(steps, [f"{step} N" for step in steps])
            side.minorticks_off()
            side.set_xlabel(f"Steps (N = {document['people']} training images)")
            side.set_ylabel(label)
        axes[1].set_ylim(-0.02, 1.04)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower left", ncols=3, borderaxespad=0.2)

    return Drawing(
        name="memorisation",
        title="Memorising against fit",
        description="Likeness to training faces and obedience over steps, by rank and captions",
        size=(DOUBLE, 78.0),
        paint=paint,
        columns=("captions", "rank", "steps_per_image", "excess", "obedience"),
        rows=[
            (
                row["captions"],
                row["rank"],
                row["steps_per_image"],
                row["excess"]["value"],
                row["obedience"]["value"],
            )
            for row in loras.values()
        ],
        phantom=True,
    )

"""The loss history of one training as a plot: losses, regularisation, validation and the learning rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .drawing import COLOURS, CONTROL, FAINT, SINGLE, Drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 1.4 * SINGLE, 80.0
"""Of the plot, mm."""
_SHARE = 20
"""Of the steps, how many go into a window of the smoothed loss: one in so many."""


def smoothed(values: Sequence[float], window: int) -> npt.NDArray[np.float64]:
    """Mean over a window centred at each value, as far as there are values: [n] -> [n]."""
    sums = np.concatenate([[0.0], np.cumsum(np.asarray(values, np.float64))])
    places = np.arange(len(values))
    low = np.maximum(places - window // 2, 0)
    high = np.minimum(places + (window + 1) // 2, len(values))
    return np.asarray((sums[high] - sums[low]) / (high - low))


def loss_history(rows: Sequence[Mapping[str, float]], *, phantom: bool = False) -> Drawing | None:
    """The rows of a `loss.jsonl` as a plot; None of fewer than two steps.

    Above: the loss of every step, faint, and smoothed over a twentieth of the steps; regularisation likewise;
    the validation loss where it was computed. Below: the learning rate.
    """
    if len(rows) < 2:
        return None
    steps = [int(row["step"]) for row in rows]
    window = max(1, len(rows) // _SHARE)
    shown = [("loss", "training", COLOURS["first"], "-"), ("reg_loss", "regularisation", CONTROL, "--")]
    validated = [(int(row["step"]), row["val_loss"]) for row in rows if "val_loss" in row]

    def paint(figure: Figure) -> None:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
        for axes in (above, below):
            axes.grid(axis="y", color=FAINT, linewidth=0.5)
        highest = []
        for key, label, colour, line in shown:
            part = [(step, row[key]) for step, row in zip(steps, rows, strict=True) if key in row]
            if not part:
                continue
            at, values = zip(*part, strict=True)
            mean = smoothed(values, window)
            above.plot(at, values, color=colour, alpha=0.25, linewidth=0.6)
            above.plot(at, mean, line, color=colour, label=f"{label}, mean of {window} steps")
            highest += [float(np.percentile(values, 99)), float(mean.max())]
        if validated:
            at, values = zip(*validated, strict=True)
            above.plot(
                at, values, "o-", color=COLOURS["second"], markersize=3, clip_on=False, label="validation"
            )
            highest.append(max(values))
        above.set(ylabel="loss", ylim=(0, 1.08 * max(highest) or 1.0))
        below.plot(steps, [row["lr"] for row in rows], color=COLOURS["third"])
        below.set(xlim=(0, steps[-1]), xlabel="step", ylabel="learning rate")
        below.set_ylim(0, 1.15 * max(row["lr"] for row in rows))
        below.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
        below.yaxis.get_offset_text().set_fontsize(6.5)
        below.locator_params(axis="x", integer=True)
        below.xaxis.set_major_formatter("{x:,.0f}")
        handles, labels = above.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower left", ncols=2, borderaxespad=0.2)
        figure.align_ylabels([above, below])

    columns = ("step", "loss", "reg_loss", "val_loss", "lr")
    numbers: list[list[Any]] = [[row.get(name, "") for name in columns] for row in rows]
    title, words = "Loss over the steps", f"Loss and learning rate of {steps[-1]:,} steps."
    return Drawing("loss", title, words, (WIDTH, HEIGHT), paint, columns, numbers, phantom)

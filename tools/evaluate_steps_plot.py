"""The plot of a base and its LoRAs at few and many sampling steps."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from ..diffusioncleft_core.report.drawing import CONTROL, DOUBLE, FAINT, Drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLOURS = {"without": "#d55e00", "with": "#0072b2"}
_LINES = {4: "-", 28: "--"}


def mean_and_interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean over the seeds and half the width of its 95 % interval (Student's t); 0 of a single seed."""
    found = np.asarray(values, float)
    if len(found) < 2:
        return float(found.mean()), 0.0
    spread = stats.sem(found) * stats.t.ppf(0.975, len(found) - 1)
    return float(found.mean()), float(spread)


def summary(document: Mapping[str, Any]) -> tuple[dict[int, tuple[float, float]], dict[Any, Any]]:
    """(mean, half interval) of the base by sampling steps, 0: rendered phantoms; of the LoRAs by adapter,
    training step and sampling steps.
    """
    base: dict[int, list[float]] = defaultdict(list)
    for name, value in document["base"].items():
        base[0 if name.startswith("rendered") else int(name.split()[0])].append(value)
    loras: dict[tuple[str, int, int], list[float]] = defaultdict(list)
    for name, value in document["loras"].items():
        kind, step, steps = re.findall(r"(\w+)/step(\d+)/(\d+) steps/", name)[0]
        loras[kind, int(step), int(steps)].append(value)
    return (
        {steps: mean_and_interval(values) for steps, values in sorted(base.items())},
        {key: mean_and_interval(values) for key, values in sorted(loras.items())},
    )


def steps_drawing(document: Mapping[str, Any]) -> Drawing:
    """The drawing of what `tools.evaluate_steps` measured."""
    base, loras = summary(document)
    steps = [count for count in base if count]

    def paint(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        for side in (left, right):
            side.grid(axis="y", color=FAINT, linewidth=0.5)
            side.set_ylabel("Distance to rendered phantoms")
        left.errorbar(
            steps, [base[s][0] for s in steps], yerr=[base[s][1] for s in steps],
            color="#009e73", marker="o", capsize=2, label="base model",
        )  # fmt: skip
        if 0 in base:
            left.axhline(
                base[0][0], color=CONTROL, linewidth=0.8, linestyle=":", label="other rendered phantoms"
            )
        left.set_xscale("log")
        left.set_xticks(steps, [str(s) for s in steps])
        left.minorticks_off()
        left.set_xlabel("Sampling steps")
        left.set_ylim(bottom=0)
        left.legend(loc="upper right")
        for kind, colour in _COLOURS.items():
            for count, line in _LINES.items():
                points = [(step, *value) for (k, step, c), value in loras.items() if (k, c) == (kind, count)]
                if points:
                    x, y, half = zip(*points, strict=True)
                    label = f"{kind} adapter, {count} steps"
                    right.errorbar(
                        x, y, half, color=colour, linestyle=line, marker="o", capsize=2, label=label
                    )
        right.set_xlabel("Steps of training")
        if loras:
            right.set_ylim(bottom=0)
            right.legend(loc="lower left")

    rows: list[tuple[object, ...]] = [("base", 0, s, *base[s]) for s in base]
    rows += [(*key, *value) for key, value in loras.items()]
    return Drawing(
        name="training-adapter",
        title="The embedded base and its LoRAs at few and many steps",
        description="Distance to rendered phantoms by sampling steps, and in the course of training",
        size=(DOUBLE, 72.0),
        paint=paint,
        columns=("what", "training_step", "sampling_steps", "distance", "half_interval"),
        rows=rows,
        phantom=True,
    )

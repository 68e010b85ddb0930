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
_BASES = {"embedded": "#009e73", "straightened": "#cc79a7"}
_LINES = {1: "-", 4: "--"}
_MARKS = {1: "o", 4: "s"}
RENDERED = "rendered"


def mean_and_interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean over the seeds and half the width of its 95 % interval (Student's t); 0 of a single seed."""
    found = np.asarray(values, float)
    if len(found) < 2:
        return float(found.mean()), 0.0
    spread = stats.sem(found) * stats.t.ppf(0.975, len(found) - 1)
    return float(found.mean()), float(spread)


def summary(document: Mapping[str, Any]) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """(mean, half interval) of the bases by (base, sampling steps), `RENDERED` with 0 steps; of the LoRAs by
    (adapter, training step, sampling steps).
    """
    bases: dict[tuple[str, int], list[float]] = defaultdict(list)
    for name, value in document["bases"].items():
        kind, *steps = name.split("/")[:-1]
        bases[kind, int(steps[0].split()[0]) if steps else 0].append(value)
    loras: dict[tuple[str, int, int], list[float]] = defaultdict(list)
    for name, value in document["loras"].items():
        kind, step, steps = re.findall(r"(\w+)/step(\d+)/(\d+) steps?/", name)[0]
        loras[kind, int(step), int(steps)].append(value)
    return (
        {key: mean_and_interval(values) for key, values in sorted(bases.items())},
        {key: mean_and_interval(values) for key, values in sorted(loras.items())},
    )


def steps_drawing(document: Mapping[str, Any]) -> Drawing:
    """The drawing of what `tools.evaluate_steps` measured."""
    bases, loras = summary(document)
    counts = sorted({steps for _, steps in bases if steps})

    def paint(figure: Figure) -> None:
        left, right = figure.subplots(1, 2)
        for side in (left, right):
            side.grid(axis="y", color=FAINT, linewidth=0.5)
            side.set_ylabel("Distance to rendered phantoms")
        for base, colour in _BASES.items():
            points = [(steps, *value) for (kind, steps), value in bases.items() if kind == base]
            if points:
                x, y, half = zip(*points, strict=True)
                left.errorbar(x, y, half, color=colour, marker="o", capsize=2, label=f"{base} base")
        if (RENDERED, 0) in bases:
            left.axhline(
                bases[RENDERED, 0][0],
                color=CONTROL,
                linewidth=0.8,
                linestyle=":",
                label="other rendered phantoms",
            )
        left.set_xscale("log")
        left.set_xticks(counts, [str(count) for count in counts])
        left.minorticks_off()
        left.set_xlabel("Sampling steps")
        left.set_ylim(bottom=0)
        left.legend(loc="lower right")
        for kind, colour in _COLOURS.items():
            for count, line in _LINES.items():
                points = [(step, *value) for (k, step, c), value in loras.items() if (k, c) == (kind, count)]
                if points:
                    x, y, half = zip(*points, strict=True)
                    label = f"{kind} adapter, {count} step{'s' if count > 1 else ''}"
                    right.errorbar(
                        x, y, half, color=colour, linestyle=line, marker=_MARKS[count], capsize=2, label=label
                    )
        right.set_xlabel("Steps of training")
        if loras:
            right.set_ylim(bottom=0)
            right.legend(loc="lower left", handlelength=3.5)

    rows: list[tuple[object, ...]] = [
        (f"{kind} base" if n else kind, 0, n, *v) for (kind, n), v in bases.items()
    ]
    rows += [(*key, *value) for key, value in loras.items()]
    return Drawing(
        name="training-adapter",
        title="A few-step base and its LoRAs at few and many steps",
        description="Distance to rendered phantoms by sampling steps, and in the course of training",
        size=(DOUBLE, 72.0),
        paint=paint,
        columns=("what", "training_step", "sampling_steps", "distance", "half_interval"),
        rows=rows,
        phantom=True,
    )

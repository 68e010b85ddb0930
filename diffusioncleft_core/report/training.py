"""How the LoRAs learned: settings, loss over the steps, previews on the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..files import read_jsonl
from .blocks import Block, Cell, Gallery, Legend, Plot, Plots, Row, Section, Table
from .numbers import condition_name, count
from .similarity import series_of
from .svg import Axis, Chart

BINS = 100
NO_CURVE = "There is no loss history in this report: it lies in loss.jsonl of each LoRA’s folder."


def loss_curve(path: Path, bins: int = BINS) -> dict[str, Any]:
    """A loss history (`loss.jsonl`) in at most `bins` equal parts.

    Returns {"steps": [last step of each part], "loss": {"mean": [...], "low": [...], "high": [...]}} and
    "reg_loss" likewise where every step has one; low and high are the 10th and 90th percentiles of a part.
    """
    rows = [row for row in read_jsonl(path) if {"step", "loss"} <= row.keys()]
    parts = [part for part in np.array_split(np.arange(len(rows)), min(bins, len(rows)) or 1) if len(part)]
    curve: dict[str, Any] = {"steps": [int(rows[part[-1]]["step"]) for part in parts]}
    for key in ("loss", "reg_loss"):
        if rows and all(key in row for row in rows):
            values = np.array([float(row[key]) for row in rows])
            curve[key] = {
                "mean": [round(float(values[part].mean()), 5) for part in parts],
                "low": [round(float(np.percentile(values[part], 10)), 5) for part in parts],
                "high": [round(float(np.percentile(values[part], 90)), 5) for part in parts],
            }
    return curve


def training_section(document: Mapping[str, Any], previews: Sequence[Gallery], missing: str = "") -> Section:
    """From `training` and `figures.loss`; previews: one gallery a prompt."""
    title = "Training"
    training = document.get("training") or {}
    curves = ((document.get("figures") or {}).get("loss")) or {}
    if not training and not curves and not previews:
        return Section("training", title, missing="This report knows nothing of a training.")
    blocks: list[Block] = [training_table(training)] if training else []
    plots = [plot for name, curve in curves.items() if (plot := loss_plot(name, curve)) is not None]
    blocks += [Plots(plots)] if plots else []
    blocks += previews
    said = [missing, "" if plots else NO_CURVE]
    return Section("training", title, blocks=blocks, missing=" ".join(filter(None, said)))


def training_table(training: Mapping[str, Any]) -> Table:
    rows: list[Row] = []
    names = list(training)

    def line(head: str, values: Sequence[object]) -> None:
        if any(value not in (None, "") for value in values):
            rows.append(Row(head, [Cell(text_of(value)) for value in values]))

    parts = [training[name] for name in names]
    chosen = [part.get("settings") or {} for part in parts]
    last = [part.get("last_step") or {} for part in parts]
    rows.append(Row("Training images", [Cell(count(part.get("training_images"))) for part in parts]))
    rows.append(Row("Held out", [Cell(count(part.get("holdout_images"))) for part in parts]))
    line("Regularisation images", [part.get("regularization_images") for part in parts])
    line("Steps", [each.get("max_train_steps") for each in chosen])
    line("Learning rate", [each.get("learning_rate") for each in chosen])
    line("Rank, alpha", [rank_of(each) for each in chosen])
    line("Resolution, px", [", ".join(map(str, each.get("resolution") or [])) for each in chosen])
    line("Last loss", [f"{each['loss']:.3f}" if "loss" in each else None for each in last])
    return Table("What each LoRA was trained on and with", ("", *map(condition_name, names)), rows)


def rank_of(settings: Mapping[str, Any]) -> str:
    if "network_dim" not in settings:
        return ""
    return f"{settings['network_dim']:g}, {settings.get('network_alpha', 0):g}"


def text_of(value: object) -> str:
    if value is None:
        return ""
    return (
        f"{value:g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
    )


def loss_plot(name: str, curve: Mapping[str, Any]) -> Plot | None:
    steps, loss = curve.get("steps") or [], curve.get("loss")
    if len(steps) < 2 or not loss:
        return None
    shown = {key: curve[key] for key in ("loss", "reg_loss") if curve.get(key)}
    title = f"{condition_name(name)}: loss over the steps"
    words = (
        f"Mean loss {loss['mean'][0]:.3f} in the first part, {loss['mean'][-1]:.3f} in the last, of "
        f"{steps[-1]:,} steps."
    )
    low = min(min(part["low"]) for part in shown.values())
    high = max(max(part["high"]) for part in shown.values())
    room = 0.05 * (high - low) or 0.01
    chart = Chart(
        f"loss-{name}",
        title,
        words,
        Axis(0, steps[-1], "step", show=lambda value: f"{value:,.0f}"),
        Axis(max(0.0, low - room), high + room, "loss"),
    )
    legend = []
    labels = {"loss": "photographs", "reg_loss": "regularisation images"}
    for key, part in shown.items():
        series = series_of(name) if key == "loss" else "control"
        chart.band(list(zip(steps, part["low"], part["high"], strict=True)), series)
        chart.line(list(zip(steps, part["mean"], strict=True)), series, dashed=key != "loss")
        mark = "line" if key == "loss" else "dashes"
        legend.append(Legend(mark, series, f"mean, {labels[key]} (band: 10 to 90 % of the steps)"))
    return Plot(chart.draw(), f"{title}. {words}", legend)

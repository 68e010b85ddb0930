"""The report's sections on training, provenance and the oracle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..files import read_jsonl
from .blocks import (
    PHANTOM_TAG,
    Block,
    Cell,
    Gallery,
    Labels,
    Plot,
    Plots,
    Row,
    Section,
    Table,
    count,
    interval,
    labels_of,
    percent,
    plain,
    plotted,
    sentence,
)
from .drawing import CONTROL, INK, SINGLE, Drawing, colour_of, file_name, legend_below, plain_axes
from .summary import figure_rows, goal_of, length_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BINS = 100
NO_CURVE = "There is no loss history in this report: it lies in loss.jsonl of each LoRA’s folder."


def loss_curve(path: Path, bins: int = BINS) -> dict[str, Any]:
    """A loss history (`loss.jsonl`) in at most `bins` equal parts.

    Returns:
        {"steps": [last step of each part], "loss": {"mean": [...], "low": [...], "high": [...]}} and
        "reg_loss" likewise where every step has one; low and high are the 10th and 90th percentiles of a
        part. "val_loss": {"steps": [...], "values": [...]} where the hold-out was validated on.
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
    if validated := [row for row in rows if "val_loss" in row]:
        curve["val_loss"] = {
            "steps": [int(row["step"]) for row in validated],
            "values": [round(float(row["val_loss"]), 5) for row in validated],
        }
    return curve


def training_section(document: Mapping[str, Any], previews: Sequence[Gallery], missing: str = "") -> Section:
    """From `training` and `figures.loss`; previews: one gallery a prompt."""
    title = "Training"
    labels = labels_of(document)
    training = document.get("training") or {}
    curves = ((document.get("figures") or {}).get("loss")) or {}
    if not training and not curves and not previews:
        return Section("training", title, missing="This report knows nothing of a training.")
    blocks: list[Block] = [training_table(training, labels)] if training else []
    phantom = bool(document.get("phantom"))
    found = [loss_plot(name, curve, labels, phantom=phantom) for name, curve in curves.items()]
    plots = [plot for plot in found if plot is not None]
    blocks += [Plots(plots)] if plots else []
    blocks += previews
    said = [missing, "" if plots else NO_CURVE]
    return Section("training", title, blocks=blocks, missing=" ".join(filter(None, said)))


def training_table(training: Mapping[str, Any], labels: Labels) -> Table:
    rows: list[Row] = []
    names = list(training)

    def line(head: str, values: Sequence[object]) -> None:
        if any(value not in (None, "") for value in values):
            rows.append(Row(head, [Cell(text_of(value)) for value in values]))

    parts = [training[name] for name in names]
    recipes = [recipe_of(part) for part in parts]
    last = [part.get("last_step") or {} for part in parts]
    rows.append(Row("Training images", [Cell(count(part.get("training_images"))) for part in parts]))
    rows.append(Row("Held out", [Cell(count(part.get("holdout_images"))) for part in parts]))
    line("Regularisation images", [part.get("regularization_images") for part in parts])
    steps = zip(recipes, last, strict=True)
    line("Steps", [length_of(recipe, end) if "steps" in recipe else None for recipe, end in steps])
    line("Learning rate", [recipe.get("learning_rate") for recipe in recipes])
    line("Rank, alpha", [rank_of(recipe) for recipe in recipes])
    line("Resolution, px", [", ".join(map(str, recipe.get("resolution") or [])) for recipe in recipes])
    line("Last loss", [f"{each['loss']:.3f}" if "loss" in each else None for each in last])
    return Table("What each LoRA was trained on and with", ("", *map(labels.name, names)), rows)


def recipe_of(part: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a training's recipe by name; a report of version 0.1.0 has them by kohya's names."""
    if "recipe" not in part:
        old = part.get("settings") or {}
        names = {"max_train_steps": "steps", "network_dim": "rank", "network_alpha": "alpha"}
        return {names.get(name, name): value for name, value in old.items()}
    groups = (part["recipe"].get(group) or {} for group in ("data", "network", "optimizer"))
    return {name: value for group in groups for name, value in group.items()}


def rank_of(recipe: Mapping[str, Any]) -> str:
    if "rank" not in recipe:
        return ""
    return f"{recipe['rank']:g}, {recipe.get('alpha', 0):g}"


def text_of(value: object) -> str:
    if value is None:
        return ""
    return (
        f"{value:g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
    )


def loss_plot(name: str, curve: Mapping[str, Any], labels: Labels, *, phantom: bool) -> Plot | None:
    steps, loss = curve.get("steps") or [], curve.get("loss")
    if len(steps) < 2 or not loss:
        return None
    shown = {key: curve[key] for key in ("loss", "reg_loss") if curve.get(key)}
    title = f"{labels.name(name)}: loss over the steps"
    words = (
        f"Mean loss {loss['mean'][0]:.3f} in the first part, {loss['mean'][-1]:.3f} in the last, of "
        f"{steps[-1]:,} steps. Band: 10 to 90 % of the steps of a part."
    )
    colours = {"loss": colour_of(labels.series(name)), "reg_loss": CONTROL}
    sources = {"loss": "photographs", "reg_loss": "regularisation"}
    held_out = curve.get("val_loss") or {"steps": [], "values": []}

    def paint(figure: Figure) -> None:
        axes = plain_axes(figure)
        for key, part in shown.items():
            axes.fill_between(steps, part["low"], part["high"], color=colours[key], alpha=0.2, linewidth=0)
            line = "-" if key == "loss" else "--"
            axes.plot(steps, part["mean"], line, color=colours[key], label=f"mean, {sources[key]}")
        if held_out["steps"]:
            axes.plot(
                held_out["steps"], held_out["values"], "o:", color=INK, markersize=2.5, label="hold-out"
            )
        axes.set(xlim=(0, steps[-1]), xlabel="step", ylabel="loss")
        axes.set_ylim(bottom=max(0.0, axes.get_ylim()[0]))
        axes.locator_params(axis="x", integer=True)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        legend_below(figure, axes)

    rows: list[tuple[Any, ...]] = [
        (sources[key], *values)
        for key, part in shown.items()
        for values in zip(steps, part["mean"], part["low"], part["high"], strict=True)
    ]
    rows += [
        ("hold-out", step, value, "", "")
        for step, value in zip(held_out["steps"], held_out["values"], strict=True)
    ]
    columns = ("trained_on", "step", "mean_loss", "percentile_10", "percentile_90")
    return plotted(
        Drawing(file_name("loss", name), title, words, (SINGLE, 55), paint, columns, rows, phantom)
    )


def provenance_section(document: Mapping[str, Any]) -> Section:
    """Tables from `provenance`."""
    facts = document.get("provenance") or {}
    title = "Provenance"
    if not facts:
        return Section("provenance", title, missing="This report does not say what made it.")
    blocks: list[Block] = []
    seconds = facts.get("seconds") or {}
    if seconds:
        blocks.append(seconds_table(seconds))
    for key, caption in (("hardware", "Machine"), ("versions", "Software versions")):
        if facts.get(key):
            rows = [
                Row(name.replace("_", " "), [Cell(str(value), numeric=False)])
                for name, value in facts[key].items()
            ]
            blocks.append(Table(caption, ("", "Value"), rows, folded=True))
    blocks.append(Table("Seeds, models and memory", ("", "Value"), other_rows(facts), folded=True))
    return Section("provenance", title, blocks=blocks)


def seconds_table(seconds: Mapping[str, float]) -> Table:
    total = sum(seconds.values())
    rows = [
        Row(name, [Cell(f"{value:,.1f}", bar=value / total if total else None)])
        for name, value in seconds.items()
    ]
    rows.append(Row("Sum", [Cell(f"{total:,.1f}")]))
    return Table("Seconds a stage (stages may run side by side)", ("Stage", "Seconds"), rows)


def other_rows(facts: Mapping[str, Any]) -> list[Row]:
    found: list[tuple[str, object]] = [("seed", facts.get("seed"))]
    found += flat("base model sha256", facts.get("base_model_sha256"))
    for condition, pack in (facts.get("faces") or {}).items():
        found += flat(f"faces {condition}", pack)
    found += flat("peak memory GiB", facts.get("peak_memory_gib"))
    return [
        Row(name.replace("_", " "), [Cell(str(value), numeric=False)])
        for name, value in found
        if value is not None
    ]


def flat(name: str, value: Any) -> list[tuple[str, object]]:
    """A nested value as (`name key`, value) lines."""
    if isinstance(value, Mapping):
        return [line for key, part in value.items() for line in flat(f"{name} {key}", part)]
    if isinstance(value, list | tuple):
        return [(name, ", ".join(map(str, value)))]
    return [(name, value)]


LABELS = {
    "trigger_obedience": "Full prompt shows its finding",
    "cleft_type_accuracy": "Cleft type as asked, where one is shown",
    "cleft_prompt_without_trigger": "Finding without the trigger, cleft prompt",
    "healthy_prompt_without_trigger": "Finding without the trigger, healthy prompt",
    "trigger_with_healthy_prompt": "Finding with the trigger, healthy prompt",
    "other_trigger": "Finding under the contrast’s trigger",
}


def oracle_section(document: Mapping[str, Any]) -> Section:
    """One table a condition, from `oracle`."""
    title = "What the oracle saw"
    oracle = document.get("oracle") or {}
    if not oracle:
        return Section(
            "oracle",
            title,
            missing="There are no oracle figures: they need ground truth, which only phantoms have.",
        )
    lead = (
        "On phantoms the ground truth is known, and an oracle network reads it from the pictures; its own "
        "errors are corrected for and widen the intervals. All of it is about drawings."
    )
    labels = labels_of(document)
    tables = [oracle_table(name, figures, labels) for name, figures in oracle.items()]
    return Section("oracle", title, lead, tables)


def oracle_table(name: str, figures: Mapping[str, Any], labels: Labels) -> Table:
    rows = []
    for label, figure, unit in figure_rows(figures):
        share = unit == "%"
        value = figure["value"]

        def show(number: float, share: bool = share, unit: str = unit) -> str:
            return percent(number) if share else f"{plain(number, 1)} {unit}"

        small = "; ".join(filter(None, [interval(figure.get("ci95"), show), f"n = {figure['n']:,}"]))
        goal = goal_of(label, figure) if share else ""
        rows.append(
            Row(
                label_of(label),
                [
                    Cell("none" if value is None else show(value), small, bar=value if share else None),
                    Cell(goal, numeric=False),
                ],
            )
        )
    return Table(
        f"{labels.name(name)}: figures read from pictures",
        ("Figure", "Value", "Goal"),
        rows,
        tag=PHANTOM_TAG,
    )


def label_of(label: str) -> str:
    """`trigger_obedience, dark skin` → `…, dark skin`, indented under its whole."""
    head, comma, rest = label.partition(", ")
    if comma and head in LABELS:
        return f"– {rest}"
    return LABELS.get(label, sentence(label.replace("_", " ")).rstrip("."))

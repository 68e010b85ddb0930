"""A run's contact sheets, and its report as Markdown for a person."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..files import inside
from ..imageset.manifest import raw_rows, read_image_set
from ..imageset.places import sidecar_of
from ..imageset.synthetic import contact_sheet, read_pictures, short_label
from .blocks import count
from .pictures import withheld

SCHEMA = 1
SHEET_IMAGES = 100
GOALS = {
    "trigger_obedience": ("at least", 0.90),
    "cleft_type_accuracy": ("at least", 0.85),
    "cleft_prompt_without_trigger": ("at most", 0.10),
    "healthy_prompt_without_trigger": ("at most", 0.10),
}
SKIN_GOAL = ("at least", 0.80)
"""Trigger obedience in every skin tone."""


def write_contact_sheet(folder: Path, path: Path, title: str, *, phantom: bool) -> int:
    """A sheet of the first images of a generated set; returns how many it shows.

    What a report must not show (`pictures.withheld`) is not on it, and without any image there is no sheet.
    Images that no filter saw yet are on it: such a sheet is for the person who made them.
    """
    rows = raw_rows(read_image_set(folder))
    rows = [row for row in rows if not withheld(row.verdicts, phantom=phantom or not row.verdicts)]
    rows = [row for row in rows if inside(folder, row.file).is_file()][:SHEET_IMAGES]
    if not rows:
        path.unlink(missing_ok=True)
        sidecar_of(path).unlink(missing_ok=True)
        return 0
    images = read_pictures(folder, [row.file for row in rows])
    labels = [short_label(row.attributes) for row in rows]
    what = "synthetic phantom images" if phantom else "synthetic images"
    record = {"loras": sorted({row.lora for row in rows if row.lora})}
    contact_sheet(list(zip(images, labels, strict=True)), path, title=f"{title}: {what}", record=record)
    return len(rows)


def summarize(report: Mapping[str, Any]) -> str:
    """The report as Markdown for a person."""
    lines = ["# Summary of the run", ""]
    lines += [f"- {note}" for note in report["notes"]]
    lines += [
        "",
        "## Training",
        "",
        "| condition | training images | held out | regularisation images | steps | last loss |",
    ]
    lines += ["| --- | ---: | ---: | ---: | ---: | ---: |"]
    for name, facts in report["training"].items():
        last = facts["last_step"]
        loss = f"{last['loss']:.3f}" if last else ""
        steps = facts["recipe"]["optimizer"]["steps"]
        lines.append(
            f"| {name} | {count(facts['training_images'])} | {count(facts['holdout_images'])} | "
            f"{facts['regularization_images']} | {steps} | {loss} |"
        )
    if report["oracle"]:
        lines += [
            "",
            "## What the oracle saw",
            "",
            "| condition | figure | value | 95 % interval | n | goal |",
        ]
        lines += ["| --- | --- | ---: | --- | ---: | --- |"]
        for name, figures in report["oracle"].items():
            lines += [figure_line(name, *row) for row in figure_rows(figures)]
    lines += ["", "## Time", "", "| stage | seconds |", "| --- | ---: |"]
    lines += [f"| {name} | {value:.1f} |" for name, value in report["provenance"]["seconds"].items()]
    return "\n".join(lines) + "\n"


def figure_rows(figures: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any], str]]:
    """(label, figure, unit) of everything the oracle measured, in reading order."""
    rows: list[tuple[str, Mapping[str, Any], str]] = []
    for key in ("trigger_obedience", "cleft_type_accuracy"):
        if key in figures:
            rows.append((key, figures[key], "%"))
            rows += [
                (f"{key}, {tone} skin", part, "%") for tone, part in figures[key].get("by_skin", {}).items()
            ]
    rows += [(cell, figure, "%") for cell, figure in figures.get("trigger_selectivity", {}).items()]
    for cell, parts in figures.get("drift", {}).items():
        rows.append((f"drift, {cell}: mean absolute difference", parts["mean_absolute_difference"], "levels"))
        rows.append((f"drift, {cell}: PSNR", parts["psnr"], "dB"))
    return rows


def figure_line(condition: str, label: str, figure: Mapping[str, Any], unit: str) -> str:
    goal = goal_of(label, figure["value"]) if unit == "%" else ""
    low, high = figure["ci95"]
    interval = f"{shown(low, unit)} to {shown(high, unit)}"
    cells = [
        condition,
        label.replace("_", " "),
        shown(figure["value"], unit),
        interval,
        str(figure["n"]),
        goal,
    ]
    return f"| {' | '.join(cells)} |"


def goal_of(label: str, value: float | None) -> str:
    """`at least 90 %: reached`; "" for a figure without a goal."""
    goal = GOALS.get(label)
    if label.startswith("trigger_obedience, "):
        goal = SKIN_GOAL
    if goal is None:
        return ""
    word, bound = goal
    if value is None:
        return f"{word} {bound:.0%}: not measured"
    reached = value >= bound if word == "at least" else value <= bound
    return f"{word} {bound:.0%}: {'reached' if reached else 'not reached'}"


def shown(value: float | None, unit: str) -> str:
    if value is None:
        return "none"
    return f"{100 * value:.1f} %" if unit == "%" else f"{value:.1f} {unit}"

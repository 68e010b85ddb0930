"""A run's contact sheets, and its report as Markdown for a person."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from ..downstream.document import NOTICE
from ..files import inside
from ..imageset.decode import REASONS
from ..imageset.manifest import image_set_rows
from ..imageset.places import sidecar_of
from ..imageset.synthetic import contact_sheet, read_pictures, short_label
from ..recipe.recipe import STEPS_PER_IMAGE
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
FEWEST_READINGS = 10
"""Readings below which no goal is called reached or missed."""
SKIN_GOAL = ("at least", 0.80)
"""Trigger obedience in every skin tone."""


def write_contact_sheet(folder: Path, path: Path, title: str, *, phantom: bool) -> int:
    """A sheet of the first images of a generated set; returns how many it shows.

    What a report must not show (`pictures.withheld`) is not on it, and without any image there is no sheet.
    Images that no filter saw yet are on it: such a sheet is for the person who made them.
    """
    fit = (
        row
        for row in image_set_rows(folder)
        if row.is_raw
        and not withheld(row.verdicts, phantom=phantom or not row.verdicts)
        and inside(folder, row.file).is_file()
    )
    rows = list(islice(fit, SHEET_IMAGES))
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
        steps = length_of(facts["recipe"]["optimizer"], last)
        lines.append(
            f"| {name} | {count(facts['training_images'])} | {count(facts['holdout_images'])} | "
            f"{facts['regularization_images']} | {steps} | {loss} |"
        )
    aside = [row for name, facts in report["training"].items() for row in aside_rows(name, facts)]
    if aside:
        lines += ["", "## Photographs set aside", "", "| condition | reason | photographs |"]
        lines += ["| --- | --- | ---: |", *aside]
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
    lines += downstream_lines(report.get("downstream") or {})
    lines += study_lines(report.get("study") or {})
    lines += ["", "## Time", "", "| stage | seconds |", "| --- | ---: |"]
    lines += [f"| {name} | {value:.1f} |" for name, value in report["provenance"]["seconds"].items()]
    return "\n".join(lines) + "\n"


def length_of(optimizer: Mapping[str, Any], last: Mapping[str, Any]) -> int | str:
    """Steps that a training made, of its last step; what its recipe says where they are not told."""
    if steps := last.get("step") or optimizer["steps"]:
        return int(steps)
    epochs = optimizer.get("epochs")
    return f"{epochs} epochs" if epochs else f"{STEPS_PER_IMAGE} a training image"


def downstream_lines(downstream: Mapping[str, Any]) -> list[str]:
    """What the images are good for: the reading of each task, and a line for each source."""
    if not downstream.get("tasks"):
        return []
    lines = ["", "## What the images are good for", "", NOTICE, ""]
    for task in downstream["tasks"].values():
        test = task["test"]
        known = [test.get(key) or "" for key in ("leak", "chosen")]
        more = "".join(f" ({clause})" for clause in known if clause not in task["reading"])
        lines.append(f"- {task['title']}: {task['reading']}{more}")
    lines += ["", "| task | trained on | accuracy | 95 % interval | AUC | 95 % interval | n |"]
    lines += ["| --- | --- | ---: | --- | ---: | --- | ---: |"]
    for task in downstream["tasks"].values():
        for source, figures in task["sources"].items():
            cells = [task["title"], source, *downstream_cells(figures["accuracy"], "%")]
            cells += [*downstream_cells(figures["auc"], ""), count(figures["accuracy"]["n"])]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def study_lines(study: Mapping[str, Any]) -> list[str]:
    """What the raters of the run's study say, in the words of its own page."""
    if not study.get("questions"):
        return []
    lines = ["", "## What raters say", "", *study["words"]]
    for name, part in study["questions"].items():
        lines += ["", f"{name.replace('_', ' ').capitalize()}:", "", *(f"- {line}" for line in part["words"])]
    return lines


def downstream_cells(figure: Mapping[str, Any], unit: str) -> tuple[str, str]:
    """A figure and its interval."""
    if figure["value"] is None:
        return "not told" if figure.get("note") else "none", ""
    low, high = figure["ci95"]
    if unit:
        return shown(figure["value"], unit), f"{shown(low, unit)} to {shown(high, unit)}"
    return f"{figure['value']:.3f}", f"{low:.3f} to {high:.3f}"


def aside_rows(condition: str, facts: Mapping[str, Any]) -> list[str]:
    """A line for each reason for which photographs of a condition did not enter."""
    return [
        f"| {condition} | {REASONS.get(reason, reason)} | {count(n)} |"
        for reason, n in facts.get("set_aside", {}).items()
        if n != 0
    ]


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
    goal = goal_of(label, figure) if unit == "%" else ""
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


def goal_of(label: str, figure: Mapping[str, Any]) -> str:
    """`at least 90 %: reached`; "" for a figure without a goal.

    A goal is reached, or missed, where the whole 95 % interval lies on that side of it.
    """
    goal = GOALS.get(label)
    if label.startswith("trigger_obedience, "):
        goal = SKIN_GOAL
    if goal is None:
        return ""
    word, bound = goal
    return f"{word} {100 * bound:.0f} %: {verdict(figure, word, bound)}"


def verdict(figure: Mapping[str, Any], word: str, bound: float) -> str:
    """`reached`, `not reached`, or that the readings decide neither."""
    if figure["value"] is None or not figure.get("ci95"):
        return "not measured"
    if figure["n"] < FEWEST_READINGS:
        return f"too few to tell, n = {figure['n']}"
    low, high = figure["ci95"]
    if (low >= bound) if word == "at least" else (high <= bound):
        return "reached"
    if (high < bound) if word == "at least" else (low > bound):
        return "not reached"
    return f"not decided at n = {figure['n']:,}"


def shown(value: float | None, unit: str) -> str:
    if value is None:
        return "none"
    return f"{100 * value:.1f} %" if unit == "%" else f"{value:.1f} {unit}"

"""report.json and summary.md of a run, and its contact sheets.

report.json has only what the run itself knows: the oracle's figures where ground truth exists, training and
provenance. It names no photograph, no folder and no hash of a photograph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..environment import hardware, versions
from ..files import inside
from ..imageset.manifest import raw_rows, read_image_set
from ..imageset.places import sidecar_of
from ..imageset.sheets import contact_sheet, read_pictures, short_label
from ..recipe.presets import PAPER
from ..run.settings import RunSettings
from ..run.stages import StageRow
from .blocks import count
from .labels import vocabulary_block
from .pictures import withheld

SCHEMA = 1
SHEET_IMAGES = 100
FEWEST = 5
"""Real photographs that a count must have to be told."""
PHANTOM_NOTE = (
    "Every figure here was made with phantoms and the embedded phantom models: it says nothing about FLUX.1."
)
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
    contact_sheet(images, labels, path, title=f"{title}: {what}")
    return len(rows)


def build_report(
    settings: RunSettings,
    facts: Mapping[str, Mapping[str, Any]],
    rows: Sequence[StageRow],
    warnings: Sequence[str],
    seconds: float,
) -> dict[str, Any]:
    """The report as JSON values, schema 1."""
    oracle = {name: dict(stages["oracle"]) for name, stages in facts.items() if "oracle" in stages}
    return {
        "schema": SCHEMA,
        "created": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "phantom": settings.phantom,
        "preset": settings.preset,
        "vocabulary": vocabulary_block(settings.vocabulary),
        "notes": notes(settings, warnings),
        "oracle": oracle,
        "training": {
            name: training_facts(stages, phantom=settings.phantom) for name, stages in facts.items()
        },
        "generation": {name: {"images": stages["generation"]["images"]} for name, stages in facts.items()},
        "provenance": {
            "versions": versions(),
            "hardware": hardware(),
            "seed": settings.seed,
            "base_model_sha256": settings.source.fingerprint(),
            "faces": {name: stages["dataset"]["faces"] for name, stages in facts.items()},
            "seconds": {row.name: round(row.seconds, 1) for row in rows},
            "seconds_this_call": round(seconds, 1),
            "peak_memory_gib": peak_memory(),
        },
    }


def training_facts(stages: Mapping[str, Any], *, phantom: bool) -> dict[str, Any]:
    """What one LoRA was trained on and with; counts of fewer than 5 photographs of people are null."""
    dataset = stages["dataset"]
    facts = {
        **stages["training"],
        "holdout_images": dataset["holdout_images"],
        "set_aside": dict(dataset["set_aside"]),
    }
    if phantom:
        return facts
    facts["set_aside"] = {reason: suppressed(n) for reason, n in facts["set_aside"].items()}
    return facts | {key: suppressed(facts[key]) for key in ("training_images", "holdout_images")}


def suppressed(n: int) -> int | None:
    """A count of photographs, or None for 1 to 4: so few could tell of a person."""
    return None if 0 < n < FEWEST else n


def notes(settings: RunSettings, warnings: Sequence[str]) -> list[str]:
    """What a reader must know before the figures."""
    said = [PHANTOM_NOTE] if settings.phantom else []
    rate, papers = settings.recipe.optimizer.learning_rate, PAPER.optimizer.learning_rate
    if rate != papers:
        said.append(
            f"The learning rate is {rate:g}, not the paper's {papers:g}"
            + (": the phantom model is too small to move at the paper's." if settings.phantom else ".")
        )
    if settings.sampling.strength != 1:
        said.append(
            f"The LoRA is applied at strength {settings.sampling.strength:g}: at 1 its findings are faint."
        )
    if settings.preset == "robust":
        said.append(
            "Trained with output preservation, so that the finding hangs on the trigger, and with a loss "
            "that counts more where the finding lies; the paper has neither."
        )
    return said + [f"Warning: {message}" for message in warnings]


def peak_memory() -> dict[str, float]:
    """Peak resident memory in GiB of this process and of its largest child; empty where it is not known."""
    try:
        import resource
        import sys
    except ImportError:
        return {}
    unit = 1 if sys.platform == "darwin" else 1024
    kinds = {"process": resource.RUSAGE_SELF, "largest_child": resource.RUSAGE_CHILDREN}
    return {name: round(resource.getrusage(kind).ru_maxrss * unit / 2**30, 2) for name, kind in kinds.items()}


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

"""The run as report.json: what only the run itself knows, in JSON values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ..environment import hardware, versions
from ..recipe.presets import PAPER
from ..report.labels import vocabulary_block
from ..report.summary import SCHEMA
from .settings import RunSettings
from .stages import StageRow

FEWEST = 5
"""Real photographs that a count must have to be told."""
PHANTOM_NOTE = (
    "Every figure here was made with phantoms and the embedded phantom models: it says nothing about FLUX.1."
)


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

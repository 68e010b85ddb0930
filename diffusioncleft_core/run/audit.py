"""The audit of the run's LoRAs: what they draw from their own captions, and what their loss gives away."""

from __future__ import annotations

from typing import Any

from ..conditions.names import RunOwn
from ..conditions.vocabulary import Condition
from ..imageset.copies import COPIES_VERSION
from .evaluation import analyzer_of
from .run import Run
from .settings import face_pack_input, sampling_inputs
from .stages import Results, Stage

VERSION = 2
"""Raised whenever an audit's figures change: a finished stage is then made again."""


def audit_loras(run: Run) -> Results:
    """The audit of every condition's LoRA, by condition."""
    return {condition.name: audit_one(run, condition) for condition in run.conditions}


def audit_one(run: Run, condition: Condition) -> Results:
    from ..audit.document import AuditSettings, audit_lora

    settings, folders, facts = run.settings, run.folders, run.facts[condition.name]

    def work() -> Results:
        return audit_lora(
            settings.with_lora(condition, folders.lora(condition)),
            folders.dataset(condition.name),
            analyzer_of(settings),
            folders.private / RunOwn.AUDITS / condition.name,
            AuditSettings(seeds=settings.audit, seed=settings.seed_for("audit", condition.name)),
            warn=run.warn,
        )

    def inputs() -> dict[str, Any]:
        return {
            "LoRA": facts["training"]["lora_sha256"],
            "photographs": facts["dataset"]["manifest"],
            "drawings a caption": settings.audit,
            "strength": settings.strength_of(condition),
            "seed": settings.seed,
            "audit": [VERSION, COPIES_VERSION],
            **sampling_inputs(settings),
            **face_pack_input(settings),
        }

    after = [f"dataset-{condition.name}", f"training-{condition.name}"]
    return run.stages.run(Stage(f"audit-{condition.name}", inputs, [], work, after))

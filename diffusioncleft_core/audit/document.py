"""What an audit of a LoRA says, as JSON values: it names no photograph and quotes no caption."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..dataset.folder import dataset_rows, holds_phantoms
from ..dataset.references import read_references
from ..dataset.withdrawn import refuse_withdrawn
from ..errors import UserError
from ..faces.analyzer import FaceAnalyzer
from ..files import sha256_file
from ..generation.settings import GenerationSettings
from ..metrics.audit import threshold_of
from ..metrics.faces import MeasuredFaces, holdout_faces
from ..metrics.fir import Faces, embedder_info
from ..metrics.sets import Warn
from ..metrics.threshold import FALSE_MATCH_RATE, STATED_RATE
from ..ranges import NONE_OR_MORE
from .choices import AUDIT_SEEDS, EXTRACTION, MEMBERSHIP, PARTS, SEEDS
from .extraction import Probe, extraction


@dataclass(frozen=True)
class AuditSettings:
    """How a LoRA is audited.

    Attributes:
        parts: of PARTS.
        seeds: drawings a caption.
        captions: at most so many of each kind; 0: all.
        seed: of noise and choice.
        false_match_rate: of impostor pairs, that the threshold states.
    """

    parts: tuple[str, ...] = PARTS
    seeds: int = AUDIT_SEEDS
    captions: int = 0
    seed: int = 0
    false_match_rate: float = FALSE_MATCH_RATE

    def __post_init__(self) -> None:
        SEEDS.check(self.seeds, "the number of drawings a caption")
        NONE_OR_MORE.check(self.captions, "the number of captions")
        STATED_RATE.check(self.false_match_rate, "the false-match rate")
        if unknown := sorted(set(self.parts) - set(PARTS)) or not self.parts:
            raise UserError(f"there is no part {unknown} of the audit; choose from: {', '.join(PARTS)}")


def audit_lora(
    generation: GenerationSettings,
    dataset: Path,
    analyzer: FaceAnalyzer,
    work: Path,
    settings: AuditSettings | None = None,
    *,
    warn: Warn = lambda message: None,
) -> dict[str, Any]:
    """Audit the LoRA of `generation`, which learned from `dataset`.

    Args:
        generation: base model, LoRA, size and strength.
        dataset: the training photographs, with a hold-out as control.
        analyzer: finds faces.
        work: a private folder for what is drawn.
        settings: which parts, and how much.
        warn: told what could not be done.

    Returns:
        {"condition", "lora_sha256", "extraction", "membership", "threshold"}; a part that was not asked for
        is None. See `extraction.extraction` and `membership.membership`.

    Raises:
        UserError: there is no LoRA, it is withdrawn, or the dataset holds no face.
    """
    settings = settings or AuditSettings()
    if generation.lora is None:
        raise UserError("there is no LoRA to audit: give --lora FILE")
    refuse_withdrawn(generation.lora)
    known = read_references([dataset], analyzer)
    none = Faces.of([])
    faces = MeasuredFaces(
        none, known, holdout_faces([dataset], analyzer), None, False, embedder_info(analyzer)
    )
    threshold = threshold_of(faces, known, analyzer.pack, settings.false_match_rate)
    found: dict[str, Any] = {
        "condition": next((row.condition for row in dataset_rows(dataset) if row.condition), "unknown"),
        "lora_sha256": sha256_file(generation.lora),
        "threshold": threshold.as_json() | {"extractor": faces.extractor},
        EXTRACTION: None,
        MEMBERSHIP: None,
    }
    photographs = not holds_phantoms(dataset)
    if MEMBERSHIP in settings.parts:
        from .membership import DRAWS, membership

        found[MEMBERSHIP] = membership(generation, dataset, photographs=photographs, seed=settings.seed)
        found[MEMBERSHIP]["draws"] = DRAWS
    if EXTRACTION in settings.parts:
        probe = Probe(settings.seeds, settings.captions, settings.seed, threshold.value)
        found[EXTRACTION] = extraction(
            generation, dataset, known, analyzer, probe, work, photographs=photographs, warn=warn
        )
    return found

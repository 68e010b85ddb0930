"""What filters are built from, in this process or in another one."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ..dataset.references import read_references
from ..faces.analyzer import FaceAnalyzer, load_face_analyzer
from ..ranges import PAPER_SIMILARITY
from .artifacts import ARTIFACTS, ArtifactFilter
from .identity import IdentityFilter
from .verdicts import Filters


@dataclass(frozen=True)
class FilterSettings:
    """The filters of a call.

    Attributes:
        pack: the face pack, name or folder; None looks for no faces.
        device: where it works.
        kinds: artifacts that are looked for.
        limits: those that are not the defaults.
        references: datasets of photographs; none leaves identity leaks unlooked for.
        threshold: cosine from which a face is a leak.
        near_copies: whether near copies are looked for.
        phantom_base: see `Filters`.
    """

    pack: str | Path | None
    device: str = "cpu"
    kinds: Collection[str] = tuple(ARTIFACTS)
    limits: Mapping[str, float] = field(default_factory=dict)
    references: tuple[Path, ...] = ()
    threshold: float = PAPER_SIMILARITY
    near_copies: bool = True
    phantom_base: str | None = None


def load_filters(settings: FilterSettings, analyzer: FaceAnalyzer | None = None) -> Filters:
    """The filters, which other processes build from the same settings.

    The photographs' faces are read where they lie: they pass through no other process.

    Args:
        settings: what they are.
        analyzer: the pack's, where it is open already.
    """
    if analyzer is None and settings.pack is not None:
        analyzer = load_face_analyzer(settings.pack, device=settings.device)
    identity = None
    if settings.references:
        assert analyzer is not None
        reference = read_references(settings.references, analyzer)
        identity = IdentityFilter(reference, settings.threshold, near_copies=settings.near_copies)
    artifacts = ArtifactFilter(analyzer, kinds=settings.kinds, limits=settings.limits)
    return Filters(artifacts, identity, settings.phantom_base, partial(load_filters, settings))

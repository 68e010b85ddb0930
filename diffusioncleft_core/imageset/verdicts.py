"""What the filters say of one image. Numbers and reasons, never the name of a photograph."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

NO_FACE = "no_face"
SEVERAL_FACES = "several_faces"
CROPPED_FACE = "cropped_face"
EYE_BAR = "eye_bar"
TEXT = "text"
IDENTITY_LEAK = "identity_leak"
UNREADABLE = "unreadable"
ARTIFACTS = (SEVERAL_FACES, CROPPED_FACE, EYE_BAR, TEXT)
"""Kinds that can be chosen. An image without a face can't be assessed and is rejected whatever is chosen."""
KINDS = (NO_FACE, *ARTIFACTS, IDENTITY_LEAK, UNREADABLE)


@dataclass(frozen=True)
class ArtifactVerdict:
    """The artifacts of one image: by kind, whether it is one, and the numbers behind it."""

    artifacts: Mapping[str, Mapping[str, Any]]

    @property
    def reasons(self) -> list[str]:
        """Kinds that reject the image."""
        return [kind for kind, found in self.artifacts.items() if found["rejected"]]

    @property
    def accepted(self) -> bool:
        """Whether nothing rejects it."""
        return not self.reasons

    @property
    def rejected(self) -> bool:
        """Whether anything rejects it."""
        return not self.accepted

    def to_json(self) -> dict[str, Any]:
        """The part `artifacts` of a sidecar's verdicts."""
        return {kind: dict(found) for kind, found in self.artifacts.items()}


@dataclass(frozen=True)
class IdentityVerdict:
    """Whether a face is too like a training photograph's. `max_similarity` is None without a face."""

    rejected: bool
    max_similarity: float | None
    threshold: float
    embedder: Mapping[str, Any] = field(default_factory=dict)

    @property
    def accepted(self) -> bool:
        """Whether it was compared, and no similarity reaches the threshold."""
        return not self.rejected

    def to_json(self) -> dict[str, Any]:
        """The part `identity` of a sidecar's verdicts. Two decimals, so that it finds no photograph."""
        similarity = None if self.max_similarity is None else round(self.max_similarity, 2)
        return {
            "rejected": self.rejected,
            "max_similarity": similarity,
            "threshold": self.threshold,
            "embedder": dict(self.embedder),
        }


def combined(
    artifacts: ArtifactVerdict, identity: IdentityVerdict | None = None, *, settings: str | None = None
) -> dict[str, Any]:
    """The field `verdicts` of sidecar and manifest row. `settings`: what the verdict depends on, hashed."""
    reasons = artifacts.reasons
    if identity is not None and identity.rejected and identity.max_similarity is not None:
        reasons = [*reasons, IDENTITY_LEAK]
    elif identity is not None and identity.rejected and not reasons:
        reasons = [NO_FACE]
    verdicts: dict[str, Any] = {
        "accepted": not reasons,
        "reasons": reasons,
        "artifacts": artifacts.to_json(),
    }
    if identity is not None:
        verdicts["identity"] = identity.to_json()
    if settings is not None:
        verdicts["settings"] = settings
    return verdicts


def in_order(reasons: Sequence[str]) -> list[str]:
    """Reasons once each, in the order of KINDS; unknown ones at the end."""
    known = [kind for kind in KINDS if kind in reasons]
    return known + [reason for reason in dict.fromkeys(reasons) if reason not in KINDS]

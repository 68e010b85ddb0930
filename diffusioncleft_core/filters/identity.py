"""Identity leaks: a generated face too like a face the model was trained on, of whatever condition.

And near copies: images that show a training photograph's own pixels, whatever the recogniser makes of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..dataset.references import ReferenceSet
from ..errors import UserError
from ..faces.records import FaceRecord
from ..imageset.copies import COPIES_VERSION, NEAR_COPY, thumbnail
from ..ranges import PAPER_SIMILARITY, SIMILARITY
from .artifacts import NO_FACE

IDENTITY_LEAK = "identity_leak"
NEAR_COPY_LEAK = "near_copy"
LEAKS = (IDENTITY_LEAK, NEAR_COPY_LEAK)
"""Reasons that say of an image that it may show a person of the training photographs."""


@dataclass(frozen=True)
class IdentityVerdict:
    """Whether a face is too like a training photograph's. `max_similarity` is None without a face.

    `copy_score`: how much of a training photograph the image copies, see `imageset.copies`; None where near
    copies were not looked for.
    """

    rejected: bool
    max_similarity: float | None
    threshold: float
    embedder: Mapping[str, Any] = field(default_factory=dict)
    copy_score: float | None = None
    copy_threshold: float = NEAR_COPY

    @property
    def accepted(self) -> bool:
        """Whether it was compared, and neither face nor picture is a photograph's."""
        return not self.rejected

    @property
    def is_near_copy(self) -> bool:
        """Whether the image copies a training photograph."""
        return self.copy_score is not None and self.copy_score >= self.copy_threshold

    @property
    def reasons(self) -> list[str]:
        """Why it rejects the image: no face that could be compared, a leak, a near copy."""
        if self.max_similarity is None:
            face = [NO_FACE]
        else:
            face = [IDENTITY_LEAK] if self.max_similarity >= self.threshold else []
        return [*face, *([NEAR_COPY_LEAK] if self.is_near_copy else [])]

    def to_json(self) -> dict[str, Any]:
        """The part `identity` of a sidecar's verdicts. Two decimals, so that it finds no photograph."""
        similarity = None if self.max_similarity is None else round(self.max_similarity, 2)
        found = {
            "rejected": self.rejected,
            "max_similarity": similarity,
            "threshold": self.threshold,
            "embedder": dict(self.embedder),
        }
        if self.copy_score is None:
            return found
        return found | {
            "near_copy": {
                "rejected": self.is_near_copy,
                "score": round(self.copy_score, 2),
                "threshold": self.copy_threshold,
            }
        }


class IdentityFilter:
    """Compares faces, and images, with every training photograph.

    Args:
        reference: the photographs' faces, of every condition.
        threshold: cosine, above 0 and at most 1.
        near_copies: whether near copies are looked for too.

    Raises:
        UserError: the threshold is out of range, or the reference holds no face.
    """

    def __init__(
        self, reference: ReferenceSet, threshold: float = PAPER_SIMILARITY, *, near_copies: bool = True
    ) -> None:
        SIMILARITY.check(threshold, "the threshold")
        if not len(reference):
            raise UserError(
                "there is no training face to compare with; give the dataset of each condition (--reference)"
            )
        self.reference, self.threshold = reference, threshold
        self.copies = reference.copies if near_copies else None
        weights: Any = reference.embedder.get("weights", {})
        self._embedder = {"pack": reference.embedder.get("pack"), "weights": weights}

    def describe(self) -> list[Any]:
        """What the verdicts depend on beside the image; names no photograph."""
        reference = self.reference
        copies = None if self.copies is None else [COPIES_VERSION, self.copies.threshold, len(self.copies)]
        return [self.threshold, reference.fingerprint, len(reference), reference.embedder, copies]

    def check(
        self, face: FaceRecord | NDArray[np.float32] | None, image: NDArray[np.uint8] | None = None
    ) -> IdentityVerdict:
        """The verdict on a record, or on an embedding [512] of L2 norm 1; without a face it is rejected.

        image: [H, W, 3] RGB, in which near copies are looked for; without it they are not.
        """
        embedding = face.embedding if isinstance(face, FaceRecord) else face
        similarity = None
        if embedding is not None:
            similarity = float(self.reference.similarities(np.asarray(embedding, np.float32)[None]).max())
        verdict = IdentityVerdict(False, similarity, self.threshold, self._embedder)
        if image is not None and self.copies is not None:
            match = self.copies.best(thumbnail(image))
            score = None if match is None else match.score
            verdict = replace(verdict, copy_score=score, copy_threshold=self.copies.threshold)
        return replace(verdict, rejected=bool(verdict.reasons))

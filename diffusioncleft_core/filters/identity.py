"""Identity leaks: a generated face too like a face the model was trained on, of whatever condition."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..dataset.references import ReferenceSet
from ..errors import UserError
from ..faces.records import FaceRecord
from ..ranges import PAPER_SIMILARITY, SIMILARITY
from .artifacts import NO_FACE

IDENTITY_LEAK = "identity_leak"


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

    @property
    def reasons(self) -> list[str]:
        """Why it rejects the image: a leak, or no face that could be compared."""
        return [] if self.accepted else [NO_FACE if self.max_similarity is None else IDENTITY_LEAK]

    def to_json(self) -> dict[str, Any]:
        """The part `identity` of a sidecar's verdicts. Two decimals, so that it finds no photograph."""
        similarity = None if self.max_similarity is None else round(self.max_similarity, 2)
        return {
            "rejected": self.rejected,
            "max_similarity": similarity,
            "threshold": self.threshold,
            "embedder": dict(self.embedder),
        }


class IdentityFilter:
    """Compares faces with every training photograph.

    Args:
        reference: the photographs' faces, of every condition.
        threshold: cosine, above 0 and at most 1.

    Raises:
        UserError: the threshold is out of range, or the reference holds no face.
    """

    def __init__(self, reference: ReferenceSet, threshold: float = PAPER_SIMILARITY) -> None:
        SIMILARITY.check(threshold, "the threshold")
        if not len(reference):
            raise UserError(
                "there is no training face to compare with; give the dataset of each condition (--reference)"
            )
        self.reference, self.threshold = reference, threshold
        weights: Any = reference.embedder.get("weights", {})
        self._embedder = {"pack": reference.embedder.get("pack"), "weights": weights}

    def check(self, face: FaceRecord | NDArray[np.float32] | None) -> IdentityVerdict:
        """The verdict on a record, or on an embedding [512] of L2 norm 1; without a face it is rejected."""
        embedding = face.embedding if isinstance(face, FaceRecord) else face
        if embedding is None:
            return IdentityVerdict(True, None, self.threshold, self._embedder)
        similarity = float(self.reference.similarities(np.asarray(embedding, np.float32)[None]).max())
        return IdentityVerdict(similarity >= self.threshold, similarity, self.threshold, self._embedder)

"""Identity leaks: a generated face too like a face the model was trained on, of whatever condition."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..dataset.references import ReferenceSet
from ..errors import UserError
from ..faces.records import FaceRecord
from ..imageset.verdicts import IdentityVerdict
from ..ranges import SIMILARITY

THRESHOLD = 0.6
"""Cosine similarity at and above which the paper calls two faces one person."""


class IdentityFilter:
    """Compares faces with every training photograph.

    reference: the photographs' faces, of every condition; threshold: cosine, above 0 and at most 1. Raises
    UserError for a threshold out of range and for a reference without faces.
    """

    def __init__(self, reference: ReferenceSet, threshold: float = THRESHOLD) -> None:
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

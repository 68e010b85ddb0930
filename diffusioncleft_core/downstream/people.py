"""Who is who in a set: the persons that splits keep together and intervals resample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..dataset.select import group_subjects

LARGEST_SHARE = 0.5
"""Of the images without a label; a larger cluster is a chain of look-alikes."""
FEWEST = 20
"""Images without a label, in fewer of which one person may well have most."""
STEP = 0.05
STRICTEST = 0.95


def identity_groups(
    labels: Sequence[str | None], embeddings: NDArray[np.float32], threshold: float
) -> NDArray[np.int64]:
    """Number the person of each image: [N], by first appearance.

    Images are of one person when they share a label, or when one of the two has none and their faces reach
    the threshold (single linkage, as the dataset's hold-out has it). Generated faces may be so alike that
    they chain into one cluster, which no split can divide: while the largest one holds more than half of 20
    or more images without a label, the threshold rises by 0.05, up to 0.95.

    Args:
        labels: [N], a person's label; None where none is known.
        embeddings: [N, 512] of L2 norm 1.
        threshold: cosine from which two faces are one person's.
    """
    faces: list[NDArray[Any] | None] = list(embeddings)
    unlabelled = np.array([label is None for label in labels], bool)
    n = int(unlabelled.sum())
    while True:
        groups = np.array(group_subjects(labels, faces, (), threshold), np.int64)
        largest = int(np.bincount(groups[unlabelled]).max(initial=0))
        if n < FEWEST or largest <= LARGEST_SHARE * n or threshold >= STRICTEST:
            return groups
        threshold = min(STRICTEST, threshold + STEP)

"""Face identity recall: how often a generated face is as similar to a training face as the same person's.

The paper counts pairs (every generated x every training image) at a cosine of 0.6 or more. A set of 2,000
images has hundreds of thousands of pairs, so a leaked person hardly shows in a share of pairs; the share of
images with at least one such pair is what a reader expects. Both are given.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..statistics import Proportion, clopper_pearson

Array = NDArray[np.floating[Any]]
PAPER_THRESHOLD = 0.6
SWEEP = tuple(round(0.30 + 0.05 * step, 2) for step in range(9))
"""0.30, 0.35 ... 0.70."""


def fir_pairs(similarities: Array, threshold: float) -> Proportion:
    """Share of pairs at or above `threshold`; `similarities` [M, N] are the cosines, generated x training.

    The interval is Clopper and Pearson's and takes pairs as independent, as the paper's share does.
    """
    return clopper_pearson(int((similarities >= threshold).sum()), int(similarities.size))


def fir_images(similarities: Array, threshold: float) -> Proportion:
    """Share of generated images with at least one training image at or above `threshold`; [M, N] as above."""
    if similarities.shape[1] == 0:
        return clopper_pearson(0, 0)
    return clopper_pearson(int((similarities.max(axis=1) >= threshold).sum()), len(similarities))


def fir_sweep(similarities: Array, thresholds: Sequence[float] = SWEEP) -> list[dict[str, Any]]:
    """Both shares at every threshold, as JSON values."""
    return [
        {
            "threshold": threshold,
            "pairs": share_as_json(fir_pairs(similarities, threshold)),
            "images": share_as_json(fir_images(similarities, threshold)),
        }
        for threshold in thresholds
    ]


def share_as_json(share: Proportion) -> dict[str, Any]:
    """{"value", "ci95", "k", "n"}; a share of nothing has neither value nor interval."""
    ci95 = None if share.value is None else list(share.ci95)
    return {"value": share.value, "ci95": ci95, "k": share.k, "n": share.n}

"""Histogram of the cosine similarities between generated and training faces (the paper's Fig. 2)."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

BIN_WIDTH = 0.02
FEWEST_PHOTOGRAPHS = 5
"""Below this a count could describe one person: it is suppressed."""


def similarity_histogram(similarities: NDArray[np.floating[Any]], threshold: float) -> dict[str, Any]:
    """Counts in bins of 0.02 from -1 to 1 of the cosines [M, N] (generated x training), and their mean."""
    edges = np.round(np.arange(-50, 51) * BIN_WIDTH, 2)
    shown = similarities.size > 0 and similarities.shape[1] >= FEWEST_PHOTOGRAPHS
    counts = np.histogram(np.clip(similarities, -1, 1), edges)[0].tolist() if shown else None
    return {
        "edges": edges.tolist(),
        "counts": counts,
        "mean": round(float(similarities.mean(dtype=np.float64)), 4) if shown else None,
        "threshold": threshold,
        "n_pairs": int(similarities.size),
    }

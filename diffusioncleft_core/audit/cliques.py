"""Cliques of near-identical pictures among the drawings of one caption.

A model that has learned a photograph by heart draws it again and again from its caption, whatever the noise;
one that has not draws a new picture each time (Carlini et al., USENIX Security 2023, section 4). Their graph
joins pictures whose distance is small; ours joins those that share a face or pixels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def largest_clique(joined: NDArray[np.bool_]) -> list[int]:
    """Places of the largest set of pictures that are all joined with each other; [] of no picture.

    joined: [K, K], symmetric; its diagonal does not count. By Bron and Kerbosch's algorithm with pivoting
    (Commun ACM 16, 1973), in a time that grows with 3^(K/3): for tens of pictures, not for thousands.
    """
    neighbours = [set(np.flatnonzero(row).tolist()) - {place} for place, row in enumerate(joined)]
    best: list[int] = []

    def extend(clique: list[int], candidates: set[int], seen: set[int]) -> None:
        nonlocal best
        if not candidates and not seen:
            best = clique if len(clique) > len(best) else best
            return
        if len(clique) + len(candidates) <= len(best):
            return
        pivot = max(candidates | seen, key=lambda place: len(neighbours[place] & candidates))
        for place in sorted(candidates - neighbours[pivot]):
            extend([*clique, place], candidates & neighbours[place], seen & neighbours[place])
            candidates = candidates - {place}
            seen = seen | {place}

    extend([], set(range(len(joined))), set())
    return sorted(best)

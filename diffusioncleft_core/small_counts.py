"""Which counts of photographs may be told: so few as 1 to 4 could tell of a person."""

from collections.abc import Mapping

FEWEST = 5
"""Photographs that a count must have to be told."""


def told(n: int) -> int | None:
    """The count, or None for 1 to 4."""
    return None if is_small(n) else n


def is_small(n: int) -> bool:
    """Whether there are some, and fewer than may be told. Of a difference: telling both counts tells it."""
    return 0 < n < FEWEST


def told_parts(counts: Mapping[str, int]) -> dict[str, int | None]:
    """Counts of the parts of a whole whose own count is told.

    Where the parts that are untold would be fewer than 5 together, the smallest other one goes with them:
    else they would follow from the whole.
    """
    parts = {name: told(n) for name, n in counts.items()}
    left = [name for name, n in parts.items() if n]
    if left and is_small(sum(n for name, n in counts.items() if parts[name] is None)):
        parts[min(left, key=lambda name: counts[name])] = None
    return parts

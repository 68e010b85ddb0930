"""Which pictures of a set are shown: equal shares of the conditions, each drawn by its faces."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeVar

import numpy as np

from .sources import Picture

STRATA = ("age_group", "skin_tone")
"""What a draw is stratified over within a condition."""
Drawn = TypeVar("Drawn")


def generator(seed: int, *words: str) -> np.random.Generator:
    """The generator of one draw: the same for the same seed and words."""
    return np.random.default_rng([seed, *(byte for word in words for byte in (*word.encode(), 256))])


def shares(n: int, conditions: Sequence[str], available: Sequence[int]) -> list[int]:
    """How many of each condition: n in equal shares, the first ones one more where they don't divide.

    What a condition lacks goes to the others, as far as they have it.
    """
    taken = [0] * len(conditions)
    for _ in range(n):
        open_ones = [place for place, held in enumerate(available) if taken[place] < held]
        if not open_ones:
            break
        taken[min(open_ones, key=lambda place: taken[place])] += 1
    return taken


def one_a_person(pictures: Sequence[Picture], n: int, rng: np.random.Generator) -> list[Picture]:
    """The pictures with one a person, as long as n are left; else all of them."""
    first: dict[Hashable, Picture] = {}
    for place in rng.permutation(len(pictures)):
        picture = pictures[place]
        first.setdefault(picture.subject or picture.path, picture)
    chosen = list(first.values())
    return chosen if len(chosen) >= n else list(pictures)


def stratified(pictures: Sequence[Picture], n: int, rng: np.random.Generator) -> list[Picture]:
    """n of the pictures, in which age groups and skin tones have the shares that they have among them.

    Systematic sampling from a list ordered by stratum, in random order within each, from a random start
    (Cochran, Sampling Techniques, 1977, chapter 8): every picture has the same chance, and a stratum of k out
    of N gets k·n/N, rounded down or up. What is not known is a stratum of its own.
    """
    if n >= len(pictures):
        return list(pictures)
    shuffled = [pictures[place] for place in rng.permutation(len(pictures))]
    return systematic(sorted(shuffled, key=_stratum), n, rng)


def systematic(items: Sequence[Drawn], n: int, rng: np.random.Generator) -> list[Drawn]:
    """n of the items, at most all, spread evenly over their order from a random start."""
    n = min(n, len(items))
    if not n:
        return []
    step = len(items) / n
    start = rng.uniform(0, step)
    return [items[min(int(start + k * step), len(items) - 1)] for k in range(n)]


def _stratum(picture: Picture) -> tuple[str, ...]:
    return tuple(picture.groups.get(name) or "" for name in STRATA)

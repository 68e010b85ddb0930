"""Random sequences whose every beginning holds each value in its share, to within one.

For weights w_i that sum to 1, the j-th occurrence of value i must lie in the window
floor((j-1)/w_i)+1 .. ceil(j/w_i); then after t places its count c_i satisfies |c_i - w_i t| < 1 for every t.
Such a sequence always exists (Tijdeman, The chairman assignment problem, Discrete Mathematics 32, 1980; the
windows are those of Pfair scheduling, Baruah et al., Algorithmica 15, 1996). Here each place is drawn at
random among the values whose window is open, and taken if the rest can still meet its windows.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from fractions import Fraction

SMALLEST_SHARE = Fraction(1, 1000)


class Strata:
    """Endless sequence of values, deterministic by `key`. weights: any scale; with weight 0 never drawn."""

    def __init__(self, weights: Mapping[str, Fraction], key: str) -> None:
        positive = {value: weight for value, weight in weights.items() if weight > 0}
        scale = math.lcm(*(weight.denominator for weight in positive.values()))
        self._values = list(positive)
        self._weights = [int(weight * scale) for weight in positive.values()]
        self._total = sum(self._weights)
        self._counts = [0] * len(self._values)
        self._place = 0
        # random() from a text seed gives the same numbers in every Python version; choices() need not.
        self._random = random.Random(key)

    def draw(self) -> str:
        """The next value."""
        self._place += 1
        opened = [i for i in range(len(self._values)) if self._counts[i] < self._ceiling(i, self._place)]
        while True:
            choice = self._pick(opened)
            self._counts[choice] += 1
            if len(opened) == 1 or self._can_go_on():
                return self._values[choice]
            self._counts[choice] -= 1
            opened.remove(choice)

    def _ceiling(self, i: int, place: int) -> int:
        return -(-self._weights[i] * place // self._total)

    def _pick(self, opened: list[int]) -> int:
        point = self._random.random() * sum(self._weights[i] for i in opened)
        for i in opened:
            point -= self._weights[i]
            if point < 0:
                return i
        return opened[-1]

    def _can_go_on(self) -> bool:
        """Hall's condition: up to no later place are more occurrences due than there are places left.

        From the place where every count is due again it holds by itself, so the search ends there.
        """
        end = max(
            -(-count * self._total // weight)
            for count, weight in zip(self._counts, self._weights, strict=True)
        )
        for place in range(self._place, end + 1):
            due = sum(
                max(0, weight * place // self._total - count)
                for count, weight in zip(self._counts, self._weights, strict=True)
            )
            if due > place - self._place:
                return False
        return True

"""Leads links around nodes by points on them (ComfyUI's native reroutes) in the gaps between nodes.

A link that no node covers keeps none. Another takes the shortest way that is free: down the gap beside its
source, along a gap between rows or nodes, and up the gap before its target.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

Point = tuple[float, float]
Box = tuple[float, float, float, float]
_EDGE, _STEP, _LANES, _MOST = 8, 6, 4, 7
_OUTSIDE = 20
"""How far a group reaches beyond its first column: a link enters there without crossing the group's title."""
_SAMPLES = 48


@dataclass
class Router:
    """boxes: of all nodes with their titles (left, top, right, bottom). corridors: heights of free rows.

    words: boxes of the groups' titles, which no link crosses either.
    """

    boxes: Sequence[Box]
    corridors: Sequence[float]
    words: Sequence[Box] = ()
    _used: Counter[float] = field(default_factory=Counter)

    def points(self, start: Point, end: Point) -> list[Point]:
        """The points of a link from an output to an input; none where it may be drawn straight."""
        if not self._covered(_curve(start, end)):
            return []
        ways = [way for way in self._ways(start, end) if not self._covered([start, *way, end])]
        if not ways:
            return []
        found = min(ways, key=lambda way: _length([start, *way, end]))
        self._used[start[0]] += 1
        if len(found) > 2:
            self._used[max((row for row in self.corridors if row <= found[1][1]), default=0.0)] += 1
        return [(round(x), round(y)) for x, y in found]

    def _ways(self, start: Point, end: Point) -> Iterator[list[Point]]:
        right = start[0] + _EDGE + _STEP * (self._used[start[0]] % _LANES)
        near = end[0] - _EDGE - _STEP * (self._used[start[0]] % _LANES)
        if end[0] > start[0]:
            yield [(right, start[1]), (right, end[1])]
        gaps = [top - _EDGE for _, top, _, _ in self.boxes]
        for height in dict.fromkeys([*self.corridors, *gaps]):
            lane = height + (_STEP * (self._used[height] % _MOST) if height in self.corridors else 0)
            for left in (near, near - _OUTSIDE):
                yield [(right, start[1]), (right, lane), (left, lane), (left, end[1])]

    def _covered(self, line: Sequence[Point]) -> bool:
        """Whether a part of the line lies behind a node or across a group's title."""
        return any(
            left + 2 < x < right - 2 and top + 2 < y < bottom - 2
            for (ax, ay), (bx, by) in pairwise(line)
            for x, y in _between((ax, ay), (bx, by))
            for left, top, right, bottom in (*self.boxes, *self.words)
        )


def _between(a: Point, b: Point) -> Iterator[Point]:
    count = max(2, int(math.dist(a, b) // 8))
    for place in range(count + 1):
        yield a[0] + (b[0] - a[0]) * place / count, a[1] + (b[1] - a[1]) * place / count


def _curve(start: Point, end: Point) -> list[Point]:
    """The line that ComfyUI draws from output to input: a cubic with handles a quarter of the way long."""
    handle = math.dist(start, end) / 4
    points = []
    for place in range(_SAMPLES + 1):
        t = place / _SAMPLES
        weights = ((1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t * t, t**3)
        across = (start[0], start[0] + handle, end[0] - handle, end[0])
        down = (start[1], start[1], end[1], end[1])
        points.append(
            (
                sum(w * x for w, x in zip(weights, across, strict=True)),
                sum(w * y for w, y in zip(weights, down, strict=True)),
            )
        )
    return points


def _length(line: Sequence[Point]) -> float:
    return sum(math.dist(a, b) for a, b in pairwise(line))

"""Cosines of very many pairs of faces, counted block by block: a whole matrix is never in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Places = NDArray[np.int64]
ROWS, COLUMNS = 2048, 4096
"""Of a block: 32 MB of float32, at which a product of 512 dimensions runs near the processor's full rate."""
CELLS = 1 << 23
"""Cosines at once where whole rows are needed."""
DISTANCES = 1 << 21
"""Of features at once: 16 MB of float64 for every step of a formula, however many images there are."""
BINS = 100
"""From -1 to 1, 0.02 wide."""
_PIECE = 1 << 18


def row_blocks(rows: int, columns: int) -> Iterator[slice]:
    """Slices that cover `rows`, each of at most DISTANCES pairs with all of `columns`, one row at least."""
    step = max(1, DISTANCES // max(columns, 1))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


@dataclass(frozen=True, eq=False)
class PairCounts:
    """What is counted of the cosines [M, N] of M faces with N others.

    Attributes:
        shape: (M, N).
        at_least: how many pairs reach each of the thresholds asked for.
        best: [M], the highest cosine of each row; -inf where there is no column.
        bins: [100], pairs by cosine in bins of 0.02 from -1 to 1.
        total: the sum of all cosines.
    """

    shape: tuple[int, int]
    at_least: Mapping[float, int]
    best: NDArray[np.float32]
    bins: NDArray[np.int64]
    total: float

    @property
    def size(self) -> int:
        """Pairs."""
        return self.shape[0] * self.shape[1]

    def images(self, threshold: float) -> int:
        """Rows with a pair that reaches `threshold`."""
        return int((self.best >= np.float32(threshold)).sum())

    def beside(self, other: PairCounts) -> PairCounts:
        """The counts of the same rows with these columns and with the other ones."""
        return PairCounts(
            (self.shape[0], self.shape[1] + other.shape[1]),
            {key: n + other.at_least[key] for key, n in self.at_least.items()},
            np.maximum(self.best, other.best),
            self.bins + other.bins,
            self.total + other.total,
        )


def count_pairs(
    first: Array,
    second: Array,
    thresholds: Iterable[float],
    *,
    rows: Places | None = None,
    columns: Places | None = None,
) -> PairCounts:
    """Count the cosines of `first` [M, D] with `second` [N, D], L2 norm 1, in blocks of 32 MB.

    Args:
        first, second: faces.
        thresholds: cosines at which pairs are counted.
        rows, columns: places in `first` and `second` that are compared, by default all.
    """
    rows = np.arange(len(first)) if rows is None else rows
    columns = np.arange(len(second)) if columns is None else columns
    tally = _Tally(len(rows), len(columns), thresholds)
    sums = np.zeros((2, first.shape[1]))
    space = np.empty(min(ROWS, len(rows)) * min(COLUMNS, len(columns)), np.float32)
    for start in range(0, len(rows), ROWS):
        some = np.asarray(first[rows[start : start + ROWS]], np.float32)
        sums[0] += some.sum(axis=0, dtype=np.float64)
        for left in range(0, len(columns), COLUMNS):
            others = np.asarray(second[columns[left : left + COLUMNS]], np.float32)
            if not start:
                sums[1] += others.sum(axis=0, dtype=np.float64)
            block = space[: len(some) * len(others)].reshape(len(some), len(others))
            tally.add(start, np.matmul(some, others.T, out=block))
    return tally.counts(float(sums[0] @ sums[1]))


def counted(similarities: Array | PairCounts, thresholds: Iterable[float]) -> PairCounts:
    """The counts of a matrix of cosines [M, N]; what is counted already is returned."""
    if isinstance(similarities, PairCounts):
        return similarities
    tally = _Tally(similarities.shape[0], similarities.shape[1], thresholds)
    for start in range(0, len(similarities), ROWS):
        tally.add(start, np.array(similarities[start : start + ROWS]))
    return tally.counts(float(similarities.sum(dtype=np.float64)))


class _Tally:
    """Counts of the blocks so far."""

    def __init__(self, rows: int, columns: int, thresholds: Iterable[float]) -> None:
        self._shape = rows, columns
        self._at_least = dict.fromkeys(thresholds, 0)
        self._lowest = min(self._at_least, default=2.0)
        self._best = np.full(rows, -np.inf, np.float32)
        self._bins = np.zeros(BINS, np.int64)

    def add(self, start: int, block: Array) -> None:
        """Count a block [m, n] of the rows from `start` on; its values are overwritten."""
        if not block.size:
            return
        here = slice(start, start + len(block))
        highest = block.max(axis=1)
        self._best[here] = np.maximum(self._best[here], highest)
        reaching = np.flatnonzero(highest >= self._lowest)
        if len(reaching):
            picked = block if len(reaching) == len(block) else block[reaching]
            high = picked[picked >= self._lowest]
            for threshold in self._at_least:
                self._at_least[threshold] += int(np.count_nonzero(high >= threshold))
        block *= BINS / 2
        block += BINS / 2
        np.clip(block, 0, BINS - 1, out=block)
        flat = block.reshape(-1)
        for place in range(0, len(flat), _PIECE):
            piece = flat[place : place + _PIECE].astype(np.uint8)
            self._bins += np.bincount(piece, minlength=BINS)

    def counts(self, total: float) -> PairCounts:
        return PairCounts(self._shape, self._at_least, self._best, self._bins, total)


def whole_rows(first: Array, second: Array) -> Iterator[tuple[int, Array]]:
    """(start, cosines [m, N]) of `first` [M, D] with all of `second` [N, D], some rows at a time."""
    step = max(1, CELLS // max(1, len(second)))
    for start in range(0, len(first), step):
        yield start, first[start : start + step] @ second.T


def pairs_at_least(first: Array, second: Array, threshold: float) -> tuple[Places, Places]:
    """Rows and columns of the pairs that reach `threshold`."""
    found: list[tuple[Places, Places]] = []
    for start, cosines in whole_rows(first, second):
        row, column = np.nonzero(cosines >= threshold)
        found.append((row + start, column))
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    return np.concatenate([row for row, _ in found]), np.concatenate([column for _, column in found])


def by_person(cosines: Array, numbers: Sequence[int] | Places) -> Array:
    """[m, people]: the highest of the cosines [m, N] with each person's pictures; numbers: [N] from 0 on."""
    person = np.asarray(numbers)
    order = np.argsort(person, kind="stable")
    first = np.searchsorted(person[order], np.arange(int(person.max()) + 1))
    ordered = cosines if (order == np.arange(len(order))).all() else cosines[:, order]
    return np.asarray(np.maximum.reduceat(ordered, first, axis=1))

"""Perceptual distance (LPIPS) over the pairs of a set, from features computed once an image.

LPIPS (Zhang et al., CVPR 2018, eq. 1) is a squared Euclidean distance: with f the trunk's activations of a
layer, unit-normalised over the channels, and w >= 0 the layer's linear head, it is |phi_i - phi_j|^2 for
phi = sqrt(w) f / sqrt(H W), all layers in one vector. So the mean over ALL n(n-1)/2 pairs needs no pair:
2 n/(n-1) (mean |phi|^2 - |mean phi|^2), one pass and one running sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .pair_order import WaitingFeatures, pair_order

if TYPE_CHECKING:
    from pathlib import Path

    import torch

PAPER_PAIRS = 2000
BUDGET = 2 << 30
"""Bytes of features that are kept for pairs still to come; what does not fit is computed again."""
HALF_SCALE = 256.0
"""phi is at most 1 and mostly near 1e-4: half precision's smallest full one is 6e-5."""
HALF_FROM = 1 << 20
_LONGEST_DRAW = 1 << 24

Mask = NDArray[np.bool_]
Pairs = NDArray[np.int64]


@dataclass(frozen=True)
class Perceptual:
    """LPIPS of one set of images."""

    pairs_mean: float | None
    n_pairs: int
    all_pairs_mean: float | None
    n_images: int
    between: float = 0.0
    """Covariance of two pairs' distances that share an image, as far as the random pairs tell; 0 at least."""
    spread: float = 0.0
    """Variance of a pair's distance."""
    shared: int = 0
    """In how many ordered ways two of the random pairs share an image."""

    @property
    def n_all_pairs(self) -> int:
        """How many pairs the set has."""
        return self.n_images * (self.n_images - 1) // 2

    def pairs_interval(self) -> list[float] | None:
        """At 95 %, of the mean over random pairs; they share images, so they are not independent."""
        if self.pairs_mean is None or self.n_pairs < FEWEST_FOR_AN_INTERVAL:
            return None
        variance = (self.n_pairs * self.spread + self.shared * self.between) / self.n_pairs**2
        return _normal(self.pairs_mean, variance)

    def all_pairs_interval(self) -> list[float] | None:
        """At 95 %, of the mean over all pairs: the variance of a U-statistic (Hoeffding 1948, eq. 5.13)."""
        n = self.n_images
        if self.all_pairs_mean is None or self.n_pairs < FEWEST_FOR_AN_INTERVAL or n < 3:
            return None
        variance = (4 * (n - 2) * self.between + 2 * self.spread) / (n * (n - 1))
        return _normal(self.all_pairs_mean, variance)


def _normal(mean: float, variance: float) -> list[float]:
    reach = 1.959964 * float(np.sqrt(variance))
    return [max(mean - reach, 0.0), mean + reach]


NO_PERCEPTUAL = Perceptual(None, 0, None, 0)
FEWEST_FOR_AN_INTERVAL = 30
"""Random pairs."""


def draw_pairs(members: Mapping[str, Mask], count: int, seed: int) -> dict[str, Pairs]:
    """For each set a sample [P, 2] of `count` distinct pairs of its images, i < j; all when it has no more.

    The sets draw from one stream of random pairs over the images that are in any of them and each takes the
    first `count` that lie in it, so that overlapping sets share pairs, and work, while each has a uniform
    sample without replacement.

    Args:
        members: masks [N] over the same N images, by set.
        count: pairs a set.
        seed: of the stream.
    """
    taken: dict[str, list[Pairs]] = {name: [] for name in members}
    found: dict[str, Pairs] = {}
    for name, mask in members.items():
        places = np.flatnonzero(mask)
        if len(places) * (len(places) - 1) // 2 <= count:
            first, second = np.triu_indices(len(places), 1)
            found[name] = np.stack([places[first], places[second]], axis=1).astype(np.int64)
    universe = np.flatnonzero(np.logical_or.reduce(list(members.values()))) if members else np.zeros(0, int)
    rng = np.random.default_rng(seed)
    seen: Pairs = np.zeros(0, np.int64)
    drawn = 0
    while len(found) < len(members) and drawn < _LONGEST_DRAW:
        pairs = universe[rng.integers(len(universe), size=(min(max(4 * count, 256), 1 << 16), 2))]
        drawn += len(pairs)
        pairs = np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1)
        keys = pairs[:, 0] * (int(universe.max()) + 1) + pairs[:, 1]
        first_places = np.sort(np.unique(keys, return_index=True)[1])
        fresh = first_places[~np.isin(keys[first_places], seen)]
        seen = np.concatenate([seen, keys[fresh]])
        for name in [name for name in members if name not in found]:
            inside = pairs[fresh][members[name][pairs[fresh]].all(axis=1)]
            taken[name].append(inside)
            if sum(map(len, taken[name])) >= count:
                found[name] = np.concatenate(taken[name])[:count]
    for name in members:  # a small set among very many images: its own stream
        if name not in found:
            found[name] = draw_pairs({name: members[name]}, count, seed)[name]
    return {name: found[name] for name in members}


def all_pairs_mean(n: int, total: NDArray[np.float64], squares: float) -> float | None:
    """Mean distance over all pairs of `n` images, from the sum [D] of their features and of |phi|^2.

    None for fewer than two images.
    """
    if n < 2:
        return None
    mean = total / n
    return max(float(2 * n / (n - 1) * (squares / n - mean @ mean)), 0.0)


@dataclass(frozen=True, eq=False)
class Moments:
    """What the mean over all pairs of a set needs, and what adds up over sets."""

    n: int
    total: NDArray[np.float64] | None
    """[D], the sum of the features; None without an image."""
    squares: float
    """The sum of |phi|^2."""

    def __add__(self, other: Moments) -> Moments:
        if self.total is None or other.total is None:
            return other if self.total is None else self
        return Moments(self.n + other.n, self.total + other.total, self.squares + other.squares)

    def all_pairs_mean(self) -> float | None:
        """Mean distance over all pairs; None for fewer than two images."""
        return None if self.total is None else all_pairs_mean(self.n, self.total, self.squares)

    def to_tensors(self) -> dict[str, torch.Tensor]:
        """What is kept of it, exactly."""
        import torch

        kept = {"n": torch.tensor(self.n), "squares": torch.tensor(self.squares, dtype=torch.float64)}
        return kept if self.total is None else kept | {"total": torch.from_numpy(self.total)}

    @classmethod
    def from_tensors(cls, kept: Mapping[str, torch.Tensor] | None) -> Moments | None:
        """Read what `to_tensors` gave; None for nothing, or for something else."""
        if kept is None or not {"n", "squares"} <= kept.keys():
            return None
        total = kept["total"].numpy() if "total" in kept else None
        return cls(int(kept["n"]), total, float(kept["squares"]))


NO_MOMENTS = Moments(0, None, 0.0)


@dataclass(frozen=True)
class PerceptualResult:
    """What one pass over N images gave; an image that could not be decoded takes part in nothing."""

    distances: dict[tuple[int, int], float]
    """Of the wanted pairs whose images could both be decoded."""
    moments: dict[str, Moments]
    """Of the images that entered, by set."""

    def perceptual(self, name: str, pairs: Pairs) -> Perceptual:
        """LPIPS of one set: over those of `pairs` [P, 2] that were measured, and over all."""
        measured = [(i, j) for i, j in pairs.tolist() if (i, j) in self.distances]
        moments = self.moments[name]
        if not measured:
            return Perceptual(None, 0, moments.all_pairs_mean(), moments.n)
        values = np.array([self.distances[pair] for pair in measured])
        return Perceptual(
            float(values.mean()),
            len(values),
            moments.all_pairs_mean(),
            moments.n,
            *_components(measured, values),
        )


def _components(pairs: Sequence[tuple[int, int]], values: NDArray[np.float64]) -> tuple[float, float, int]:
    """Covariance of two pairs that share an image, variance of a pair, and how often two share one."""
    deviations = values - values.mean()
    places = np.array(pairs)
    size = int(places.max()) + 1
    sums, squares, degrees = np.zeros(size), np.zeros(size), np.zeros(size, np.int64)
    for side in places.T:
        np.add.at(sums, side, deviations)
        np.add.at(squares, side, deviations**2)
        np.add.at(degrees, side, 1)
    shared = int((degrees * (degrees - 1)).sum())
    between = max(float((sums**2 - squares).sum()) / shared, 0.0) if shared else 0.0
    return between, float(deviations.var(ddof=1)) if len(values) > 1 else 0.0, shared


def perceptual_pass(
    features: Callable[[int], torch.Tensor | None],
    members: Mapping[str, Mask],
    pairs: Iterable[Sequence[int]],
    *,
    budget: int = BUDGET,
    order: Iterable[int] | None = None,
    spill: Path | None = None,
) -> PerceptualResult:
    """Distances of chosen pairs and the mean over all pairs of each set, in one pass.

    Args:
        features: gives phi [D] float32 of an image by its place, None for one that can't be decoded; called
            once an image, and again only for images whose features did not fit into `budget`.
        members: masks [N] of the sets.
        pairs: of places, i < j.
        budget: bytes for features in memory. Large ones wait in half precision, in which pairs are compared.
        order: the places to visit, default 0 ... N - 1. Those in pairs come first, as `pair_order` has them.
        spill: a private folder for a file of features that do not fit.
    """
    later: dict[int, set[int]] = {}
    paired = [(int(i), int(j)) for i, j in pairs]
    for i, j in paired:
        later.setdefault(i, set()).add(j)
        later.setdefault(j, set()).add(i)
    waiting = WaitingFeatures(budget, spill)
    visited: set[int] = set()
    lost: set[int] = set()
    sums: dict[str, Any] = dict.fromkeys(members)
    squares = dict.fromkeys(members, 0.0)
    counts = dict.fromkeys(members, 0)
    distances: dict[tuple[int, int], float] = {}
    size = len(next(iter(members.values()))) if members else 0
    all_places = list(range(size) if order is None else order)
    inside = set(all_places)
    first = [place for place in pair_order(paired) if place in inside]
    for place in dict.fromkeys([*first, *all_places]):
        phi = features(place)
        visited.add(place)
        if phi is None:
            lost.add(place)
            for partner in later.pop(place, set()) & visited:
                later.get(partner, set()).discard(place)
                if not later.get(partner):
                    waiting.drop(partner)
            continue
        wide = phi.double()
        for name, mask in members.items():
            if mask[place]:
                sums[name] = wide.clone() if sums[name] is None else sums[name].add_(wide)
                squares[name] += float(wide @ wide)
                counts[name] += 1
        small = halved(phi)
        for partner in sorted(later.get(place, set()) & visited - lost):
            other = waiting.get(partner, small)
            if other is None:
                again = features(partner)
                assert again is not None
                other = halved(again)
            distances[min(place, partner), max(place, partner)] = squared_distance(small, other)
            later[partner].discard(place)
            if not later[partner]:
                waiting.drop(partner)
        later[place] = later.get(place, set()) - visited
        if later[place]:
            waiting.keep(place, small)
    waiting.close()
    moments = {
        name: Moments(counts[name], sums[name].cpu().numpy(), squares[name]) if counts[name] else NO_MOMENTS
        for name in members
    }
    return PerceptualResult(distances, moments)


def squared_distance(first: torch.Tensor, second: torch.Tensor) -> float:
    """|a - b|^2 of two feature vectors [D] as `halved` gives them, summed in float64."""
    import torch

    apart = first.float() - second.float()
    return float(apart.square_().sum(dtype=torch.float64)) / HALF_SCALE**2


def halved(phi: torch.Tensor) -> torch.Tensor:
    """Features [D] enlarged, and in half precision where they are many: of an image above 320 px or so.

    A distance over 2,655,360 numbers then differs by 5e-7 of itself. Fewer are kept whole: over 31,872 it
    would differ by 6e-5.
    """
    import torch

    large = phi * HALF_SCALE
    return large.to(torch.float16) if len(phi) >= HALF_FROM else large

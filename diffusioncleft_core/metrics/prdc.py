"""Fidelity and diversity told apart: precision, recall, density, coverage; and the Vendi score."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .pairs import row_blocks

Array = NDArray[np.floating[Any]]
NEIGHBOURS = 5


@dataclass(frozen=True)
class ManifoldScores:
    """How two sets lie in each other's neighbourhoods.

    Attributes:
        precision: share of generated images that lie among the real ones.
        recall: share of real images that lie among the generated ones.
        density: in how many real neighbourhoods a generated image lies, over those expected; may exceed 1.
        coverage: share of real images with a generated one in their neighbourhood.
    """

    precision: float
    recall: float
    density: float
    coverage: float

    def as_array(self) -> NDArray[np.float64]:
        """[4] in the order of the fields."""
        return np.array(astuple(self))


def manifold_scores(real: Array, generated: Array, k: int = NEIGHBOURS) -> ManifoldScores:
    """Of features [N, D] and [M, D]; a neighbourhood reaches to the k-th nearest image of the same side.

    Precision and recall: Kynkäänniemi et al., NeurIPS 2019, eq. 1 and 2; density and coverage: Naeem et al.,
    ICML 2020, eq. 4 and 6. Agrees with their `prdc` package to 1e-12 (equal distances aside). Float64, in
    blocks of one size, so that memory does not grow with the number of images.

    Raises:
        ValueError: a side has no more than k rows, or the widths D differ.
    """
    if real.ndim != 2 or generated.ndim != 2 or real.shape[1] != generated.shape[1]:
        raise ValueError(f"features [N, D] and [M, D] are needed, not {real.shape} and {generated.shape}")
    if min(len(real), len(generated)) <= k:
        raise ValueError(f"neighbourhoods of {k} need more than {k} images on each side")
    real_reach, generated_reach = neighbour_distances(real, k), neighbour_distances(generated, k)
    inside_any = np.zeros(len(generated), bool)
    inside = 0
    recalled, covered = np.zeros(len(real), bool), np.zeros(len(real), bool)
    for rows in row_blocks(len(real), len(generated)):
        distances = squared_distances(real[rows], generated)
        near = distances < real_reach[rows, None]
        inside_any |= near.any(axis=0)
        inside += int(near.sum())
        covered[rows] = distances.min(axis=1) < real_reach[rows]
        recalled[rows] = (distances < generated_reach[None]).any(axis=1)
    return ManifoldScores(
        float(inside_any.mean()), float(recalled.mean()), inside / (k * len(generated)), float(covered.mean())
    )


def neighbour_distances(features: Array, k: int) -> NDArray[np.float64]:
    """[N]: the squared distance of every row to its k-th nearest other row."""
    found = np.empty(len(features))
    for rows in row_blocks(len(features), len(features)):
        distances = squared_distances(features[rows], features)
        places = np.arange(len(distances))
        distances[places, places + rows.start] = -1.0  # itself comes first
        distances.partition(k, axis=1)
        found[rows] = distances[:, k]
    return found


def squared_distances(first: Array, second: Array) -> NDArray[np.float64]:
    """[M, N] squared Euclidean distances of rows [M, D] and [N, D], 0 at least."""
    a, b = first.astype(np.float64), second.astype(np.float64)
    distances = np.square(a).sum(axis=1)[:, None] + np.square(b).sum(axis=1)[None] - 2 * (a @ b.T)
    return np.asarray(np.maximum(distances, 0, out=distances), np.float64)


def vendi_score(features: Array) -> float:
    """How many different images a set [N, D] amounts to: from 1 (all alike) to N.

    The exponential of the entropy of the eigenvalues of K / N, K the cosine similarities (Friedman and Dieng,
    TMLR 2023, definition 3.1). They are also those of the D x D matrix, whichever is smaller.

    Raises:
        ValueError: there is no row.
    """
    if not len(features):
        raise ValueError("a Vendi score needs an image")
    values = features.astype(np.float64)
    values /= np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    gram = values @ values.T if len(values) <= values.shape[1] else values.T @ values
    shares = np.linalg.eigvalsh(gram / len(values))
    shares = shares[shares > 1e-12]
    return float(np.exp(-(shares * np.log(shares)).sum()))

"""Fréchet distance between two sets of features (FID), without a matrix square root."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]


def frechet_distance(first: Array, second: Array) -> float:
    """FID between two sets of features, [N, D] and [M, D].

    |mu1 - mu2|^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2)) with the unbiased covariances (Heusel et al., NeurIPS 2017,
    eq. 6). With A, B the centred features over sqrt(n - 1), S1 = A'A and S2 = B'B, so the trace of the root
    is the nuclear norm of A B': no D x D root, exact also where N < D. Agrees with pytorch-fid's
    `calculate_frechet_distance` to 1e-6 relative. Computed in float64.

    Raises:
        ValueError: there are fewer than two rows, since a covariance needs two, or the widths D differ.
    """
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1]:
        raise ValueError(f"features [N, D] and [M, D] are needed, not {first.shape} and {second.shape}")
    if min(len(first), len(second)) < 2:
        raise ValueError("a Fréchet distance needs two images on each side")
    mean_a, a = _centred(first)
    mean_b, b = _centred(second)
    root = np.linalg.svd(_short(a) @ _short(b).T, compute_uv=False).sum()
    shift = mean_a - mean_b
    return float(max(shift @ shift + np.square(a).sum() + np.square(b).sum() - 2 * root, 0.0))


def matched_sizes(n: int, n_reference: int) -> int:
    """Images a side at which n generated images and half of the training images can be compared alike."""
    return min(n, n_reference // 2)


def split_floor(features: Array, splits: int, seed: int, size: int) -> list[float]:
    """The distance between two random parts of `features` [N, D], `size` rows each, for each of `splits`.

    It is what a perfect sampler would still score at this size.

    Raises:
        ValueError: the parts are of fewer than two rows, or there are not enough rows for both.
    """
    if size < 2 or 2 * size > len(features):
        raise ValueError(f"two parts of {size} rows need two rows each and {2 * size} in all")
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(splits):
        order = rng.permutation(len(features))
        found.append(frechet_distance(features[order[:size]], features[order[size : 2 * size]]))
    return found


def _centred(features: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    values = features.astype(np.float64)
    mean = values.mean(axis=0)
    return mean, (values - mean) / np.sqrt(len(values) - 1)


def _short(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """At most D rows with the same Gram matrix: the nuclear norm does not see rotations."""
    if matrix.shape[0] <= matrix.shape[1]:
        return matrix
    return np.asarray(np.linalg.qr(matrix, mode="r"), np.float64)

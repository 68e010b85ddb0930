"""The linear probe: logistic regression on a frozen encoder's features, with fewer choices to get wrong."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..environment import check_packages
from .split import person_folds

if TYPE_CHECKING:
    import torch

GRID = tuple(float(value) for value in 10.0 ** np.arange(-5, 2))
"""Inverse strengths of the penalty, C, that are tried."""
FOLDS = 5
ITERATIONS = 5000

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Probe:
    """p = 1 / (1 + exp(-(w·z + b))), z the features less their mean, by their spread.

    Attributes:
        mean, scale: [F] of the training part.
        weights: [F].
        bias: one number.
    """

    mean: Array
    scale: Array
    weights: Array
    bias: float

    def probabilities(self, features: torch.Tensor) -> Array:
        """[N] of the positive class, of features [N, F]."""
        z = (features.double().numpy() - self.mean) / self.scale
        return np.asarray(1 / (1 + np.exp(-np.clip(z @ self.weights + self.bias, -500, 500))), np.float64)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Its numbers, for a file."""
        import torch

        arrays = {
            "mean": self.mean,
            "scale": self.scale,
            "weights": self.weights,
            "bias": np.array([self.bias]),
        }
        return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}

    @classmethod
    def of_tensors(cls, tensors: dict[str, torch.Tensor]) -> Probe:
        """Read what `tensors` gave. Raises KeyError where it is something else."""
        arrays = {name: tensors[name].double().numpy() for name in ("mean", "scale", "weights", "bias")}
        return cls(arrays["mean"], arrays["scale"], arrays["weights"], float(arrays["bias"][0]))


def fit_probe(
    features: torch.Tensor, labels: NDArray[np.int64], people: Sequence[str], seed: int
) -> tuple[Probe, dict[str, Any]]:
    """Fit the probe; C is the one of the smallest cross-entropy in a cross-validation over people.

    Args:
        features: [N, F] of the training part.
        labels: [N] 1 or 0.
        people: [N], whose pictures stay in one fold.
        seed: of the folds.

    Returns:
        The probe, and `C` for the model's file. The number of folds would tell how few people a class has.
    """
    check_packages(["sklearn"])
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # the matrices are small: more threads wait for each other
        return _fit(features.double().numpy(), labels, people, seed)


def _fit(
    values: Array, labels: NDArray[np.int64], people: Sequence[str], seed: int
) -> tuple[Probe, dict[str, Any]]:
    numbers = person_folds(people, labels, FOLDS, seed)
    losses = np.zeros(len(GRID))
    for number in range(int(numbers.max()) + 1):
        inside = numbers == number
        if len(set(labels[~inside].tolist())) < 2:
            continue
        mean, scale = _moments(values[~inside])
        learned, axes = _turned((values[~inside] - mean) / scale)
        tried = (values[inside] - mean) / scale @ axes.T
        for place, (weights, bias) in enumerate(_fitted(learned, labels[~inside], GRID)):
            losses[place] += _cross_entropy(labels[inside], tried @ weights + bias)
    chosen = GRID[int(losses.argmin())]
    mean, scale = _moments(values)
    coordinates, axes = _turned((values - mean) / scale)
    ((weights, bias),) = _fitted(coordinates, labels, (chosen,))
    probe = Probe(mean, scale, axes.T @ weights, bias)
    return probe, {"C": chosen}


def _fitted(
    values: Array, labels: NDArray[np.int64], strengths: Sequence[float]
) -> Iterator[tuple[Array, float]]:
    """Weights and bias of logistic regressions with the penalties 1 / (2 C) on the weights' square.

    Each starts from where the last one ended. Where nothing tells the rows apart there is the bias alone.
    """
    if not values.shape[1]:
        share = labels.mean()
        yield from ((np.zeros(0), float(np.log(share / (1 - share)))) for _ in strengths)
        return
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(max_iter=ITERATIONS, solver="newton-cholesky", warm_start=True)
    for strength in strengths:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a weak penalty on separable classes never converges
            model.set_params(C=strength).fit(values, labels)
        yield np.asarray(model.coef_[0], np.float64), float(model.intercept_[0])


def _turned(values: Array) -> tuple[Array, Array]:
    """[N, R] in the axes [R, F] that N rows of F features span.

    The penalty is the same in turned axes, so the fit is the same too, at the cost of N axes, not of F.
    """
    if len(values) >= values.shape[1]:
        return values, np.eye(values.shape[1])
    squares, left = np.linalg.eigh(values @ values.T)  # in a third of a singular value decomposition's time
    kept = squares > 1e-12 * squares[-1]
    spread = np.sqrt(squares[kept])
    return left[:, kept] * spread, (left[:, kept] / spread).T @ values


def _moments(values: Array) -> tuple[Array, Array]:
    spread = values.std(axis=0)
    return values.mean(axis=0), np.where(spread > 1e-8, spread, 1.0)


def _cross_entropy(labels: NDArray[np.int64], z: Array) -> float:
    return float(np.logaddexp(0, np.where(labels == 1, -z, z)).sum())

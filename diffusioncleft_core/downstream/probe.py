"""The linear probe: logistic regression on a frozen encoder's features, with fewer choices to get wrong."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
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
        The probe, and `C` and `folds` for the model's file.
    """
    check_packages(["sklearn"])
    from sklearn.linear_model import LogisticRegression

    values = features.double().numpy()
    numbers = person_folds(people, labels, FOLDS, seed)
    losses = np.zeros(len(GRID))
    for number in range(int(numbers.max()) + 1):
        inside = numbers == number
        if len(set(labels[~inside].tolist())) < 2:
            continue
        mean, scale = _moments(values[~inside])
        for place, strength in enumerate(GRID):
            model = LogisticRegression(C=strength, max_iter=ITERATIONS)
            _fit(model, (values[~inside] - mean) / scale, labels[~inside])
            probability = model.predict_proba((values[inside] - mean) / scale)[:, 1]
            losses[place] += _cross_entropy(labels[inside], probability)
    chosen = GRID[int(losses.argmin())]
    mean, scale = _moments(values)
    model = LogisticRegression(C=chosen, max_iter=ITERATIONS)
    _fit(model, (values - mean) / scale, labels)
    probe = Probe(mean, scale, np.asarray(model.coef_[0], np.float64), float(model.intercept_[0]))
    return probe, {"C": chosen, "folds": int(numbers.max()) + 1}


def _fit(model: Any, values: Array, labels: NDArray[np.int64]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a weak penalty on separable classes never converges
        model.fit(values, labels)


def _moments(values: Array) -> tuple[Array, Array]:
    spread = values.std(axis=0)
    return values.mean(axis=0), np.where(spread > 1e-8, spread, 1.0)


def _cross_entropy(labels: NDArray[np.int64], probability: Array) -> float:
    p = np.clip(np.where(labels == 1, probability, 1 - probability), 1e-12, 1)
    return float(-np.log(p).sum())

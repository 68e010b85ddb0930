"""Training of a classifier on the crops of two sets, and what it says of others.

Nothing but the training sets has a share in it: the validation part of early stopping and the probe's
cross-validation are taken from them, by person, and the threshold is one half.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import UserError
from ..progress import progress
from ..ranges import COUNT, LEARNING_RATE, check_fields, number, ranged, whole
from ..weights.backbones import KINDS, PAPER, PROBE, Backbone, refuse_photographs
from .crops import Crops, View, joined
from .features import FrozenPart, features_of
from .predictions import Predictions
from .probe import fit_probe
from .split import validation_split
from .task import Task

if TYPE_CHECKING:
    import torch

PAPER_LEARNING_RATE = 1e-5
PHANTOM_LEARNING_RATE = 1e-3
"""With a backbone of phantoms, so that some hundred pictures and a few epochs are enough."""
THRESHOLD = 0.5


@dataclass(frozen=True)
class TrainSettings:
    """How a classifier is trained; the defaults are the cited work's.

    Attributes:
        kind: `paper` (the network of `network.py`) or `probe` (a linear probe on the frozen backbone).
        view: what of the pictures it sees.
        learning_rate: Adam's; None: 1e-5, the cited work's; with a backbone of phantoms 1e-3.
        batch: pictures a step.
        epochs: at most so many.
        patience: epochs without a smaller validation loss after which training ends.
        validation: share of the training pictures kept apart, by person.
        frozen: how many parameter tensors from the first on never change.
    """

    kind: str = PAPER
    view: View = View.WHOLE
    learning_rate: float | None = ranged(LEARNING_RATE, default=None)
    batch: int = ranged(whole(2, 1024), default=16)
    epochs: int = ranged(COUNT, default=50)
    patience: int = ranged(COUNT, default=3)
    validation: float = ranged(number(0, 0.5, above=True), default=0.2)
    frozen: int = ranged(whole(0, 10_000), default=57)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.kind not in KINDS:
            raise UserError(f"there is no classifier {self.kind!r}; choose one of: {', '.join(KINDS)}")

    def rate(self, backbone: Backbone) -> float:
        """Adam's learning rate with this backbone."""
        return self.learning_rate or (PHANTOM_LEARNING_RATE if backbone.info.phantom else PAPER_LEARNING_RATE)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Top(Protocol):
    """What is trained on the features of the frozen part."""

    def probabilities(self, features: torch.Tensor) -> NDArray[np.float64]:
        """[N] of the positive class."""

    def tensors(self) -> dict[str, torch.Tensor]:
        """All its numbers, for a file."""


@dataclass(frozen=True, eq=False)
class Classifier:
    """A trained classifier.

    Attributes:
        task: what it tells apart.
        settings: how it was trained.
        seed: of the split, the first weights and the order.
        part: the frozen part that it stands on.
        top: what was trained.
        facts: JSON values on the training, for the model's file; numbers of pictures are not among them.
    """

    task: Task
    settings: TrainSettings
    seed: int
    part: FrozenPart
    top: Top
    facts: dict[str, Any] = field(default_factory=dict)

    def predict(self, crops: Crops, view: View | None = None) -> Predictions:
        """What it says of each picture. view: what it is shown; None: what it was trained on."""
        refuse_photographs(self.part.backbone, phantom=crops.phantom)
        features = features_of(crops, view or self.settings.view, self.part)
        return Predictions(
            crops.labels,
            self.top.probabilities(features),
            crops.people,
            crops.groups,
            crops.n_not_found,
            _distinct(crops.keys),
        )


def _distinct(keys: Sequence[str]) -> tuple[str, ...]:
    """The keys, those of a picture that is there again numbered: 2 and so on."""
    seen: Counter[str] = Counter()
    found = []
    for key in keys:
        seen[key] += 1
        found.append(key if seen[key] == 1 else f"{key} {seen[key]}")
    return tuple(found)


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Features, labels and people of all training pictures."""

    features: torch.Tensor
    labels: NDArray[np.int64]
    people: Sequence[str]


def frozen_part_of(backbone: Backbone, settings: TrainSettings) -> FrozenPart:
    """What of the backbone a classifier of these settings stands on.

    Raises:
        UserError: the paper's model would need a network that it can train from some stage on.
    """
    from .network import frozen_part

    if settings.kind == PROBE:
        depth = f"probe {backbone.probe_stages} {backbone.probe_grid}"
        return FrozenPart(backbone, backbone.pooled(), depth)
    if not backbone.divides:
        raise UserError(
            f"{backbone.info.name} is an encoder for the linear probe; the paper's model trains MobileNetV2: "
            "give --model probe, or leave --backbone out"
        )
    return FrozenPart(backbone, frozen_part(backbone, settings.frozen), f"frozen {settings.frozen}")


def train_classifiers(
    task: Task,
    positive: Crops,
    negative: Crops,
    backbone: Backbone,
    settings: TrainSettings,
    seeds: Sequence[int],
    *,
    memory: dict[str, torch.Tensor] | None = None,
) -> Iterator[Classifier]:
    """One classifier a seed, each as it is done; the features are computed once for all.

    memory: of features, where several calls share pictures (`FrozenPart.memory`).

    Raises:
        UserError: photographs would meet a backbone of phantoms, a class has fewer than two people, the sets
            are of phantoms and of photographs, or beside the faces is nothing to see for a view of it.
    """
    if positive.phantom != negative.phantom:
        raise UserError("one class is of phantoms and the other of photographs; train on sets of one kind")
    refuse_photographs(backbone, phantom=positive.phantom)
    crops = joined([positive.labelled(1), negative.labelled(0)])
    if settings.view == View.BACKGROUND:
        crops.refuse_hidden_surroundings()
    part = replace(frozen_part_of(backbone, settings), memory=memory)
    data = TrainingData(features_of(crops, settings.view, part), crops.labels, crops.people)
    for seed in seeds:
        yield _trained(task, part, data, settings, seed)


def train_classifier(
    task: Task,
    positive: Crops,
    negative: Crops,
    backbone: Backbone,
    settings: TrainSettings,
    *,
    seed: int,
    memory: dict[str, torch.Tensor] | None = None,
) -> Classifier:
    """One classifier; see `train_classifiers`."""
    return next(train_classifiers(task, positive, negative, backbone, settings, [seed], memory=memory))


def _trained(
    task: Task, part: FrozenPart, data: TrainingData, settings: TrainSettings, seed: int
) -> Classifier:
    train, validation = validation_split(data.people, data.labels, settings.validation, seed)
    top: Top
    if settings.kind == PROBE:
        people = [data.people[i] for i in train.tolist()]
        top, facts = fit_probe(data.features[train], data.labels[train], people, seed)
    else:
        top, facts = _fit_network(part.backbone, data, settings, seed, train, validation)
    scores = top.probabilities(data.features[validation])
    right = (scores >= THRESHOLD) == (data.labels[validation] == 1)
    facts["validation_accuracy"] = round(float(right.mean()), 4)
    return Classifier(task, settings, seed, part, top, facts)


def _fit_network(
    backbone: Backbone,
    data: TrainingData,
    settings: TrainSettings,
    seed: int,
    train: NDArray[np.int64],
    validation: NDArray[np.int64],
) -> tuple[Any, dict[str, Any]]:
    """The network with the weights of its best epoch, and the course of its training."""
    import torch
    from torch.nn.functional import cross_entropy

    from .network import LipClassifier

    device = next(iter(backbone.stages.parameters())).device
    labels = torch.from_numpy(data.labels)
    losses: list[float] = []
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        network = LipClassifier(backbone, settings.frozen).to(device)
        optimiser = torch.optim.Adam(network.trained_parameters(), lr=settings.rate(backbone))
        best = network.tensors()
        with progress(settings.epochs, f"training, seed {seed}", unit="epoch", leave=False) as bar:
            for _ in range(settings.epochs):
                network.train()
                order = train[torch.randperm(len(train)).numpy()]
                for batch in np.split(order, range(settings.batch, len(order), settings.batch)):
                    if len(batch) < 2:  # a batch norm takes no mean of one
                        continue
                    optimiser.zero_grad(set_to_none=True)
                    loss = cross_entropy(network(data.features[batch].to(device)), labels[batch].to(device))
                    loss.backward()
                    optimiser.step()
                losses.append(_validation_loss(network, data, validation))
                bar.set_postfix(validation=f"{losses[-1]:.4f}", refresh=False)
                bar.update()
                if losses[-1] <= min(losses):
                    best = {name: tensor.clone() for name, tensor in network.tensors().items()}
                if len(losses) - 1 - int(np.argmin(losses)) >= settings.patience:
                    break
        network.load_state_dict(best)
    return network, {
        "epochs": len(losses),
        "best_epoch": int(np.argmin(losses)) + 1,
        "validation_loss": [round(loss, 5) for loss in losses],
        "learning_rate": settings.rate(backbone),
    }


def _validation_loss(network: Any, data: TrainingData, places: NDArray[np.int64]) -> float:
    """Mean cross-entropy."""
    scores = network.probabilities(data.features[places])
    of_truth = np.where(data.labels[places] == 1, scores, 1 - scores)
    return float(-np.log(np.clip(of_truth, 1e-12, 1)).mean())

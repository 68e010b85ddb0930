"""The paper's classifier as a network: MobileNetV2, its first part frozen, and two linear layers on top.

What the cited work says: “the first 57 parameter tensors frozen”, MobileNetV2 (1280-D) → Linear 128 → ReLU →
dropout 0.2 → Linear 2, Adam 1e-5, batch 16, cross-entropy, early stopping with patience 3, at most 50 epochs.

What it leaves open, and what is done here:
- The 57 tensors are the first 57 of `parameters()`: blocks 0 to 6 whole and the first convolution of block 7
  with its batch norm.
- A batch norm whose weights are frozen keeps its running statistics as well and normalises by them; with
  statistics of each batch “frozen” features would depend on which pictures meet. So the frozen part is a
  function of one picture, and is computed once a picture. The other batch norms train as usual.
- Early stopping watches the mean cross-entropy of the validation part, and the best epoch's weights are kept.
- No augmentation is mentioned: there is none.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..weights.backbones import Backbone
from ..weights.layers import Pool

FROZEN_TENSORS = 57
HIDDEN, DROPOUT, CLASSES = 128, 0.2, 2
EVALUATION_BATCH = 64


def frozen_stages(stages: nn.Sequential, frozen: int = FROZEN_TENSORS) -> int:
    """How many stages from the first on have all their parameters among the first `frozen` ones."""
    seen = 0
    for number, stage in enumerate(stages):
        seen += sum(1 for _ in stage.parameters())
        if seen > frozen:
            return number
    return len(stages)


def frozen_part(backbone: Backbone, frozen: int = FROZEN_TENSORS) -> nn.Sequential:
    """The stages that never change: [B, 3, S, S] to [B, C, h, w]."""
    return backbone.stages[: frozen_stages(backbone.stages, frozen)]


class LipClassifier(nn.Module):
    """What is trained: the stages behind the frozen part, and the head. [B, C, h, w] to logits [B, 2].

    Starts from the backbone's weights; the backbone itself stays as it is.

    Attributes:
        stages: some of their first tensors may be frozen too.
        head: Linear, ReLU, dropout, Linear.
    """

    def __init__(
        self,
        backbone: Backbone,
        frozen: int = FROZEN_TENSORS,
        hidden: int = HIDDEN,
        dropout: float = DROPOUT,
    ) -> None:
        super().__init__()
        first = frozen_stages(backbone.stages, frozen)
        before = sum(1 for _ in backbone.stages[:first].parameters())
        self.stages = copy.deepcopy(backbone.stages[first:]).requires_grad_(True)
        for parameter in list(self.stages.parameters())[: frozen - before]:
            parameter.requires_grad_(False)
        self.head = nn.Sequential(
            nn.Linear(backbone.dimensions, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, CLASSES),
        )
        self.pool = Pool()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.pool(self.stages(x)))
        return logits

    def train(self, mode: bool = True) -> LipClassifier:
        """As any module, but for the batch norms with frozen weights, which always use what they have."""
        super().train(mode)
        for module in self.stages.modules():
            if isinstance(module, nn.BatchNorm2d) and not module.weight.requires_grad:
                module.eval()
        return self

    def trained_parameters(self) -> list[nn.Parameter]:
        """Those that the optimiser changes."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def probabilities(self, features: torch.Tensor) -> NDArray[np.float64]:
        """[N] of the positive class, of features [N, C, h, w]."""
        device = next(self.parameters()).device
        self.eval()
        found = []
        with torch.inference_mode():
            for part in features.split(EVALUATION_BATCH):
                found.append(self(part.to(device)).double().softmax(1)[:, 1].cpu())
        return np.asarray(torch.cat(found).numpy(), np.float64)

    def tensors(self) -> dict[str, torch.Tensor]:
        """All that training may have changed, and the frozen tensors that stand between."""
        return {name: tensor.detach().cpu() for name, tensor in self.state_dict().items()}

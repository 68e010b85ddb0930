"""Layers that bring a backbone's output into the form of a vector."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class Pool(nn.Module):
    """[B, C, h, w] to its means over a grid, [B, C·grid²]; [B, D] passes."""

    def __init__(self, grid: int = 1) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.ndim == 2 else nn.functional.adaptive_avg_pool2d(x, self.grid).flatten(1)


class Encoder(nn.Module):
    """Pixels to the vector of a transformers model, [B, D]: the pooled output, else the first token."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.network(pixel_values=x)
        pooled = getattr(found, "pooler_output", None)
        vectors: torch.Tensor = found.last_hidden_state[:, 0] if pooled is None else pooled
        return vectors.flatten(1)

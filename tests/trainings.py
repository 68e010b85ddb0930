"""A training in the test's own process, what it left, and whether two gave the same LoRA."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def trained(
    settings: Any, at: Callable[[dict[str, Any]], None] = lambda event: None, interruption: Any = None
) -> tuple[Path, list[dict[str, Any]]]:
    """Train; `at` is called with each event, and may raise or interrupt."""
    from diffusioncleft.trainer.events import Events
    from diffusioncleft.trainer.flux_train_network import train
    from diffusioncleft.trainer.interruption import Interruption

    events = []

    def write(event: dict[str, Any]) -> None:
        events.append(event)
        at(event)

    return train(settings, Events(write), interruption or Interruption()).path, events


def same(one: Path, other: Path) -> bool:
    """Whether two files hold the same tensors, bit for bit."""
    import torch
    from safetensors.torch import load_file

    first, second = load_file(one), load_file(other)
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def loss_rows(folder: Path) -> list[dict[str, Any]]:
    """What a training's folder has of its loss, a step a row."""
    return [json.loads(line) for line in (folder / "loss.jsonl").read_text().splitlines()]


def metadata_of(lora: Path) -> dict[str, str]:
    """The metadata of a LoRA file."""
    from safetensors import safe_open

    with safe_open(lora, "pt") as file:
        return dict(file.metadata())

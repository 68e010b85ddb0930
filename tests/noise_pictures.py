"""Pictures of noise to train on, and a training that is stopped on its way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

CAPTION = "[CLP] A girl's whole face with a cleft lip."


def noise_pictures(
    folder: Path,
    count: int,
    caption: str | None = CAPTION,
    *,
    name: str = "",
    seed: int = 1,
    sizes: Sequence[tuple[int, int]] = ((64, 64),),
) -> Path:
    """`count` PNG of (height, width) `sizes` in turn, each with its caption; None: without one."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        pixels = random.integers(0, 255, (*sizes[index % len(sizes)], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}{index}.png")
        if caption is not None:
            (folder / f"{name}{index}.txt").write_text(caption)
    return folder


def stop_at_a_checkpoint(recipe: Any) -> None:
    """Train until the first checkpoint, where the training is asked to stop."""
    import pytest

    from diffusioncleft.trainer.events import Events
    from diffusioncleft.trainer.flux_train_network import train
    from diffusioncleft.trainer.interruption import Interrupted, Interruption

    interruption = Interruption()

    def ask(event: dict[str, Any]) -> None:
        if event["event"] == "checkpoint":
            interruption.request("test")

    with pytest.raises(Interrupted):
        train(recipe, Events(ask), interruption)
